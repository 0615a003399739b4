"""Training the captioner: loss, epochs with checkpoints, and the first stage."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

import keras
import numpy as np
import pytest
import tensorflow as tf

from lcm.captioning.decoding import write_captions
from lcm.config import TrainConfig
from lcm.data.dataset import Dataset
from lcm.data.text import build_vocabulary, join_words, words
from lcm.errors import DataError
from lcm.features.cache import LabelledFeatures
from lcm.models import build_model
from lcm.training.batches import Batch, CaptionBatches
from lcm.training.loop import (
    Epoch,
    History,
    KerasDecoder,
    Stage,
    Stop,
    Supervised,
    cross_entropy,
    load_checkpoint,
    make_adam,
    make_dev_scorer,
    save_checkpoint,
)
from tests.fakes.toy_world import COLOURS, THINGS, toy_world, train_toy

# Loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_and_its_gradient_are_keras(smoothing):
    random = np.random.default_rng(0)
    logits = tf.constant(random.normal(0, 3, (7, 11)), tf.float32)
    targets = random.integers(0, 11, 7)
    keras_loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        ours = 3.0 * cross_entropy(logits, tf.constant(targets, tf.int32), smoothing)
        theirs = 3.0 * keras_loss(tf.one_hot(targets, 11), logits)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)
    np.testing.assert_allclose(tape.gradient(ours, logits), tape.gradient(theirs, logits), atol=1e-6)


# The first stage


def test_captions_of_an_image_together_are_learned_as_they_are_alone():
    """Same words, same loss, whatever the number of captions of an image."""
    labelled, prepared = toy_world()
    images = [replace(image, captions=image.captions[: 1 + place % 2]) for place, image in enumerate(labelled.images)]
    labelled = replace(labelled, images=images)
    model = build_model("merge", labelled.shape, np.ones((len(prepared.vocabulary), 50), np.float32), 0)
    plain = CaptionBatches(labelled, prepared.vocabulary, 2)
    stage = Supervised(model, plain, plain, lambda: None, TrainConfig(run_dir=""))
    losses, widths = [], set()
    for together in (False, True):
        epoch = list(CaptionBatches(labelled, prepared.vocabulary, 2, together=together).epoch(0, 1))
        measured = [(float(stage.loss_of(*batch)), batch.positions) for batch in epoch]
        widths |= {batch.inputs.shape[1] for batch in epoch}
        losses.append(np.average([loss for loss, _ in measured], weights=[count for _, count in measured]))
    assert widths == {1, 2}
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize(("stays", "later", "last"), [(False, 0.005, 0.0), (True, 0.01, 0.01)])
def test_the_rate_rises_then_falls_or_stays_and_long_gradients_are_cut(stays, later, last):
    optimizer, rates = make_adam(0.01, 10, 2, 0.5, stays), []
    for step in (0, 1, 2, 6, 10):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    assert rates == pytest.approx([0, 0.005, 0.01, later, last], abs=1e-9)
    assert optimizer.global_clipnorm == 0.5
    assert make_adam(0.01, 10, 0, 0.0).global_clipnorm is None


def test_other_parameters_start_over_but_not_those_of_other_stages(tmp_path, capsys):
    _, first, *_ = train_toy(tmp_path, epochs=1)
    _, again, *_ = train_toy(tmp_path, epochs=1, reinforce_epochs=3, keep_weight=7.0, tagger_epochs=99)
    assert again.epochs == first.epochs
    _, other, *_ = train_toy(tmp_path, epochs=1, learning_rate=0.02)
    assert "starts over" in capsys.readouterr().out
    assert other.epochs != first.epochs


def test_each_epoch_is_logged_for_tensorboard_where_that_is_asked_for(tmp_path):
    def logged():
        events = chain(*map(tf.compat.v1.train.summary_iterator, map(str, tmp_path.glob("run/tensorboard/captions/*"))))
        found = [(event.step, value.tag, value.simple_value) for event in events for value in event.summary.value]
        return [(step, tag, pytest.approx(number)) for step, tag, number in found]

    run = str(tmp_path / "run")
    train_toy(tmp_path / "checkpoint", epochs=2, run_dir=run)
    assert not (tmp_path / "run").exists()
    _, history, *_ = train_toy(tmp_path / "checkpoint", epochs=2, run_dir=run, tensorboard=True)
    assert logged() == [], "it is no other recipe: a finished run is not trained again"
    _, history, *_ = train_toy(tmp_path / "new", epochs=2, run_dir=run, tensorboard=True)
    names = ("learning_rate", "images_per_second", "train_loss", "dev_loss", "dev_cider")
    assert logged() == [(one.epoch, name, getattr(one, name)) for one in history.epochs for name in names]


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


# Epochs, with a made-up stage


AFTER = [3, 8, 19, 42, 89]  # the number after each epoch: 2 * 1 + 1, 2 * 3 + 2, …
CIDERS = (0.1, 0.5, 0.4, 0.2, 0.3)


class Doubling(Stage):
    """A stage whose model is one number: from 1, an epoch doubles it and adds the epoch's number; dev is made up."""

    def __init__(self, ciders: Sequence[float | None] = CIDERS, averaged_epochs=1, patience=5, killed_in=0, **recipe):
        """`ciders` are those of the five epochs; in the epoch `killed_in` it stops half-way."""
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
        super().__init__(model, keras.optimizers.SGD(0.5), 10, Stop(5, patience, averaged_epochs), recipe)
        self.ciders, self.killed_in = ciders, killed_in
        self.trained, self.measured = [], []  # epochs that were trained here, and the number after each

    @property
    def number(self) -> float:
        return self.model.get_weights()[0].item()

    def train_epoch(self, number: int) -> dict[str, float]:
        self.model.set_weights([np.array([[2 * self.number]])])
        if number == self.killed_in:
            raise KeyboardInterrupt
        self.model.set_weights([np.array([[self.number + number]])])
        self.optimizer.iterations.assign_add(10)
        self.trained.append(number)
        return {"train_loss": 1 / number}

    def measure(self) -> dict[str, float | None]:
        self.measured.append(self.number)
        return {"dev_cider": self.ciders[self.trained[-1] - 1]}


