"""Placement: which contributed images train, which test, and which must stay out.

Of the distinct images, in the order of arrival, nine train for each one that tests. A copy (the same picture re-saved,
resized or slightly cropped) goes where its original is; a copy of an image that the base data set holds out stays out.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lcm.contributions.duplicates import CANDIDATES, MIN_COSINE, compare, direction_of, thumbnail
from lcm.contributions.store import ContributedImage, Revocation
from lcm.data.dataset import Dataset
from lcm.data.images import read_image
from lcm.errors import BadImageError, choose
from lcm.features.cache import EncodedImages
from lcm.features.encoders import ENCODERS

TRAIN, TEST = "train", "test"
HELD_OUT = ""  # the split of a copy of what the base holds out: it takes no part
EVERY = 10  # the image of each ten that tests, the last


@dataclass
class Placement:
    """Where each contributed image belongs."""

    splits: dict[str, str] = field(default_factory=dict)  # image_id -> train, test or held out
    copies: dict[str, str] = field(default_factory=dict)  # image_id -> the image, base or contributed, that it copies

    @property
    def held_out(self) -> int:
        """How many images take no part."""
        return sum(split == HELD_OUT for split in self.splits.values())


class Pictures:
    """Images with their features, in order: each is compared with those before it, as the encoder sees them."""

    def __init__(self, paths: Mapping[str, Path], encoded: EncodedImages):
        """Take those of the images, image_id -> path, that have features."""
        self.names = [name for name in paths if name in encoded.keys]
        self._places = {name: place for place, name in enumerate(self.names)}
        self._paths, self._keys = paths, encoded.keys
        self._first = {self._keys[name]: name for name in reversed(self.names)}  # of those with the same bytes
        self._side = choose(ENCODERS, encoded.encoder.name, "encoder").size
        self._thumbnails: dict[str, np.ndarray | None] = {}
        if self.names:
            store, (rows,) = encoded.features(self.names, "pooled")
            self._directions = np.stack([direction_of(store[row]) for row in rows])

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def originals_of(self, name: str) -> list[str] | None:
        """Return the images before it that an image is a copy of, the best fitting first; None: it cannot be read.

        Of those with the same bytes, the first stands for all.
        """
        place, same = self._places[name], self._first[self._keys[name]]
        if same != name:
            return [same]
        if self._thumbnail(name) is None:
            return None
        cosines = self._directions[:place] @ self._directions[place]
        best = [one for one in np.argsort(-cosines, kind="stable")[:CANDIDATES] if cosines[one] >= MIN_COSINE]
        readable = [self.names[one] for one in best if self._thumbnail(self.names[one]) is not None]
        if not readable:
            return []
        fit = compare(self._thumbnail(name), np.stack([self._thumbnail(one) for one in readable]))
        return [readable[rank] for rank in np.argsort(-fit.fit, kind="stable") if fit.is_copy[rank]]

    def _thumbnail(self, name: str) -> np.ndarray | None:
        if name not in self._thumbnails:
            self._thumbnails[name] = None
            with suppress(BadImageError, OSError):  # it may just have been revoked
                self._thumbnails[name] = thumbnail(read_image(self._paths[name], self._side))
        return self._thumbnails[name]


def place_images(
    images: Sequence[ContributedImage],
    revoked: Sequence[Revocation],
    dataset: Dataset,
    encoded: EncodedImages,
    earlier: Mapping[str, str],
) -> Placement:
    """Place the images, given in the order of arrival, that `encoded` has; others are in no list.

    `earlier` is the split that images had, by image_id, when the current model was trained: they keep it, for that
    model has learned from those that train. Images of which all is revoked, and those that cannot be read, keep their
    place in the order, so that others move between train and test as little as can be known of what is gone.
    """
    base = [image for image in dataset.images if not image.is_contributed and image.split]
    base.sort(key=lambda image: image.split == TRAIN)  # of the same bytes, the first counts: one that is held out
    split_of = {image.image_id: TRAIN if image.split == TRAIN else HELD_OUT for image in base}
    order = _in_order(images, revoked)
    arrived = {image.image_id: image.path for image in order if image}
    pictures = Pictures({image.image_id: image.path for image in base} | arrived, encoded)
    placement, distinct, tests = Placement(), 0, 0
    for image in order:
        name = image.image_id if image else ""
        originals = pictures.originals_of(name) if name in pictures else None
        if not originals:  # a distinct image, or the place of one
            distinct += 1
            split = earlier.get(name) or (TEST if distinct // EVERY > tests else TRAIN)
            tests += split == TEST
        elif HELD_OUT in [split_of[one] for one in originals]:
            split = HELD_OUT
        else:
            split = earlier.get(name) or split_of[originals[0]]
        if originals is not None:
            placement.splits[name] = split_of[name] = split
        if originals:
            placement.copies[name] = originals[0]
    return placement


def _in_order(images: Sequence[ContributedImage], revoked: Sequence[Revocation]) -> list[ContributedImage | None]:
    """Return the images in the order of arrival, and None where one stood of which all is revoked."""
    there: dict[str, ContributedImage] = {one.image_sha256: one for one in images}
    first = {one.image_sha256: one.first_id for one in images}
    for line in revoked:
        first[line.image_sha256] = min(first.get(line.image_sha256, line.id), line.id)
    return [there.get(digest) for digest in sorted(first, key=first.__getitem__)]
