"""Labelled images: a folder of images with a captions file becomes a data set.

Knows where captions files and images lie in the folders that people download, and counts all that does not
fit. Refuses to know pixels and words; caption formats are formats.py's, splits are splits.py's.
"""

import json
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Self

from lcm.data import formats, splits
from lcm.errors import DataError

# Files of known data sets, the preferred first; any other name is found by its content.
KNOWN_CAPTION_FILES = ("captions.txt", "flickr8k.token.txt", "results.csv", "results_20130124.token", "captions.tsv")
CAPTION_SUFFIXES = (".txt", ".csv", ".tsv", ".token")
NAMES_SHOWN = 5  # of a list of file names in a message
# What ReadReport counts, and of what it also keeps the names.
COUNTS = ("rows", "repaired_rows", "unreadable_rows", "empty_captions")
LISTS = ("missing_images", "images_without_captions", "ambiguous_images", "images_in_no_split")


@dataclass(frozen=True)
class LabelledImage:
    """An image with its captions."""

    image_id: str  # its name in the captions file
    path: Path
    split: str  # train, dev or test; empty: the official lists do not name it
    captions: tuple[str, ...]  # as written, at least one


@dataclass(frozen=True)
class ReadReport:
    """What was read and what did not fit; nothing is left out without being counted here."""

    captions_file: str
    format: str
    rows: int = 0
    repaired_rows: int = 0  # a separator was missing, and it was clear where
    unreadable_rows: int = 0
    empty_captions: int = 0
    missing_images: tuple[str, ...] = ()  # names with captions but no image file
    images_without_captions: tuple[str, ...] = ()  # image files that no caption names
    ambiguous_images: tuple[str, ...] = ()  # names that fit several image files; the shortest path was taken
    images_in_no_split: tuple[str, ...] = ()  # the official lists do not name them
    split_rule: str = ""  # how the images got their splits

    def as_metrics(self) -> dict[str, int | str]:
        """Return the counts under the keys that metrics.json uses."""
        return {
            "captions_file": self.captions_file,
            "captions_format": self.format,
            "split_rule": self.split_rule,
            **{name: getattr(self, name) for name in COUNTS},
            **{name: len(getattr(self, name)) for name in LISTS},
        }

    def __str__(self) -> str:
        counts = [f"{name}: {value}" for name, value in self.as_metrics().items()]
        lists = ((name, getattr(self, name)) for name in LISTS)
        named = [f"  {name.replace('_', ' ')}: {shorten(names)}" for name, names in lists if names]
        return "\n".join(counts + named)


