"""Timing in turn; no speed is asserted, speeds belong into the benchmark."""

import time

import numpy as np
import pytest

from lcm.data.vocabulary import RESERVED, Vocabulary
from lcm.encoding.prepared import LabelledFeatures
from lcm.errors import DataError
from lcm.operations.benchmark import SpeedRatio, measure_training, time_in_turn


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
