"""The merge model: its size, its two ways of running, and the original's loss."""

import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.original import build_prefix_model, prefix_examples
from lcm.data.text import END, PAD, START
from lcm.models import build_model
from lcm.training.loop import caption_loss

VOCABULARY_SIZE, FEATURE_DIM = 23, 12


@pytest.fixture(scope="module")
def model():
    vectors = np.random.default_rng(0).normal(size=(VOCABULARY_SIZE, 50)).astype(np.float32)
    return build_model("merge", (FEATURE_DIM,), vectors, seed=3)


def several_texts() -> np.ndarray:
    """Three texts [2, 3, 4] of each of two images."""
    return np.array(
        [
            [[START, 5, 9, 17], [START, 21, 4, 4], [START, 6, 6, 6]],
            [[START, 5, 9, 17], [START, 8, PAD, PAD], [PAD, PAD, PAD, PAD]],
        ],
        dtype=np.int32,
    )


def random_features(images: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(images, FEATURE_DIM)).astype(np.float32)


def test_it_has_exactly_the_parameters_of_the_original():
    # 2048*256+256 image, 4*256*(50+256+1) LSTM, 256*256+256 dense, 256*5352+5352 softmax, 5352*50 word embedding
    model = build_model("merge", (2048,), np.zeros((5352, 50), np.float32), seed=0)
    assert model.count_params() == 2_547_768
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == 2_547_768 - 5352 * 50


def test_word_by_word_gives_what_the_whole_caption_gives(model):
    features, token_ids = random_features(2), several_texts()
    whole = np.log(model((features, token_ids)).numpy())
    images, rows = model.start(features), [np.zeros((2, 3, *shape), np.float32) for shape in model.row_shapes]
    for position in range(token_ids.shape[2]):
        log_probs, rows = model.step(token_ids[:, :, position], images, rows)
        np.testing.assert_allclose(log_probs, whole[:, :, position], atol=1e-5)


def test_the_loss_is_that_of_one_prefix_at_a_time(model):
    """All next words in one pass, dropout off, against the original's padded prefixes and one-hot targets."""
    captions = [[START, 5, 9, 17, 4, END], [START, 21, END], [START, 8, 8, 8, END]]
    features = random_features(2)
    inputs = np.full((2, 2, 5), PAD, dtype=np.int32)  # two captions of the first image, one of the second
    targets = np.full((2, 2, 5), PAD, dtype=np.int32)
    prefixes, next_words, repeated = [], [], []
    for place, token_ids in enumerate(captions):
        row, text = divmod(place, 2)
        inputs[row, text, : len(token_ids) - 1] = token_ids[:-1]
        targets[row, text, : len(token_ids) - 1] = token_ids[1:]
        some_prefixes, some_words = prefix_examples(token_ids, longest=5, vocabulary_size=VOCABULARY_SIZE)
        prefixes.append(some_prefixes)
        next_words.append(some_words)
        repeated.append(np.tile(features[row], (len(some_prefixes), 1)))
    ours = float(caption_loss(model, features, inputs, targets, training=False))
    reference = build_prefix_model(model).evaluate(
        (np.concatenate(repeated), np.concatenate(prefixes)), np.concatenate(next_words), batch_size=99, verbose=0
    )
    assert ours == pytest.approx(reference, abs=1e-5)


def test_another_backend_of_keras_is_one_sentence():
    command = [sys.executable, "-c", "import lcm.models"]
    done = subprocess.run(command, env=os.environ | {"KERAS_BACKEND": "jax"}, capture_output=True, text=True)
    assert "ConfigError: KERAS_BACKEND is 'jax'; lcm trains with tensorflow" in done.stderr.splitlines()[-1]
