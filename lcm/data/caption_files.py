"""The captions files of a data set: which ones they are, and what they say together.

Knows the names of files that people download, and which files belong together. Refuses to know images: whether a name
has a file is places.py's; formats are formats.py's.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from lcm.data import formats, splits
from lcm.data.documents import COCO_NAME
from lcm.data.files import shorten, with_suffix
from lcm.errors import DataError

# Files of known data sets, the preferred first; any other name is found by its content.
KNOWN_CAPTION_FILES = (
    *("captions.txt", "flickr8k.token.txt", "results.csv", "results_20130124.token", "captions.tsv"),
    "dataset_*.json",
)
COCO, METADATA = "coco", "metadata"  # sets of captions files that are read together
METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
CAPTION_SUFFIXES = (".txt", ".csv", ".tsv", ".token", ".json", ".jsonl")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the file of an image should be."""

    path: Path
    only: bool  # a file of its name elsewhere is another image's


@dataclass
class Labels:
    """What the captions files of a data set say, all of them together."""

    captions: dict[str, list[str]] = field(default_factory=dict)  # by image_id; an image may have none but empty ones
    places: dict[str, Place] = field(default_factory=dict)  # by image_id
    splits: dict[str, str] = field(default_factory=dict)  # by image_id, where the files say so
    formats: dict[str, str] = field(default_factory=dict)  # of each file, by its path in the data set
    rows: int = 0
    repaired_rows: int = 0
    unreadable_rows: int = 0
    empty_captions: int = 0


def read(folder: Path, paths: Sequence[Path]) -> Labels:
    """Read captions files of a folder as one data set.

    Where they say no more than one split, they say none: one file of COCO's is not split. Raises DataError for a file
    that cannot be read, and for an image in two splits.
    """
    labels = Labels()
    for path in paths:
        _add(labels, folder, path)
    if len(set(labels.splits.values())) < 2:
        labels.splits.clear()
    return labels


def _add(labels: Labels, folder: Path, path: Path) -> None:
    relative = PurePosixPath(path.relative_to(folder).as_posix())
    name, rows = formats.parse(path)
    known = formats.FORMATS[name]
    labels.formats[str(relative)] = name
    split_of_file = splits.named_in_path(relative) if _together(path) else ""
    image_ids: dict[str, str] = {}  # by the name as written
    for row in filter(None, rows):
        if row.name not in image_ids:
            image_id = image_ids[row.name] = known.image_id(relative, row.name)
            place = folder / image_id if known.is_path else path.parent / row.name
            labels.places.setdefault(image_id, Place(Path(os.path.normpath(place)), known.is_path))
        image_id = image_ids[row.name]
        labels.captions.setdefault(image_id, []).extend(filter(None, [row.caption]))
        if split := row.split or split_of_file:
            splits.put(labels.splits, image_id, split, "the captions files put")
    labels.rows += len(rows)
    labels.repaired_rows += sum(row.repaired for row in rows if row)
    labels.unreadable_rows += rows.count(None)
    labels.empty_captions += sum(not row.caption for row in rows if row)


def find(folder: Path, files: Sequence[Path], captions_file: str) -> list[Path]:
    """Return the captions files among the files of a folder: the one named, else known names, else by content.

    Copies of one file count as one: Kaggle's Flickr30k holds everything twice. COCO has one file for each split, an
    image folder one in each of its folders. Raises DataError when there is none, or several that are not one data set.
    """
    if captions_file:
        path = Path(os.path.normpath(folder / captions_file))
        if not path.is_file() or not path.is_relative_to(folder):
            raise DataError(f"{folder} has no captions file {captions_file!r}; name one inside the folder")
        return [path]
    texts = with_suffix(files, CAPTION_SUFFIXES)
    named = [[path for path in texts if fnmatch(path.name.lower(), name)] for name in KNOWN_CAPTION_FILES]
    for paths in named:
        if fitting := [path for path in paths if formats.detect(path)]:
            return [_single(folder, fitting)]
    sets = [[path for path in files if _together(path) == kind] for kind in (COCO, METADATA)]
    for paths in sets:
        if any(map(formats.detect, paths)):  # the others are read too: what is wrong with them must be said
            return _one_set(folder, paths)
    if fitting := [path for path in texts if formats.detect(path)]:
        return [_single(folder, fitting)]
    for path in [path for paths in named + sets for path in paths]:
        formats.parse(path)  # says what is wrong with a file that should be one
    seen = shorten([path.name for path in texts]) or "no text file at all"
    raise DataError(f"{folder} has no captions file (found {seen}). Formats:\n{formats.describe()}")


def _together(path: Path) -> str:
    """Return which kind of set a captions file is part of by its name, or "" when it stands alone."""
    if path.name.lower() in METADATA_FILES:
        return METADATA
    return COCO if COCO_NAME.fullmatch(path.name) else ""


def _single(folder: Path, paths: list[Path]) -> Path:
    """Return the only file, or the first of several with one content."""
    if len(paths) > 1 and len({path.read_bytes() for path in paths}) > 1:
        raise _several(folder, paths)
    return paths[0]


def _one_set(folder: Path, paths: list[Path]) -> list[Path]:
    """Return the files of one data set: COCO's has one for each split, in one folder, an image folder one format."""
    if _together(paths[0]) == COCO:
        fits = len({splits.named_in(path.stem) for path in paths}) == len(paths) and len({p.parent for p in paths}) == 1
    else:
        fits = len({path.suffix.lower() for path in paths}) == 1
    if not fits:
        raise _several(folder, paths)
    return paths


def _several(folder: Path, paths: Sequence[Path]) -> DataError:
    choices = shorten([str(path.relative_to(folder)) for path in paths])
    return DataError(
        f"{folder} has several captions files ({choices}); name one with captions_file, or move those that are not "
        "meant out of the folder"
    )
