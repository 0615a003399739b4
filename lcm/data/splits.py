"""Splits: which images train, which choose (dev) and which only measure (test).

Official lists and the captions files themselves say so, else a hash of the image_id.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath, PurePosixPath

import regex

from lcm.data import files
from lcm.errors import DataError

SPLITS = ("train", "dev", "test")
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


def read_lists(paths: Iterable[Path]) -> dict[str, str]:
    """Return bare image name -> split from the official lists among some files: texts of one name a line.

    Raises DataError for an image in two splits.
    """
    official: dict[str, str] = {}
    for path in files.with_suffix(paths, (".txt",)):
        split = named_in(path.stem)
        if not split:
            continue
        lines = [line.strip() for line in files.read_lines(path)]
        if any(separator in line and not files.is_image_name(line) for line in lines for separator in "\t,| "):
            continue  # a table or prose, not a list of names
        for name in map(bare_name, lines):
            put(official, name, split, "the split lists put")
    return official


def put(official: dict[str, str], name: str, split: str, source: str) -> None:
    """Note an image's split; `source` begins the message. Raises DataError where the image has another one."""
    if official.setdefault(name, split) != split:
        raise DataError(f"{source} {name} both into {official[name]} and into {split}; keep one")


def bare_name(name: str) -> str:
    """Return the name without folder and image suffix: the lists of some data sets leave the suffix out."""
    path = PurePosixPath(unicodedata.normalize("NFC", name))
    return path.stem if files.is_image_name(path.name) else path.name


def assign(image_ids: Sequence[str], stated: dict[str, str], lists: dict[str, str]) -> tuple[dict[str, str], str]:
    """Return image_id -> split, and the rule in words.

    `stated` is what the captions files say, by image_id, and goes before the official lists; without either a hash
    decides. An image that neither names has the split "". Raises DataError when they leave fewer than two images to
    train on.
    """
    if not (stated or lists):
        assigned = {image_id: hash_split(image_id) for image_id in image_ids}
        if list(assigned.values()).count("train") < 2:
            return dict.fromkeys(image_ids, "train"), "too few images for a hash of image_id: all of them train"
        return assigned, "by hash of image_id: 80 % train, 10 % dev, 10 % test"
    known = stated or {image_id: lists.get(bare_name(image_id), "") for image_id in image_ids}
    assigned = {image_id: known.get(image_id, "") for image_id in image_ids}
    if list(assigned.values()).count("train") < 2:
        source = "captions files" if stated else "split lists"
        raise DataError(f"the {source} name fewer than two train images with captions; correct or remove them")
    return assigned, "as the captions files say" if stated else "official lists"


def hash_split(image_id: str) -> str:
    """Return the split that an image without official split always belongs to, however the data set grows."""
    tenth = int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big") % 10
    return {8: "dev", 9: "test"}.get(tenth, "train")
