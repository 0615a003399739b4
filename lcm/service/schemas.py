"""What goes in and out over HTTP: the bodies of both routes, their answers, and every refusal with its status.

The texts are lcm's own: what the client did wrong is told as it is, what went wrong here in general, for such messages
hold paths. A key that is not a field is ignored.
"""

import binascii
import codecs
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote, unquote

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError, ValidationInfo
from pydantic_core import from_json
from werkzeug.datastructures import Accept

from lcm.captioning.captioner import fault_of
from lcm.captioning.description import MAX_SAMPLES, SAMPLES, Description
from lcm.captioning.tagging import MIN_SCORE, SCORES, SHARE
from lcm.contributions.text import clean_language, clean_text, id_ranges
from lcm.data.text import MAX_LABEL_LENGTH, clean_label, language_code
from lcm.errors import BadImageError, DataError, LcmError, StoreBusyError, StoreError, StoreFullError

MAX_LABELS = 1000
MAX_NAME = 64  # characters of a contributor's name
# Brackets, braces and commas, those in texts too. A body of 32 MB that is but `[[],[],…` makes 700 MB of objects; what
# the service takes holds a thousand labels at most.
MAX_PARTS = 50_000

CONTRIBUTION = "contribution"  # X-LCM-Source of an answer whose caption was contributed
CONTRIBUTOR = "X-LCM-Contributor"  # the request's header that may say who contributes
EXPOSED_HEADERS = (  # to pages of other origins
    "Content-Language, Retry-After, X-LCM-Confidence, X-LCM-Known, X-LCM-Model, X-LCM-Model-Version, "
    "X-LCM-Request-Id, X-LCM-Source, X-LCM-Unread-Labels"
)

_DATA_URL = re.compile(r".*?\bbase64\s*,", re.IGNORECASE | re.DOTALL)  # its beginning, whatever type it tells, or none
_KINDS = {bool: "true or false", list: "an array", dict: "an object", str: "text", type(None): "null"}
_JSON_HELP = 'send one JSON object in UTF-8, such as {"image": "…"}'
_IMAGE_HELP = "send the content of one image file in base64, with its padding"
_RULES = {
    "samples": f"must be a whole number from 0 to {MAX_SAMPLES}; the default is {SAMPLES}",
    "scores": f"must be {' or '.join(SCORES)}; the default is {SHARE}",
    "min_score": f"must be a number from 0 to 1; the default is {MIN_SCORE}",
    "style": "must be plain (the default) or alt, which adds alt_text to the answer",
}
_CONTRIBUTOR_RULE = (
    f"{CONTRIBUTOR} must be a name in ASCII, or one encoded as in RFC 8187, such as UTF-8''%C3%89va; or send the name "
    "as contributor in the JSON object, in UTF-8"
)
_LABELS_RULE = f"must be an array of 1 to {MAX_LABELS:,} texts of 1 to {MAX_LABEL_LENGTH} characters each"


class RefusedError(LcmError):
    """A request that is not done; the message is what the client is told."""

    def __init__(self, status: int, message: str, retry_after_s: int = 0):
        """Take the HTTP status, and when to send the same request again; 0: it would be refused again."""
        super().__init__(message)
        self.status, self.retry_after_s = status, retry_after_s


BROKEN = "something went wrong in the service; its log names the cause under the request's id"
# Status, message and Retry-After of what goes wrong here.
FAULTS: dict[type[BaseException], tuple[int, str, int]] = {
    StoreBusyError: (503, "the store of contributions is busy and nothing was stored; send it again", 1),
    StoreFullError: (507, "there is no space left for contributions and nothing was stored; send it later", 60),
    StoreError: (503, "contributions cannot be stored just now and nothing was; try again later", 10),
    LcmError: (500, BROKEN, 0),
}
# What HTTP itself refuses, before any of our code; everything else keeps the standard's name.
HTTP_MESSAGES = {
    400: "the request is not one that this service understands; check how it was sent",
    404: "there is nothing at this address; choose from GET /, GET /healthz, POST /caption, POST /learning-model",
    405: "this address does not take this method; the header Allow says which ones it takes",
    413: "the request body is larger than the service takes; send a smaller image",
    414: "the address is longer than the service takes; send a shorter one",
    500: BROKEN,
}


