"""The state of training: weights and optimizer, and the mean weights of the latest epochs.

Knows what a resumed run needs and how weights are averaged. Refuses to know losses and files.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras
import numpy as np


class TrainingState:
    """A model with its optimizer, and its weights after each of the latest epochs."""

    def __init__(self, model: keras.Model, optimizer: keras.optimizers.Optimizer, averaged_epochs: int):
        """Build the optimizer; the mean is over the latest `averaged_epochs`."""
        self.model, self.optimizer = model, optimizer
        optimizer.build(model.trainable_variables)
        self._recent: deque[list[np.ndarray]] = deque(maxlen=averaged_epochs)

    @property
    def _variables(self) -> list:
        return [*self.model.variables, *self.optimizer.variables]  # dropout's random states and moments among them

    @property
    def arrays(self) -> list[np.ndarray]:
        """Everything that a resumed run needs."""
        recent = [array for weights in self._recent for array in weights]
        return [*(variable.numpy() for variable in self._variables), *recent]

    def restore(self, arrays: Sequence[np.ndarray]) -> None:
        """Go back to what `arrays` gave."""
        variables = self._variables
        for variable, array in zip(variables, arrays, strict=False):
            variable.assign(array)
        recent, size = arrays[len(variables) :], len(self.model.weights)
        self._recent.extend(recent[start : start + size] for start in range(0, len(recent), size))

    def remember(self) -> None:
        """Let the weights as they are now, after an epoch, count in the mean."""
        self._recent.append(self.model.get_weights())

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the model the mean weights of the latest epochs for a while: they are better than any one alone."""
        own = self.model.get_weights()
        self.keep_average()
        try:
            yield
        finally:
            self.model.set_weights(own)

    def keep_average(self) -> None:
        """Give the model the mean weights of the latest epochs, for good."""
        if self._recent:
            self.model.set_weights([np.mean(same, axis=0) for same in zip(*self._recent, strict=True)])
