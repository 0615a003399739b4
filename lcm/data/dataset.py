"""Data sets: a folder of images with captions files, an address, or the generated sample becomes labelled images.

What does not fit is counted in the report, never dropped in silence.
"""

import hashlib
import json
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Self

from lcm.config import BASE, SAMPLE
from lcm.data import formats, splits
from lcm.data.files import IMAGE_SUFFIXES, find_files, shorten, with_suffix
from lcm.data.formats import COCO_NAME, FORMATS, CaptionFile
from lcm.data.names import Meaning, Names
from lcm.data.remote import fetch, without_login
from lcm.data.sample import generate
from lcm.data.text import ENGLISH, detect_language, language_code
from lcm.errors import ConfigError, DataError
from lcm.paths import home

CAPTION_SUFFIXES = (".txt", ".csv", ".tsv", ".token", ".json", ".jsonl", formats.PARQUET)
METADATA_NAME = re.compile(r"metadata\.(csv|jsonl|parquet)", re.IGNORECASE)
# Files of known data sets, the preferred first; any other name is found by its content.
KNOWN_NAMES = (
    *(r"captions\.txt", r"flickr8k\.token\.txt", r"results\.csv", r"results_20130124\.token", r"captions\.tsv"),
    *(splits.KARPATHY_NAME.pattern, COCO_NAME.pattern, METADATA_NAME.pattern),
)
OWN_NAME = "custom_captions.txt"  # one's own pairs, beside the captions file of a data set and read with it


# captions.fr.txt: the captions of captions.txt, or of captions.de.tsv, in French.
TRANSLATED_NAME = re.compile(r"(?P<stem>.+)\.(?P<language>[a-z]{2})(?P<suffix>\.[^.]+)", re.IGNORECASE)


@dataclass
class Labels:
    """What the captions files of a data set say, all of them together; each dictionary is by the image's name."""

    captions: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # language and text; perhaps none
    places: dict[str, str] = field(default_factory=dict)  # the path in the data set that the name means first
    are_paths: bool = False  # a file of an image's name elsewhere is another image's
    splits: dict[str, str] = field(default_factory=dict)  # where the files say so
    rows: list[formats.Row | None] = field(default_factory=list)
    own: set[str] = field(default_factory=set)  # names in OWN_NAME, which official lists do not know
    detected: set[str] = field(default_factory=set)  # languages that nothing but the words of a file tell
    languages: dict[Path, str] = field(default_factory=dict)  # of a file's captions that name none


def read_caption_files(folder: Path, caption_files: Sequence[CaptionFile], language: str = "") -> Labels:
    """Read captions files of a folder as one data set.

    Captions are in `language`, else in the one that a row or its file's name says, else in what most of the file's
    words are known in. Where they say no more than one split, they say none: one file of COCO's is not split. Raises
    DataError for a file that cannot be read, and for an image in two splits.
    """
    labels, unnamed = Labels(), defaultdict(list)
    read = [(caption_file, caption_file.read()) for caption_file in caption_files]
    for caption_file, rows in read if not language else ():
        if not _language_in(caption_file.path):
            unnamed[_together(caption_file)] += [row.caption for row in rows if row and not row.language]
    detected = {group: detect_language(texts) for group, texts in unnamed.items() if texts}
    labels.detected = {*detected.values()} - {""}
    for caption_file, rows in read:
        relative = PurePosixPath(caption_file.path.relative_to(folder).as_posix())
        known = FORMATS[caption_file.format]
        is_metadata = METADATA_NAME.fullmatch(relative.name)
        split_of_file = splits.named_in_path(relative) if is_metadata or COCO_NAME.fullmatch(relative.name) else ""
        labels.rows += rows
        if relative.name.lower() == OWN_NAME:
            labels.own |= {known.image_id(relative, row.name) for row in filter(None, rows)}
        of_words = detected.get(_together(caption_file)) or ENGLISH
        labels.languages[caption_file.path] = its_language = language or _language_in(caption_file.path) or of_words
        labels.are_paths = known.image_id is formats.beside
        for row in filter(None, rows):
            name, place = known.image_id(relative, row.name), formats.beside(relative, row.name)
            labels.places.setdefault(name, place)
            code = language or language_code(row.language) or its_language
            labels.captions.setdefault(name, []).extend([(code, row.caption)] if row.caption else [])
            of_folder = splits.named_in_path(PurePosixPath(place).parent) if is_metadata else ""
            if split := row.split or of_folder or split_of_file:
                splits.put(labels.splits, name, split, "the captions files put")
    if len(set(labels.splits.values())) < 2:
        labels.splits.clear()
    return labels


