"""Captions files with one caption a line: how Flickr8k, Flickr30k and plain tables are told and read.

Knows the lines, each by itself, so that a broken one costs only itself. Refuses to know files, images and splits: a row
is a name and a caption as written.

Captions files of a Hugging Face image folder: metadata.csv and metadata.jsonl.

Knows the columns file_name and text, of https://huggingface.co/docs/datasets/image_dataset ("ImageFolder"), where a
file_name starts from the metadata file's own folder. Refuses to know which folders there are.

Captions files that are one JSON document: COCO's, and the splits of Karpathy and Fei-Fei.

Knows the two structures and reads a document as a whole. Refuses to know where the images lie.

COCO: https://cocodataset.org/#format-data, "Image Captioning". Karpathy and Fei-Fei (2015), "Deep Visual-Semantic
Alignments for Generating Image Descriptions": dataset_coco.json, dataset_flickr8k.json, dataset_flickr30k.json.

Caption formats: which ones there are, which one a file is in, and the rows it holds.

Knows the table of formats. Refuses to know how each is read, and images and words: a row is a name and a caption as
written.
"""

import csv
import json
import posixpath
import reprlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import regex

from lcm.data.files import decode_line, is_image_name, read_lines
from lcm.errors import DataError


@dataclass(frozen=True, slots=True)
class Row:
    """One caption of a captions file that could be read."""

    name: str  # the image's name as written
    caption: str  # as written, blanks at its ends removed; may be empty
    repaired: bool = False  # a separator or quotes were missing, and it was clear where
    split: str = ""  # train, dev or test, where the file says so


Rows = list[Row | None]  # None: there was a caption, and it cannot be read


def _by_line(parse: Callable[[str], Row | None], has_header: Callable[[str], bool]) -> Callable[[list[str]], Rows]:
    """Return what reads the lines of a file, one row from each but a header."""
    return lambda lines: [parse(line) for line in (lines[1:] if has_header(lines[0]) else lines)]


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


def most(fits: Iterable[bool]) -> bool:
    """Whether more lines fit than do not: a few broken ones at the top of a file do not hide its format."""
    fits = list(fits)
    return 2 * sum(fits) > len(fits)


def is_caption_csv(lines: list[str]) -> bool:
    """Whether the first line is the header of Kaggle's Flickr8k."""
    return _is_csv_header(lines[0])


def is_pipes(lines: list[str]) -> bool:
    """Whether the first line is the header of Kaggle's Flickr30k."""
    return _is_pipe_header(lines[0])


def is_token(lines: list[str]) -> bool:
    """Whether most lines are name, number sign, number, TAB and caption."""
    return most(bool(TOKEN_LINE.fullmatch(line)) for line in lines)


def is_tsv(lines: list[str]) -> bool:
    """Whether most lines are the name of an image, TAB and caption."""
    rows = lines[1:] if _is_tsv_header(lines[0]) else lines
    return most(line.count("\t") == 1 and is_image_name(line.split("\t")[0].strip()) for line in rows)


read_caption_csv = _by_line(_parse_csv, _is_csv_header)
read_pipes = _by_line(_parse_pipes, _is_pipe_header)
read_token = _by_line(_parse_token, lambda _line: False)
read_tsv = _by_line(_parse_tsv, _is_tsv_header)


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


def as_image_id(metadata_file: PurePosixPath, name: str) -> str:
    """Return an image's path from the data set's folder: train/1.jpg and test/1.jpg are two images."""
    return posixpath.normpath(posixpath.join(metadata_file.parent.as_posix(), name.replace("\\", "/")))


# CSV


def is_metadata_csv(lines: list[str]) -> bool:
    """Whether the first line names both columns."""
    header = _header(lines[0])
    return NAME_COLUMN in header and any(column in header for column in TEXT_COLUMNS)


def read_metadata_csv(lines: list[str]) -> Rows:
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


MAX_BYTES = 2**30  # eleven times COCO's largest captions file; more would need more memory than most machines have
CHUNK_BYTES = 2**20
COCO_NAME = regex.compile(r"captions_(?P<images>(train|val|dev|test)[^/]*)\.json", regex.IGNORECASE)
KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "dev", "test": "test"}


