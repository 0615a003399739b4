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


def test_both_sides_are_timed_in_turn_after_a_warm_up():
    calls = []

    def ours() -> int:
        calls.append("ours")
        time.sleep(0.01)
        return 10

    def reference() -> int:
        calls.append("reference")
        return 1

    speed = time_in_turn(ours, reference, rounds=2)
    assert calls == ["ours", "reference"] * 3
    assert len(speed.ours) == len(speed.reference) == 2
    assert max(speed.ours) <= 10 / 0.01


def test_too_little_data_is_refused():
    nothing = LabelledFeatures([], np.zeros(0, int), np.zeros((0, 4), np.float32))
    with pytest.raises(DataError, match="0 images are too few"):
        measure_training(nothing, Vocabulary(RESERVED), np.zeros((4, 50), np.float32), 8, 1)


def test_tags_are_timed_beside_the_same_without(monkeypatch):
    class Slow:
        def __init__(self, seconds: float):
            self.seconds, self.seen = seconds, []

        def describe(self, image):
            self.seen.append(image)
            time.sleep(self.seconds)
            return "a description"

    captioners = {None: Slow(0.02), "none": Slow(0.01)}
    monkeypatch.setattr("lcm.operations.benchmark.load_captioner", lambda tagger=None: captioners[tagger])
    speed = measure_tags(["a.jpg", "b.jpg"], rounds=2)
    assert captioners[None].seen == captioners["none"].seen == ["a.jpg", "b.jpg"] * 3
    assert speed.extra_ms > 0
    assert speed.ratio < 1


def test_no_images_are_refused():
    with pytest.raises(DataError, match="no images to describe"):
        measure_tags([], 1)
