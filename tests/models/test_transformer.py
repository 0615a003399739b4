"""The transformer: word by word as over whole captions, what may see what, its size, and that it looks at the grid."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lcm.captioning.decoding import empty_rows
from lcm.data.text import END, PAD, START
from lcm.models import transformer
from lcm.models.transformer import Transformer
from lcm.training.loop import caption_loss
from tests.fakes.attention import attention

VOCABULARY_SIZE, POSITIONS, FEATURE_DIM, WIDTH = 23, 9, 7, 16


def make(feature_shape=(POSITIONS, FEATURE_DIM), vocabulary_size=VOCABULARY_SIZE, width=WIDTH, heads=2, **settings):
    """A small one with the weights of seed 4."""
    keras.utils.set_random_seed(4)
    model = Transformer(feature_shape, vocabulary_size, width=width, heads=heads, **settings)
    model((np.zeros((1, *feature_shape), np.float32), np.zeros((1, 1, 1), np.int32)))
    return model


@pytest.fixture(scope="module")
def model() -> Transformer:
    """Weights far from those that training begins with, so that nothing is nearly zero."""
    made, random = make(), np.random.default_rng(5)
    made.set_weights([random.normal(0, 0.4, array.shape).astype(np.float32) for array in made.get_weights()])
    return made


def several_texts() -> np.ndarray:
    """Three texts [2, 3, 4] of each of two images."""
    return np.array(
        [
            [[START, 5, 9, 17], [START, 21, 4, 4], [START, 6, 6, 6]],
            [[START, 5, 9, 17], [START, 8, END, PAD], [PAD, PAD, PAD, PAD]],
        ],
        dtype=np.int32,
    )


def random_features(images: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(images, POSITIONS, FEATURE_DIM)).astype(np.float32)


def assert_word_by_word_is_whole(model, features: np.ndarray, token_ids: np.ndarray) -> None:
    whole = np.log(model((features, token_ids)).numpy())
    images, rows = model.start(features), empty_rows(len(features), model.row_shapes)
    rows = [np.repeat(row, token_ids.shape[1], axis=1) for row in rows]
    for position in range(token_ids.shape[2]):
        log_probs, rows, _ = model.step(token_ids[:, :, position], images, rows)
        np.testing.assert_allclose(log_probs, whole[:, :, position], atol=1e-4)


# Whole captions and word by word


def test_word_by_word_gives_what_the_whole_caption_gives(model):
    """So no word sees a later one, another text or another image: step by step, it could not."""
    assert_word_by_word_is_whole(model, random_features(2), several_texts())


def test_words_far_behind_are_read_as_those_at_the_last_place(monkeypatch):
    monkeypatch.setattr(transformer, "MAX_POSITIONS", 4)
    model, token_ids = make(), np.array([[[START, 7, 7, 7, 7, 7, 9]]], np.int32)
    read = model.read(token_ids, 0)[0, 0].numpy()
    assert np.abs(read[1:3] - read[2:4]).max(1).min() > 1e-2
    np.testing.assert_array_equal(read[[4, 5]], read[[3, 3]])
    assert_word_by_word_is_whole(model, random_features(1), token_ids)


# What may see what


def test_every_grid_position_is_seen_and_has_its_place(model):
    features, token_ids = random_features(1), several_texts()[:1]
    before = model.hidden(features, token_ids).numpy()
    for place in range(POSITIONS):
        changed, moved = features.copy(), features.copy()
        changed[0, place] += 1
        moved[0, [0, place]] = features[0, [place, 0]]
        assert np.abs(model.hidden(changed, token_ids) - before).max() > 1e-3
        assert (np.abs(model.hidden(moved, token_ids) - before).max() > 1e-3) == (place > 0)


# Weights


def test_every_weight_learns():
    model = make()
    with tf.GradientTape() as tape:
        token_ids = several_texts()
        loss = caption_loss(model, random_features(2), token_ids, np.roll(token_ids, -1, axis=2), training=True)
    for weight, gradient in zip(model.weights, tape.gradient(loss, model.weights), strict=True):
        assert gradient is not None, weight.path


# Looking


def test_attention_is_a_share_of_the_grid_for_each_word_and_sees_no_later_word(model):
    features, token_ids = random_features(2), several_texts()
    weights = attention(model, features, token_ids)
    assert weights.shape == (2, 3, 4, POSITIONS)
    assert weights.min() > 0
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    begun = attention(model, features, token_ids[:, :, :2])
    np.testing.assert_allclose(begun, weights[:, :, :2], atol=1e-5)
    assert np.abs(weights[0, 0, 1] - weights[0, 1, 1]).max() > 1e-3  # other words, other looks
    alone = attention(model, features[1:], token_ids[1:, 1:2])
    np.testing.assert_allclose(alone, weights[1:, 1:2], atol=1e-5)


def without_weights(heads: int) -> Transformer:
    """One of width 4 and of one layer, without encoder; all weights are zero, but the norms do their work."""
    model = make((4, 5), 8, width=4, heads=heads, encoder_layers=0, decoder_layers=1)
    for weight in model.weights:
        if "norm/gamma" not in weight.path:
            weight.assign(np.zeros(weight.shape))
    model.places.assign(np.eye(4))
    model.decoder[0].look.key.kernel.assign(np.eye(4))
    return model


def test_attention_by_hand_each_word_looks_at_its_place():
    """Words 4 to 7 are the unit vectors that the places 0 to 3 are; normalised, equal ones give 4, others -4/3."""
    model = without_weights(heads=1)
    model.words.assign(np.vstack([np.zeros((4, 4)), np.eye(4)]))
    model.decoder[0].look.query.kernel.assign(np.eye(4))
    weights = attention(model, np.zeros((1, 4, 5), np.float32), np.array([[[6, 4, 7, 5]]], np.int32))
    near, far = np.exp(4 / 2), np.exp(-4 / 3 / 2)  # scores are divided by the root of the width
    expected = np.full((4, 4), far / (near + 3 * far))
    expected[np.arange(4), [2, 0, 3, 1]] = near / (near + 3 * far)
    np.testing.assert_allclose(weights[0, 0], expected, atol=1e-3)
