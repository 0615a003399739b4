"""Splits: which images train, which choose (dev) and which only measure (test).

Knows the official lists of known data sets and the rule where there are none. Refuses to know captions and
pixels: an image is its name.
"""

import hashlib
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import regex

from lcm.data import formats
from lcm.errors import DataError

SPLITS = ("train", "dev", "test")
# Tenths of a data set without official lists.
HASH_SHARES = {"train": 8, "dev": 1, "test": 1}
LIST_NAME = regex.compile(
    r"(?<![a-z])(?P<split>train|dev|val|test)(?:ing|idation)?(?=$|[^a-z]|images)", regex.IGNORECASE
)


def read_lists(folder: Path) -> dict[str, str]:
    """Return bare image name -> split from the official lists, text files of one name a line.

    Raises DataError for an image in two splits.
    """
    official: dict[str, str] = {}
    for path in formats.find_files(folder, (".txt",)):
        match = LIST_NAME.search(path.stem)
        if not match:
            continue
        lines = [line.strip() for line in formats.read_lines(path)]
        if any(separator in line and not formats.is_image_name(line) for line in lines for separator in "\t,| "):
            continue  # a table or prose, not a list of names
        split = match["split"].lower().replace("val", "dev")
        for name in map(bare_name, lines):
            if official.setdefault(name, split) != split:
                raise DataError(f"the split lists put {name} both into {official[name]} and into {split}; keep one")
    return official


def bare_name(name: str) -> str:
    """Return the name without folder and image suffix: the lists of some data sets leave the suffix out."""
    path = PurePosixPath(unicodedata.normalize("NFC", name))
    return path.stem if formats.is_image_name(path.name) else path.name


def assign(image_ids: Sequence[str], official: dict[str, str]) -> tuple[dict[str, str], str]:
    """Return image_id -> split, and the rule in words: official lists where there are any, else by hash.

    An image that the lists do not name has the split "". Raises DataError when the lists leave fewer than two
    images to train on.
    """
    if official:
        assigned = {image_id: official.get(bare_name(image_id), "") for image_id in image_ids}
        if list(assigned.values()).count("train") < 2:
            raise DataError("the split lists name fewer than two train images with captions; correct or remove them")
        return assigned, "official lists"
    assigned = {image_id: hash_split(image_id) for image_id in image_ids}
    if list(assigned.values()).count("train") < 2:
        return dict.fromkeys(image_ids, "train"), "too few images to hold any out: all of them train"
    return assigned, "by hash of image_id: 80 % train, 10 % dev, 10 % test"


def hash_split(image_id: str) -> str:
    """Return the split that an image without official split always belongs to, however the data set grows."""
    tenth = int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big") % sum(HASH_SHARES.values())
    for split, share in HASH_SHARES.items():
        if tenth < share:
            return split
        tenth -= share
    raise AssertionError("the shares cover every tenth")
