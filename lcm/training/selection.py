"""Which epoch is best: captions of the dev images by the model in training, scored by CIDEr.

Knows how to decode with a Keras model, no export needed. Refuses to know optimizers and files.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from lcm.captioning.decoding import Step, decode_beam
from lcm.data.vocabulary import Vocabulary
from lcm.encoding.prepared import LabelledFeatures
from lcm.evaluation.metrics import score

IMAGES_AT_ONCE = 256  # bounds the memory of a beam search


def keras_step(model) -> Step:
    """Return the decoding step of a Keras model, compiled."""
    compiled = tf.function(model.step, reduce_retracing=True)

    def step(token_ids: np.ndarray, state: tuple[np.ndarray, ...]):
        log_probs, next_state = compiled(tf.constant(token_ids, tf.int32), tuple(map(tf.constant, state)))
        return log_probs.numpy(), tuple(array.numpy() for array in next_state)

    return step


def make_dev_scorer(
    model, dev: LabelledFeatures, vocabulary: Vocabulary, beam_width: int, max_words: int
) -> Callable[[], float | None]:
    """Return a function that gives the model's CIDEr on `dev` as it now is; None where it has no value."""
    step = keras_step(model)

    def dev_cider() -> float | None:
        captions = []
        for start in range(0, len(dev), IMAGES_AT_ONCE):
            features = tf.constant(dev.read(slice(start, start + IMAGES_AT_ONCE)))
            state = tuple(array.numpy() for array in model.start(features))
            found = decode_beam(step, state, max_words, beam_width)
            captions += [vocabulary.decode(hypotheses[0].token_ids) for hypotheses in found]
        return score(captions, dev.references, meteor=False).cider

    return dev_cider