def refusal_of(error: LcmError) -> RefusedError:
    """Return how an error of lcm is answered."""
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, BadImageError | DataError):
        return RefusedError(400, str(error))
    return RefusedError(*next(FAULTS[kind] for kind in type(error).__mro__ if kind in FAULTS))


def decode_image(text: str, max_bytes: int) -> bytes:
    """Return the bytes that a base64 text holds, by the one rule of both routes.

    The beginning of a data URL may lead; ASCII blanks and line breaks anywhere are dropped; then the standard alphabet
    (+ /) or the URL-safe one (- _), padded with = to a multiple of four. Everything else is refused: without padding a
    text that was cut short looks whole. Raises ValueError, and RefusedError for more than `max_bytes`.
    """
    prefix = _DATA_URL.match(text[:500])
    raw = text[prefix.end() if prefix else 0 :].encode("ascii", "replace")  # with "?", which is not base64
    raw = raw.translate(bytes.maketrans(b"-_", b"+/"), b" \t\r\n")
    if not raw:
        raise ValueError(f"is empty; {_IMAGE_HELP}")
    if len(raw) // 4 * 3 - raw.count(b"=", -2) > max_bytes:
        raise RefusedError(413, f"image has more than {max_bytes:,} bytes, the most accepted; make it smaller")
    try:
        if len(raw) % 4 or raw.endswith(b"==="):  # strict_mode accepts too much padding
            raise binascii.Error
        return binascii.a2b_base64(raw, strict_mode=True)
    except binascii.Error:
        raise ValueError(f"is not base64, or was cut short; {_IMAGE_HELP}") from None


# The checks below raise ValueError with what follows the field's name in the message.


def _image(text: str, info: ValidationInfo) -> bytes:
    return decode_image(text, info.context["max_image"])


def _language(text: str) -> str:
    try:
        return clean_language(text)
    except DataError:  # its message repeats what was sent
        raise ValueError('must be a code such as "en" or "pt-br"; or leave it out') from None


def _contributor(text: str) -> str:
    """Return who contributes, empty for nobody who is named; the message of clean_text's DataError is the answer."""
    return clean_text(text, "contributor's name", MAX_NAME) if text.strip() else ""


def _label(text: str) -> str:
    try:
        return clean_label(text)
    except DataError as error:
        raise ValueError(str(error)) from None


Image = Annotated[StrictStr, AfterValidator(_image)]  # bytes, once it is read
Language = Annotated[StrictStr, AfterValidator(_language)]
Label = Annotated[StrictStr, AfterValidator(_label)]


class Request(BaseModel):
    """A body; fields are checked in the order in which they stand here, and the first fault is told."""

    model_config = ConfigDict(frozen=True)

    @classmethod
    def read(cls, body: bytes, max_image: int) -> Self:
        try:
            return cls.model_validate(read_object(body), context={"max_image": max_image})
        except ValidationError as error:
            raise RefusedError(400, _sentence(error.errors(include_url=False)[0])) from None


class ContributionRequest(Request):
    """What POST /caption stores."""

    caption: StrictStr  # the store decides what a caption may be
    language: Language = ""  # empty: not sent
    contributor: Annotated[StrictStr, AfterValidator(_contributor)] = ""
    file_type: StrictStr = Field(alias="fileType")  # not used: the content says what is stored
    image: Image


class DescribeRequest(Request):
    """What POST /learning-model is asked."""

    samples: Annotated[StrictInt, Field(ge=0, le=MAX_SAMPLES)] = SAMPLES
    labels: Annotated[list[Label], Field(min_length=1, max_length=MAX_LABELS)] = None  # None: the captions' words
    scores: Literal[SCORES] = SHARE
    min_score: Annotated[float, Field(strict=True, ge=0, le=1)] = None  # None: MIN_SCORE, for probabilities
    language: Language = ""  # empty: not sent
    style: Literal["plain", "alt"] = "plain"
    image: Image


