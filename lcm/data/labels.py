"""Labels files: the words and phrases that a user wants images to be tagged with.

Knows what a labels file may hold: text in UTF-8, a label a line. Refuses to know which labels a tag scorer can read.
"""

import codecs
import unicodedata
from pathlib import Path

from lcm.errors import DataError

MAX_LABELS = 10_000  # as many texts as the embedded tag scorer keeps ready
MAX_LABEL_LENGTH = 100  # characters: a phrase; CLIP reads 77 tokens of a text and no more
_MAX_BYTES = 4 * (MAX_LABEL_LENGTH + 2) * 4 * MAX_LABELS  # enough for any good file, with room for blanks
_FORM = "a labels file is text in UTF-8 with a label, a word or a phrase, on each line"


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the labels of a file in its order, each once; "Dog" and "dog" are one label, the first spelling stays.

    Blank lines are skipped, and blanks around a label and double ones in it. Raises DataError when the file cannot be
    read, is no text, holds no label or too many, or a line that is too long for a label.
    """
    labels: dict[str, str] = {}
    for number, line in enumerate(_read_lines(path), 1):
        label = unicodedata.normalize("NFC", " ".join(line.split()))
        if len(label) > MAX_LABEL_LENGTH:
            raise DataError(
                f"line {number} of {path} has {len(label)} characters and a label at most {MAX_LABEL_LENGTH}; {_FORM}"
            )
        if any(unicodedata.category(character) == "Cc" for character in label):
            raise DataError(f"line {number} of {path} holds control characters; {_FORM}")
        if label:
            labels.setdefault(label.casefold(), label)
    if not labels:
        raise DataError(f"{path} holds no label; {_FORM}")
    if len(labels) > MAX_LABELS:
        raise DataError(f"{path} holds {len(labels)} labels; at most {MAX_LABELS} are scored: choose among them")
    return tuple(labels.values())


def _read_lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:  # not read_bytes: a device has no end
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"the labels file {path} cannot be read ({error.strerror}); {_FORM}") from error
    if len(data) > _MAX_BYTES:
        raise DataError(f"{path} has over {_MAX_BYTES:,} bytes, more than {MAX_LABELS} labels need; {_FORM}")
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path} is not text in UTF-8 (line {line}); {_FORM}: save it so in a text editor") from None
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
