"""Plain Keras training, as the reference that anyone would write first.

Knows the same model under Keras's own `compile` and `fit`: a caption a row, padded to the longest there is, the softmax
at every position, those that hold no word with weight 0. Refuses to know batches by length, which is what it lacks.

Shapes: C captions, T positions of the longest, V words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import keras
import numpy as np

from lcm.data.text import PAD
from lcm.training.batches import Batch


@dataclass(frozen=True)
class PlainTraining:
    """A model of lcm.models that Keras trains on some captions."""

    model: keras.Model
    features: np.ndarray  # [C, ...]
    inputs: np.ndarray  # [C, 1, T]
    targets: np.ndarray  # [C, 1, T]; PAD where there is no word

    @classmethod
    def of(cls, model: keras.Model, batches: Sequence[Batch], longest: int, learning_rate: float = 1e-3) -> Self:
        """Compile `model`, with Adam, and lay the captions of some batches out, one a row, all `longest` long."""
        # Keras takes the mean over all positions; the weights make it one over those that hold a word.
        model.compile(keras.optimizers.Adam(learning_rate), keras.losses.SparseCategoricalCrossentropy())
        rows = [_rows(batch, longest) for batch in batches]
        features, inputs, targets = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        return cls(model, features, inputs, targets)

    def train(self, batch_size: int) -> int:
        """Train on every caption once, in the order given; returns how many there are."""
        self.model.fit(
            (self.features, self.inputs),
            self.targets,
            batch_size=batch_size,
            sample_weight=self.weights(),
            shuffle=False,
            verbose=0,
        )
        return len(self.inputs)

    def part(self, rows: slice) -> Self:
        """Return the training of some of the captions, with the same model."""
        return replace(self, features=self.features[rows], inputs=self.inputs[rows], targets=self.targets[rows])

    def weights(self) -> np.ndarray:
        """Return the weight of each position, [C, 1, T]: 0 where there is no word, 1 on average."""
        real = (self.targets != PAD).astype(np.float32)
        return real / real.mean()


def _rows(batch: Batch, longest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, inputs and targets of a batch, one caption a row, padded to `longest`."""
    images, texts, length = batch.inputs.shape
    padding = ((0, 0), (0, 0), (0, longest - length))
    padded = (
        np.pad(ids.reshape(images * texts, 1, length), padding, constant_values=PAD)
        for ids in (batch.inputs, batch.targets)
    )
    inputs, targets = padded
    words = (targets != PAD).any((1, 2))  # a row of the batch may have fewer captions than another
    return np.repeat(batch.features, texts, axis=0)[words], inputs[words], targets[words]
