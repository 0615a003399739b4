"""Labelled images: a folder of images with a captions file becomes a data set.

Knows where captions files and images lie in the folders that people download, and counts all that does not
fit. Refuses to know pixels and words; caption formats are formats.py's, splits are splits.py's.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Self

from lcm.data import formats, splits
from lcm.errors import DataError

# Files of known data sets, the preferred first; any other name is found by its content.
KNOWN_CAPTION_FILES = ("captions.txt", "flickr8k.token.txt", "results.csv", "results_20130124.token", "captions.tsv")
CAPTION_SUFFIXES = (".txt", ".csv", ".tsv", ".token")
NAMES_SHOWN = 5  # of a list of file names in a message


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
    ambiguous_images: tuple[str, ...] = ()  # names that several folders hold; the shortest path was taken
    images_in_no_split: tuple[str, ...] = ()  # the official lists do not name them
    split_rule: str = ""  # how the images got their splits

    def as_metrics(self) -> dict[str, int | str]:
        """Return the counts under the keys that metrics.json uses."""
        lists = ("missing_images", "images_without_captions", "ambiguous_images", "images_in_no_split")
        counts = ("rows", "repaired_rows", "unreadable_rows", "empty_captions")
        return {
            "captions_file": self.captions_file,
            "captions_format": self.format,
            "split_rule": self.split_rule,
            **{name: getattr(self, name) for name in counts},
            **{name: len(getattr(self, name)) for name in lists},
        }

    def __str__(self) -> str:
        lines = [f"{name}: {value}" for name, value in self.as_metrics().items()]
        for name in ("missing_images", "images_without_captions", "ambiguous_images", "images_in_no_split"):
            if names := getattr(self, name):
                lines.append(f"  {name.replace('_', ' ')}: {shorten(names)}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Dataset:
    """Labelled images in the order of the captions file."""

    images: tuple[LabelledImage, ...]
    report: ReadReport = field(default_factory=lambda: ReadReport("", ""))

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
    """Return the first names and how many more there are, for a message."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def read_dataset(folder: Path, captions_file: str = "") -> Dataset:
    """Read a folder of images with a captions file, wherever in it they lie, and give each image its split.

    `captions_file` names the file inside the folder when its content is not enough to find it.
    Raises DataError when there is no folder, no captions file, or fewer than two images with captions.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; data_dir is a folder with images and a captions file, or 'sample'")
    captions_path = _find_captions_file(folder, captions_file)
    format_name, rows = formats.parse(captions_path)
    captions: dict[str, list[str]] = defaultdict(list)
    for row in filter(None, rows):
        captions[row.name]  # noqa: B018 - an image whose captions are all empty is still named
        if row.caption:
            captions[row.name].append(row.caption)
    found = _find_images(folder, captions_path.parent, captions)
    images = [LabelledImage(name, found.paths[name], "", tuple(captions[name])) for name in found.paths]
    images = [image for image in images if image.captions]
    if len(images) < 2:
        raise DataError(
            f"{folder} holds {len(images)} image{'s' * (len(images) != 1)} with captions, and training needs two at "
            f"least; {captions_path.name} names {len(captions)}, of which {len(found.missing)} have no image file"
        )
    names = [image.image_id for image in images]
    split_of, note = splits.assign(names, splits.read_lists(folder, captions_path))
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
    """Return the captions file of a data set: the one named, else a known name, else the only one by content."""
    if captions_file:
        path = folder / captions_file
        if not path.is_file():
            raise DataError(f"{folder} has no captions file {captions_file!r}; name one inside the folder")
        return path
    texts = sorted(path for path in folder.rglob("*") if path.suffix.lower() in CAPTION_SUFFIXES and path.is_file())
    for name in KNOWN_CAPTION_FILES:
        for path in texts:
            if path.name.lower() == name:
                return path
    fitting = [path for path in texts if formats.detect(formats.read_lines(path))]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        choices = shorten([str(path.relative_to(folder)) for path in fitting])
        raise DataError(f"{folder} has several captions files ({choices}); name one with captions_file")
    known = "\n".join(f"  - {entry.description}" for entry in formats.FORMATS.values())
    seen = shorten([path.name for path in texts]) or "no text file at all"
    raise DataError(f"{folder} has no captions file (found {seen}). Formats:\n{known}")


@dataclass(frozen=True)
class _FoundImages:
    paths: dict[str, Path]  # name in the captions file -> file, in the order of the captions file
    missing: tuple[str, ...]
    ambiguous: tuple[str, ...]
    without_captions: tuple[str, ...]


def _find_images(folder: Path, captions_folder: Path, names: Iterable[str]) -> _FoundImages:
    """Find each named image: at its path from the captions file, else by its bare name anywhere in the folder."""
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*"), key=lambda path: (len(path.parts), path)):
        if path.suffix.lower() in formats.IMAGE_SUFFIXES and path.is_file():
            by_name[path.name].append(path)
    paths, missing, ambiguous = {}, [], []
    for name in names:
        places = by_name.get(PurePosixPath(name).name, [])
        exact = captions_folder / name
        if exact in places:
            paths[name] = exact
        elif places:
            paths[name] = places[0]
            if len(places) > 1:
                ambiguous.append(name)
        else:
            missing.append(name)
    named = {path.name for path in paths.values()}
    without = [str(places[0].relative_to(folder)) for name, places in by_name.items() if name not in named]
    return _FoundImages(paths, tuple(missing), tuple(ambiguous), tuple(without))
