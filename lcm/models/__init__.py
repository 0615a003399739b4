"""Keras models of captioning and tagging by name, and their builders; needs TensorFlow.

A captioning model works on several texts of each image at once: what it finds out about an image it holds once, for
all of them. It has (merge.py shows it in short):

- `feature_kind` ("pooled" or "grid"), `captions_together` (whether training batches hold all captions of an image,
  which pays where an image costs much), `unrolled` (whether a compiled graph of it holds for one caption length only),
  `settings`, `feature_shape`, and `row_shapes` of what it remembers of a text, where None is an axis that grows with
  the words;
- `take_word_vectors`, to use pretrained ones as it likes;
- `hidden`, `logits` and `call`, over whole texts;
- `start` and `step`, word by word: `start` gives what is held of the images, `step` log-probabilities, the rows, which
  begin as zeros, and where the model looks at a grid how much it looked where.

A tagger has what dual_encoder.py shows.
"""

# ruff: noqa: E402 - TensorFlow is imported first, quietly
import os
import warnings

from lcm.errors import ConfigError, choose


def _import_tensorflow() -> None:
    """Import TensorFlow without the two lines about oneDNN that it writes to stderr whatever the log level."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # whatever ~/.keras/keras.json says
    if backend != "tensorflow":
        raise ConfigError(f"KERAS_BACKEND is {backend!r}; lcm trains with tensorflow: unset it, or set it to that")
    shown, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow
    finally:
        os.dup2(shown, 2)
        os.close(shown)
        os.close(nowhere)
    tensorflow.get_logger().setLevel("ERROR")  # it warns of one graph a caption length, which is meant
    warnings.filterwarnings("ignore", "You are using a softmax over axis")  # a first word that reads itself alone


_import_tensorflow()

import keras
import numpy as np

from lcm.models.dual_encoder import DualEncoder
from lcm.models.merge import Merge
from lcm.models.transformer import Transformer

MODELS = {"merge": Merge, "transformer": Transformer}
KEPT, ADAPTED = "kept", "adapted"  # the tagger of the model that training continues from, as it is or trained on
TAGGERS = dict.fromkeys(("dual_encoder", "text_tower", ADAPTED, KEPT, "none"))  # the first one is trained from scratch
# Of a feature, as a share of the mean over all features: of ten images, some features hardly vary or not at all, and
# another image's would be divided by next to nothing and drown all others. In 8,000 photos the least has 0.03.
LEAST_VARIANCE = 0.01


def feature_kind(name: str) -> str:
    """Return the kind of features, "pooled" or "grid", that a model reads."""
    return choose(MODELS, name, "model").feature_kind


def build_model(name: str, feature_shape: tuple[int, ...], word_vectors: np.ndarray, seed: int) -> keras.Model:
    """Return a model of MODELS with fresh weights, the same for the same `seed`.

    `feature_shape` is that of one image's features; `word_vectors` [V, E], one row a word, are the model's to use.
    Raises ConfigError for an unknown name.
    """
    keras.utils.set_random_seed(seed)
    vocabulary_size, embedding_dim = word_vectors.shape
    model = choose(MODELS, name, "model")(feature_shape, vocabulary_size, embedding_dim)
    model((np.zeros((1, *feature_shape), np.float32), np.zeros((1, 1, 1), np.int32)))  # gives the layers their weights
    model.take_word_vectors(word_vectors)
    return model


def build_tagger(features: np.ndarray, word_vectors: np.ndarray, learned_words: int, seed: int) -> DualEncoder:
    """Return a dual encoder with fresh weights, the same for the same `seed`.

    `features` [images, F] are those it will be trained with, for their mean and spread; `word_vectors` [W, E] are
    copied in, one row a word, of which the first `learned_words` get a learned part.
    """
    keras.utils.set_random_seed(seed)
    table_size, embedding_dim = word_vectors.shape
    model = DualEncoder(features.shape[1], table_size, learned_words, embedding_dim)
    model((np.zeros((1, features.shape[1]), np.float32), np.ones((1, 1), np.int32)))  # gives the layers their weights
    variance = features.var(axis=0)
    model.mean.assign(features.mean(axis=0))
    model.spread.assign(np.sqrt(np.maximum(variance, LEAST_VARIANCE * variance.mean() or 1.0)))
    model.pretrained.set_weights([np.vstack([np.zeros((1, embedding_dim), np.float32), word_vectors])])
    return model
