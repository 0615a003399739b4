"""Captions files: which format one is in, and the rows it holds.

A row is the name of an image and a caption, both as written. A line, record or JSON entry that is broken costs only
itself: it is counted as None. Files are UTF-8, or UTF-16 with a BOM; one that is neither is read as Windows-1252.
A new format is a function that recognises it, one that reads it, and an entry of TABLES or DOCUMENTS.

Image folders: https://huggingface.co/docs/datasets/image_dataset ("ImageFolder").
COCO: https://cocodataset.org/#format-data, "Image Captioning".
Karpathy and Fei-Fei (2015), "Deep Visual-Semantic Alignments for Generating Image Descriptions": dataset_coco.json,
dataset_flickr8k.json, dataset_flickr30k.json.
"""

import csv
import html
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from lcm.data.files import is_image_name, read_text, split_lines
from lcm.errors import DataError

BESIDE = "txt"  # the format of a text beside a photo
PARQUET = ".parquet"  # what a data set may have, and lcm refuses
LINES_TO_DETECT = 20  # a format of lines is recognised by the first ones of a file
MAX_RECORD_LINES = 100  # of a caption in quotes that goes over several lines; a quote left open costs no more
NAME_COLUMN = "file_name"  # of an image folder
NAME_COLUMNS = (NAME_COLUMN, "image", "filename", "file", "image_name", "image_path", "path", "photo")
TEXT_COLUMNS = ("text", "caption", "comment")  # of these and of those names the first that is there
TSV_COLUMNS = ("image", "caption")  # of lines without a header
LANGUAGE_COLUMN = "language"  # a code for each caption
_NUMBERED = re.compile(r"([^\t]*)#\d+\t(.*)")  # a line of Flickr8k.token.txt
COCO_NAME = re.compile(r"captions_(?P<images>(train|val|dev|test)[^/]*)\.json", re.IGNORECASE)
KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "dev", "test": "test"}  # restval: what remains of val


@dataclass(frozen=True, slots=True)
class Row:
    """One caption of a captions file that could be read."""

    name: str  # the image's name as written, with "/" where Windows has a backslash
    caption: str  # as written, entities of HTML resolved, blanks at its ends removed; may be empty
    repaired: bool = False  # a separator or quotes were missing, and it was clear where
    split: str = ""  # train, dev or test, where the file says so
    language: str = ""  # a code, where the file says so


Rows = list[Row | None]  # None: there was a caption, and it cannot be read


class CaptionFile:
    """A captions file. It is opened once, at the first question to it; rows are read when they are asked for."""

    def __init__(self, path: Path, image: Path | None = None):
        """`image` is the photo that a text lies beside: each of its lines is a caption."""
        self.path, self._image = path, image
        self._is_document = path.suffix.lower() == ".json"

    @cached_property
    def text(self) -> str:
        """The content."""
        return read_text(self.path)

    @cached_property
    def lines(self) -> list[str]:
        """The lines that are not blank, without the first one of some CSV, which tells Excel the separator."""
        lines = split_lines(self.text)
        return lines[1:] if lines and re.fullmatch(r"\W*sep=.\W*", lines[0], re.IGNORECASE) else lines

    @cached_property
    def format(self) -> str | None:
        """The name in FORMATS that the file is in, or None; a JSON document is not parsed for that."""
        if self._image or self.path.suffix.lower() == PARQUET:
            return BESIDE if self._image else None
        table, content = (DOCUMENTS, self.text) if self._is_document else (TABLES, self.lines[:LINES_TO_DETECT])
        return next((name for name, known in table.items() if content and known.matches(content)), None)

    def read(self) -> Rows:
        """Return a row for each caption, None where one cannot be read.

        Raises DataError for a file in no format, which lists them, for one that is no JSON, and for one in which no
        caption can be read.
        """
        if self._image:
            return [Row(_plain(self._image.name), _caption(line)) for line in self.lines or [""]]
        if self.format is None:
            begins = repr(self.text[:80]) if self.text else "nothing: it is empty"
            raise DataError(
                f"{self.path.name} is in no format that lcm reads; it begins with {begins}. Formats:\n{describe()}"
            )
        known = FORMATS[self.format]
        try:
            content = json.loads(self.text) if self._is_document else self.lines
        except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
            raise DataError(f"{self.path.name} is broken JSON: {error}; download or write it again") from None
        rows = known.read(content)
        if not any(rows):
            raise DataError(
                f"{self.path.name} holds no caption that can be read, among {len(rows)} entries; it seems to be "
                f"{known.description}: correct it, or name another file with captions_file"
            )
        return rows


