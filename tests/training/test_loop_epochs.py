"""Epochs and checkpoints: which epoch is best, when to stop, and what a run that was killed goes on with."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import pytest

from lcm.errors import DataError
from lcm.training.loop import (
    Epoch,
    History,
    Measured,
    Trained,
    TrainingState,
    load_checkpoint,
    run_epochs,
    save_checkpoint,
)


class Doubling:
    """A stage whose model is one number: from 1, an epoch doubles it and adds the epoch's number; dev is made up."""

    def __init__(self, ciders: Sequence[float | None], averaged_epochs: int = 1, killed_in: int | None = None):
        """`ciders` are those of the epochs, from the first; in the epoch `killed_in` it stops half-way."""
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
        self.state = TrainingState(model, keras.optimizers.SGD(0.5), averaged_epochs)
        self.ciders, self.killed_in = ciders, killed_in
        self.trained, self.measured = [], []  # epochs that were trained here, and the number after each

    @property
    def number(self) -> float:
        return self.state.model.get_weights()[0].item()

    def train_epoch(self, number: int) -> Trained:
        self.state.model.set_weights([np.array([[2 * self.number]])])
        if number == self.killed_in:
            raise KeyboardInterrupt
        self.state.model.set_weights([np.array([[self.number + number]])])
        self.state.optimizer.iterations.assign_add(10)
        self.trained.append(number)
        return Trained(learning_rate=0.5, images_per_second=100.0 * number, train_loss=1 / number)

    def measure(self) -> Measured:
        self.measured.append(self.number)
        return Measured(dev_cider=self.ciders[self.trained[-1] - 1])


AFTER = [3, 8, 19, 42, 89]  # the number after each epoch: 2 * 1 + 1, 2 * 3 + 2, …


def run(stage: Doubling, folder: Path, epochs: int = 5, patience: int = 5, **recipe) -> History:
    return run_epochs(stage, epochs, patience, recipe, folder)


# Which is best, and when to stop


def test_the_model_is_left_with_the_best_weights(tmp_path):
    stage = Doubling([0.1, 0.5, 0.4, 0.2, 0.3])
    history = run(stage, tmp_path)
    assert (history.best_epoch, len(history.epochs), history.finished) == (2, 5, True)
    assert stage.measured == AFTER
    assert stage.number == 8


@pytest.mark.parametrize(("patience", "epochs"), [(1, 2), (2, 5), (3, 5)])
def test_it_waits_for_a_better_epoch_as_long_as_patience_says(patience, epochs, tmp_path):
    history = run(Doubling([0.3, 0.2, 0.4, 0.3, 0.3]), tmp_path, patience=patience)
    assert len(history.epochs) == epochs
    assert history.finished


def test_without_dev_the_last_epoch_is_best_and_patience_stops_nothing(tmp_path):
    stage = Doubling([None] * 5)
    history = run(stage, tmp_path, patience=1)
    assert history.best_epoch == len(history.epochs) == 5
    assert stage.number == AFTER[4]
    assert history.as_metrics()["best_dev_cider"] is None


def test_cider_decides_over_loss_and_a_later_epoch_where_there_is_neither():
    def better(candidate: tuple[float | None, float | None], best: tuple[float | None, float | None]) -> bool:
        history = History([Epoch(0.1, 1.0, dev_loss=best[0], dev_cider=best[1])], best_epoch=1)
        return history.is_better(Measured(*candidate))

    assert better((3.0, 0.6), (2.0, 0.5))
    assert not better((1.0, 0.4), (2.0, 0.5))
    assert better((1.9, None), (2.0, None))
    assert not better((2.0, None), (2.0, None))
    assert better((None, None), (None, None))
    assert History().is_better(Measured())


def test_what_is_measured_and_kept_is_the_mean_of_the_latest_epochs(tmp_path):
    stage = Doubling([0.1, 0.2, 0.3, 0.5, 0.4], averaged_epochs=2)
    run(stage, tmp_path)
    assert stage.measured == [3, (3 + 8) / 2, (8 + 19) / 2, (19 + 42) / 2, (42 + 89) / 2]
    assert stage.number == (19 + 42) / 2


# What is told of an epoch


def test_a_run_is_known_by_its_best_epoch_and_its_median_speed(tmp_path):
    metrics = run(Doubling([0.1, 0.5, 0.4, 0.2, 0.3]), tmp_path).as_metrics("second_")
    assert metrics == {
        "second_epochs": 5,
        "second_best_epoch": 2,
        "second_best_dev_cider": 0.5,
        "second_train_images_per_second": 300.0,
    }


# Going on


@pytest.mark.parametrize("killed_in", [1, 2, 4])
def test_killed_and_resumed_it_ends_like_an_uninterrupted_run(killed_in, tmp_path):
    ciders = [0.1, 0.2, 0.3, 0.5, 0.4]
    whole = Doubling(ciders, averaged_epochs=3)
    expected = run(whole, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(Doubling(ciders, 3, killed_in), tmp_path / "killed")
    resumed = Doubling(ciders, averaged_epochs=3)
    assert run(resumed, tmp_path / "killed") == expected
    assert resumed.trained == list(range(killed_in, 6))
    assert resumed.measured == whole.measured[killed_in - 1 :]
    assert resumed.number == whole.number
    assert int(resumed.state.optimizer.iterations) == 50


def test_a_finished_run_is_not_trained_again(tmp_path):
    ciders = [0.1, 0.5, 0.4, 0.2, 0.3]
    expected, again = run(Doubling(ciders), tmp_path, seed=3), Doubling(ciders)
    assert run(again, tmp_path, seed=3) == expected
    assert again.trained == []
    assert again.number == 8


def test_another_recipe_starts_over_and_says_so(tmp_path, capsys):
    run(Doubling([0.9] * 5), tmp_path, seed=3)
    assert "starts over" not in capsys.readouterr().out
    other = Doubling([0.1, 0.5, 0.4, 0.2, 0.3])
    history = run(other, tmp_path, seed=4)
    assert "starts over" in capsys.readouterr().out
    assert (other.measured, other.number, history.best_epoch) == (AFTER, 8, 2)


# Checkpoints


def test_a_checkpoint_is_read_as_it_was_written(tmp_path):
    arrays = [np.arange(6.0).reshape(2, 3), np.array(7, dtype=np.int64)]
    save_checkpoint(tmp_path / "a.npz", arrays, {"epoch": 3})
    read, record = load_checkpoint(tmp_path / "a.npz")
    assert record == {"epoch": 3}
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(arrays, read, strict=True))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_a_damaged_checkpoint_is_an_error_that_says_what_to_do(tmp_path):
    path = tmp_path / "a.npz"
    save_checkpoint(path, [np.arange(100.0)], {"epoch": 3})
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 3] ^= 1
    for damaged in (b"", b"not a zip archive", content[:100], content[: len(content) // 2], content[:-1], flipped):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.npz is damaged .*remove it to train from the start"):
            load_checkpoint(path)
