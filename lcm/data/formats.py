"""Caption files: what formats there are, which one a file is in, and the rows it holds.

Knows the text formats in which data sets are handed around. Refuses to know images, splits and words:
a row is a name and a caption as written.
"""

import codecs
import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import regex

from lcm.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp")
LINES_TO_DETECT = 20  # a format is recognised by the first lines of a file


@dataclass(frozen=True)
class Row:
    """One line of a captions file that could be read."""

    name: str  # the image's name as written
    caption: str  # as written, blanks at its ends removed; may be empty
    repaired: bool = False  # a separator was missing, and it was clear where


@dataclass(frozen=True)
class CaptionFormat:
    """How one format is recognised and read, line by line, so that a broken line costs only itself."""

    description: str  # for error messages and the README
    matches: Callable[[list[str]], bool]  # told from the first non-empty lines
    parse: Callable[[str], Row | None]  # None: the line cannot be read
    has_header: Callable[[str], bool]  # whether a first line names the columns


def is_image_name(name: str) -> bool:
    """Whether a name ends like that of an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def _parse_csv(line: str) -> Row | None:
    try:
        name, *caption = next(csv.reader([line]), [""])
    except csv.Error:  # a field longer than the module's limit
        return None
    return Row(name.strip(), ",".join(caption).strip()) if name.strip() and caption else None


PIPE_NUMBER = regex.compile(r"\s*\d+\s+")


def _parse_pipes(line: str) -> Row | None:
    """Read `name| number| caption`; the known broken row lacks the second separator."""
    name, *rest = line.split("|", 2)
    if not name.strip() or not rest:
        return None
    if len(rest) == 2:
        return Row(name.strip(), rest[1].strip())
    number = PIPE_NUMBER.match(rest[0])
    return Row(name.strip(), rest[0][number.end() :].strip(), repaired=True) if number else None


TOKEN_LINE = regex.compile(r"(?P<name>[^\t]+)#\d+\t(?P<caption>.*)")


def _parse_token(line: str) -> Row | None:
    match = TOKEN_LINE.fullmatch(line)
    return Row(match["name"].strip(), match["caption"].strip()) if match and match["name"].strip() else None


def _parse_tsv(line: str) -> Row | None:
    name, *caption = line.split("\t", 1)
    return Row(name.strip(), caption[0].strip()) if caption and name.strip() else None


def _columns(line: str, separator: str) -> list[str]:
    return [column.strip().strip('"').lower() for column in line.split(separator)]


def _is_csv_header(line: str) -> bool:
    return _columns(line, ",") == ["image", "caption"]


def _is_pipe_header(line: str) -> bool:
    return _columns(line, "|") == ["image_name", "comment_number", "comment"]


def _is_tsv_header(line: str) -> bool:
    columns = _columns(line, "\t")
    return len(columns) == 2 and columns[1] in ("caption", "text") and not is_image_name(columns[0])


def _is_token_file(lines: list[str]) -> bool:
    return _most(bool(TOKEN_LINE.fullmatch(line)) for line in lines)


def _is_tsv_file(lines: list[str]) -> bool:
    rows = lines[1:] if _is_tsv_header(lines[0]) else lines
    return _most(line.count("\t") == 1 and is_image_name(line.split("\t")[0].strip()) for line in rows)


def _most(fits: Iterable[bool]) -> bool:
    """Whether more lines fit than do not: a few broken ones at the top of a file do not hide its format."""
    fits = list(fits)
    return 2 * sum(fits) > len(fits)


FORMATS: dict[str, CaptionFormat] = {
    "flickr8k_csv": CaptionFormat(
        "CSV with the header image,caption (Kaggle's Flickr8k, captions.txt)",
        lambda lines: _is_csv_header(lines[0]),
        _parse_csv,
        _is_csv_header,
    ),
    "flickr30k_pipes": CaptionFormat(
        "lines of image_name| comment_number| comment (Kaggle's Flickr30k, results.csv)",
        lambda lines: _is_pipe_header(lines[0]),
        _parse_pipes,
        _is_pipe_header,
    ),
    "token": CaptionFormat(
        "lines of name#number TAB caption (Flickr8k.token.txt, results_20130124.token)",
        _is_token_file,
        _parse_token,
        lambda _line: False,
    ),
    "tsv": CaptionFormat(
        "lines of image TAB caption, with or without the header image TAB caption",
        _is_tsv_file,
        _parse_tsv,
        _is_tsv_header,
    ),
}


def describe() -> str:
    """Return the formats, one a line, for a message."""
    return "\n".join(f"  - {known.description}" for known in FORMATS.values())


def find_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files anywhere in a folder with one of the suffixes, the shortest path first.

    Hidden ones are left out: macOS puts a `._name` of its own beside each file that it packs.
    """
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file()]
    visible = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return sorted(visible, key=lambda path: (len(path.parts), path))


def read_lines(path: Path) -> list[str]:
    """Return the non-empty lines of a text file: UTF-16 if it has a BOM, else UTF-8 with or without.

    A line that is not UTF-8 is taken for Windows-1252; the others are not.
    """
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.decode("utf-16", errors="replace").encode()
    # Not str.splitlines: it would also cut captions at U+2028, U+0085 and other rare separators.
    lines = data.removeprefix(codecs.BOM_UTF8).replace(b"\r", b"\n").split(b"\n")
    return [text for text in map(_decode, lines) if text.strip()]


def _decode(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("cp1252", errors="replace")


def detect(lines: list[str]) -> str | None:
    """Return the name in FORMATS that the lines are in, or None."""
    head = lines[:LINES_TO_DETECT]
    return next((name for name, known in FORMATS.items() if head and known.matches(head)), None)


def parse(path: Path) -> tuple[str, list[Row | None]]:
    """Return the format's name and a row for each line of a captions file, None where a line cannot be read.

    Raises DataError listing the formats when the file is in none of them.
    """
    lines = read_lines(path)
    name = detect(lines)
    if name is None:
        begins = repr(lines[0][:80]) if lines else "nothing: it is empty"
        raise DataError(f"{path.name} is in no format that lcm reads; it begins with {begins}. Formats:\n{describe()}")
    known = FORMATS[name]
    body = lines[1:] if known.has_header(lines[0]) else lines
    return name, [known.parse(line) for line in body]