def holds(path: Path, keys: tuple[str, ...]) -> bool:
    """Whether a JSON file begins as an object and all keys stand in it; it is not parsed, for it may be any file.

    COCO's folders hold documents of half a gigabyte besides, without captions.
    """
    missing, rest, seen = {f'"{key}"'.encode() for key in keys}, b"", False
    with path.open("rb") as document:
        while missing and (chunk := document.read(CHUNK_BYTES)):
            window = rest + chunk.replace(b"\0", b"")  # UTF-16: these keys are ASCII
            if not seen and b"{" not in window[:64]:
                return False
            seen = True
            missing = {key for key in missing if key not in window}
            rest = window[-64:]  # a key may lie across two chunks
    return not missing


def load(path: Path) -> Any:
    """Return the content of a JSON file in UTF-8, UTF-16 or UTF-32, with BOM or without.

    Raises DataError when it is no JSON, with line and column, or too large or too deep to be a captions file.
    """
    if path.stat().st_size > MAX_BYTES:
        size = f"{path.stat().st_size / 2**30:.1f} GiB"
        raise DataError(f"has {size}, and 1 GiB is the most that is read; write the captions as metadata.jsonl")
    data = path.read_bytes()
    try:
        try:
            return json.loads(data)
        except UnicodeDecodeError:
            return json.loads("\n".join(map(decode_line, data.split(b"\n"))))
    except json.JSONDecodeError as error:
        place = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise DataError(f"is broken JSON: {place}; download or write it again") from None
    except RecursionError:
        raise DataError("is nested too deeply for a captions file; flatten it, or give another file") from None
    except ValueError as error:  # a number of thousands of digits
        raise DataError(f"cannot be read as JSON: {error}; correct it") from None


def coco_image_id(captions_file: PurePosixPath, name: str) -> str:
    """Return train2017/1.jpg for the 1.jpg of captions_train2017.json: that is the folder of its images.

    A name that has a folder already, or is in a file with no such name, stays as it is.
    """
    images, name = COCO_NAME.fullmatch(captions_file.name), name.replace("\\", "/")
    return f"{images['images']}/{name}" if images and "/" not in name else name


def read_coco(document: Any) -> Rows:
    """Return a row for each annotation; None for one without text, or whose image_id no image or several have.

    Raises DataError when the document is no captions document, or none of its annotations can be read.
    """
    images, annotations = _list(document, "images"), _list(document, "annotations")
    names: dict[int | str, str] = {}
    doubtful = set()
    for image in images:
        number, name = _values(image, "id", "file_name")
        usable = isinstance(number, int | str) and isinstance(name, str) and plain(name)
        if usable and names.setdefault(number, plain(name)) != plain(name):
            doubtful.add(number)
    rows: Rows = []
    for annotation in annotations:
        number, caption = _values(annotation, "image_id", "caption")
        known = isinstance(number, int | str) and number in names and number not in doubtful
        fits = known and "caption" in annotation and not isinstance(caption, list)
        rows.append(row_of(names[number], caption) if fits else None)
    wanted = "image_id, the id of one image that has a file_name, and caption, a text"
    return _checked(rows, annotations, "annotation", wanted)


def read_karpathy(document: Any) -> Rows:
    """Return a row for each sentence of each image, with the official split; what remains of val (restval) trains.

    Raises DataError when the document is no such document, or none of its images can be read.
    """
    images = _list(document, "images")
    rows: Rows = []
    for image in images:
        name, folder, split, sentences = _values(image, "filename", "filepath", "split", "sentences")
        if not isinstance(name, str) or not plain(name) or not isinstance(sentences, list):
            rows.append(None)
            continue
        path = f"{plain(folder)}/{plain(name)}" if isinstance(folder, str) and plain(folder) else plain(name)
        official = KARPATHY_SPLITS.get(split, "") if isinstance(split, str) else ""
        texts = [sentence.get("raw") if isinstance(sentence, dict) else 0 for sentence in sentences]
        rows += rows_of(path, texts, official)
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


def _values(thing: Any, *keys: str) -> list[Any]:
    return list(map(thing.get, keys)) if isinstance(thing, dict) else [None] * len(keys)


def _checked(rows: Rows, things: list[Any], kind: str, wanted: str) -> Rows:
    if any(rows):
        return rows
    first = reprlib.repr(things[0])
    raise DataError(f"has no {kind} that can be read; the first is {first}, and each must have {wanted}")


PARQUET = ".parquet"  # what a data set may have, and lcm refuses
LINES_TO_DETECT = 20  # a format of lines is recognised by the first ones of a file


def _as_written(_captions_file: PurePosixPath, name: str) -> str:
    return name


