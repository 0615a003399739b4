"""Contributions as part of a data set: each image with the captions that users sent, in the order of arrival.

Knows what the data set calls them, and how they join it. Refuses to know which of them train.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from lcm.contributions.records import ContributedImage
from lcm.data.captions import Dataset, LabelledImage

# Keys of metrics.json and of a manifest's training_data: which contributions a model has learned from, and all that
# there were, each as text (numbers.py).
TRAINED, SEEN = CONTRIBUTIONS = ("contributions", "contributions_seen")
PREFIX = "contributions/"  # of the image_id, before the hash of the image's bytes


def image_id(image: ContributedImage) -> str:
    """Return what the data set calls an image."""
    return f"{PREFIX}{image.image_sha256}"


def is_contributed(image: LabelledImage) -> bool:
    """Return whether a user sent an image of the data set."""
    return image.image_id.startswith(PREFIX)


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
