"""What 01_prepare leaves for training and evaluation: labelled images, vocabulary and features, found together.

Knows which features a run has encoded, and how the three are saved in its folder and joined again. Refuses to know
how each is made and what they are used for.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np

from lcm.data.captions import Dataset, LabelledImage
from lcm.data.splits import SPLITS
from lcm.data.vocabulary import Vocabulary, count_words, standardise
from lcm.encoding.encoders import Encoder
from lcm.encoding.features import EncodedImages, encode_images
from lcm.errors import choose
from lcm.run_folder import RunFolder

KINDS_OF = {"pooled": ("pooled",), "grid": ("pooled", "grid")}  # what is encoded for a model; the tagger reads pooled


def encode_dataset(dataset: Dataset, encoder: Encoder, features: str = "pooled", views: int = 0) -> EncodedImages:
    """Encode all images once, and `views` further views of each train image, as encode_images does.

    `features` is the kind that the model reads; raises ConfigError for an unknown one.
    """
    kinds = choose(KINDS_OF, features, "kind of features")
    viewed = dict.fromkeys((image.image_id for image in dataset.of("train")), views)
    return encode_images(dataset.paths, encoder, kinds, views=viewed)


@dataclass(frozen=True)
class LabelledFeatures:
    """Labelled images with one kind of features, in the same order."""

    images: Sequence[LabelledImage]
    rows: np.ndarray  # [len(images)] int64, places in `store`
    store: np.ndarray  # memory-mapped [R, D] or [R, N, D]
    view_rows: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))  # [views, len(images)], as rows

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image's features."""
        return self.store.shape[1:]

    @property
    def views(self) -> int:
        """The number of further views of each image."""
        return len(self.view_rows)

    @property
    def paths(self) -> list[Path]:
        """The image files, in order."""
        return [image.path for image in self.images]

    @property
    def references(self) -> list[tuple[str, ...]]:
        """The captions that people wrote, image by image."""
        return [image.captions for image in self.images]

    def at(self, places: np.ndarray) -> Self:
        """Return some of the images, by place."""
        images = [self.images[place] for place in places]
        view_rows = self.view_rows[:, places] if self.views else self.view_rows
        return replace(self, images=images, rows=self.rows[places], view_rows=view_rows)

    def draw_views(self, count: int, share: float, random: np.random.Generator) -> np.ndarray | None:
        """Return for each of `count` images which view to read: a further one for about a `share` of them.

        Where there are none, nothing is drawn.
        """
        if not (share and self.views):
            return None
        views = random.integers(1, self.views + 1, count)
        return np.where(random.random(count) < share, views, 0)

    def read(self, places: slice | np.ndarray, views: np.ndarray | None = None) -> np.ndarray:
        """Return the features of some of the images, float32.

        `views` [len(places)] says which view of each: 0 the image as it is (all, without `views`), 1 to self.views a
        further one.
        """
        if views is None:
            return np.asarray(self.store[self.rows[places]], np.float32)
        rows = np.vstack([self.rows, *self.view_rows])  # [1 + self.views, len(images)]
        return np.asarray(self.store[rows[views, np.arange(len(self))[places]]], np.float32)


@dataclass(frozen=True)
class PreparedRun:
    """The work of 01_prepare."""

    dataset: Dataset
    vocabulary: Vocabulary
    encoded: EncodedImages

    def labelled_features(self, split: str, kind: str) -> LabelledFeatures:
        """Return the images of a split with their features of a kind ("pooled" or "grid"), and those of their views.

        Raises DataError for an unknown split, or when the cache lacks an image or this kind of features.
        """
        images = self.dataset.of(split)
        image_ids = [image.image_id for image in images]
        views = min((self.encoded.views.get(image_id, 0) for image_id in image_ids), default=0)
        store, (rows, *view_rows) = self.encoded.features(image_ids, kind, views)
        return LabelledFeatures(images, rows, store, np.array(view_rows, np.int64).reshape(views, len(images)))

    def caption_lengths(self) -> dict[str, list[int]]:
        """Return split -> the number of words of each of its captions."""
        return {split: [len(standardise(text)) for text in self.dataset.captions_of(split)] for split in SPLITS}

    def word_counts(self) -> Counter[str]:
        """Return how often the train captions hold each word."""
        return count_words(self.dataset.captions_of("train"))

    def sizes(self) -> dict[str, int]:
        """Return the numbers of images, captions and words, under the keys of metrics.json."""
        return {
            **{f"{split}_images": len(self.dataset.of(split)) for split in SPLITS},
            "train_captions": len(self.dataset.captions_of("train")),
            "unreadable_images": len(self.encoded.unreadable),
            "vocabulary_size": len(self.vocabulary),
        }

    def save(self, folder: RunFolder) -> None:
        """Write all three into a run's folder."""
        self.dataset.save(folder.dataset)
        self.vocabulary.save(folder.vocabulary)
        self.encoded.save(folder.encoded_images)

    @classmethod
    def load(cls, folder: RunFolder) -> Self:
        """Read what `save` wrote; raises DataError when 01_prepare has not run for this folder."""
        encoded = EncodedImages.load(folder.encoded_images)
        return cls(Dataset.load(folder.dataset), Vocabulary.load(folder.vocabulary), encoded)
