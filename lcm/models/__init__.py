"""Keras builders of the captioning models, one entry each; needs TensorFlow.

Knows how to build a model by name and give it word vectors. Refuses to know data and training.
A model has: `feature_kind`, `settings`, `hidden`, `logits`, `call`, `start` and `step`, as merge.py shows.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is imported; warnings and errors stay

import keras
import numpy as np

from lcm.errors import choose
from lcm.models.merge import Merge

MODELS = {"merge": Merge}


def build_model(name: str, feature_dim: int, word_vectors: np.ndarray, seed: int) -> Merge:
    """Return a model of MODELS with fresh weights, the same for the same `seed`.

    `feature_dim` is the number of values of an image feature, `word_vectors` [V, E] are copied in, one row a
    word. Raises ConfigError for an unknown name.
    """
    keras.utils.set_random_seed(seed)
    vocabulary_size, embedding_dim = word_vectors.shape
    model = choose(MODELS, name, "model")(feature_dim, vocabulary_size, embedding_dim)
    model((np.zeros((1, feature_dim), np.float32), np.zeros((1, 1), np.int32)))
    model.word_embedding.set_weights([word_vectors])
    return model
