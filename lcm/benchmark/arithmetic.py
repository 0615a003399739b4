"""Arithmetic: how many floating-point operations training takes, and how many the processor does at best.

Knows the matrix products of each model, which are nearly all of its work: a product of [A, B] with [B, C] takes
2 * A * B * C operations, and in training up to three such products, one forwards and one each for what goes in and for
the weights. Nothing is counted for what need not be done: a frozen embedding and image features get no gradient.
Refuses to know how a step is computed.

Shapes: B rows of a batch, W captions of a row, T positions, P real positions, N grid positions, F numbers in a feature,
E in a word vector, D width, V words.
"""

from collections.abc import Callable, Mapping

import numpy as np

from lcm.training.batches import Batch

SIDE = 1024  # of the square matrices by which the processor's limit is measured: they fit the cache of one core
PRODUCTS = 12  # in a call: some 25 GFLOP, a tenth of a second or two


def product_rate(precision: str = "float32") -> Callable[[], float]:
    """Return a function that multiplies matrices in TensorFlow and returns how many GFLOP it did."""
    import tensorflow as tf

    random = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)
    matrix = tf.cast(tf.constant(random), precision)
    multiply = tf.function(lambda one, other: tf.matmul(one, other))

    def work() -> float:
        found = matrix
        for _ in range(PRODUCTS):
            found = multiply(matrix, matrix)
        found.numpy()
        return PRODUCTS * 2 * SIDE**3 / 1e9

    return work


def merge_gflop(settings: Mapping, rows: int, length: int, positions: int) -> float:
    """Return what a training step of merge takes: B * W `rows` of T `length`, softmax at P `positions`.

    The image is read once a row, as the model does.
    """
    (features,), width = settings["feature_shape"], settings["width"]
    image = 2 * rows * features * width * 2  # no gradient for the features
    words = 2 * rows * length * settings["embedding_dim"] * 4 * width * 2  # nor for the frozen words
    recurrent = 2 * rows * length * width * 4 * width * 3
    written = 2 * positions * width * (width + settings["vocabulary_size"]) * 3
    return (image + words + recurrent + written) / 1e9


def prefix_gflop(settings: Mapping, prefixes: int, longest: int) -> float:
    """Return what a training step of the original takes: every prefix is a row of its own, padded to the longest."""
    return merge_gflop(settings, prefixes, longest, prefixes)


def transformer_gflop(settings: Mapping, images: int, texts: int, length: int, positions: int) -> float:
    """Return what a training step of the transformer takes: B images with W texts of T each, softmax at P."""
    see, read = _transformer_forward(settings, images, texts, length)
    grid, features = settings["feature_shape"]
    first = 2 * images * grid * features * settings["width"]  # no gradient for the features
    return (3 * (see + read + _written(settings, positions)) - first) / 1e9


def _transformer_forward(settings: Mapping, images: int, texts: int, length: int) -> tuple[float, float]:
    """Return the operations to see the images and to read the words, each once, without the softmax."""
    (grid, features), width = settings["feature_shape"], settings["width"]
    places, rows = images * grid, images * texts * length
    dense, think = 2 * width * width, 2 * 2 * width * 4 * width  # a row: one projection; the two layers after looking
    see = 2 * places * features * width
    see += settings["encoder_layers"] * places * (4 * dense + 2 * 2 * grid * width + think)
    decoder = rows * (4 * dense + 2 * 2 * length * width)  # the words before
    decoder += rows * (2 * dense + 2 * 2 * grid * width + think) + places * 2 * dense  # the grid
    return see, settings["decoder_layers"] * decoder


def _written(settings: Mapping, positions: int) -> float:
    return 2 * positions * settings["width"] * settings["vocabulary_size"]


def step_gflop(model, batch: Batch) -> float:
    """Return what a training step of a model of lcm takes on a batch."""
    rows, texts, length = batch.inputs.shape
    if model.feature_kind == "pooled":
        return merge_gflop(model.settings, rows * texts, length, batch.positions)
    return transformer_gflop(model.settings, rows, texts, length, batch.positions)
