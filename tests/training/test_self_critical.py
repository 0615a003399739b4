"""Self-critical training: how captions are drawn, what they teach, and that a run resumes where it stopped."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from lcm.config import TrainConfig
from lcm.data.dataset import LabelledImage
from lcm.data.text import END, PAD, START, UNKNOWN, Vocabulary, build_vocabulary
from lcm.errors import DataError
from lcm.features.cache import LabelledFeatures
from lcm.models.merge import Merge
from lcm.models.transformer import Transformer
from lcm.training.self_critical import Sampler, SelfCritical, advantages, train_self_critical

COLOURS, THINGS = ("red", "green", "blue"), ("dog", "cat", "boat")
CAPTIONS = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
NEVER = (PAD, START, UNKNOWN)
VOCABULARY = build_vocabulary({"en": CAPTIONS}, 1)
MODELS = ("merge", "transformer")


def world(model: str, captions=CAPTIONS) -> LabelledFeatures:
    """Nine images whose features, pooled or at one of four grid positions, say outright which they are."""
    images = [
        LabelledImage(f"{place}.jpg", Path(f"{place}.jpg"), "train", (text,)) for place, text in enumerate(captions)
    ]
    pooled = np.eye(len(images), dtype=np.float32)
    grid = np.zeros((len(images), 4, len(images)), np.float32)
    grid[:, 2] = pooled
    return LabelledFeatures(images, np.arange(len(images)), {"merge": pooled, "transformer": grid}[model])


def build(name: str, dropout: float = 0.0, seed: int = 0, vocabulary: Vocabulary = VOCABULARY):
    """A small model, its weights drawn by numpy: dropout has seeds among them that are its own."""
    shape, size = world(name).shape, len(vocabulary)
    if name == "merge":
        model = Merge(shape, size, embedding_dim=8, width=16, dropout=dropout)
    else:
        sizes = {"width": 16, "heads": 2, "encoder_layers": 0, "decoder_layers": 1}
        model = Transformer(shape, size, **sizes, dropout=dropout, feature_dropout=dropout)
    model((np.zeros((1, *shape), np.float32), np.zeros((1, 1, 1), np.int32)))
    random = np.random.default_rng(seed)
    for weight in model.weights:
        spread = random.normal(0, 0.3, weight.shape)
        weight.assign(np.ones(weight.shape) if "gamma" in weight.path else spread)
    return model


def settings(**parameters) -> TrainConfig:
    quick = {"reinforce_epochs": 3, "reinforce_images": 3, "max_words": 4}
    quick |= {"reinforce_learning_rate": 0.02, "reinforce_temperature": 1.0}
    return TrainConfig(run_dir="", **(quick | parameters))


def train(folder: Path, model: str = "merge", first: int = 0, labelled: LabelledFeatures | None = None, **parameters):
    """Train a small model, as the first stage, of the seed `first`, might have left it; returns it and the history."""
    fresh = build(model, seed=first)
    labelled = world(model) if labelled is None else labelled
    return fresh, train_self_critical(fresh, labelled, VOCABULARY, lambda: None, settings(**parameters), folder)


def log_probs_of(model, features: np.ndarray, written: np.ndarray) -> np.ndarray:
    """The log-probability [B, S] of whole captions [B, S, T]."""
    inputs = np.concatenate([np.full_like(written[..., :1], START), written[..., :-1]], axis=2)
    log_probs = np.log(np.take_along_axis(model((features, inputs)).numpy(), written[..., None], axis=3)[..., 0])
    return np.where(written == PAD, 0, log_probs).sum(2)


def references_of(labelled: LabelledFeatures) -> np.ndarray:
    return np.array([[VOCABULARY.encode(text)[1:] for text in image.captions] for image in labelled.images], np.int32)


def same_weights(model, other) -> bool:
    pairs = zip(model.get_weights(), other.get_weights(), strict=True)
    return all(np.allclose(ours, theirs, atol=1e-5) for ours, theirs in pairs)


# Advantages


def test_advantages_are_over_the_mean_of_an_image_s_other_samples():
    found = advantages(np.array([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0], [3.0, 3.0, 0.0]]))
    assert found.tolist() == [[-3.0, -1.5, 4.5], [0.0, 0.0, 0.0], [1.5, 1.5, -3.0]]
    assert found.dtype == np.float32
    assert advantages(np.array([[5.0, 1.0]])).tolist() == [[4.0, -4.0]]


# Sampling


class Written:
    """A model of known probabilities: by image (its one feature, 0 or 1), by how many words there are, by last word."""

    def __init__(self, probabilities: np.ndarray):
        """`probabilities` are [images, places, last words, next words]."""
        self.settings, self.row_shapes = {"vocabulary_size": probabilities.shape[-1]}, ((1,),)
        self.log_probs = tf.constant(np.log(np.maximum(probabilities, 1e-30)), tf.float32)

    def start(self, features):
        return (tf.cast(features[:, 0], tf.int32),)

    def step(self, token_ids, images, rows):
        words = tf.cast(rows[0][..., 0], tf.int32)
        kinds = tf.broadcast_to(images[0][:, None], tf.shape(token_ids))
        return tf.gather_nd(self.log_probs, tf.stack([kinds, words, token_ids], axis=2)), (rows[0] + 1,)


A, B = 4, 5  # words of it; PAD, START and UNKNOWN have a probability too, that no caption may use
FIRST = {0: {A: 0.5, B: 0.1, END: 0.1, PAD: 0.1, START: 0.1, UNKNOWN: 0.1}, 1: {A: 0.2, B: 0.2, END: 0.6}}
AFTER_A = {0: {A: 0.3, B: 0.7}, 1: {B: 1.0}}


@pytest.fixture(scope="module")
def written() -> Written:
    """Writes a first word or ends, after A another word, and after B, or at the third place, always ends."""
    probabilities = np.zeros((2, 9, 8, 8))
    probabilities[..., END] = 1
    for image in (0, 1):
        for place, last, words in ((0, START, FIRST[image]), (1, A, AFTER_A[image])):
            probabilities[image, place, last] = 0
            probabilities[image, place, last, list(words)] = list(words.values())
    return Written(probabilities)


IMAGES = tf.constant([[0.0], [1.0]])
STARTS = np.full(2, START, np.int32)


def test_words_are_drawn_with_the_probabilities_that_the_model_gives_them(written):
    samples, of_image = 4000, Sampler(written, NEVER, 4000, 5).write(IMAGES, STARTS, (3, 0))
    expected = [
        # the three words that none may write leave 0.7
        {(A, A, END): 5 / 7 * 0.3, (A, B, END): 5 / 7 * 0.7, (B, END, PAD): 1 / 7, (END, PAD, PAD): 1 / 7},
        {(A, B, END): 0.2, (B, END, PAD): 0.2, (END, PAD, PAD): 0.6},
    ]
    for captions, shares in zip(of_image.tolist(), expected, strict=True):
        drawn = [tuple(caption) for caption in captions]
        assert set(drawn) == set(shares)
        for caption, share in shares.items():
            deviation = np.sqrt(share * (1 - share) / samples)
            assert abs(drawn.count(caption) / samples - share) < 4 * deviation, caption


def test_a_caption_stops_at_its_end_or_after_the_most_words():
    probabilities = np.zeros((1, 9, 8, 8))
    probabilities[..., [A, END]] = 0.9, 0.1
    drawn = Sampler(Written(probabilities), NEVER, 500, 6).write(tf.zeros((1, 1)), STARTS[:1], (0, 0))[0]
    assert drawn.shape == (500, 6)
    ends = (drawn == END).argmax(1)
    for caption, end in zip(drawn.tolist(), ends, strict=True):
        assert caption == ([A] * end + [END] + [PAD] * (5 - end) if END in caption else [A] * 6)
    assert set(ends) == set(range(6))
    assert (drawn != END).all(1).any()


# Learning


def make_stage(name: str, dropout: float = 0.0, temperature: float = 1.0) -> SelfCritical:
    config = settings(reinforce_temperature=temperature)
    return SelfCritical(build(name, dropout), world(name), VOCABULARY, lambda: None, config)


RED, DOG, GREEN = (VOCABULARY.ids[word] for word in ("red", "dog", "green"))
PAIRS = np.array([[[RED, DOG, END], [GREEN, END, PAD]]] * 2, np.int32)  # two captions of each of two images


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_a_step_follows_the_gradient(temperature):
    """Of the last layer's bias, by hand: each word's advantage times what its probability lacks, a mean over words."""
    stage = make_stage("merge", temperature=temperature)
    stage.optimizer = keras.optimizers.SGD(1.0)
    stage.optimizer.build(stage.model.trainable_variables)
    features, earned, bias = (
        world("merge").read(np.arange(2)),
        np.array([[1, -1], [3, 0.5]]),
        stage.model.output_dense.bias,
    )
    inputs = np.concatenate([np.full((2, 2, 1), START), PAIRS[..., :-1]], axis=2)
    logits, before = stage.model.logits(stage.model.hidden(features, inputs)).numpy(), bias.numpy()
    logits[..., list(NEVER)] = -np.inf  # such words are not drawn, so they are not learned from
    probabilities = np.exp(logits / temperature) / np.exp(logits / temperature).sum(-1, keepdims=True)
    lacking = (np.eye(len(VOCABULARY))[PAIRS] - probabilities) / temperature * earned[..., None, None]
    stage.learn(features, np.full(len(PAIRS), START, np.int32), PAIRS, earned.astype(np.float32))
    np.testing.assert_allclose(bias.numpy() - before, lacking[PAIRS != PAD].mean(0), atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_dropout_is_off(name):
    """An epoch of a model that would hide nine in ten numbers is that of one without dropout."""
    plain, hiding = make_stage(name), make_stage(name, dropout=0.9)
    assert plain.train_epoch(1) == pytest.approx(hiding.train_epoch(1), rel=1e-4)
    for ours, theirs in zip(plain.model.trainable_variables, hiding.model.trainable_variables, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_it_learns_to_write_what_earns_more(name, tmp_path):
    labelled, fresh = world(name), build(name)
    model, history = train(tmp_path, name, reinforce_epochs=25, reinforce_samples=8, reinforce_temperature=1.0)
    rewards = [epoch.train_reward for epoch in history.epochs]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 1
    features, references = labelled.read(slice(None)), references_of(labelled)
    gained = log_probs_of(model, features, references) - log_probs_of(fresh, features, references)
    assert gained.mean() > 1
    others = np.roll(references, 1, axis=0)
    assert (gained - log_probs_of(model, features, others) + log_probs_of(fresh, features, others)).mean() > 1


@pytest.mark.parametrize(("before", "kept"), [(0.8, "first stage"), (0.7, "second stage")])
def test_an_epoch_tells_of_rewards_and_where_dev_gets_worse_the_first_stage_stays(before, kept, tmp_path, capsys):
    scores, model = iter([before, 0.25, 0.75, 0.5]), build("merge")
    history = train_self_critical(model, world("merge"), VOCABULARY, lambda: next(scores), settings(), tmp_path)
    for epoch in history.epochs:
        assert (epoch.train_loss, epoch.dev_loss, epoch.learning_rate) == (None, None, pytest.approx(0.02))
        assert 0 <= epoch.train_reward <= 10
    assert ([epoch.dev_cider for epoch in history.epochs], history.best_epoch) == ([0.25, 0.75, 0.5], 2)
    assert same_weights(model, build("merge")) == (kept == "first stage")
    assert ("did not help" in capsys.readouterr().out) == (kept == "first stage")


# Images


def test_images_without_words_take_no_part_and_further_views_are_read(tmp_path):
    """The features of the image without words, and all without views, are no numbers: no weight would be one."""
    plain = world("merge", [*CAPTIONS[:4], "...", *CAPTIONS[5:]])
    plain.store[4] = np.nan
    store = np.concatenate([np.full_like(plain.store, np.nan), plain.store])
    labelled = LabelledFeatures(plain.images, np.arange(18).reshape(2, 9), store)
    model, history = train(tmp_path, labelled=labelled, view_share=1.0)
    assert all(np.isfinite(array).all() for array in model.get_weights())
    assert not same_weights(model, build("merge"))
    assert history.epochs[0].train_reward > 0


@pytest.mark.parametrize("captions", [[], ["red dog"], ["red dog", "...", ""]])
def test_fewer_than_two_images_with_captions_are_refused(captions, tmp_path):
    found = captions.count("red dog")
    message = rf"train images with captions in words: {found}; self-critical training needs two.*reinforce_epochs to 0"
    with pytest.raises(DataError, match=message):
        train(tmp_path, labelled=world("merge", captions))


# Resuming


def test_killed_and_resumed_it_ends_like_an_uninterrupted_run(tmp_path):
    reads = []

    class KilledFeatures(LabelledFeatures):
        """Images of which the fifth batch, in the second epoch, is never read."""

        def read(self, places, views=None):
            reads.append(places)
            if len(reads) == 5:
                raise KeyboardInterrupt
            return super().read(places, views)

    labelled = world("merge")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", labelled=KilledFeatures(labelled.images, labelled.rows, labelled.store))
    resumed, history = train(tmp_path / "killed")
    whole, expected = train(tmp_path / "whole")
    assert [epoch.train_reward for epoch in history.epochs] == [epoch.train_reward for epoch in expected.epochs]
    assert same_weights(resumed, whole)
