"""Splits: which images train, which choose (dev) and which only measure (test).

Captions files, official lists or folders say so, else a hash of the picture's bytes. Copies of one picture share a
split: no picture that measures is trained on.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePath

import regex

from lcm.data import files
from lcm.data.formats import CaptionFile
from lcm.data.names import Names
from lcm.errors import DataError

SPLITS = ("train", "dev", "test")
BY_HASH = "by hash of the picture: 80 % train, 10 % dev, 10 % test"
KARPATHY_NAME = re.compile(r"dataset_.*\.json", re.IGNORECASE)
# A split's name in that of a list, a captions file or a folder; the words are those of
# https://huggingface.co/docs/hub/datasets-file-names-and-splits.
SPLIT_NAME = regex.compile(
    r"(?<![a-z])(?:(?P<train>train(?:ing)?)|(?P<dev>dev|val(?:id(?:ation)?)?)|(?P<test>test(?:ing)?|eval(?:uation)?))"
    r"(?=$|[^a-z]|images)",
    regex.IGNORECASE,
)


def named_in(name: str) -> str:
    """Return the split that a name says, as captions_val2017 says dev, or ""."""
    match = SPLIT_NAME.search(name)
    return match.lastgroup if match else ""


def named_in_path(path: PurePath) -> str:
    """Return the split that a file's name says, else the nearest of its folders that says one, or ""."""
    return next(filter(None, map(named_in, [path.stem, *reversed(path.parent.parts)])), "")


def read_lists(paths: Sequence[Path]) -> dict[str, str]:
    """Return name -> split of the official lists among some files: texts of one name a line, and Karpathy's JSON.

    Raises DataError for a name in two splits.
    """
    official: dict[str, str] = {}
    for path in files.with_suffix(paths, (".txt",)):
        split = named_in(path.stem)
        if not split:
            continue
        lines = [line.strip() for line in files.split_lines(files.read_text(path))]
        if any(separator in line and not files.is_image_name(line) for line in lines for separator in "\t,| "):
            continue  # a table or prose, not a list of names
        for name in lines:
            put(official, name, split, "the split lists put")
    for path in paths:
        if KARPATHY_NAME.fullmatch(path.name) and (document := CaptionFile(path)).format == "karpathy":
            rows = [row for row in document.read() if row and row.split]
            for row in rows if len({row.split for row in rows}) > 1 else []:
                put(official, row.name, row.split, "the split lists put")
    return official


def put(official: dict[str, str], name: str, split: str, source: str) -> None:
    """Note an image's split; `source` begins the message. Raises DataError where the image has another one."""
    if official.setdefault(name, split) != split:
        raise DataError(f"{source} {name} both into {official[name]} and into {split}; keep one")


def find_listed(official: Mapping[str, str], folder: Path, paths: Mapping[str, Path]) -> dict[str, str]:
    """Return image_id -> split of the images, image_id -> path, "" where no official list names one; no lists: nothing.

    A name that has lost or changed its folders counts where it fits one image alone, which is in no list by its whole
    name. Raises DataError for an image in two splits.
    """
    if not official:
        return {}
    names, ids = Names(folder, paths.values()), {path: image_id for image_id, path in paths.items()}
    whole: dict[str, str] = {}
    moved: dict[str, str] = {}
    for name, split in official.items():
        meaning = names.find(name)
        if len(meaning.files) == 1:
            put(whole if meaning.is_whole else moved, ids[meaning.files[0]], split, "the split lists put")
    return dict.fromkeys(paths, "") | moved | whole


def assign(contents: Mapping[str, str], sources: Mapping[str, Mapping[str, str]]) -> tuple[dict[str, str], str]:
    """Return image_id -> split of the images, image_id -> sha256 of their bytes, and the rule in words.

    The first of the `sources`, by rule, that names any image decides, and where there is none a hash. An image that it
    does not name has the split "".
    """
    for rule, stated in sources.items():
        if stated:
            return {image_id: stated.get(image_id, "") for image_id in contents}, rule
    assigned = {image_id: hash_split(content) for image_id, content in contents.items()}
    if list(assigned.values()).count("train") < 2:
        return dict.fromkeys(contents, "train"), "too few pictures for a hash: all of them train"
    return assigned, BY_HASH


def keep_together(
    split_of: dict[str, str], groups: Iterable[Collection[str]], held_out_first: bool = True
) -> tuple[str, ...]:
    """Put the images of each group, which show one picture, into one split; return those that were moved.

    It is the one that is held out most, or least; images in no split stay there.
    """
    moved: list[str] = []
    for group in groups:
        given = {image_id: split for image_id in group if (split := split_of.get(image_id))}
        wanted = (max if held_out_first else min)(given.values(), key=SPLITS.index, default="")
        moved += [image_id for image_id, split in given.items() if split != wanted]
        split_of.update(dict.fromkeys(given, wanted))
    return tuple(moved)


def check_train(split_of: Mapping[str, str], rule: str) -> None:
    """Raise DataError where the splits leave fewer than two images to train on."""
    if list(split_of.values()).count("train") < 2:
        raise DataError(
            f"the splits ({rule}) leave fewer than two train images with captions, copies of dev and test images not "
            "counted; correct or remove them"
        )


def hash_split(content: str) -> str:
    """Return the split of a picture by the sha256 of its bytes, however the data set grows and files are renamed."""
    return {8: "dev", 9: "test"}.get(int(content[:16], 16) % 10, "train")
