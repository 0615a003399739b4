"""Captions files: which format one is in, and the rows it holds.

A row is the name of an image and a caption, both as written. A line, record or JSON entry that is broken costs only
itself: it is counted as None. Files are UTF-8, or UTF-16 with a BOM; one that is neither is read as Windows-1252.

Image folders: https://huggingface.co/docs/datasets/image_dataset ("ImageFolder").
COCO: https://cocodataset.org/#format-data, "Image Captioning".
Karpathy and Fei-Fei (2015), "Deep Visual-Semantic Alignments for Generating Image Descriptions": dataset_coco.json,
dataset_flickr8k.json, dataset_flickr30k.json.
"""

import csv
import json
import posixpath
import re
import reprlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from lcm.data.files import is_image_name, read_text, split_lines
from lcm.errors import DataError

PARQUET = ".parquet"  # what a data set may have, and lcm refuses
LINES_TO_DETECT = 20  # a format of lines is recognised by the first ones of a file
MAX_RECORD_LINES = 20  # of a caption in quotes that goes over several lines; a quote left open costs no more
MAX_FIELD = 2**17  # characters of a line of CSV: the limit of Python's csv module for a field
NAME_COLUMN = "file_name"
TEXT_COLUMNS = ("text", "caption")  # the documentation's, and what many sets have; the first that is there
COCO_NAME = re.compile(r"captions_(?P<images>(train|val|dev|test)[^/]*)\.json", re.IGNORECASE)
KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "dev", "test": "test"}  # restval: what remains of val


@dataclass(frozen=True, slots=True)
class Row:
    """One caption of a captions file that could be read."""

    name: str  # the image's name as written
    caption: str  # as written, blanks at its ends removed; may be empty
    repaired: bool = False  # a separator or quotes were missing, and it was clear where
    split: str = ""  # train, dev or test, where the file says so


Rows = list[Row | None]  # None: there was a caption, and it cannot be read


class CaptionFile:
    """A captions file. It is opened once, at the first question to it; rows are read when they are asked for."""

    def __init__(self, path: Path):
        self.path = path
        self.is_document = path.suffix.lower() == ".json"

    @cached_property
    def text(self) -> str:
        """The content."""
        return read_text(self.path)

    @cached_property
    def lines(self) -> list[str]:
        """The lines that are not blank."""
        return split_lines(self.text)

    @cached_property
    def format(self) -> str | None:
        """The name in FORMATS that the file is in, or None; a JSON document is not parsed for that."""
        if self.path.suffix.lower() == PARQUET:
            return None
        table, content = (DOCUMENTS, self.text) if self.is_document else (TABLES, self.lines[:LINES_TO_DETECT])
        return next((name for name, known in table.items() if content and known.matches(content)), None)

    def read(self) -> tuple[str, Rows]:
        """Return the format's name and a row for each caption, None where one cannot be read.

        Raises DataError saying what is wrong with the file; where it is in no format, it lists them.
        """
        try:
            if self.path.suffix.lower() == PARQUET:
                raise DataError(
                    "is Parquet, which lcm does not read; write it as metadata.csv with the columns file_name and "
                    f"text, for instance with pandas: read_parquet({self.path.name!r}).to_csv('metadata.csv', "
                    "index=False)"
                )
            if self.is_document:
                name = self.format or "coco"  # its reader says what is missing
                return name, DOCUMENTS[name].read(self._parse_json())
            if self.format:
                return self.format, TABLES[self.format].read(self.lines)
            if self.lines and self.path.stem.lower() == "metadata":  # their readers say what is missing
                (_read_jsonl if self.path.suffix.lower() == ".jsonl" else _read_csv)(self.lines)
            begins = repr(self.lines[0][:80]) if self.lines else "nothing: it is empty"
            raise DataError(f"is in no format that lcm reads; it begins with {begins}. Formats:\n{describe()}")
        except DataError as error:
            raise DataError(f"{self.path.name} {error}") from None

    def _parse_json(self) -> Any:
        try:
            return json.loads(self.text)
        except json.JSONDecodeError as error:
            place = f"{error.msg} at line {error.lineno}, column {error.colno}"
            raise DataError(f"is broken JSON: {place}; download or write it again") from None
        except RecursionError:
            raise DataError("is nested too deeply for a captions file; flatten it, or give another file") from None
        except ValueError as error:  # a number of thousands of digits
            raise DataError(f"cannot be read as JSON: {error}; correct it") from None