@dataclass(frozen=True)
class LineFormat:
    """A file of lines: how it is recognised and read, so that a broken line costs only itself."""

    description: str  # for error messages and the README
    matches: Callable[[list[str]], bool]  # told from the first non-empty lines
    read: Callable[[list[str]], Rows]  # from all non-empty lines
    image_id: Callable[[PurePosixPath, str], str] = _as_written  # from the file's path in the data set and a name in it
    is_path: bool = False  # image_id is the path of the image in the data set, and it is nowhere else


@dataclass(frozen=True)
class DocumentFormat:
    """A JSON document: how it is recognised without being parsed, and read as a whole."""

    description: str
    keys: tuple[str, ...]  # all of them stand in the file
    read: Callable[[Any], Rows]  # from the parsed document
    image_id: Callable[[PurePosixPath, str], str] = _as_written
    is_path: bool = False


FORMATS: dict[str, LineFormat | DocumentFormat] = {
    "flickr8k_csv": LineFormat(
        "CSV with the header image,caption (Kaggle's Flickr8k, captions.txt)", is_caption_csv, read_caption_csv
    ),
    "flickr30k_pipes": LineFormat(
        "lines of image_name| comment_number| comment (Kaggle's Flickr30k, results.csv)",
        is_pipes,
        read_pipes,
    ),
    "token": LineFormat(
        "lines of name#number TAB caption (Flickr8k.token.txt, results_20130124.token)",
        is_token,
        read_token,
    ),
    "tsv": LineFormat("lines of image TAB caption, with or without the header image TAB caption", is_tsv, read_tsv),
    "imagefolder_csv": LineFormat(
        "CSV with the columns file_name and text or caption (Hugging Face image folder, metadata.csv)",
        is_metadata_csv,
        read_metadata_csv,
        as_image_id,
        is_path=True,
    ),
    "imagefolder_jsonl": LineFormat(
        "lines of JSON with file_name and text or caption (Hugging Face image folder, metadata.jsonl)",
        is_jsonl,
        read_jsonl,
        as_image_id,
        is_path=True,
    ),
    "coco": DocumentFormat(
        "JSON with images and annotations (COCO, captions_train2017.json)",
        ("images", "annotations", "caption"),
        read_coco,
        coco_image_id,
    ),
    "karpathy": DocumentFormat(
        "JSON with images and their sentences (Karpathy's splits, dataset_coco.json)",
        ("images", "sentences", "raw"),
        read_karpathy,
    ),
}


def describe() -> str:
    """Return the formats, one a line, for a message."""
    return "\n".join(f"  - {known.description}" for known in FORMATS.values())


def detect(path: Path) -> str | None:
    """Return the name in FORMATS that a file is in, or None."""
    if path.suffix.lower() == PARQUET:
        return None
    if path.suffix.lower() == ".json":
        of_documents = ((name, known) for name, known in FORMATS.items() if isinstance(known, DocumentFormat))
        return next((name for name, known in of_documents if holds(path, known.keys)), None)
    return _detect_lines(read_lines(path))


def _detect_lines(lines: list[str]) -> str | None:
    head = lines[:LINES_TO_DETECT]
    of_lines = ((name, known) for name, known in FORMATS.items() if isinstance(known, LineFormat))
    return next((name for name, known in of_lines if head and known.matches(head)), None)


def parse(path: Path) -> tuple[str, Rows]:
    """Return the format's name and a row for each caption of a file, None where one cannot be read.

    Raises DataError saying what is wrong with the file; where it is in no format, it lists them.
    """
    if path.suffix.lower() == PARQUET:
        raise DataError(
            f"{path.name} is Parquet, which lcm does not read; write it as metadata.csv with the columns file_name and "
            f"text, for instance with pandas: read_parquet({path.name!r}).to_csv('metadata.csv', index=False)"
        )
    try:
        return _parse_document(path) if path.suffix.lower() == ".json" else _parse_lines(path)
    except DataError as error:
        raise DataError(f"{path.name} {error}") from None


def _parse_document(path: Path) -> tuple[str, Rows]:
    name = detect(path) or "coco"  # its reader says what is missing
    return name, FORMATS[name].read(load(path))


def _parse_lines(path: Path) -> tuple[str, Rows]:
    lines = read_lines(path)
    name = _detect_lines(lines)
    if name:
        return name, FORMATS[name].read(lines)
    if lines and path.stem.lower() == "metadata":
        (read_jsonl if path.suffix.lower() == ".jsonl" else read_metadata_csv)(lines)  # says what is missing
    begins = repr(lines[0][:80]) if lines else "nothing: it is empty"
    raise DataError(f"is in no format that lcm reads; it begins with {begins}. Formats:\n{describe()}")
