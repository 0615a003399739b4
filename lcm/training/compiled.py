"""Compiled steps: one graph, or one a caption length for a model that reads words one by one.

Knows the signature of a batch. Refuses to know what a step does.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from lcm.training.batches import Batch


class ByLength:
    """A step over batches: `step(features [B, ...], inputs [B, W, T], targets [B, W, T])`."""

    def __init__(self, step: Callable, unrolled: bool):
        """Compile nothing yet; `unrolled` is the model's: whether a graph holds for one T only."""
        self._step, self._unrolled, self._compiled = step, unrolled, {}

    def __call__(self, batch: Batch) -> Any:
        """Return what the step returns for a batch."""
        length = batch.inputs.shape[-1] if self._unrolled else None
        if length not in self._compiled:
            ids = tf.TensorSpec([None, None, length], tf.int32)
            features = tf.TensorSpec([None, *batch.features.shape[1:]], tf.float32)
            self._compiled[length] = tf.function(self._step, input_signature=[features, ids, ids])
        return self._compiled[length](batch.features, batch.inputs, batch.targets)