# One caption a line: Flickr8k's and Flickr30k's token files, Kaggle's Flickr30k, plain tables

_TOKEN_LINE = re.compile(r"([^\t]+)#\d+\t(.*)")
_PIPE_NUMBER = re.compile(r"\s*\d+\s+")


def _read_token(lines: Sequence[str]) -> Rows:
    """Read `name#number TAB caption`."""
    return [_named(*match.groups()) if (match := _TOKEN_LINE.fullmatch(line)) else None for line in lines]


def _read_tsv(lines: Sequence[str]) -> Rows:
    """Read `name TAB caption`."""
    return [_named(*line.split("\t", 1)) for line in (lines[1:] if _is_tsv_header(lines[0]) else lines)]


def _read_pipes(lines: Sequence[str]) -> Rows:
    """Read `name| number| caption`; the known broken row lacks the second separator."""
    return [_named(*_split_pipes(line)) for line in lines[1:]]


def _split_pipes(line: str) -> tuple[str, str | None, bool]:
    name, *rest = line.split("|", 2)
    if len(rest) == 2:
        return name, rest[1], False
    number = _PIPE_NUMBER.match(rest[0]) if rest else None
    return name, rest[0][number.end() :] if number else None, True


def _named(name: str, caption: str | None = None, repaired: bool = False) -> Row | None:
    """Return the row of a name and a caption; None where one of them is missing."""
    name = name.strip()
    return Row(name, caption.strip(), repaired) if name and caption is not None else None


def _columns(line: str, separator: str) -> list[str]:
    return [column.strip().strip('"').lower() for column in line.split(separator)]


def _is_pipes(lines: Sequence[str]) -> bool:
    return _columns(lines[0], "|") == ["image_name", "comment_number", "comment"]


def _is_token(lines: Sequence[str]) -> bool:
    return _most(bool(_TOKEN_LINE.fullmatch(line)) for line in lines)


def _is_tsv_header(line: str) -> bool:
    columns = _columns(line, "\t")
    return len(columns) == 2 and columns[1] in TEXT_COLUMNS and not is_image_name(columns[0])


def _is_tsv(lines: Sequence[str]) -> bool:
    rows = lines[1:] if _is_tsv_header(lines[0]) else lines
    return _most(line.count("\t") == 1 and is_image_name(line.split("\t")[0].strip()) for line in rows)


def _most(fits: Iterable[bool]) -> bool:
    """Whether more lines fit than do not: a few broken ones at the top of a file do not hide its format."""
    fits = list(fits)
    return 2 * sum(fits) > len(fits)


# CSV: Kaggle's Flickr8k, and metadata.csv of an image folder


def _is_flickr8k_csv(lines: Sequence[str]) -> bool:
    return _columns(lines[0], ",") == ["image", "caption"]


def _is_metadata_csv(lines: Sequence[str]) -> bool:
    columns = _columns(lines[0], ",")
    return NAME_COLUMN in columns and any(column in columns for column in TEXT_COLUMNS)


def _read_csv(lines: Sequence[str]) -> Rows:
    """Return a row for each record; other columns are left out.

    Raises DataError naming the columns when one is missing.
    """
    header = [column.strip().lower() for column in _fields(lines[0])]
    name_column = "image" if _is_flickr8k_csv(lines) else NAME_COLUMN
    text_column = next((column for column in TEXT_COLUMNS if column in header), None)
    if name_column not in header or text_column is None:
        raise _missing_columns(header)
    name_at, text_at = header.index(name_column), header.index(text_column)
    return [_row_of_record(record, name_at, text_at, len(header)) for record in _records(lines[1:])]


def _row_of_record(record: Sequence[str], name_at: int, text_at: int, width: int) -> Row | None:
    """Return the row of a record; commas without quotes are the caption's where its column is the last."""
    if len(record) <= max(name_at, text_at):
        return None
    if len(record) <= width:
        return _named(record[name_at], record[text_at])
    return _named(record[name_at], ",".join(record[text_at:]) if text_at == width - 1 else None, True)


def _records(lines: Sequence[str]) -> Iterable[list[str]]:
    """Yield the fields of each record; one may go over several lines inside quotes, if they are closed again."""
    at = 0
    while at < len(lines):
        fields, used = [], 1
        if lines[at].count('"') % 2:
            reader = csv.reader((line + "\n" for line in lines[at : at + MAX_RECORD_LINES]), strict=True)
            with suppress(csv.Error):
                fields, used = next(reader), reader.line_num
        yield fields or _fields(lines[at])
        at += used


