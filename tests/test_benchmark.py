"""Timing in turn; no speed is asserted, speeds belong into the benchmark."""

import time

import numpy as np
import pytest

from lcm.data.vocabulary import RESERVED, Vocabulary
from lcm.encoding.prepared import LabelledFeatures
from lcm.errors import DataError
from lcm.operations.benchmark import SpeedRatio, measure_tags, measure_training, time_in_turn


def test_the_ratio_is_of_medians():
    speed = SpeedRatio(ours=(100.0, 300.0, 200.0), reference=(10.0, 20.0, 1000.0))
    assert speed.ratio == 200.0 / 20.0
    metrics = speed.as_metrics("training")
    assert metrics["training_images_per_second"] == 200.0
    assert (metrics["training_ratio_low"], metrics["training_ratio_high"]) == (0.2, 15.0)


@pytest.fixture
def pass_time(monkeypatch):
    """A clock that stands still but for what this function is told to let pass."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_both_sides_are_timed_in_turn_after_a_warm_up(pass_time):
    calls = []

    def ours() -> int:
        calls.append("ours")
        pass_time(0.25)
        return 10

    def reference() -> int:
        calls.append("reference")
        pass_time(0.5)
        return 1

    speed = time_in_turn(ours, reference, rounds=2)
    assert calls == ["ours", "reference"] * 3
    assert speed == SpeedRatio(ours=(40.0, 40.0), reference=(2.0, 2.0))


def test_too_little_data_is_refused():
    nothing = LabelledFeatures([], np.zeros(0, int), np.zeros((0, 4), np.float32))
    with pytest.raises(DataError, match="0 images are too few"):
        measure_training(nothing, Vocabulary(RESERVED), np.zeros((4, 50), np.float32), 8, 1)


def test_tags_are_timed_beside_the_same_without(monkeypatch, pass_time):
    class Slow:
        def __init__(self, seconds: float):
            self.seconds, self.seen = seconds, []

        def describe(self, image):
            self.seen.append(image)
            pass_time(self.seconds)
            return "a description"

    captioners = {None: Slow(0.5), "none": Slow(0.25)}
    monkeypatch.setattr("lcm.operations.benchmark.load_captioner", lambda tagger=None: captioners[tagger])
    speed = measure_tags(["a.jpg", "b.jpg"], rounds=2)
    assert captioners[None].seen == captioners["none"].seen == ["a.jpg", "b.jpg"] * 3
    assert (speed.extra_ms, speed.ratio) == (250, 0.5)


def test_no_images_are_refused():
    with pytest.raises(DataError, match="no images to describe"):
        measure_tags([], 1)
