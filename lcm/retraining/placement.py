"""Placement: which contributed images train, which test, and which must stay out.

Knows the rule: of the distinct images, in the order of arrival, nine train for each one that tests. A copy of an image
goes where that is; a copy of an image that the base data set holds out stays out altogether. Refuses to know captions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lcm.contributions.records import ContributedImage, Revocation
from lcm.data.captions import Dataset
from lcm.encoding.encoders import ENCODERS
from lcm.encoding.features import EncodedImages
from lcm.errors import BadImageError, choose
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


def place_images(
    images: Sequence[ContributedImage], revoked: Sequence[Revocation], dataset: Dataset, encoded: EncodedImages
) -> Placement:
    """Place the images, given in the order of arrival, that `encoded` has; others are in no list.

    Images of which all is revoked keep their place in the order: no other image moves between train and test.
    """
    base = [image for image in dataset.images if not is_contributed(image) and image.split]
    split_of = {image.image_id: image.split for image in base}
    side = choose(ENCODERS, encoded.encoder.name, "encoder").size
    known = KnownPictures(list(_pictures({image.image_id: image.path for image in base}, encoded)), side)
    sent = {p.image_id: p for p in _pictures({image_id(one): one.path for one in images}, encoded)}
    placement, count = Placement(), 0
    for one in _in_order(images, revoked):
        name = image_id(one) if one else ""
        if one and name not in sent:
            continue  # it could not be read
        original = _original(known, sent[name]) if one else None
        if original:
            placement.copies[name] = original.image_id
            _follow(placement, name, original.image_id, split_of)
        else:
            count += 1
            placement.splits[name] = TEST if count % EVERY == 0 else TRAIN
        if one:
            known.add(sent[name])
    placement.splits.pop("", None)
    return placement


def _follow(placement: Placement, name: str, original: str, split_of: Mapping[str, str]) -> None:
    """Place a copy where its original is."""
    if split_of.get(original, TRAIN) != TRAIN:
        placement.held_out[name] = original
    elif original in placement.held_out:
        placement.held_out[name] = placement.held_out[original]
    else:
        placement.splits[name] = placement.splits.get(original, TRAIN)


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


def _original(known: KnownPictures, picture: Picture) -> Picture | None:
    """Return what the picture copies; an image that cannot be looked at any more is taken for none."""
    try:
        return known.original_of(picture)
    except (BadImageError, OSError):
        return None