def _fields(line: str) -> list[str]:
    return next(csv.reader([line]), []) if len(line) < MAX_FIELD else []


def _missing_columns(columns: Iterable[str]) -> DataError:
    return DataError(
        f"has the columns {', '.join(columns)}; images are named in a column {NAME_COLUMN} and captions are in a "
        f"column {' or '.join(TEXT_COLUMNS)}: add it"
    )


# JSON Lines: metadata.jsonl of an image folder


def _is_jsonl(lines: Sequence[str]) -> bool:
    return _most(_has_both(record) for record in map(_object, lines))


def _read_jsonl(lines: Sequence[str]) -> Rows:
    """Return a row for each caption; a list of texts gives several, a line that is no such object one of None.

    Raises DataError naming the columns when no line has both.
    """
    records = list(map(_object, lines))
    if not any(map(_has_both, records)):
        if columns := next(filter(None, records), None):
            raise _missing_columns(columns)
        raise DataError(f"has no line that is a JSON object with {NAME_COLUMN} and {' or '.join(TEXT_COLUMNS)}")
    return [row for record in records for row in _rows_of_object(record)]


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _has_both(record: dict[str, Any]) -> bool:
    return NAME_COLUMN in record and any(column in record for column in TEXT_COLUMNS)


def _rows_of_object(record: dict[str, Any]) -> Rows:
    name = record.get(NAME_COLUMN)
    if not isinstance(name, str) or not name.strip() or not _has_both(record):
        return [None]
    return _rows_of(_plain(name), next(record[column] for column in TEXT_COLUMNS if column in record))


# JSON values


def _rows_of(name: str, value: Any, split: str = "") -> Rows:
    """Return the rows of a JSON value: one of a text, one of each text in a list, an empty one of an empty list."""
    values = (value or [None]) if isinstance(value, list) else [value]
    return [_row_of(name, text, split) for text in values]


def _row_of(name: str, text: Any, split: str = "") -> Row | None:
    """Return the row of a JSON value that is a text, an empty one of null; a number or an object is no caption."""
    if text is None:
        return Row(name, "", split=split)
    return Row(name, _plain(text), split=split) if isinstance(text, str) else None


def _plain(text: str) -> str:
    r"""Return text that any file can hold: JSON's \ud83d is half a character, and a "?" takes its place."""
    return text.encode("utf-8", "replace").decode().strip()


def _values(thing: Any, *keys: str) -> list[Any]:
    return list(map(thing.get, keys)) if isinstance(thing, dict) else [None] * len(keys)


# JSON documents: COCO, Karpathy


def _holds(*keys: str) -> Callable[[str], bool]:
    """Return what tells a document with these keys, unparsed: COCO's folders hold half a gigabyte without captions."""
    return lambda text: re.match(r"\s*\{", text) is not None and all(f'"{key}"' in text for key in keys)


def _read_coco(document: Any) -> Rows:
    """Return a row for each annotation; None for one without text, or whose image_id no image or several have.

    Raises DataError when the document is no captions document, or none of its annotations can be read.
    """
    images, annotations = _list(document, "images"), _list(document, "annotations")
    names: dict[int | str, str] = {}
    doubtful = set()
    for image in images:
        number, name = _values(image, "id", "file_name")
        usable = isinstance(number, int | str) and isinstance(name, str) and _plain(name)
        if usable and names.setdefault(number, _plain(name)) != _plain(name):
            doubtful.add(number)
    rows: Rows = []
    for annotation in annotations:
        number, caption = _values(annotation, "image_id", "caption")
        known = isinstance(number, int | str) and number in names and number not in doubtful
        rows.append(_row_of(names[number], caption) if known and "caption" in annotation else None)
    wanted = "image_id, the id of one image that has a file_name, and caption, a text"
    return _checked(rows, annotations, "annotation", wanted)


def _read_karpathy(document: Any) -> Rows:
    """Return a row for each sentence of each image, with the official split.

    Raises DataError when the document is no such document, or none of its images can be read.
    """
    images = _list(document, "images")
    rows: Rows = []
    for image in images:
        name, folder, split, sentences = _values(image, "filename", "filepath", "split", "sentences")
        if not isinstance(name, str) or not _plain(name) or not isinstance(sentences, list):
            rows.append(None)
            continue
        path = f"{_plain(folder)}/{_plain(name)}" if isinstance(folder, str) and _plain(folder) else _plain(name)
        official = KARPATHY_SPLITS.get(split, "") if isinstance(split, str) else ""
        texts = [sentence.get("raw") if isinstance(sentence, dict) else 0 for sentence in sentences]
        rows += _rows_of(path, texts, official)
    return _checked(rows, images, "image", "filename, a text, and sentences, a list of objects with raw, a text")


