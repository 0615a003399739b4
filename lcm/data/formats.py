"""Caption formats: which ones there are, which one a file is in, and the rows it holds.

Knows the table of formats. Refuses to know how each is read, and images and words: a row is a name and a caption as
written.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lcm.data import documents, metadata, tables
from lcm.data.files import read_lines
from lcm.data.tables import Rows
from lcm.errors import DataError

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
        "CSV with the header image,caption (Kaggle's Flickr8k, captions.txt)", tables.is_csv, tables.read_csv
    ),
    "flickr30k_pipes": LineFormat(
        "lines of image_name| comment_number| comment (Kaggle's Flickr30k, results.csv)",
        tables.is_pipes,
        tables.read_pipes,
    ),
    "token": LineFormat(
        "lines of name#number TAB caption (Flickr8k.token.txt, results_20130124.token)",
        tables.is_token,
        tables.read_token,
    ),
    "tsv": LineFormat(
        "lines of image TAB caption, with or without the header image TAB caption", tables.is_tsv, tables.read_tsv
    ),
    "imagefolder_csv": LineFormat(
        "CSV with the columns file_name and text or caption (Hugging Face image folder, metadata.csv)",
        metadata.is_csv,
        metadata.read_csv,
        metadata.image_id,
        is_path=True,
    ),
    "imagefolder_jsonl": LineFormat(
        "lines of JSON with file_name and text or caption (Hugging Face image folder, metadata.jsonl)",
        metadata.is_jsonl,
        metadata.read_jsonl,
        metadata.image_id,
        is_path=True,
    ),
    "coco": DocumentFormat(
        "JSON with images and annotations (COCO, captions_train2017.json)",
        ("images", "annotations", "caption"),
        documents.read_coco,
        documents.coco_image_id,
    ),
    "karpathy": DocumentFormat(
        "JSON with images and their sentences (Karpathy's splits, dataset_coco.json)",
        ("images", "sentences", "raw"),
        documents.read_karpathy,
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
        return next((name for name, known in of_documents if documents.holds(path, known.keys)), None)
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
    return name, FORMATS[name].read(documents.load(path))


def _parse_lines(path: Path) -> tuple[str, Rows]:
    lines = read_lines(path)
    name = _detect_lines(lines)
    if name:
        return name, FORMATS[name].read(lines)
    if lines and path.stem.lower() == "metadata":
        (metadata.read_jsonl if path.suffix.lower() == ".jsonl" else metadata.read_csv)(lines)  # says what is missing
    begins = repr(lines[0][:80]) if lines else "nothing: it is empty"
    raise DataError(f"is in no format that lcm reads; it begins with {begins}. Formats:\n{describe()}")