def _together(caption_file: CaptionFile) -> str:
    """Return what files of one language share: one caption beside a photo says too little."""
    return formats.BESIDE if caption_file.format == formats.BESIDE else str(caption_file.path)


def find_caption_files(folder: Path, files: Sequence[Path], captions_file: str) -> list[CaptionFile]:
    """Return a folder's captions files: the one named, else a known name, else by content, else texts beside images.

    Copies of one file count as one: Kaggle's Flickr30k holds everything twice. COCO has one file for each split, an
    image folder one in each of its folders; any file may lie in several languages, one a file. Raises DataError when
    there is none, or several that are not one data set.
    """
    if captions_file:
        path = Path(os.path.normpath(folder / captions_file))
        if not path.is_file() or not path.is_relative_to(folder):
            raise DataError(f"{folder} has no captions file {captions_file!r}; name one inside the folder")
        return [CaptionFile(path)]
    others: dict[Path, list[CaptionFile]] = {}  # by the file without its suffixes: the same in further languages
    texts: list[CaptionFile] = []
    for path in sorted(with_suffix(files, CAPTION_SUFFIXES), key=lambda path: bool(_language_in(path))):
        if _language_in(path) and _stem(path) in others:
            others[_stem(path)].append(CaptionFile(path))
        else:
            others.setdefault(_stem(path), [])
            texts.append(CaptionFile(path))
    own = [text for text in texts if text.path.name.lower() == OWN_NAME and text.format]
    known = [
        [text for text in texts if re.fullmatch(pattern, _stem(text.path).name + text.path.suffix, re.IGNORECASE)]
        for pattern in KNOWN_NAMES
    ]
    for candidates in [*known, [text for text in texts if text not in own], own]:
        if any(text.format for text in candidates):
            found = _one_data_set(folder, candidates) + [text for text in own if text not in candidates]
            return found + [text for one in found for text in others[_stem(one.path)] if text.format]
    image_of = {path.with_suffix(""): path for path in with_suffix(files, IMAGE_SUFFIXES)}
    if beside := [path for path in with_suffix(files, (".txt",)) if path.with_suffix("") in image_of]:
        return [CaptionFile(path, image_of[path.with_suffix("")]) for path in beside]
    for candidates in filter(None, known):
        candidates[0].read()  # says what is wrong with a file that should be one
    seen = shorten([text.path.name for text in texts]) or "no text file at all"
    raise DataError(f"{folder} has no captions file (found {seen}). Formats:\n{formats.describe()}")


def _stem(path: Path) -> Path:
    named = TRANSLATED_NAME.fullmatch(path.name)
    return path.with_name(named["stem"] if named else path.stem)


def _language_in(path: Path) -> str:
    named = TRANSLATED_NAME.fullmatch(path.name)
    return named["language"].lower() if named else ""


def _one_data_set(folder: Path, candidates: list[CaptionFile]) -> list[CaptionFile]:
    """Return the files of one data set: COCO's has one for each split, in one folder, an image folder one format.

    Of a set the files in no format count too, for what is wrong with them must be said. Any other file stands alone.
    """
    paths = [text.path for text in candidates]
    if all(COCO_NAME.fullmatch(path.name) for path in paths):
        fits = len({splits.named_in(path.stem) for path in paths}) == len(paths) and len({p.parent for p in paths}) == 1
    elif all(METADATA_NAME.fullmatch(path.name) for path in paths):
        fits = len({path.suffix.lower() for path in paths}) == 1
    else:
        candidates = [text for text in candidates if text.format]
        if len({text.text for text in candidates}) == 1:
            return candidates[:1]
        fits = False
    if not fits:
        choices = shorten([str(text.path.relative_to(folder)) for text in candidates])
        raise DataError(
            f"{folder} has several captions files ({choices}); name one with captions_file, or move those that are not "
            "meant out of the folder"
        )
    return candidates


