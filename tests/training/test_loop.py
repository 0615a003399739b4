"""Training the captioner: loss, batches, the first stage and its resumption; and the export of captioner and tagger."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from lcm.captioning.generate import best_captions
from lcm.config import TrainConfig
from lcm.data.dataset import LabelledImage
from lcm.data.text import END, PAD, START, UNKNOWN
from lcm.features.cache import LabelledFeatures
from lcm.models import build_model
from lcm.training.batches import Batch, CaptionBatches
from lcm.training.loop import KerasDecoder, Trainer, cross_entropy, fit
from tests.fakes.toy_world import toy_world, train_toy

# Loss


def test_cross_entropy_and_its_gradient_are_tensorflows():
    random = np.random.default_rng(0)
    logits = tf.constant(random.normal(0, 5, (7, 11)), tf.float32)
    targets = tf.constant(random.integers(0, 11, 7), tf.int32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        ours = 3.0 * cross_entropy(logits, targets)
        theirs = 3.0 * tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits))
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)
    np.testing.assert_allclose(tape.gradient(ours, logits), tape.gradient(theirs, logits), atol=1e-6)


def test_smoothed_cross_entropy_and_its_gradient_are_keras():
    random = np.random.default_rng(0)
    logits = tf.constant(random.normal(0, 3, (7, 11)), tf.float32)
    targets = random.integers(0, 11, 7)
    keras_loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        ours = cross_entropy(logits, tf.constant(targets, tf.int32), smoothing=0.1)
        theirs = keras_loss(tf.one_hot(targets, 11), logits)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)
    np.testing.assert_allclose(tape.gradient(ours, logits), tape.gradient(theirs, logits), atol=1e-6)


# Batches


def test_captions_without_words_are_not_learned():
    labelled, prepared = toy_world()
    image = LabelledImage("a.jpg", Path("a.jpg"), "train", ("...", "a red dog", "\N{DOG FACE}"))
    batches = CaptionBatches(LabelledFeatures([image], np.array([0]), labelled.store), prepared.vocabulary, 8)
    (batch,) = batches.epoch(0, 1)
    assert len(batch.inputs) == 1


def test_word_dropout_hides_inputs_and_never_targets():
    labelled, prepared = toy_world()
    plain = CaptionBatches(labelled, prepared.vocabulary, 8)
    some = CaptionBatches(labelled, prepared.vocabulary, 8, word_dropout=0.5)
    words = hidden = 0
    assert sum(batch.targets.sum() for batch in some.epoch(0, 1)) == sum(b.targets.sum() for b in plain.epoch(0, 1))
    for batch in some.epoch(0, 1):
        assert (batch.inputs[..., 0] == START).all()
        shifted = np.append(batch.inputs[..., 1:], np.full((len(batch.inputs), 1, 1), PAD), axis=2)
        changed = (shifted != batch.targets) & (batch.targets != END) & (batch.targets != PAD)
        assert (shifted[changed] == UNKNOWN).all()
        words += np.count_nonzero((batch.targets != END) & (batch.targets != PAD))
        hidden += np.count_nonzero(changed)
    assert 0.35 < hidden / words < 0.65


# Fit


def test_captions_of_an_image_together_are_learned_as_they_are_alone():
    """Same words, same loss, whatever the number of captions of an image."""
    labelled, prepared = toy_world()
    images = [replace(image, captions=image.captions[: 1 + place % 2]) for place, image in enumerate(labelled.images)]
    labelled = replace(labelled, images=images)
    model = build_model("merge", labelled.shape, np.ones((len(prepared.vocabulary), 50), np.float32), 0)
    trainer = Trainer(model, TrainConfig(run_dir=""), total_steps=10)
    losses, widths = [], set()
    for together in (False, True):
        epoch = list(CaptionBatches(labelled, prepared.vocabulary, 2, together=together).epoch(0, 1))
        measured = [(float(trainer.measure(batch)), batch.positions) for batch in epoch]
        widths |= {batch.inputs.shape[1] for batch in epoch}
        losses.append(np.average([loss for loss, _ in measured], weights=[count for _, count in measured]))
    assert widths == {1, 2}
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_it_learns_to_caption_and_leaves_the_best_weights(tmp_path):
    model, history, labelled, prepared = train_toy(tmp_path, epochs=40, patience=40)
    assert history.epochs[-1].train_loss < 0.5 * history.epochs[0].train_loss
    decoder = KerasDecoder(model, prepared.vocabulary)
    captions = best_captions(decoder, labelled.read(slice(None)), beam_width=2, max_words=10)
    right = sum(one.text in image.captions for one, image in zip(captions, labelled.images, strict=True))
    assert right >= 18


def test_gradients_longer_than_the_norm_are_cut(tmp_path):
    """Adam divides a gradient by its own size plus 1e-7: one of 1e-12 hardly moves the weights, whatever the rate."""
    losses = []
    for norm in (0.0, 1.0, 1e-12):
        _, history, *_ = train_toy(tmp_path / str(norm), epochs=3, patience=3, clip_norm=norm)
        losses.append([epoch.dev_loss for epoch in history.epochs])
    (_, *free), (_, *cut), still = losses
    assert min(free) < still[0] - 0.3
    assert min(cut) < still[0] - 0.3
    assert still == pytest.approx([still[0]] * 3, abs=1e-3)
    assert free != cut


def test_other_parameters_start_over_but_not_those_of_other_stages(tmp_path, capsys):
    _, first, *_ = train_toy(tmp_path, epochs=2)
    others = {"reinforce_epochs": 3, "reinforce_samples": 7, "tagger_epochs": 99}
    _, again, *_ = train_toy(tmp_path, epochs=2, **others)
    assert again.epochs == first.epochs
    _, other, *_ = train_toy(tmp_path, epochs=2, learning_rate=0.02)
    assert "starts over" in capsys.readouterr().out
    assert other.epochs[0].train_loss != first.epochs[0].train_loss


class KilledBatches(CaptionBatches):
    """Batches in whose third epoch the run is killed."""

    def epoch(self, seed: int, number: int) -> Iterator[Batch]:
        for place, batch in enumerate(super().epoch(seed, number)):
            if (number, place) == (3, 1):
                raise KeyboardInterrupt
            yield batch


def test_killed_and_resumed_it_ends_like_an_uninterrupted_run(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path / "killed", KilledBatches)
    resumed, history, *_ = train_toy(tmp_path / "killed")
    whole, expected, *_ = train_toy(tmp_path / "whole")
    assert [epoch.train_loss for epoch in history.epochs] == [epoch.train_loss for epoch in expected.epochs]
    for ours, theirs in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_without_dev_images_nothing_is_measured(tmp_path):
    labelled, prepared = toy_world()
    config = TrainConfig(run_dir="", epochs=2, batch_size=8, patience=1)
    model = build_model("merge", labelled.shape, np.zeros((len(prepared.vocabulary), 50), np.float32), 0)
    batches = CaptionBatches(labelled, prepared.vocabulary, 8)
    empty = CaptionBatches(LabelledFeatures([], np.zeros(0, int), labelled.store), prepared.vocabulary, 8)
    history = fit(model, batches, empty, pytest.fail, config, tmp_path)
    assert history.best_epoch == len(history.epochs) == 2
    assert [(epoch.dev_loss, epoch.dev_cider) for epoch in history.epochs] == [(None, None)] * 2
