"""Captions files of a Hugging Face image folder: metadata.csv and metadata.jsonl.

Knows the columns file_name and text, of https://huggingface.co/docs/datasets/image_dataset ("ImageFolder"), where a
file_name starts from the metadata file's own folder. Refuses to know which folders there are.
"""

import csv
import json
import posixpath
from pathlib import PurePosixPath
from typing import Any

from lcm.data.tables import Row, Rows, most
from lcm.errors import DataError

NAME_COLUMN = "file_name"
TEXT_COLUMNS = ("text", "caption")  # the documentation's, and what many sets have; the first that is there
MAX_RECORD_LINES = 20  # of a caption in quotes that goes over several lines; a quote left open costs no more


def rows_of(name: str, value: Any, split: str = "") -> Rows:
    """Return the rows of a JSON value: one of a text, one of each text in a list, an empty one of an empty list."""
    values = (value or [None]) if isinstance(value, list) else [value]
    return [row_of(name, text, split) for text in values]


def row_of(name: str, text: Any, split: str = "") -> Row | None:
    """Return the row of a JSON value that is a text, an empty one of null; a number or an object is no caption."""
    if text is None:
        return Row(name, "", split=split)
    return Row(name, plain(text), split=split) if isinstance(text, str) else None


def plain(text: str) -> str:
    r"""Return text that any file can hold: JSON's \ud83d is half a character, and a "?" takes its place."""
    return text.encode("utf-8", "replace").decode().strip()


def image_id(metadata_file: PurePosixPath, name: str) -> str:
    """Return an image's path from the data set's folder: train/1.jpg and test/1.jpg are two images."""
    return posixpath.normpath(posixpath.join(metadata_file.parent.as_posix(), name.replace("\\", "/")))


# CSV


def is_csv(lines: list[str]) -> bool:
    """Whether the first line names both columns."""
    header = _header(lines[0])
    return NAME_COLUMN in header and any(column in header for column in TEXT_COLUMNS)


def read_csv(lines: list[str]) -> Rows:
    """Return a row for each record; other columns are left out.

    Raises DataError naming the columns when one is missing.
    """
    header = _header(lines[0])
    text_column = next((column for column in TEXT_COLUMNS if column in header), "")
    if NAME_COLUMN not in header or not text_column:
        raise DataError(f"has the columns {', '.join(header)}; {_WANTED}")
    name_at, text_at = header.index(NAME_COLUMN), header.index(text_column)
    return [_row_of_record(record, name_at, text_at, len(header)) for record in _records(lines[1:])]


def _row_of_record(record: list[str], name_at: int, text_at: int, width: int) -> Row | None:
    """Return the row of a record; commas without quotes are the caption's where its column is the last."""
    repaired = len(record) > width and text_at == width - 1
    if len(record) <= max(name_at, text_at) or not record[name_at].strip() or (len(record) > width and not repaired):
        return None
    caption = ",".join(record[text_at:]) if repaired else record[text_at]
    return Row(record[name_at].strip(), caption.strip(), repaired)


_WANTED = f"images are named in a column {NAME_COLUMN} and captions are in a column {' or '.join(TEXT_COLUMNS)}: add it"


def _header(line: str) -> list[str]:
    return [column.strip().lower() for column in _one_line(line)]


def _records(lines: list[str]) -> list[list[str]]:
    """Return the fields of each record; one may go over several lines inside quotes, if they are closed again."""
    records, at = [], 0
    while at < len(lines):
        reader = csv.reader((line + "\n" for line in lines[at : at + MAX_RECORD_LINES]), strict=True)
        try:
            records.append(next(reader))
            at += reader.line_num
        except csv.Error:
            records.append(_one_line(lines[at]))
            at += 1
    return records


def _one_line(line: str) -> list[str]:
    try:
        return next(csv.reader([line]))
    except csv.Error:  # a field longer than the module's limit
        return []


# JSON Lines


def is_jsonl(lines: list[str]) -> bool:
    """Whether most lines are objects with both columns."""
    records = list(map(_object, lines))
    return most(NAME_COLUMN in record and any(column in record for column in TEXT_COLUMNS) for record in records)


def read_jsonl(lines: list[str]) -> Rows:
    """Return a row for each caption; a list of texts gives several, a line that is no such object one of None.

    Raises DataError naming the columns when no line has both.
    """
    records = list(map(_object, lines))
    if not any(NAME_COLUMN in record and any(column in record for column in TEXT_COLUMNS) for record in records):
        columns = next(filter(None, records), {})
        found = f"has the columns {', '.join(columns)}" if columns else "has no line that is a JSON object"
        raise DataError(f"{found}; {_WANTED}")
    return [row for record in records for row in _rows_of_record(record)]


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _rows_of_record(record: dict[str, Any]) -> Rows:
    name = record.get(NAME_COLUMN)
    column = next((column for column in TEXT_COLUMNS if column in record), None)
    if not isinstance(name, str) or not name.strip() or column is None:
        return [None]
    return rows_of(plain(name), record[column])
