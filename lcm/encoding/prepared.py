"""What 01_prepare leaves for training and evaluation: labelled images, vocabulary and features, found together.

Knows how the three are saved in a run's folder and joined again. Refuses to know how they were made and what
they are used for.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from lcm.config import RunFolder
from lcm.data.captions import Dataset, LabelledImage
from lcm.data.splits import SPLITS
from lcm.data.vocabulary import Vocabulary, count_words, standardise
from lcm.encoding.features import EncodedImages


@dataclass(frozen=True)
class LabelledFeatures:
    """Labelled images with one kind of features, in the same order."""

    images: Sequence[LabelledImage]
    rows: np.ndarray  # [len(images)] int64, places in `store`
    store: np.ndarray  # memory-mapped [R, D] or [R, N, D]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image's features."""
        return self.store.shape[1:]

    @property
    def paths(self) -> list[Path]:
        """The image files, in order."""
        return [image.path for image in self.images]

    @property
    def references(self) -> list[tuple[str, ...]]:
        """The captions that people wrote, image by image."""
        return [image.captions for image in self.images]

    def read(self, places: slice | np.ndarray) -> np.ndarray:
        """Return the features of some of the images, float32."""
        return np.asarray(self.store[self.rows[places]], np.float32)


@dataclass(frozen=True)
class PreparedRun:
    """The work of 01_prepare."""

    dataset: Dataset
    vocabulary: Vocabulary
    encoded: EncodedImages

    def labelled_features(self, split: str, kind: str) -> LabelledFeatures:
        """Return the images of a split with their features of a kind ("pooled" or "grid").

        Raises DataError for an unknown split, or when the cache lacks an image.
        """
        images = self.dataset.of(split)
        store, rows = self.encoded.features([image.image_id for image in images], kind)
        return LabelledFeatures(images, rows, store)

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
