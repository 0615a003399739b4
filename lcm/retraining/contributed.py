"""Contributions as part of a data set: each image with the captions that users sent, in the order of arrival.

Knows what the data set calls them, and how they join it. Refuses to know which of them train.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from lcm.contributions.records import ContributedImage
from lcm.data.dataset import Dataset, LabelledImage

# Keys of metrics.json and of a manifest's training_data: which contributions a model has learned from, which it is
# measured on, which wait for a person to look at them, and all that there were, each as text (numbers.py).
TRAINED, TESTED, QUARANTINED, SEEN = CONTRIBUTIONS = (
    "contributions",
    "contributions_tested",
    "contributions_quarantined",
    "contributions_seen",
)
PREFIX = "contributions/"  # of the image_id, before the hash of the image's bytes
_IMAGE_ID = re.compile(f"{PREFIX}[0-9a-f]{{64}}")  # a base data set may have a folder of that name


def image_id(image: ContributedImage) -> str:
    """Return what the data set calls an image."""
    return f"{PREFIX}{image.image_sha256}"


def is_contributed(image: LabelledImage) -> bool:
    """Return whether a user sent an image of the data set."""
    return is_contributed_id(image.image_id)


def is_contributed_id(image_id: str) -> bool:
    """Return whether an image is called as one that a user sent."""
    return _IMAGE_ID.fullmatch(image_id) is not None


def labelled(image: ContributedImage, split: str) -> LabelledImage:
    """Return the image as one of a data set."""
    return LabelledImage(image_id(image), image.path, split, image.captions)


def numbers_of(images: Iterable[ContributedImage]) -> set[int]:
    """Return the numbers of all the images' contributions."""
    return {one.id for image in images for one in image.contributions}


def join(dataset: Dataset, images: Sequence[LabelledImage]) -> Dataset:
    """Return the data set with these contributed images at its end, in place of all that it had."""
    own = tuple(image for image in dataset.images if not is_contributed(image))
    return replace(dataset, images=(*own, *images))
