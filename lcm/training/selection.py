"""Which epoch is best: captions of the dev images by the model in training, scored by CIDEr.

Knows how to decode with a Keras model, no export needed. Refuses to know optimizers and files.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from lcm.captioning.decoding import State, Step, empty_rows
from lcm.captioning.writing import caption_features
from lcm.data.vocabulary import Vocabulary
from lcm.encoding.prepared import LabelledFeatures
from lcm.evaluation.metrics import score


def keras_step(model) -> Step:
    """Return the decoding step of a Keras model, compiled."""
    compiled = tf.function(model.step, reduce_retracing=True)

    def step(token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        images, rows = (tuple(map(tf.constant, arrays)) for arrays in (state.images, state.rows))
        log_probs, next_rows = compiled(tf.constant(token_ids, tf.int32), images, rows)
        return log_probs.numpy(), State(state.images, tuple(array.numpy() for array in next_rows))

    return step


class KerasDecoder:
    """A Keras model that writes captions as it now is, as a bundle does."""

    def __init__(self, model, vocabulary: Vocabulary):
        self.vocabulary, self.step, self._model = vocabulary, keras_step(model), model

    def start(self, features: np.ndarray) -> State:
        """Return the state before the first word, of one text an image."""
        images = tuple(array.numpy() for array in self._model.start(tf.constant(features)))
        return State(images, empty_rows(len(features), self._model.row_shapes))


def make_dev_scorer(
    model, dev: LabelledFeatures, vocabulary: Vocabulary, beam_width: int, max_words: int
) -> Callable[[], float | None]:
    """Return a function that gives the model's CIDEr on `dev` as it now is; None where it has no value."""
    decoder = KerasDecoder(model, vocabulary)

    def dev_cider() -> float | None:
        captions, _ = caption_features(decoder, dev, beam_width, max_words, progress=False)
        return score([best for best, *_ in captions], dev.references, meteor=False).cider

    return dev_cider
