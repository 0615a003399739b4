"""Data sets: a folder of images with captions files, an address, or the generated sample becomes labelled images.

What does not fit is counted in the report, never dropped in silence.
"""

import json
import os
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path, PurePath, PurePosixPath
from typing import Self

from lcm.config import BASE, SAMPLE
from lcm.data import formats, splits
from lcm.data.files import IMAGE_SUFFIXES, find_files, shorten, with_suffix
from lcm.data.formats import COCO_NAME, FORMATS, CaptionFile
from lcm.data.remote import fetch, without_login
from lcm.data.sample import generate
from lcm.errors import ConfigError, DataError
from lcm.paths import home

# Files of known data sets, the preferred first; any other name is found by its content.
KNOWN_CAPTION_FILES = (
    *("captions.txt", "flickr8k.token.txt", "results.csv", "results_20130124.token", "captions.tsv"),
    "dataset_*.json",
)
COCO, METADATA = "coco", "metadata"  # sets of captions files that are read together
METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
# What ReadReport counts, and of what it also keeps the names.
COUNTS = ("rows", "repaired_rows", "unreadable_rows", "empty_captions")
LISTS = ("missing_images", "images_without_captions", "ambiguous_images", "images_in_no_split")
CAPTION_SUFFIXES = (".txt", ".csv", ".tsv", ".token", ".json", ".jsonl", ".parquet")


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
    counts: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(COUNTS, 0)))


def read_caption_files(folder: Path, caption_files: Sequence[CaptionFile]) -> Labels:
    """Read captions files of a folder as one data set.

    Where they say no more than one split, they say none: one file of COCO's is not split. Raises DataError for a file
    that cannot be read, and for an image in two splits.
    """
    labels = Labels()
    for caption_file in caption_files:
        _add(labels, folder, caption_file)
    if len(set(labels.splits.values())) < 2:
        labels.splits.clear()
    return labels


def _add(labels: Labels, folder: Path, caption_file: CaptionFile) -> None:
    path = caption_file.path
    relative = PurePosixPath(path.relative_to(folder).as_posix())
    name, rows = caption_file.read()
    known = FORMATS[name]
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
    labels.counts["rows"] += len(rows)
    labels.counts["repaired_rows"] += sum(row.repaired for row in rows if row)
    labels.counts["unreadable_rows"] += rows.count(None)
    labels.counts["empty_captions"] += sum(not row.caption for row in rows if row)


def find_caption_files(folder: Path, files: Sequence[Path], captions_file: str) -> list[CaptionFile]:
    """Return the captions files among the files of a folder: the one named, else known names, else by content.

    Copies of one file count as one: Kaggle's Flickr30k holds everything twice. COCO has one file for each split, an
    image folder one in each of its folders. Raises DataError when there is none, or several that are not one data set.
    """
    if captions_file:
        path = Path(os.path.normpath(folder / captions_file))
        if not path.is_file() or not path.is_relative_to(folder):
            raise DataError(f"{folder} has no captions file {captions_file!r}; name one inside the folder")
        return [CaptionFile(path)]
    texts = [CaptionFile(path) for path in with_suffix(files, CAPTION_SUFFIXES)]
    named = [[text for text in texts if fnmatch(text.path.name.lower(), name)] for name in KNOWN_CAPTION_FILES]
    for candidates in named:
        if fitting := [text for text in candidates if text.format]:
            return [_single(folder, fitting)]
    sets = [[text for text in texts if _together(text.path) == kind] for kind in (COCO, METADATA)]
    for candidates in sets:
        if any(text.format for text in candidates):  # the others are read too: what is wrong with them must be said
            return _one_set(folder, candidates)
    if fitting := [text for text in texts if text.format]:
        return [_single(folder, fitting)]
    for text in [text for candidates in named + sets for text in candidates]:
        text.read()  # says what is wrong with a file that should be one
    seen = shorten([text.path.name for text in texts]) or "no text file at all"
    raise DataError(f"{folder} has no captions file (found {seen}). Formats:\n{formats.describe()}")


def _together(path: Path) -> str:
    """Return which kind of set a captions file is part of by its name, or "" when it stands alone."""
    if path.name.lower() in METADATA_FILES:
        return METADATA
    return COCO if COCO_NAME.fullmatch(path.name) else ""


def _single(folder: Path, candidates: list[CaptionFile]) -> CaptionFile:
    """Return the only file, or the first of several with one content."""
    if len({text.text for text in candidates}) > 1:
        raise _several(folder, candidates)
    return candidates[0]


def _one_set(folder: Path, candidates: list[CaptionFile]) -> list[CaptionFile]:
    """Return the files of one data set: COCO's has one for each split, in one folder, an image folder one format."""
    paths = [text.path for text in candidates]
    if _together(paths[0]) == COCO:
        fits = len({splits.named_in(path.stem) for path in paths}) == len(paths) and len({p.parent for p in paths}) == 1
    else:
        fits = len({path.suffix.lower() for path in paths}) == 1
    if not fits:
        raise _several(folder, candidates)
    return candidates


def _several(folder: Path, candidates: Sequence[CaptionFile]) -> DataError:
    choices = shorten([str(text.path.relative_to(folder)) for text in candidates])
    return DataError(
        f"{folder} has several captions files ({choices}); name one with captions_file, or move those that are not "
        "meant out of the folder"
    )


@dataclass(frozen=True)
class FoundImages:
    """The names of a data set that have a file, those that have none, and the files that have no name."""

    paths: dict[str, Path]  # image_id -> file, in the order of the captions file
    missing: tuple[str, ...]
    ambiguous: tuple[str, ...]
    without_captions: tuple[str, ...]