# Tables: CSV (RFC 4180), Flickr30k's lines with "|", lines of name TAB caption, in which Flickr8k numbers the names


def _caption(text: str) -> str:
    return _plain(html.unescape(text))


def _tsv_records(lines: Sequence[str]) -> list[str]:
    """Return records of `name TAB caption`; where lines are numbered, captions are put in quotes: theirs are text."""
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if not _most(numbered):
        return [*lines]
    quoted = (match and match[1] + '\t"' + match[2].replace('"', '""') + '"' for match in numbered)
    return [record or line for record, line in zip(quoted, lines, strict=True)]


def _is_tsv(lines: Sequence[str]) -> bool:
    records = _records(_tsv_records(lines), TSV_COLUMNS, "\t")
    return _most(len(fields) == 2 and is_image_name(fields[0].strip()) for fields, _ in records)


def _read_tsv(lines: Sequence[str]) -> Rows:
    return _read_records(_tsv_records(lines), TSV_COLUMNS, "\t")


def _most(fits: Iterable[object]) -> bool:
    """Whether more lines fit than do not: a few broken ones at the top of a file do not hide its format."""
    fits = [bool(fit) for fit in fits]
    return 2 * sum(fits) > len(fits)


def _has_both(columns: Iterable[str], names: Sequence[str] = (NAME_COLUMN,)) -> bool:
    return any(name in columns for name in names) and any(column in columns for column in TEXT_COLUMNS)


def _csv_header(line: str) -> tuple[list[str], str]:
    """Return the columns, and what separates them; spreadsheets write a semicolon where a comma is decimal."""
    for separator in (", ", ",", "; ", ";", "|", "\t"):
        columns = [field.strip(' \t"').lower() for field in _split(line, separator)]
        if line.count(separator) == line.count(separator[0]) and _has_both(columns, NAME_COLUMNS):
            return columns, separator
    return [], ""


def _read_csv(lines: Sequence[str]) -> Rows:
    """Return a row for each record; other columns are left out."""
    return _read_records(lines[1:], *_csv_header(lines[0]))


def _read_records(lines: Sequence[str], header: Sequence[str], separator: str) -> Rows:
    name_at, text_at = _places(header)
    language_at = header.index(LANGUAGE_COLUMN) if LANGUAGE_COLUMN in header else len(header)
    rows: Rows = []
    for fields, repaired in _records(lines, header, separator):
        if len(fields) > len(header) == text_at + 1:  # separators without quotes are those of a caption at the end
            fields[text_at:], repaired = [separator.join(fields[text_at:])], True
        is_whole = max(name_at, text_at) < len(fields) <= len(header)
        name, caption = (fields[name_at], fields[text_at]) if is_whole else (None, None)
        rows += _rows_of(name, caption, language="".join(fields[language_at : language_at + 1]), repaired=repaired)
    return rows


def _places(header: Sequence[str]) -> tuple[int, int]:
    """Return which columns hold the name and the caption."""
    name, text = (next(filter(header.__contains__, known)) for known in (NAME_COLUMNS, TEXT_COLUMNS))
    return header.index(name), header.index(text)


