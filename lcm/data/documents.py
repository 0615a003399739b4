"""Captions files that are one JSON document: COCO's, and the splits of Karpathy and Fei-Fei.

Knows the two structures and reads a document as a whole. Refuses to know where the images lie.

COCO: https://cocodataset.org/#format-data, "Image Captioning". Karpathy and Fei-Fei (2015), "Deep Visual-Semantic
Alignments for Generating Image Descriptions": dataset_coco.json, dataset_flickr8k.json, dataset_flickr30k.json.
"""

import json
import reprlib
from pathlib import Path, PurePosixPath
from typing import Any

import regex

from lcm.data.files import decode_line
from lcm.data.metadata import plain, row_of, rows_of
from lcm.data.tables import Rows
from lcm.errors import DataError

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