def find_images(folder: Path, files: Sequence[Path], names: dict[str, Place]) -> FoundImages:
    """Find the file of each name; a file that several names mean by their last parts alone is left out."""
    images = with_suffix(files, IMAGE_SUFFIXES)
    by_last_part: dict[str, list[Path]] = defaultdict(list)
    for path in images:
        by_last_part[_composed(path.name)].append(path)
    places = {name: _places(folder, name, place, by_last_part) for name, place in names.items()}
    claims = Counter(found[0] for found in places.values() if found)
    paths = {
        name: found[0]
        for name, found in places.items()
        if found and (claims[found[0]] == 1 or _ends_with(found[0], name))
    }
    ambiguous = tuple(name for name in paths if len(places[name]) > 1)
    used = {*paths.values(), *(path for name in ambiguous for path in places[name])}
    return FoundImages(
        paths,
        missing=tuple(name for name in places if name not in paths),
        ambiguous=ambiguous,
        without_captions=tuple(str(path.relative_to(folder)) for path in images if path not in used),
    )


def _places(folder: Path, name: str, place: Place, by_last_part: dict[str, list[Path]]) -> list[Path]:
    """Return the files that a name can mean: at its place, else at the end of any path.

    Where no path ends with the whole name, its last part is enough: folders are often moved. Only a file in a folder of
    another split is another image.
    """
    places = by_last_part.get(_composed(PurePath(name).name), [])
    if place.path in places:
        return [place.path]
    if place.only:
        return [path for path in places if _composed(str(path)) == _composed(str(place.path))]
    ending = [path for path in places if _ends_with(path, name)]
    return ending or [path for path in places if not _in_other_split(path.relative_to(folder), PurePath(name))]


def _in_other_split(path: PurePath, name: PurePath) -> bool:
    """Whether the folders of a file and of a name say two splits, as in val/1.jpg and train/1.jpg."""
    found, wanted = splits.named_in_path(path.parent), splits.named_in_path(name.parent)
    return bool(found and wanted) and found != wanted


def _ends_with(path: PurePath, name: str) -> bool:
    return f"/{_composed(path.as_posix())}".endswith(f"/{_composed(PurePath(name).as_posix())}")


def _composed(name: str) -> str:
    """Return a name in NFC: macOS writes the é of a file name as two characters."""
    return unicodedata.normalize("NFC", name)


CONTRIBUTED = re.compile("contributions/[0-9a-f]{64}")  # image_ids; a base data set may have a folder of that name


@dataclass(frozen=True)
class LabelledImage:
    """An image with its captions."""

    image_id: str  # its name in the captions file; with the folder where two of them may hold one name
    path: Path
    split: str  # train, dev or test; empty: the official lists do not name it
    captions: tuple[str, ...]  # as written, at least one

    @property
    def is_contributed(self) -> bool:
        """Whether a user of the service sent it, which its image_id tells."""
        return CONTRIBUTED.fullmatch(self.image_id) is not None


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
    labels = read_caption_files(folder, find_caption_files(folder, files, captions_file))
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
    report = ReadReport(
        captions_file=shorten([*labels.formats]),
        format=", ".join(dict.fromkeys(labels.formats.values())),
        **labels.counts,
        missing_images=found.missing,
        images_without_captions=found.without_captions,
        ambiguous_images=found.ambiguous,
        images_in_no_split=tuple(image.image_id for image in images if not image.split),
        split_rule=note,
    )
    return Dataset(tuple(images), report)


VARIABLE = "LCM_DATASET_URL"  # what "base" stands for: a folder or an address


def resolve(data_dir: str) -> str:
    """Return the folder, the address or the "sample" that `data_dir` means: that of LCM_DATASET_URL for "base"."""
    return data_dir if data_dir != BASE else os.environ.get(VARIABLE, "").strip() or SAMPLE


def load_dataset(data_dir: str, captions_file: str = "") -> Dataset:
    """Return the data set of a folder, of an address, whose files are fetched into the cache, or of "sample".

    The sample is drawn on first use; where it stands in for the base data set, stderr says so. Raises DataError when
    there is no data set, ConfigError for an address that cannot be used.
    """
    place = resolve(data_dir)
    if "://" in place:
        return _load_remote(place, VARIABLE if data_dir == BASE else "data_dir", captions_file)
    if place != SAMPLE:
        return read_dataset(Path(place), captions_file)
    if data_dir == BASE:
        print(
            f"lcm: {VARIABLE} is not set, so the generated sample stands in for the base data set; a model that is "
            "trained on it is never published",
            file=sys.stderr,
        )
    return read_dataset(generate(home() / "raw" / SAMPLE), captions_file)


def _load_remote(url: str, setting: str, captions_file: str) -> Dataset:
    if setting != VARIABLE and without_login(url) != url:
        raise ConfigError(
            f"{setting} may not hold credentials, for the notebooks of a run show it; set {VARIABLE} to the address, "
            f"and {setting} to {BASE!r}"
        )
    folder = fetch(url, setting)
    try:
        return read_dataset(folder, captions_file)
    except DataError as error:
        raise DataError(f"{without_login(url)}: {error}") from error


def source_name(data_dir: str) -> str:
    """Return what a bundle says of where its data came from: the folder's own name, never its path or credentials."""
    place = resolve(data_dir)
    if "://" not in place:
        return Path(place).expanduser().resolve().name
    shown = without_login(place)
    return PurePosixPath(shown.partition("://")[2]).name or shown.partition("://")[0]


def as_metrics(data_dir: str) -> dict[str, str | int]:
    """Return what metrics.json says of where the data came from."""
    return {"data_source": source_name(data_dir), "generated_data": int(resolve(data_dir) == SAMPLE)}