def find_images(folder: Path, files: Sequence[Path], labels: Labels) -> tuple[dict[Path, list[str]], dict[str, tuple]]:
    """Return file -> the names that mean it, in the order of the captions files, and what does not fit, as ReadReport.

    A name means the file at its place, else one that Names finds; only one in a folder of another split is another
    image. A file that several names mean, but none of them exactly, is left out.
    """
    images = with_suffix(files, IMAGE_SUFFIXES)
    names = Names(folder, images)
    fitting: dict[tuple[int, str], list[Path]] = {}  # what is left of the choices, which many names share, by split
    found: dict[str, Meaning] = {}
    for name, place in labels.places.items():
        meaning = names.at(place) or (Meaning() if labels.are_paths else names.find(name))
        if not meaning.is_exact and (split := _split_of_folder(PurePath(name))):
            key = id(meaning.files), split
            if key not in fitting:
                others = ((path, _split_of_folder(path.relative_to(folder))) for path in meaning.files)
                fitting[key] = [path for path, its in others if its in ("", split)]
            meaning = meaning._replace(files=fitting[key])
        found[name] = meaning
    named: dict[Path, list[str]] = defaultdict(list)
    for name, meaning in found.items():
        if meaning.files:
            named[meaning.files[0]].append(name)
    for path, its in named.items():
        if len(its) > 1:
            named[path] = [name for name in its if found[name].is_exact and len(found[name].files) == 1]
    named = {path: its for path, its in named.items() if its}
    kept = {name for its in named.values() for name in its}
    ambiguous = tuple(name for name in found if name in kept and len(found[name].files) > 1)
    choices = {id(found[name].files): found[name].files for name in ambiguous}.values()
    used = named.keys() | {path for files in choices for path in files}
    return named, {
        "missing_images": tuple(name for name in found if name not in kept),
        "images_without_captions": tuple(str(path.relative_to(folder)) for path in images if path not in used),
        "ambiguous_images": ambiguous,
        "other_names": tuple(name for its in named.values() for name in its[1:]),
    }


def _split_of_folder(path: PurePath) -> str:
    """Return the split that the folders of a path say, as in val/1.jpg, or ""."""
    return splits.named_in_path(path.parent)


def _content(image: tuple[str, Path]) -> str:
    """Return the sha256 of a picture's bytes; where there are none, its name stands for them."""
    image_id, path = image
    with suppress(OSError):
        if data := path.read_bytes():
            return hashlib.sha256(data).hexdigest()
    return hashlib.sha256(image_id.encode("utf-8", "backslashreplace")).hexdigest()


CONTRIBUTED = re.compile("contributions/[0-9a-f]{64}")  # image_ids; a base data set may have a folder of that name


@dataclass(frozen=True)
class LabelledImage:
    """An image with its captions."""

    image_id: str  # its name in the captions file; with the folder where two of them may hold one name
    path: Path
    split: str  # train, dev or test; empty: the official lists do not name it
    captions: tuple[str, ...]  # as written, at least one
    language: str = ENGLISH  # of its captions; an image with captions in two languages is there twice

    @property
    def is_contributed(self) -> bool:
        """Whether a user of the service sent it, which its image_id tells."""
        return CONTRIBUTED.fullmatch(self.image_id) is not None