def _records(lines: Sequence[str], header: Sequence[str], separator: str) -> Iterator[tuple[list[str], bool]]:
    """Yield the fields of each record, and whether its quotes had to be repaired.

    A record may go over several lines inside quotes, if they are closed before a line that is a record without any.
    """
    if separator == "|":  # Kaggle's Flickr30k has no quotes around captions
        yield from ((line.split(separator), False) for line in lines)
        return
    name_at, text_at = _places(header)

    def from_line(at: int) -> Iterator[str]:
        yield lines[at]
        for line in lines[at + 1 : at + MAX_RECORD_LINES]:
            fields = line.split(separator) if '"' not in line else []
            if len(fields) > max(name_at, text_at) and is_image_name(fields[name_at].strip(' "')):
                return
            yield "\n" + line

    at = 0
    while at < len(lines):
        reader = _reader(from_line(at), separator, strict=True)
        try:
            fields, repaired, used = next(reader), False, reader.line_num
        except csv.Error:  # between tabs, quotes are often a caption's own
            fields, repaired, used = _split(lines[at], separator), separator != "\t", 1
        yield fields, repaired
        at += used


def _split(line: str, separator: str) -> list[str]:
    """Return the fields of a line whose quotes may be wrong; none of one that cannot be parted."""
    if separator == "\t":
        return line.split(separator)
    with suppress(csv.Error):  # such as a field of over 131,072 characters
        return next(_reader([line], separator))
    return []


def _reader(lines: Iterable[str], separator: str, strict: bool = False) -> Any:
    return csv.reader(lines, delimiter=separator[0], skipinitialspace=separator.endswith(" "), strict=strict)


# JSON: metadata.jsonl of an image folder, COCO, Karpathy


def _read_jsonl(lines: Sequence[str]) -> Rows:
    """Return a row for each caption; a list of texts gives several, a line that is no such object one of None."""
    rows: Rows = []
    for record in map(_object, lines):
        text = next((record[column] for column in TEXT_COLUMNS if column in record), 0)  # 0 is no caption
        rows += _rows_of(record.get(NAME_COLUMN), text, language=record.get(LANGUAGE_COLUMN))
    return rows


def _object(line: str) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        value = json.loads(line)
        if isinstance(value, dict):
            return value
    return {}


def _holds(*keys: str) -> Callable[[str], bool]:
    """Return what tells a document with these keys, unparsed: COCO's folders hold half a gigabyte without captions."""
    return lambda text: re.match(r"\s*\{", text) is not None and all(f'"{key}"' in text for key in keys)


def _read_coco(document: dict[str, Any]) -> Rows:
    """Return a row for each annotation; None for one without text, or whose image_id no image has."""
    names: dict[str, Any] = {}
    for image in _objects(document, "images"):
        names.setdefault(_id(image.get("id")), image.get("file_name"))
    names.pop("", None)
    rows: Rows = []
    for annotation in _objects(document, "annotations"):
        name, caption = names.get(_id(annotation.get("image_id"))), annotation.get("caption", 0)
        language = annotation.get(LANGUAGE_COLUMN)
        rows += _rows_of(name, caption, language=language) if not isinstance(caption, list) else [None]
    return rows


def _id(value: Any) -> str:
    """Return one text for 7, 7.0, "7" and "7.0", for tables turn numbers into others; empty for what is no id."""
    return str(value).strip().removesuffix(".0") if isinstance(value, int | float | str) else ""


def _read_karpathy(document: dict[str, Any]) -> Rows:
    """Return a row for each sentence of each image, with the official split."""
    rows: Rows = []
    for image in _objects(document, "images"):
        name, folder, sentences = image.get("filename"), image.get("filepath"), image.get("sentences")
        if isinstance(name, str) and name.strip() and isinstance(folder, str) and folder.strip():
            name = f"{folder.strip()}/{name.strip()}"
        split = KARPATHY_SPLITS.get(str(image.get("split")), "")
        is_list = isinstance(sentences, list)
        texts = [sentence.get("raw") if isinstance(sentence, dict) else 0 for sentence in sentences] if is_list else 0
        rows += _rows_of(name, texts, split)
    return rows


