"""The curve of a confidence: worked by hand, at its ends."""

import math

import pytest

from lcm.captioning.description import UNSURE, PlattScaler, percent, sureness


def test_confidence_by_hand():
    # 1 / (1 + e ** -x) is 1/2 at x = 0, 3/4 at x = ln 3 and 1/10 at x = -ln 9.
    calibration = PlattScaler(slope=2.0, intercept=3.0)
    assert calibration.confidence(-1.5) == pytest.approx(1 / 2)
    assert calibration.confidence((math.log(3) - 3) / 2) == pytest.approx(3 / 4)
    assert calibration.confidence((-math.log(9) - 3) / 2) == pytest.approx(1 / 10)


@pytest.mark.parametrize(("mean_log_prob", "confidence"), [(-1e308, 0), (-800.0, 0), (800.0, 1), (1e308, 1)])
def test_extreme_numbers_give_a_probability(mean_log_prob, confidence):
    assert PlattScaler(5.0, 1.0).confidence(mean_log_prob) == pytest.approx(confidence)


@pytest.mark.parametrize(
    ("probability", "said"),
    [(0.1432, "14 %"), (0.0051, "1 %"), (0.004, "under 1 %"), (0.0, "under 1 %"), (0.9949, "99 %"), (1.0, "over 99 %")],
)
def test_a_probability_reads_as_a_share_of_a_hundred_but_never_as_certain(probability, said):
    assert percent(probability) == said


def test_below_the_threshold_no_number_puzzles():
    assert (sureness(UNSURE), sureness(0.0999), sureness(0.0)) == ("10 % sure", *["unsure, please look"] * 2)