def _list(document: Any, key: str) -> list[Any]:
    if not isinstance(document, dict):
        received = f"is a JSON {type(document).__name__}"
    elif not isinstance(document.get(key), list):
        received = f"has no list {key!r}; its keys are {reprlib.repr(list(document))}"
    elif not document[key]:
        received = f"has an empty list {key!r}"
    else:
        return document[key]
    raise DataError(
        f"{received}. A captions document is an object with the lists images and annotations (COCO), or with the list "
        "images that holds sentences (Karpathy); COCO's are called captions_….json"
    )


def _checked(rows: Rows, things: list[Any], kind: str, wanted: str) -> Rows:
    if any(rows):
        return rows
    first = reprlib.repr(things[0])
    raise DataError(f"has no {kind} that can be read; the first is {first}, and each must have {wanted}")


# The table of formats: image_id makes an image's id of the file's path in the data set and a name in it


def _as_written(_captions_file: PurePosixPath, name: str) -> str:
    return name


def _in_folder_of_metadata(metadata_file: PurePosixPath, name: str) -> str:
    """Return an image's path from the data set's folder: train/1.jpg and test/1.jpg are two images."""
    return posixpath.normpath(posixpath.join(metadata_file.parent.as_posix(), name.replace("\\", "/")))


def _in_coco_folder(captions_file: PurePosixPath, name: str) -> str:
    """Return train2017/1.jpg for the 1.jpg of captions_train2017.json: that is the folder of its images.

    A name that has a folder already, or is in a file with no such name, stays as it is.
    """
    images, name = COCO_NAME.fullmatch(captions_file.name), name.replace("\\", "/")
    return f"{images['images']}/{name}" if images and "/" not in name else name


@dataclass(frozen=True)
class Format:
    """How a captions file is recognised and read."""

    description: str  # for error messages and the documents
    matches: Callable[[Any], bool]  # told from the first non-blank lines, or from the text of a JSON document
    read: Callable[[Any], Rows]  # from all non-blank lines, or from the parsed document
    image_id: Callable[[PurePosixPath, str], str] = _as_written
    is_path: bool = False  # image_id is the path of the image in the data set, and it is nowhere else


TABLES: dict[str, Format] = {
    "flickr8k_csv": Format(
        "CSV with the header image,caption (Kaggle's Flickr8k, captions.txt)", _is_flickr8k_csv, _read_csv
    ),
    "flickr30k_pipes": Format(
        "lines of image_name| comment_number| comment (Kaggle's Flickr30k, results.csv)", _is_pipes, _read_pipes
    ),
    "token": Format(
        "lines of name#number TAB caption (Flickr8k.token.txt, results_20130124.token)", _is_token, _read_token
    ),
    "tsv": Format("lines of image TAB caption, with or without the header image TAB caption", _is_tsv, _read_tsv),
    "imagefolder_csv": Format(
        "CSV with the columns file_name and text or caption (Hugging Face image folder, metadata.csv)",
        _is_metadata_csv,
        _read_csv,
        _in_folder_of_metadata,
        is_path=True,
    ),
    "imagefolder_jsonl": Format(
        "lines of JSON with file_name and text or caption (Hugging Face image folder, metadata.jsonl)",
        _is_jsonl,
        _read_jsonl,
        _in_folder_of_metadata,
        is_path=True,
    ),
}
DOCUMENTS: dict[str, Format] = {
    "coco": Format(
        "JSON with images and annotations (COCO, captions_train2017.json)",
        _holds("images", "annotations", "caption"),
        _read_coco,
        _in_coco_folder,
    ),
    "karpathy": Format(
        "JSON with images and their sentences (Karpathy's splits, dataset_coco.json)",
        _holds("images", "sentences", "raw"),
        _read_karpathy,
    ),
}
FORMATS = TABLES | DOCUMENTS


def describe() -> str:
    """Return the formats, one a line, for a message."""
    return "\n".join(f"  - {known.description}" for known in FORMATS.values())