def _objects(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the list of objects under a key, an empty one in place of what is no object."""
    things = document.get(key)
    return [thing if isinstance(thing, dict) else {} for thing in things] if isinstance(things, list) else []


def _rows_of(name: Any, value: Any, split: str = "", language: Any = "", repaired: bool = False) -> Rows:
    """Return the rows of values: one of a text, one of each text in a list, an empty one of null or of no text.

    None where there is no name or no text: a number or an object is no caption.
    """
    name = _plain(name).replace("\\", "/") if isinstance(name, str) else ""
    language = language.strip() if isinstance(language, str) else ""
    rows: Rows = []
    for text in (value or [None]) if isinstance(value, list) else [value]:
        usable = name and (text is None or isinstance(text, str))
        rows.append(Row(name, _caption(text or ""), repaired, split, language) if usable else None)
    return rows


def _plain(text: str) -> str:
    r"""Return text that any file can hold: JSON's \ud83d is half a character, and a "?" takes its place."""
    return text.encode("utf-8", "replace").decode().strip()


# The table of formats: image_id makes an image's id of the file's path in the data set and a name in it


def beside(captions_file: PurePosixPath, name: str) -> str:
    """Return an image's path from the data set's folder: train/1.jpg and test/1.jpg are two images."""
    return posixpath.normpath(posixpath.join(captions_file.parent.as_posix(), name))


def _in_coco_folder(captions_file: PurePosixPath, name: str) -> str:
    """Return train2017/1.jpg for the 1.jpg of captions_train2017.json: that is the folder of its images.

    A name that has a folder already, or is in a file with no such name, stays as it is.
    """
    images = COCO_NAME.fullmatch(captions_file.name)
    return f"{images['images']}/{name}" if images and "/" not in name else name


@dataclass(frozen=True)
class Format:
    """How a captions file is recognised and read."""

    description: str  # for error messages and the documents
    matches: Callable[[Any], bool]  # told from the first non-blank lines, or from the text of a JSON document
    read: Callable[[Any], Rows]  # from all non-blank lines, or from the parsed document
    image_id: Callable[[PurePosixPath, str], str] = lambda _file, name: name  # `beside`: the image is nowhere else


TABLES: dict[str, Format] = {
    "imagefolder_csv": Format(
        "CSV with file_name and text or caption (Hugging Face image folder, metadata.csv; rewrite Parquet as that)",
        lambda lines: NAME_COLUMN in _csv_header(lines[0])[0],
        _read_csv,
        beside,
    ),
    "csv": Format(
        f"CSV (comma, semicolon, tab or |) with image (or {', '.join(NAME_COLUMNS[2:])}) and caption (or text, "
        "comment) in its header (Kaggle's Flickr8k and Flickr30k, captions.txt, results.csv)",
        lambda lines: bool(_csv_header(lines[0])[0]),
        _read_csv,
    ),
    "tsv": Format(
        "lines of image TAB caption, or image#number TAB caption (Flickr8k.token.txt, results_20130124.token)",
        _is_tsv,
        _read_tsv,
    ),
    "imagefolder_jsonl": Format(
        "lines of JSON with file_name and text or caption (Hugging Face image folder, metadata.jsonl)",
        lambda lines: _most(_has_both(_object(line)) for line in lines),
        _read_jsonl,
        beside,
    ),
}
DOCUMENTS: dict[str, Format] = {
    "coco": Format(
        "JSON with the lists images (id, file_name) and annotations (image_id, caption) (COCO, captions_….json)",
        _holds("images", "annotations", "caption"),
        _read_coco,
        _in_coco_folder,
    ),
    "karpathy": Format(
        "JSON with the list images (filename, sentences with raw) (Karpathy's splits, dataset_coco.json)",
        _holds("images", "sentences", "raw"),
        _read_karpathy,
    ),
}
_TEXTS = "a text file beside each photo, of the same name (photo.jpg, photo.txt)"
FORMATS = TABLES | DOCUMENTS | {BESIDE: Format(_TEXTS, lambda _: False, list, beside)}


def describe() -> str:
    """Return the formats, one a line, for a message."""
    return "\n".join(f"  - {known.description}" for known in FORMATS.values())
