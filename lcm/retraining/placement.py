"""Placement: copies share a split, and which contributed images train, which test, and which must stay out.

Of the distinct images, in the order of arrival, nine train for each one that tests. A copy (the same picture re-saved,
resized or slightly cropped) goes where its original is; a copy of an image that the base data set holds out stays out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lcm.contributions import duplicates
from lcm.contributions.store import ContributedImage, Contribution
from lcm.data import splits
from lcm.data.dataset import Dataset
from lcm.features.cache import THUMBNAIL, EncodedImages

TRAIN, TEST = "train", "test"
HELD_OUT = ""  # the split of a copy of what the base holds out: it takes no part
EVERY = 10  # the image of each ten that tests, the last
PART = 64  # images that are looked up at once


@dataclass
class Placement:
    """Where each contributed image belongs."""

    splits: dict[str, str] = field(default_factory=dict)  # image_id -> train, test or held out
    copies: dict[str, str] = field(default_factory=dict)  # image_id -> the image, base or contributed, that it copies


def find_copies(
    known: Iterable[str], names: Iterable[str], encoded: EncodedImages, only_whole: bool = False
) -> dict[str, list[str]]:
    """Return, of each of the names that has features, the known ones and those before it that it is a copy of.

    The best come first. `only_whole` finds no copies but those of the whole picture.
    """
    known = [name for name in known if name in encoded.keys]
    every = [*known, *(name for name in names if name in encoded.keys)]
    if not every:
        return {}
    kind, direction = (THUMBNAIL, duplicates.outline_of) if only_whole else ("pooled", duplicates.direction_of)
    least = duplicates.MIN_OUTLINE_COSINE if only_whole else duplicates.MIN_COSINE
    store, (rows,) = encoded.features(every, kind)
    directions = np.stack([direction(store[row]) for row in rows])
    thumbnails, (rows,) = encoded.features(every, THUMBNAIL)
    first = {encoded.keys[name]: name for name in reversed(every)}  # of those with the same bytes
    found: dict[str, list[str]] = {}
    for start in range(len(known), len(every), PART):
        cosines = directions[start : start + PART] @ directions[: start + PART].T
        for place, row in enumerate(cosines, start):
            name = every[place]
            if (same := first[encoded.keys[name]]) != name:
                found[name] = [same]
                continue
            small, others = thumbnails[rows[place]], lambda best: thumbnails[rows[best]]
            found[name] = [every[at] for at in duplicates.find_originals(row[:place], small, others, least)]
    return found


def keep_copies_together(dataset: Dataset, encoded: EncodedImages) -> Dataset:
    """Return the data set with copies of a picture, also saved anew, in one split; contributed images stay as they are.

    By hash, that is the split that is held out least, for a model may have learned from what trains; else the one that
    is held out most, for what a list holds out must not train. The report names the copies and what was moved.
    """
    split_of = {image.image_id: image.split for image in dataset.images if not image.is_contributed and image.split}
    originals_of = find_copies((), split_of, encoded, only_whole=True)
    group_of = {name: [name] for name in originals_of}
    copies = list(dataset.report.copies)
    for name, originals in originals_of.items():
        copies += [name] * bool(originals)
        for original in originals:
            if (group := group_of[original]) is not group_of[name]:
                group += group_of[name]
                group_of.update(dict.fromkeys(group_of[name], group))
    groups, rule = {id(group): group for group in group_of.values()}.values(), dataset.report.split_rule
    moved = splits.keep_together(split_of, groups, held_out_first=not rule.startswith(splits.BY_HASH))
    if moved:
        splits.check_train(split_of, rule)
    images = tuple(replace(one, split=split_of.get(one.image_id, one.split)) for one in dataset.images)
    moved = tuple(dict.fromkeys([*dataset.report.moved_copies, *moved]))
    report = replace(dataset.report, copies=tuple(dict.fromkeys(copies)), moved_copies=moved)
    return replace(dataset, images=images, report=report)


def place_images(
    images: Sequence[ContributedImage],
    revoked: Sequence[Contribution],
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
    there: dict[str, ContributedImage] = {one.image_sha256: one for one in images}
    first = {one.image_sha256: one.contributions[0].id for one in images}
    for line in revoked:
        first[line.image_sha256] = min(first.get(line.image_sha256, line.id), line.id)
    order = [there.get(digest) for digest in sorted(first, key=first.__getitem__)]  # None: all of it is revoked
    arrived = [image.image_id for image in order if image]
    originals_of = find_copies(split_of, arrived, encoded)
    placement, distinct, tests = Placement(), 0, 0
    for image in order:
        name = image.image_id if image else ""
        originals = originals_of.get(name)
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
