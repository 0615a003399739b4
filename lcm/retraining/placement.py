"""Placement: which contributed images train, which test, and which must stay out.

Of the distinct images, in the order of arrival, nine train for each one that tests. A copy (the same picture re-saved,
resized or slightly cropped) goes where its original is; a copy of an image that the base data set holds out stays out.

Shapes: D numbers in pooled features.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lcm.contributions.duplicates import CANDIDATES, MIN_COSINE, WIDTH, compare, direction_of, thumbnail
from lcm.contributions.store import ContributedImage, Revocation
from lcm.data.dataset import Dataset
from lcm.data.images import read_image
from lcm.errors import BadImageError, choose
from lcm.features.cache import EncodedImages
from lcm.features.encoders import ENCODERS

TRAIN, TEST = "train", "test"
EVERY = 10  # the image of each ten that tests, the last


@dataclass
class Placement:
    """Where each contributed image belongs."""

    splits: dict[str, str] = field(default_factory=dict)  # image_id -> train or test
    held_out: dict[str, str] = field(default_factory=dict)  # image_id -> the held-out image of the base that it copies
    copies: dict[str, str] = field(default_factory=dict)  # image_id -> the image, base or contributed, that it copies


@dataclass(frozen=True)
class Picture:
    """An image to compare."""

    image_id: str
    key: str  # sha256 of its bytes
    path: Path
    features: np.ndarray  # pooled [D]


class KnownPictures:
    """Pictures that later ones are compared with."""

    def __init__(self, pictures: Sequence[Picture], side: int):
        """Know these; `side` is what the encoder's pictures have, in pixels, for they are compared as it sees them."""
        self._side = side
        self._pictures: list[Picture] = []
        self._places: dict[str, int] = {}  # key -> place
        self._directions = np.zeros((max(64, len(pictures)), WIDTH), np.float32)  # room for more than there are
        self._thumbnails: dict[int, np.ndarray | None] = {}
        for picture in pictures:
            self.add(picture)

    def add(self, picture: Picture) -> None:
        """Know one more."""
        place = len(self._pictures)
        if place == len(self._directions):
            self._directions = np.concatenate([self._directions, np.zeros_like(self._directions)])
        self._directions[place] = direction_of(picture.features)
        self._pictures.append(picture)
        self._places.setdefault(picture.key, place)

    def originals_of(self, picture: Picture) -> list[Picture]:
        """Return the known pictures that this one is a copy of, the best fitting first.

        Of those with the same bytes, the first that became known stands for all. A known picture that cannot be read
        any more is skipped; raises BadImageError or OSError when that is so of the one that is asked about.
        """
        if picture.key in self._places:
            return [self._pictures[self._places[picture.key]]]
        cosines = self._directions[: len(self._pictures)] @ direction_of(picture.features)
        best = np.argsort(-cosines, kind="stable")[:CANDIDATES]
        places = [int(place) for place in best if cosines[place] >= MIN_COSINE]
        places = [place for place in places if self._thumbnail(place) is not None]
        if not places:
            return []
        fit = compare(self._read(picture), np.stack([self._thumbnail(place) for place in places]))
        return [self._pictures[places[rank]] for rank in np.argsort(-fit.fit, kind="stable") if fit.is_copy[rank]]

    def _thumbnail(self, place: int) -> np.ndarray | None:
        if place not in self._thumbnails:
            self._thumbnails[place] = None
            with suppress(BadImageError, OSError):
                self._thumbnails[place] = self._read(self._pictures[place])
        return self._thumbnails[place]

    def _read(self, picture: Picture) -> np.ndarray:
        return thumbnail(read_image(picture.path, self._side))


class _Turns:
    """Which split the next distinct image belongs to: the tenth, twentieth, … tests, or the next that can."""

    def __init__(self) -> None:
        self._images = self._tests = 0

    def take(self, split: str = "") -> str:
        """Return the next image's split, which is `split` where that is known already."""
        self._images += 1
        split = split or (TEST if self._images // EVERY > self._tests else TRAIN)
        self._tests += split == TEST
        return split


def place_images(
    images: Sequence[ContributedImage],
    revoked: Sequence[Revocation],
    dataset: Dataset,
    encoded: EncodedImages,
    earlier: Mapping[str, str] | None = None,
) -> Placement:
    """Place the images, given in the order of arrival, that `encoded` has; others are in no list.

    `earlier` is the split that images had, by image_id, when the current model was trained: they keep it, for that
    model has learned from those that train. Images of which all is revoked, and those that cannot be read, keep their
    place in the order, so that others move between train and test as little as can be known of what is gone.
    """
    earlier, turns, placement = earlier or {}, _Turns(), Placement()
    base = [image for image in dataset.images if not image.is_contributed and image.split]
    base.sort(key=lambda image: image.split == TRAIN)  # of the same bytes, the first counts: one that is held out
    split_of = {image.image_id: image.split for image in base}
    side = choose(ENCODERS, encoded.encoder.name, "encoder").size
    known = KnownPictures(list(_pictures({image.image_id: image.path for image in base}, encoded)), side)
    sent = {picture.image_id: picture for picture in _pictures({one.image_id: one.path for one in images}, encoded)}
    for one in _in_order(images, revoked):
        picture = sent.get(one.image_id) if one else None
        originals = None
        if picture:
            with suppress(BadImageError, OSError):  # it may just have been revoked
                originals = [each.image_id for each in known.originals_of(picture)]
        if originals is None:
            turns.take()
            continue
        _place(placement, picture.image_id, originals, split_of, earlier, turns)
        known.add(picture)
    return placement


def _place(
    placement: Placement,
    name: str,
    originals: Sequence[str],
    split_of: Mapping[str, str],
    earlier: Mapping[str, str],
    turns: _Turns,
) -> None:
    """Place an image, of which those that it copies are in the base or placed already."""
    if not originals:
        placement.splits[name] = turns.take(earlier.get(name, ""))
        return
    placement.copies[name] = originals[0]
    held_out = [placement.held_out.get(one, one) for one in originals]
    held_out = [one for one in held_out if split_of.get(one, TRAIN) != TRAIN]
    if held_out:
        placement.held_out[name] = held_out[0]
    else:
        placement.splits[name] = earlier.get(name) or placement.splits.get(originals[0], TRAIN)


def _pictures(paths: Mapping[str, Path], encoded: EncodedImages) -> Iterator[Picture]:
    """Yield the images that have features."""
    names = [name for name in paths if name in encoded.keys]
    if names:
        store, (rows,) = encoded.features(names, "pooled")
        for name, row in zip(names, rows, strict=True):
            yield Picture(name, encoded.keys[name], paths[name], store[row])


def _in_order(images: Sequence[ContributedImage], revoked: Sequence[Revocation]) -> Iterator[ContributedImage | None]:
    """Yield the images in the order of arrival, and None where one stood of which all is revoked."""
    there = {one.image_sha256: one.first_id for one in images}
    gone: dict[str, int] = {}
    for line in revoked:
        if line.image_sha256 in there:
            there[line.image_sha256] = min(there[line.image_sha256], line.id)
        else:
            gone[line.image_sha256] = min(gone.get(line.image_sha256, line.id), line.id)
    arrived = [(there[one.image_sha256], one) for one in images] + [(number, None) for number in gone.values()]
    yield from (one for _, one in sorted(arrived, key=lambda each: each[0]))
