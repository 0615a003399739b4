"""Fields of a request: what POST /caption and POST /learning-model take.

Knows each field with its kind and limits, and the name of a contributor; a key that is not one of them is passed over.
Refuses to know pixels, HTTP, and what a caption may be: the store decides that.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lcm.captioning.description import MAX_SAMPLES, SAMPLES
from lcm.contributions.text import ENGLISH, clean_language
from lcm.data.images import FORMATS
from lcm.data.text import MAX_LABEL_LENGTH
from lcm.errors import DataError
from lcm.service.base64_images import decode_image
from lcm.service.json_body import read_object
from lcm.service.refusals import BadRequestError

MAX_LABELS = 1000
FILE_TYPES = {"jpg": "jpeg", "jpe": "jpeg"} | {name: name for name in FORMATS}
_NOT_IN_TEXT = {"Cc", "Cs"}  # controls, and halves of characters that no UTF-8 can hold
_MISSING = object()
CONTRIBUTOR = "X-LCM-Contributor"  # the header with which a sender may say who contributes
_CONTRIBUTOR = re.compile(r"[A-Za-z0-9._@+-]{1,64}")


@dataclass(frozen=True)
class Contribution:
    """What POST /caption keeps."""

    image: bytes
    caption: str
    language: str


@dataclass(frozen=True)
class Question:
    """What POST /learning-model is asked."""

    image: bytes
    samples: int
    labels: tuple[str, ...] | None  # None: the words of the captions


def read_contribution(body: bytes, max_image: int) -> Contribution:
    """Return what a body sends to be kept; raises BadRequestError, or TooLargeError for the image."""
    fields = read_object(body)
    caption = _text(fields, "caption")
    try:
        language = clean_language(_text(fields, "language", ENGLISH))
    except DataError:  # its message repeats what was sent
        raise BadRequestError('language must be a code such as "en" or "pt-br"; or leave it out') from None
    _check_file_type(_text(fields, "fileType"))
    return Contribution(decode_image(_text(fields, "image"), max_image), caption, language)


def read_source(contributor: str | None) -> str:
    """Return the source of a contribution: "http", with ":" and the name where the sender gave one.

    Raises BadRequestError, whose message does not repeat the name.
    """
    if contributor is None:
        return "http"
    if not _CONTRIBUTOR.fullmatch(contributor):
        raise BadRequestError(
            f"{CONTRIBUTOR} must be 1 to 64 characters, each a letter (A-Z, a-z), a digit or one of . _ @ + -; or "
            "leave the header out"
        )
    return f"http:{contributor}"


def read_question(body: bytes, max_image: int) -> Question:
    """Return what a body asks; raises BadRequestError, or TooLargeError for the image."""
    fields = read_object(body)
    samples = fields.get("samples", SAMPLES)
    if type(samples) is not int or not 0 <= samples <= MAX_SAMPLES:
        raise BadRequestError(f"samples must be a whole number from 0 to {MAX_SAMPLES}; the default is {SAMPLES}")
    labels = _labels(fields["labels"]) if "labels" in fields else None
    return Question(decode_image(_text(fields, "image"), max_image), samples, labels)


def _text(fields: Mapping[str, Any], name: str, default: Any = _MISSING) -> str:
    """Return a field that holds text; one without a default must be there."""
    value = fields.get(name, default)
    if value is _MISSING:
        raise BadRequestError(f"{name} is missing; send it as text in the JSON object")
    if not isinstance(value, str):
        raise BadRequestError(f"{name} must be text; it is {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    """Return what a JSON value is called."""
    kinds = {bool: "true or false", list: "an array", dict: "an object", str: "text", type(None): "null"}
    return kinds.get(type(value), "a number")


def _check_file_type(file_type: str) -> None:
    """Refuse a fileType that names no format the service takes; empty is as good as none.

    It is only checked: the file's own content says what is stored, whichever of the formats was named.
    """
    name = file_type[:100].strip().lower().removeprefix("image/").removeprefix(".")
    if file_type and (name not in FILE_TYPES or len(file_type) > 100):
        raise BadRequestError(f"fileType must be one of {', '.join(FILE_TYPES)}; or empty: the content decides")


def _labels(value: Any) -> tuple[str, ...]:
    """Return labels cleaned as those of a labels file: blanks folded, NFC; tagging leaves doubles out."""
    rule = f"labels must be an array of 1 to {MAX_LABELS:,} texts of 1 to {MAX_LABEL_LENGTH} characters each"
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_LABELS:
        held = f"it holds {len(value):,}" if isinstance(value, list) else f"it is {_kind(value)}"
        raise BadRequestError(f"{rule}; {held}")
    labels = []
    for place, text in enumerate(value, 1):
        if not isinstance(text, str):
            raise BadRequestError(f"{rule}; number {place} is {_kind(text)}")
        label = unicodedata.normalize("NFC", " ".join(text[: 10 * MAX_LABEL_LENGTH].split()))
        if not 1 <= len(label) <= MAX_LABEL_LENGTH or len(text) > 10 * MAX_LABEL_LENGTH:
            raise BadRequestError(f"{rule}; number {place} has {len(text):,}")
        if any(unicodedata.category(character) in _NOT_IN_TEXT for character in label):
            raise BadRequestError(f"{rule}; number {place} holds characters that are not text")
        labels.append(label)
    return tuple(labels)
