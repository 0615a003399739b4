"""The dual encoder: unit vectors that depend on the image or the text alone, and what is learned of which word."""

import numpy as np
import pytest
import tensorflow as tf

from lcm.models import build_tagger
from lcm.models.dual_encoder import DualEncoder

FEATURE_DIM, TABLE_SIZE, LEARNED_WORDS, EMBEDDING_DIM, LEARNED_DIM, WIDTH = 6, 9, 5, 4, 7, 16
WORD_VECTORS = np.random.default_rng(0).normal(size=(TABLE_SIZE, EMBEDDING_DIM)).astype(np.float32)
FEATURES = np.random.default_rng(1).normal(2, 3, size=(30, FEATURE_DIM)).astype(np.float32)


def ids(*texts: list[int]) -> np.ndarray:
    """Texts as word ids, 0 where a text is over."""
    longest = max(map(len, texts))
    return np.array([text + [0] * (longest - len(text)) for text in texts], dtype=np.int32)


@pytest.fixture(scope="module")
def model() -> DualEncoder:
    return build_tagger(FEATURES, WORD_VECTORS, LEARNED_WORDS, seed=3)


# Vectors


def test_a_text_s_vector_depends_neither_on_padding_nor_on_company(model):
    alone = [model.read(ids(text)) for text in ([5], [1, 2, 3], [9, 6])]
    together = model.read(ids([5], [1, 2, 3], [9, 6], [8] * 20))
    np.testing.assert_allclose(np.concatenate(alone), together[:3], atol=1e-6)


# Rows


def test_a_word_s_row_is_its_vector_and_what_was_learned_of_it(model):
    every = np.arange(1, TABLE_SIZE + 1)
    rows = model.rows(every[None])[0].numpy()
    np.testing.assert_array_equal(rows[:, :EMBEDDING_DIM], WORD_VECTORS)
    learned = rows[:, EMBEDDING_DIM:]
    assert (learned[:LEARNED_WORDS] != 0).all()
    assert (learned[LEARNED_WORDS:] == 0).all()


def test_training_hides_the_learned_part_of_a_word_whole_or_not_at_all(model):
    """Of three in ten."""
    word_ids = np.full((1, 200), 3, np.int32)
    learned = model.rows(word_ids, training=True)[0, :, EMBEDDING_DIM:].numpy()
    shown = model.rows(word_ids)[0, 0, EMBEDDING_DIM:].numpy()
    hidden = (learned == 0).all(axis=1)
    assert 30 < np.count_nonzero(hidden) < 90
    np.testing.assert_array_equal(learned[~hidden], np.tile(shown, (np.count_nonzero(~hidden), 1)))


# Training and serving


def test_word_dropout_hides_words_but_never_the_first():
    model = build_tagger(FEATURES, WORD_VECTORS, LEARNED_WORDS, seed=3)
    model.word_dropout.rate, model.text_dropout.rate, model.learned_dropout.rate = 0.999, 0, 0
    one_word = model.read(ids([3]))
    np.testing.assert_allclose(model.read(ids([3]), training=True), one_word, atol=1e-6)
    # of 200 times 3 other words one in a thousand is kept
    left = model.read(ids(*[[3, 1, 2, 8]] * 200), training=True).numpy() @ one_word[0].numpy()
    assert np.count_nonzero(left > 1 - 1e-5) >= 190


def test_the_pretrained_vectors_are_frozen_and_all_else_gets_a_gradient(model):
    with tf.GradientTape() as tape:
        images, texts = model((FEATURES[:2], ids([1, 2], [3])), training=True)
        loss = tf.reduce_sum(images * texts) * tf.reduce_sum(model.log_scales)
    assert all(gradient is not None for gradient in tape.gradient(loss, model.trainable_variables))
    names = [variable.path for variable in model.trainable_variables]
    assert not any(name.split("/")[-1] in ("mean", "spread") or "pretrained" in name for name in names)
    # image and text dense, two filters (a kernel and a bias each), the learned vectors, the scales
    assert len(names) == 4 * 2 + 2


# Building


def test_a_feature_that_hardly_varies_in_training_does_not_drown_the_others():
    """Variances of 1 and 0, so 0.5 in the mean: the second counts as 0.005, and 6 is 1 / sqrt(0.005) from its mean."""
    few = build_tagger(np.array([[0.0, 5.0], [2.0, 5.0]]), WORD_VECTORS, LEARNED_WORDS, seed=0)
    np.testing.assert_allclose((np.array([[2.0, 6.0]]) - few.mean) / few.spread, [[1, 200**0.5]], rtol=1e-5)
    same = build_tagger(np.array([[1.0, 5.0], [1.0, 5.0]]), WORD_VECTORS, LEARNED_WORDS, seed=0)
    np.testing.assert_allclose((np.array([[2.0, 3.0]]) - same.mean) / same.spread, [[1, -2]], rtol=1e-5)
