"""Labelled images: a folder of images with captions files becomes a data set.

Knows what a data set is and counts all that does not fit. Refuses to know pixels and words; captions files are
caption_files.py's, image files places.py's, splits splits.py's.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from lcm.data import caption_files, splits
from lcm.data.caption_files import Labels
from lcm.data.files import find_files, shorten
from lcm.data.places import FoundImages, find_images
from lcm.errors import DataError

# What ReadReport counts, and of what it also keeps the names.
COUNTS = ("rows", "repaired_rows", "unreadable_rows", "empty_captions")
LISTS = ("missing_images", "images_without_captions", "ambiguous_images", "images_in_no_split")


@dataclass(frozen=True)
class LabelledImage:
    """An image with its captions."""

    image_id: str  # its name in the captions file; with the folder where two of them may hold one name
    path: Path
    split: str  # train, dev or test; empty: the official lists do not name it
    captions: tuple[str, ...]  # as written, at least one


@dataclass(frozen=True)
class ReadReport:
    """What was read and what did not fit; nothing is left out without being counted here."""

    captions_file: str
    format: str
    rows: int = 0
    repaired_rows: int = 0  # a separator or quotes were missing, and it was clear where
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


def read_dataset(folder: Path, captions_file: str = "") -> Dataset:
    """Read a folder of images with its captions files, wherever in it they lie, and give each image its split.

    `captions_file` names the file inside the folder when its content is not enough to find it.
    Raises DataError when there is no folder, no captions file, or fewer than two images with captions.
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder; data_dir is a folder or an address (such as s3://bucket/folder) with images "
            "and a captions file, or 'sample', or 'base'"
        )
    files = find_files(folder)
    labels = caption_files.read(folder, caption_files.find(folder, files, captions_file))
    found = find_images(folder, files, labels.places)
    images = [LabelledImage(name, path, "", tuple(labels.captions[name])) for name, path in found.paths.items()]
    images = [image for image in images if image.captions]
    if len(images) < 2:
        raise DataError(
            f"{folder} holds {len(images)} image{'s' * (len(images) != 1)} with captions, and training needs two at "
            f"least; {shorten([*labels.formats])} names {len(labels.captions)}, of which {len(found.missing)} have no "
            "image file"
        )
    names = [image.image_id for image in images]
    split_of, note = splits.assign(names, labels.splits, splits.read_lists(files))
    images = [replace(image, split=split_of[image.image_id]) for image in images]
    return Dataset(tuple(images), _report(labels, found, images, note))


def _report(labels: Labels, found: FoundImages, images: list[LabelledImage], note: str) -> ReadReport:
    return ReadReport(
        captions_file=shorten([*labels.formats]),
        format=", ".join(dict.fromkeys(labels.formats.values())),
        rows=labels.rows,
        repaired_rows=labels.repaired_rows,
        unreadable_rows=labels.unreadable_rows,
        empty_captions=labels.empty_captions,
        missing_images=found.missing,
        images_without_captions=found.without_captions,
        ambiguous_images=found.ambiguous,
        images_in_no_split=tuple(image.image_id for image in images if not image.split),
        split_rule=note,
    )