@dataclass(frozen=True)
class ReadReport:
    """What was read and what did not fit; nothing is left out without being counted here."""

    captions_file: str = ""
    captions_format: str = ""
    split_rule: str = ""  # how the images got their splits
    caption_languages: str = ""  # with their numbers
    rows: int = 0
    repaired_rows: int = 0  # a separator or quotes were missing, and it was clear where
    unreadable_rows: int = 0
    empty_captions: int = 0
    missing_images: tuple[str, ...] = ()  # names with captions but no image file
    images_without_captions: tuple[str, ...] = ()  # image files that no caption names
    ambiguous_images: tuple[str, ...] = ()  # names that fit several image files; the shortest path was taken
    images_in_no_split: tuple[str, ...] = ()  # the official lists do not name them
    other_names: tuple[str, ...] = ()  # further names of an image, the captions of which it has
    copies: tuple[str, ...] = ()  # images with the picture of another one, the split of which they have
    moved_copies: tuple[str, ...] = ()  # copies and originals that had another split

    def as_metrics(self) -> dict[str, int | str]:
        """Return the counts under the keys that metrics.json uses."""
        return {name: len(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    def __str__(self) -> str:
        lines = [f"{self.captions_file} ({self.captions_format}): {self.rows} rows; splits: {self.split_rule}"]
        lines += [f"captions in: {self.caption_languages}"]
        for name, value in vars(self).items():
            if isinstance(value, tuple) and value:
                lines.append(f"{name.replace('_', ' ')}: {len(value)} ({shorten(value)})")
            elif isinstance(value, int) and value and name != "rows":
                lines.append(f"{name.replace('_', ' ')}: {value}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Dataset:
    """Labelled images in the order of the captions file."""

    images: tuple[LabelledImage, ...]
    report: ReadReport = field(default_factory=ReadReport)

    @property
    def paths(self) -> dict[str, Path]:
        """The file of each image, by image_id."""
        return {image.image_id: image.path for image in self.images}

    def without(self, image_ids: Collection[str]) -> Self:
        """Return the data set without some images, such as those that turned out to be unreadable."""
        return replace(self, images=tuple(image for image in self.images if image.image_id not in image_ids))

    def of(self, split: str, language: str = "") -> list[LabelledImage]:
        """Return the images of one split, with their captions in one language or once for each of its languages.

        Raises DataError for an unknown split.
        """
        if split not in splits.SPLITS:
            raise DataError(f"unknown split {split!r}; choose from {', '.join(splits.SPLITS)}")
        return [image for image in self.images if image.split == split and language in ("", image.language)]

    def captions_of(self, split: str) -> dict[str, list[str]]:
        """Return all captions of one split by language, that of the most images first."""
        images = self.of(split)
        languages = [language for language, _ in Counter(image.language for image in images).most_common()]
        return {
            language: [text for image in images if image.language == language for text in image.captions]
            for language in languages
        }

    def with_train_of(self, other: Self, name: str) -> Self:
        """Return the data set with the train images of another one, `name`; what that holds out takes no part."""
        known = self.paths
        more = [
            replace(image, image_id=f"{name}/{image.image_id}") if image.image_id in known else image
            for image in other.of("train")
        ]
        return replace(self, images=(*self.images, *more))

    def save(self, path: Path) -> None:
        """Write the images as one JSON object a line."""
        with path.open("w", encoding="utf-8") as lines:
            for image in self.images:
                lines.write(json.dumps(vars(image) | {"path": str(image.path)}, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote (the report is not in it)."""
        if not path.exists():
            raise DataError(f"{path} is not there; run 01_prepare for this run folder first")
        records = (json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line)
        fields = (one | {"path": Path(one["path"]), "captions": tuple(one["captions"])} for one in records)
        return cls(tuple(LabelledImage(**one) for one in fields))


def read_dataset(folder: Path, captions_file: str = "", language: str = "") -> Dataset:
    """Read a folder of images with its captions files, wherever in it they lie, and give each image its split.

    `captions_file` names the file inside the folder when its content is not enough to find it, `language` that of all
    captions where neither files nor words tell it.
    Raises DataError when there is no folder, no captions file, or fewer than two images with captions.
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder; data_dir is a folder or an address (such as s3://bucket/folder) with images "
            "and a captions file, or 'sample', or 'base'"
        )
    files = find_files(folder)
    caption_files = find_caption_files(folder, files, captions_file)
    labels = read_caption_files(folder, caption_files, language)
    names = shorten([text.path.relative_to(folder).as_posix() for text in caption_files])
    found, left_out = find_images(folder, files, labels)
    captions = {its[0]: tuple(text for name in its for text in labels.captions[name]) for its in found.values()}
    paths = {its[0]: path for path, its in found.items() if captions[its[0]]}
    if len(paths) < 2:
        raise DataError(
            f"{folder} holds {len(paths)} image{'s' * (len(paths) != 1)} with captions, and training needs two at "
            f"least; {names} names {len(labels.captions)}, of which {len(left_out['missing_images'])} have no image "
            "file"
        )
    moved = splits.keep_together(labels.splits, found.values())
    of_folders = {image_id: _split_of_folder(path.relative_to(folder)) for image_id, path in paths.items()}
    sources = {
        "as the captions files say": labels.splits,
        "official lists": {} if labels.splits else splits.find_listed(splits.read_lists(files), folder, paths),
        "by folder": of_folders if len({*of_folders.values()}) > 1 and all(of_folders.values()) else {},
    }
    with ThreadPoolExecutor() as pool:
        contents = dict(zip(paths, pool.map(_content, paths.items()), strict=True))
    split_of, rule = splits.assign(contents, sources)
    own = {name: splits.hash_split(contents[name]) for name in paths if name in labels.own and not split_of[name]}
    split_of |= own
    rule += f", and by hash for {len(own)} of {OWN_NAME}" * bool(own)
    groups: dict[str, list[str]] = defaultdict(list)
    for image_id, content in contents.items():
        groups[content].append(image_id)
    moved += splits.keep_together(split_of, groups.values())
    splits.check_train(split_of, rule)
    if "dev" not in split_of.values():
        rule += (
            f"; of the {len(paths)} images none is held out as dev, so nothing can say how good a model is on them: "
            "add photos, of which one in ten is held out, or write names of photos, one a line, into dev.txt, and the "
            "others into train.txt"
        )
    images = []
    for name, path in paths.items():
        for code in dict.fromkeys(code for code, _ in captions[name]):
            texts = tuple(text for its, text in captions[name] if its == code)
            images.append(LabelledImage(name, path, split_of[name], texts, code))
    counts = Counter(image.language for image in images for _ in image.captions)
    report = ReadReport(
        captions_file=names,
        captions_format=", ".join(dict.fromkeys(text.format for text in caption_files)),
        split_rule=rule,
        caption_languages=", ".join(
            f"{code}{' (detected)' * (code in labels.detected)} {count:,}" for code, count in counts.most_common()
        ),
        rows=len(labels.rows),
        repaired_rows=sum(row.repaired for row in labels.rows if row),
        unreadable_rows=labels.rows.count(None),
        empty_captions=sum(not row.caption for row in labels.rows if row),
        **left_out,
        images_in_no_split=tuple(image_id for image_id in paths if not split_of[image_id]),
        copies=tuple(image_id for group in groups.values() for image_id in group[1:]),
        moved_copies=moved,
    )
    return Dataset(tuple(images), report)


VARIABLE = "LCM_DATASET_URL"  # what "base" stands for: a folder or an address


def resolve(data_dir: str) -> str:
    """Return the folder, the address or the "sample" that `data_dir` means: that of LCM_DATASET_URL for "base"."""
    return data_dir if data_dir != BASE else os.environ.get(VARIABLE, "").strip() or SAMPLE


def load_dataset(data_dir: str, captions_file: str = "", language: str = "") -> Dataset:
    """Return the data set of a folder, of an address, whose files are fetched into the cache, or of "sample".

    The sample is drawn on first use; where it stands in for the base data set, stderr says so. Raises DataError when
    there is no data set, ConfigError for an address that cannot be used.
    """
    place = resolve(data_dir)
    if place == SAMPLE:
        if data_dir == BASE:
            print(
                f"lcm: {VARIABLE} is not set, so the generated sample stands in for the base data set; a model that is "
                "trained on it is never published",
                file=sys.stderr,
            )
        return read_dataset(generate(home() / "raw" / SAMPLE), captions_file, language)
    if "://" not in place:
        return read_dataset(Path(place), captions_file, language)
    shown = without_login(place)
    if data_dir != BASE and shown != place:
        raise ConfigError(
            f"data_dir may not hold credentials, for the notebooks of a run show it; set {VARIABLE} to the address, "
            f"and data_dir to {BASE!r}"
        )
    folder = fetch(place, VARIABLE if data_dir == BASE else "data_dir")
    try:
        return read_dataset(folder, captions_file, language)
    except DataError as error:
        raise DataError(f"{shown}: {error}") from error


def source_name(data_dir: str) -> str:
    """Return what a bundle says of where its data came from: the folder's own name, never its path or credentials."""
    place = resolve(data_dir)
    if "://" not in place:
        return Path(place).expanduser().resolve().name
    shown = without_login(place)
    return PurePosixPath(shown.partition("://")[2]).name or shown.partition("://")[0]


def as_metrics(data_dir: str, more_data: str = "") -> dict[str, str | int]:
    """Return what metrics.json says of where the data came from."""
    names = [source_name(place) for place in (data_dir, more_data) if place]
    return {"data_source": ", ".join(names), "generated_data": int(resolve(data_dir) == SAMPLE)}
