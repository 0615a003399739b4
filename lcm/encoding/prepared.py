"""What 01_prepare leaves for training and evaluation: labelled images, vocabulary and features, found together.

Knows how the three are saved in a run's folder and joined again. Refuses to know how they were made and what
they are used for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from lcm.config import RunFolder
from lcm.data.captions import Dataset, LabelledImage
from lcm.data.vocabulary import Vocabulary
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