# Which is best, and when to stop


@pytest.mark.parametrize(("patience", "epochs"), [(1, 2), (2, 5), (3, 5)])
def test_it_waits_for_a_better_epoch_as_long_as_patience_says(patience, epochs, tmp_path):
    history = Doubling([0.3, 0.2, 0.4, 0.3, 0.3], patience=patience).fit(tmp_path)
    assert len(history.epochs) == epochs


@pytest.mark.parametrize(
    ("candidate", "best", "is_better"),
    [
        ((3.0, 0.6), (2.0, 0.5), True),
        ((1.0, 0.4), (2.0, 0.5), False),
        ((1.9, None), (2.0, None), True),
        ((2.0, None), (2.0, None), False),
        ((None, None), (None, None), True),
    ],
)
def test_cider_decides_over_loss_and_a_later_epoch_where_there_is_neither(candidate, best, is_better):
    history = History()
    for number, (loss, cider) in enumerate((best, candidate), start=1):
        found = history.add(Epoch(number, 0.1, 1.0, dev_loss=loss, dev_cider=cider))
    assert (found, history.best_epoch) == (is_better, 1 + is_better)


def test_what_is_measured_and_kept_is_the_mean_of_the_latest_epochs(tmp_path):
    stage = Doubling([0.1, 0.2, 0.3, 0.5, 0.4], averaged_epochs=2)
    stage.fit(tmp_path)
    assert stage.measured == [3, (3 + 8) / 2, (8 + 19) / 2, (19 + 42) / 2, (42 + 89) / 2]
    assert stage.number == (19 + 42) / 2


