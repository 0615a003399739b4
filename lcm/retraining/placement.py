"""Placement: which contributed images train, which test, and which must stay out.

Knows the rule: of the distinct images, in the order of arrival, nine train for each one that tests. A copy of an image
goes where that is; a copy of an image that the base data set holds out stays out altogether. Refuses to know captions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lcm.contributions.records import ContributedImage, Revocation
from lcm.data.dataset import Dataset
from lcm.errors import BadImageError, choose
from lcm.features.cache import EncodedImages
from lcm.features.encoders import ENCODERS
from lcm.retraining.contributed import image_id, is_contributed
from lcm.retraining.near_copies import KnownPictures, Picture

TRAIN, TEST = "train", "test"
EVERY = 10  # the image of each ten that tests, the last


@dataclass
class Placement:
    """Where each contributed image belongs."""

    splits: dict[str, str] = field(default_factory=dict)  # image_id -> train or test
    held_out: dict[str, str] = field(default_factory=dict)  # image_id -> the held-out image of the base that it copies
    copies: dict[str, str] = field(default_factory=dict)  # image_id -> the image, base or contributed, that it copies


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


def earlier_splits(images: Sequence[ContributedImage], trained: set[int], tested: set[int]) -> dict[str, str]:
    """Return image_id -> split of the images that models have learned from, or were measured on, by their numbers."""
    found = {}
    for image in images:
        numbers = {one.id for one in image.contributions}
        if split := TRAIN if numbers & trained else TEST if numbers & tested else "":
            found[image_id(image)] = split
    return found


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
    base = [image for image in dataset.images if not is_contributed(image) and image.split]
    base.sort(key=lambda image: image.split == TRAIN)  # of the same bytes, the first counts: one that is held out
    split_of = {image.image_id: image.split for image in base}
    side = choose(ENCODERS, encoded.encoder.name, "encoder").size
    known = KnownPictures(list(_pictures({image.image_id: image.path for image in base}, encoded)), side)
    sent = {p.image_id: p for p in _pictures({image_id(one): one.path for one in images}, encoded)}
    for one in _in_order(images, revoked):
        picture = sent.get(image_id(one)) if one else None
        originals = _originals(known, picture) if picture else None
        if originals is None:
            turns.take()
            continue
        _place(placement, picture.image_id, [each.image_id for each in originals], split_of, earlier, turns)
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


def _originals(known: KnownPictures, picture: Picture) -> list[Picture] | None:
    """Return what the picture copies; None where it cannot be read any more: it may just have been revoked."""
    try:
        return known.originals_of(picture)
    except (BadImageError, OSError):
        return None


def _pictures(paths: Mapping[str, object], encoded: EncodedImages) -> Iterator[Picture]:
    """Yield the images that have features."""
    names = [name for name in paths if name in encoded.keys]
    if not names:
        return
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
