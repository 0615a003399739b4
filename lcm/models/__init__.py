"""Keras builders of the captioning models, one entry each; needs TensorFlow.

Knows how to build a model by name and give it word vectors. Refuses to know data and training.
A model has: `feature_kind`, `settings`, `hidden`, `logits`, `call`, `start` and `step`, as merge.py shows.
"""

# ruff: noqa: E402 - TensorFlow is imported first, quietly
from lcm.models.quiet import import_tensorflow

import_tensorflow()

import keras
import numpy as np

from lcm.errors import choose
from lcm.models.merge import Merge

MODELS = {"merge": Merge}


def feature_kind(name: str) -> str:
    """Return the kind of features, "pooled" or "grid", that a model reads."""
    return choose(MODELS, name, "model").feature_kind


def build_model(name: str, feature_shape: tuple[int, ...], word_vectors: np.ndarray, seed: int) -> Merge:
    """Return a model of MODELS with fresh weights, the same for the same `seed`.

    `feature_shape` is that of one image's features, `word_vectors` [V, E] are copied in, one row a word.
    Raises ConfigError for an unknown name.
    """
    keras.utils.set_random_seed(seed)
    vocabulary_size, embedding_dim = word_vectors.shape
    model = choose(MODELS, name, "model")(feature_shape[-1], vocabulary_size, embedding_dim)
    model((np.zeros((1, *feature_shape), np.float32), np.zeros((1, 1), np.int32)))  # gives the layers their weights
    model.word_embedding.set_weights([word_vectors])
    return model