def test_a_run_is_known_by_its_best_epoch_and_its_median_speed():
    epochs = [Epoch(n, 0.1, 100.0 * n, dev_cider=cider) for n, cider in enumerate(CIDERS, start=1)]
    assert History(epochs, best_epoch=2).as_metrics("second_") == {
        "second_epochs": 5,
        "second_best_epoch": 2,
        "second_best_dev_cider": 0.5,
        "second_train_images_per_second": 300.0,
    }


# Resuming


@pytest.mark.parametrize("killed_in", [1, 2, 4])
def test_a_killed_stage_resumes_with_all_that_it_knew(killed_in, tmp_path):
    ciders = [0.1, 0.2, 0.3, 0.5, 0.4]
    whole, resumed = (Doubling(ciders, averaged_epochs=3) for _ in range(2))
    expected = whole.fit(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        Doubling(ciders, 3, killed_in=killed_in).fit(tmp_path / "killed")
    history = resumed.fit(tmp_path / "killed")
    assert history.best_epoch == expected.best_epoch
    assert resumed.trained == list(range(killed_in, 6))
    assert resumed.measured == whole.measured[killed_in - 1 :]
    assert resumed.number == whole.number
    assert int(resumed.optimizer.iterations) == 50


# Checkpoints


def test_a_checkpoint_is_read_as_it_was_written_and_a_damaged_one_says_what_to_do(tmp_path):
    arrays = [np.arange(6.0).reshape(2, 3), np.array(7, dtype=np.int64)]
    save_checkpoint(tmp_path / "a.npz", arrays, {"epoch": 3})
    read, record = load_checkpoint(tmp_path / "a.npz")
    assert record == {"epoch": 3}
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(arrays, read, strict=True))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    content = (tmp_path / "a.npz").read_bytes()
    for damaged in (b"", content[: len(content) // 2]):
        (tmp_path / "a.npz").write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.npz is damaged .*remove it to train from the start"):
            load_checkpoint(tmp_path / "a.npz")


WORDS = ("rouge", "vert", "bleu", "blanc", "chien", "chat", "cheval", "l'eau", "l'arbre")
FRENCH = dict(zip((*COLOURS, *THINGS), WORDS, strict=True))


def test_one_model_writes_each_language_after_its_start_token(tmp_path):
    labelled, _ = toy_world()
    both = []
    for image in labelled.images:
        _, colour, thing = image.captions[0].split()
        captions = (f"voici {FRENCH[thing]} {FRENCH[colour]}", f"{FRENCH[colour]}, {FRENCH[thing]}")
        both += [image, replace(image, captions=captions, language="fr")]
    labelled = LabelledFeatures(both, np.repeat(labelled.rows, 2), labelled.store)
    vocabulary = build_vocabulary(Dataset(tuple(both)).captions_of("train"), 1)
    assert list(vocabulary.starts) == ["en", "fr"]
    config = TrainConfig(run_dir="", epochs=30, patience=30, batch_size=8, learning_rate=0.01)
    vectors = np.random.default_rng(0).normal(size=(len(vocabulary), 50)).astype(np.float32)
    model = build_model("merge", labelled.shape, vectors, 0)
    batches = CaptionBatches(labelled, vocabulary, config.batch_size)
    scorer = make_dev_scorer(model, labelled, vocabulary, beam_width=2, max_words=10)
    Supervised(model, batches, batches, scorer, config).fit(tmp_path)
    decoder, features = KerasDecoder(model, vocabulary), labelled.read(slice(0, None, 2))
    for place, language in enumerate(vocabulary.starts):
        captions, _ = write_captions(decoder, features, language, beam_width=2, max_words=10)
        people = [{join_words(words(text)) for text in image.captions} for image in both[place::2]]
        assert sum(best in its for (best,), its in zip(captions, people, strict=True)) >= 16, (language, captions)