@dataclass(frozen=True)
class Dataset:
    """Labelled images in the order of the captions file."""

    images: tuple[LabelledImage, ...]
    report: ReadReport = field(default_factory=lambda: ReadReport("", ""))

    @property
    def paths(self) -> dict[str, Path]:
        """The file of each image, by image_id."""
        return {image.image_id: image.path for image in self.images}

    def without(self, image_ids: Collection[str]) -> Self:
        """Return the data set without some images, such as those that turned out to be unreadable."""
        return replace(self, images=tuple(image for image in self.images if image.image_id not in image_ids))

    def of(self, split: str) -> list[LabelledImage]:
        """Return the images of one split; raises DataError for an unknown one."""
        if split not in splits.SPLITS:
            raise DataError(f"unknown split {split!r}; choose from {', '.join(splits.SPLITS)}")
        return [image for image in self.images if image.split == split]

    def captions_of(self, split: str) -> list[str]:
        """Return all captions of one split."""
        return [caption for image in self.of(split) for caption in image.captions]

    def save(self, path: Path) -> None:
        """Write the images as one JSON object a line."""
        with path.open("w", encoding="utf-8") as lines:
            for image in self.images:
                record = {"image_id": image.image_id, "path": str(image.path), "split": image.split}
                lines.write(json.dumps(record | {"captions": image.captions}, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote (the report is not in it)."""
        if not path.exists():
            raise DataError(f"{path} is not there; run 01_prepare for this run folder first")
        records = (json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line)
        return cls(
            tuple(LabelledImage(r["image_id"], Path(r["path"]), r["split"], tuple(r["captions"])) for r in records)
        )


def shorten(names: Sequence[str]) -> str:
    """Return the first names and how many more there are, for a message that any terminal can print."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    # A file name need not be text: Python reads its other bytes as surrogates, which print() refuses.
    return ", ".join(names[:NAMES_SHOWN]).encode("utf-8", "backslashreplace").decode() + more


def read_dataset(folder: Path, captions_file: str = "") -> Dataset:
    """Read a folder of images with a captions file, wherever in it they lie, and give each image its split.

    `captions_file` names the file inside the folder when its content is not enough to find it.
    Raises DataError when there is no folder, no captions file, or fewer than two images with captions.
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; data_dir is a folder with images and a captions file, or 'sample'")
    captions_path = _find_captions_file(folder, captions_file)
    format_name, rows = formats.parse(captions_path)
    captions: dict[str, list[str]] = {}  # an image whose captions are all empty is named too
    for row in filter(None, rows):
        captions.setdefault(row.name, []).extend(filter(None, [row.caption]))
    found = _find_images(folder, captions_path.parent, captions)
    images = [LabelledImage(name, found.paths[name], "", tuple(captions[name])) for name in found.paths]
    images = [image for image in images if image.captions]
    if len(images) < 2:
        raise DataError(
            f"{folder} holds {len(images)} image{'s' * (len(images) != 1)} with captions, and training needs two at "
            f"least; {captions_path.name} names {len(captions)}, of which {len(found.missing)} have no image file"
        )
    names = [image.image_id for image in images]
    split_of, note = splits.assign(names, splits.read_lists(folder))
    images = [replace(image, split=split_of[image.image_id]) for image in images]
    report = ReadReport(
        captions_file=str(captions_path.relative_to(folder)),
        format=format_name,
        rows=len(rows),
        repaired_rows=sum(row.repaired for row in rows if row),
        unreadable_rows=rows.count(None),
        empty_captions=sum(not row.caption for row in rows if row),
        missing_images=found.missing,
        images_without_captions=found.without_captions,
        ambiguous_images=found.ambiguous,
        images_in_no_split=tuple(image.image_id for image in images if not image.split),
        split_rule=note,
    )
    return Dataset(tuple(images), report)


def _find_captions_file(folder: Path, captions_file: str) -> Path:
    """Return the captions file of a data set: the one named, else a known name, else the only one by content.

    Copies of one file count as one: Kaggle's Flickr30k holds everything twice.
    """
    if captions_file:
        path = Path(os.path.normpath(folder / captions_file))
        if not path.is_file() or not path.is_relative_to(folder):
            raise DataError(f"{folder} has no captions file {captions_file!r}; name one inside the folder")
        return path
    texts = formats.find_files(folder, CAPTION_SUFFIXES)
    fitting = [path for path in texts if formats.detect(formats.read_lines(path))]
    known = ([path for path in fitting if path.name.lower() == name] for name in KNOWN_CAPTION_FILES)
    fitting = next(filter(None, known), fitting)
    if len({path.read_bytes() for path in fitting}) == 1:
        return fitting[0]
    if fitting:
        choices = shorten([str(path.relative_to(folder)) for path in fitting])
        raise DataError(f"{folder} has several captions files ({choices}); name one with captions_file")
    seen = shorten([path.name for path in texts]) or "no text file at all"
    raise DataError(f"{folder} has no captions file (found {seen}). Formats:\n{formats.describe()}")


@dataclass(frozen=True)
class _FoundImages:
    paths: dict[str, Path]  # name in the captions file -> file, in the order of the captions file
    missing: tuple[str, ...]
    ambiguous: tuple[str, ...]
    without_captions: tuple[str, ...]


def _find_images(folder: Path, captions_folder: Path, names: Iterable[str]) -> _FoundImages:
    """Find the file of each name; a file that several names can only mean by their last parts is none of theirs."""
    files = formats.find_files(folder, formats.IMAGE_SUFFIXES)
    by_last_part: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        by_last_part[_parts(path)[-1]].append(path)
    places = {name: _places(name, captions_folder, by_last_part) for name in names}
    claims = Counter(found[0] for found in places.values() if found)
    paths = {
        name: found[0]
        for name, found in places.items()
        if found and (claims[found[0]] == 1 or _ends_with(found[0], name))
    }
    ambiguous = tuple(name for name in paths if len(places[name]) > 1)
    used = {*paths.values(), *(path for name in ambiguous for path in places[name])}
    return _FoundImages(
        paths,
        missing=tuple(name for name in places if name not in paths),
        ambiguous=ambiguous,
        without_captions=tuple(str(path.relative_to(folder)) for path in files if path not in used),
    )


def _places(name: str, captions_folder: Path, by_last_part: dict[str, list[Path]]) -> list[Path]:
    """Return the files that a name can mean: at its path from the captions file, else at the end of any path.

    Where no path ends with the whole name, its last part is enough: folders are often moved.
    """
    exact = Path(os.path.normpath(captions_folder / name))
    places = by_last_part.get(_parts(exact)[-1], [])
    return [exact] if exact in places else [path for path in places if _ends_with(path, name)] or places


def _ends_with(path: Path, name: str) -> bool:
    parts = _parts(PurePath(name))
    return _parts(path)[-len(parts) :] == parts


def _parts(path: PurePath) -> tuple[str, ...]:
    """Return the parts of a path, composed (NFC): macOS writes the é of a file name as two characters."""
    return PurePath(unicodedata.normalize("NFC", str(path))).parts