class Wish:
    """Which language an answer is wanted in: as a request's body says, else its header, else the service's default."""

    def __init__(self, named: str, accepted: Accept, default: str):
        """Take the language in the body, empty for none, the header Accept-Language, and LCM_LANGUAGE."""
        self.is_named, self._default = bool(named), language_code(named or default)
        # Without regions: of "fr-CA, en;q=0.5" Werkzeug's own comparison chooses English before French.
        self._accepted = Accept((language_code(code) or code, quality) for code, quality in ([] if named else accepted))

    def choose(self, offered: Iterable[str]) -> str:
        """Return the code of that among these languages which is wanted most; empty when none is."""
        codes = sorted(dict.fromkeys(map(language_code, offered)), key=lambda code: code != self._default)
        return self._accepted.best_match(codes) or (self._default if self._default in codes else "")


def _sentence(fault: Mapping[str, Any]) -> str:
    """Return a fault that pydantic found, in the words of lcm."""
    name, *place = fault["loc"]
    if name in _RULES:
        return f"{name} {_RULES[name]}"
    if fault["type"] == "missing":
        return f"{name} is missing; send it as text in the JSON object"
    kind = _KINDS.get(type(fault["input"]), "a number")
    if name != "labels":
        return f"{name} {fault['ctx']['error'] if 'ctx' in fault else f'must be text; it is {kind}'}"
    its = f"number {place[0] + 1}" if place else "it"
    context = fault.get("ctx", {})
    held = f"holds {context['actual_length']:,}" if "actual_length" in context else context.get("error", f"is {kind}")
    return f"{name} {_LABELS_RULE}; {its} {held}"


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a body holds, of a key given twice the last; raises RefusedError for all else."""
    if sum(map(body.count, (b"[", b"{", b","))) > MAX_PARTS:
        raise RefusedError(400, f"the body holds more than {MAX_PARTS:,} brackets and commas; send only what is needed")
    try:
        value = from_json(body.removeprefix(codecs.BOM_UTF8), allow_inf_nan=False)
    except ValueError as error:  # which repeats nothing that was sent
        raise RefusedError(400, f"the body is not JSON in UTF-8 ({error}); {_JSON_HELP}") from None
    if not isinstance(value, dict):
        raise RefusedError(400, f"the body is JSON but not an object; {_JSON_HELP}")
    return value


def read_contributor(header: str) -> str:
    """Return the name in a request's header, empty for none; raises RefusedError or DataError without repeating it."""
    try:
        header.encode("ascii")
        if header.lower().startswith("utf-8'"):
            _, _, encoded = header.split("'", 2)  # charset, language
            header = unquote(encoded, errors="strict")
    except ValueError:  # UnicodeError is one
        raise RefusedError(400, _CONTRIBUTOR_RULE) from None
    return _contributor(header)


def answer_body(description: Description, style: str = "plain") -> dict[str, Any]:
    """Return the keys of the answer, alt_text in that style alone; raises LcmError where fault_of finds a fault."""
    if fault := fault_of(description):
        raise LcmError(fault)
    return {
        "tags": [[word, score] for word, score in description.tags],
        "captions": [description.caption],
        "english_captions": list(description.english_captions),
    } | ({"alt_text": description.alt_text} if style == "alt" else {})


def answer_headers(description: Description, version: str, unread: Iterable[int] = ()) -> dict[str, str]:
    """Return the headers of a description by this version of a bundle; it has no score for labels `unread`."""
    model = quote(description.model, safe=" !#$&'()*+,-./:;<=>?@[]^_`{|}~", errors="replace")  # what is not ASCII: %XX
    source = "bundle" if description.contribution is None else CONTRIBUTION
    headers = {"X-LCM-Model": model, "X-LCM-Model-Version": version, "X-LCM-Source": source}
    headers["Content-Language"] = description.language
    if numbers := id_ranges(unread):
        headers["X-LCM-Unread-Labels"] = numbers
    if description.confidence is not None:
        headers["X-LCM-Confidence"] = f"{description.confidence:.4f}"
    return headers
