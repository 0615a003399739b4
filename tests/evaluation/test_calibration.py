"""Confidence against the truth: known curves are found again, and measures are worked by hand."""

import math
import warnings

import numpy as np
import pytest

from lcm.captioning.description import PlattScaler
from lcm.errors import DataError
from lcm.evaluation.calibration import Bin, calibrate, fit_platt_scaler, is_right, reliability

MEASURES = ("captions_right", "confidence_brier", "confidence_brier_constant", "confidence_ece", "confidence_auc")


def simulated(captions: int, slope: float, intercept: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Mean log-probabilities as captioners give them, and which captions are right, by a known curve."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(-1.2, 0.3, captions)
    return signal, rng.random(captions) < 1 / (1 + np.exp(-(intercept + slope * signal)))


# What is right


@pytest.mark.parametrize(
    ("caption", "right"),
    [
        ("a dog in the grass", True),
        ("Dogs in the GRASS .", True),  # plurals are folded, case and punctuation do not count
        ("a brown dog in the grass", True),  # each word may come from another reference
        ("a black dog in the grass", False),
        ("a dog with a dog", True),
        ("a running", False),  # -ing stays: "runs" is not "running"
        ("in the", False),  # nothing is said of the image
        ("", False),
    ],
)
def test_a_caption_is_right_when_people_used_its_content_words(caption, right):
    assert is_right(caption, ["A dog runs through the grass .", "two brown dogs"]) is right


def test_without_references_nothing_is_right():
    assert is_right("a dog", []) is False


# Fitting


def test_a_known_curve_is_found_again():
    scaler = fit_platt_scaler(*simulated(200_000, slope=4.5, intercept=3.0))
    assert scaler.slope == pytest.approx(4.5, abs=0.1)
    assert scaler.intercept == pytest.approx(3.0, abs=0.1)


def test_two_captions_by_hand():
    # Platt's targets are 2/3 for the right one and 1/3 for the wrong one: logits of ln 2 and -ln 2, at 1 and 0.
    scaler = fit_platt_scaler([1.0, 0.0], [True, False])
    assert (scaler.slope, scaler.intercept) == pytest.approx((2 * math.log(2), -math.log(2)))


@pytest.mark.parametrize(("right", "confidence"), [([True] * 8, 9 / 10), ([False] * 8, 1 / 10), ([True], 2 / 3)])
def test_where_all_are_alike_so_is_the_confidence_but_never_0_or_1(right, confidence):
    scaler = fit_platt_scaler(np.linspace(-2, -1, len(right)), right)
    assert scaler.slope == pytest.approx(0, abs=1e-9)
    assert scaler.confidence(-1.5) == pytest.approx(confidence)


def test_equal_log_probabilities_give_the_share():
    scaler = fit_platt_scaler([-1.2, -1.2 + 1e-12, -1.2], [True, False, False])  # rounding is no signal
    assert scaler.slope == 0
    assert scaler.confidence(-1.2) == pytest.approx((2 / 3 + 1 / 4 + 1 / 4) / 3)


@pytest.mark.parametrize(
    ("signal", "right"),
    [
        ([*[0.0] * 999, 1e9], [*[False] * 999, True]),
        ([-1e6, 1e6, 3.0], [True, False, False]),
        ([*np.linspace(-3, -2, 500), *np.linspace(-1, 0, 500)], [False] * 500 + [True] * 500),  # told apart wholly
        ([*np.linspace(0, 1e-4, 1000), -50.0], [True] * 1000 + [False]),
        ([-1e-9, -2e-9], [True, False]),
    ],
)
def test_odd_signals_give_a_finite_curve_without_a_warning(signal, right):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaler = fit_platt_scaler(signal, right)
    assert all(0 < scaler.confidence(each) < 1 for each in signal)
    confidences = [scaler.confidence(each) for each in signal]
    assert np.mean(confidences) == pytest.approx(np.mean(right), abs=0.2)


# Measuring


def test_measures_by_hand(monkeypatch):
    # The confidence is the log-probability itself, whatever it is fitted on.
    monkeypatch.setattr(PlattScaler, "confidence", lambda _, mean_log_prob: mean_log_prob)
    found = reliability([0.9, 0.2, 0.6, 0.7, 0.3, 0.4], [True, False, False, True, True, False])
    assert found.captions == 6
    assert found.right == 1 / 2
    assert found.brier == pytest.approx((0.01 + 0.04 + 0.36 + 0.09 + 0.49 + 0.16) / 6)
    # At even places right, wrong, right, each expected with 1/3; at odd ones wrong, right, wrong, with 2/3.
    assert found.brier_constant == pytest.approx((4 / 9 + 1 / 9 + 4 / 9) / 6 * 2)
    assert found.bins == tuple(
        Bin(pytest.approx(predicted), observed, 1)
        for predicted, observed in [(0.2, 0), (0.3, 1), (0.4, 0), (0.6, 0), (0.7, 1), (0.9, 1)]
    )
    assert found.ece == pytest.approx((0.2 + 0.7 + 0.4 + 0.6 + 0.3 + 0.1) / 6)
    # Even: 0.9 beats 0.6, 0.3 does not; odd: 0.7 beats 0.2 and 0.4.
    assert found.auc == 3 / 4


def test_a_tie_is_half_a_win():
    assert reliability([-1.0] * 10, [True, True, False, False] * 2 + [True, False]).auc == 1 / 2


def test_bins_are_equally_filled_and_sorted(monkeypatch):
    monkeypatch.setattr(PlattScaler, "confidence", lambda _, mean_log_prob: mean_log_prob)
    confidences = np.random.default_rng(0).permutation(25) / 25
    bins = reliability(confidences, confidences > 0.5).bins
    assert [each.captions for each in bins] == [3] * 5 + [2] * 5
    assert bins[0] == (pytest.approx((0 + 1 / 25 + 2 / 25) / 3), 0, 3)
    assert bins[-1] == (pytest.approx((23 / 25 + 24 / 25) / 2), 1, 2)
    assert [each.predicted for each in bins] == sorted(each.predicted for each in bins)


def test_each_half_is_measured_by_the_other():
    # Even places: the surer, the righter. Odd places: the other way round. Fitted on one, wrong about the other.
    signal = np.repeat(np.linspace(-2, 0, 200), 2)
    right = signal > -1
    right[1::2] = ~right[1::2]
    found = reliability(signal, right)
    assert found.auc == 0
    assert found.brier > 0.9


def test_metrics_are_flat():
    found = reliability(*simulated(500, slope=4.5, intercept=3.0))
    assert tuple(found.as_metrics()) == MEASURES
    assert all(isinstance(value, float) and 0 <= value <= 1 for value in found.as_metrics().values())
    assert found.as_metrics()["confidence_auc"] == found.auc
    assert found.as_metrics()["captions_right"] == found.right


@pytest.mark.parametrize(("right", "share"), [([], None), ([True], 1.0)])
def test_too_few_captions_give_reasons(right, share):
    metrics = reliability([-1.0] * len(right), right).as_metrics()
    assert metrics["captions_right"] == share
    why = f"needs two captions, one to fit on and one to measure; there are {len(right)}"
    for name in MEASURES[share is not None :]:
        assert (metrics[name], metrics[f"{name}_reason"]) == (None, why)
    assert ("captions_right_reason" in metrics) == (share is None)


@pytest.mark.parametrize("right", [[True] * 9, [False] * 9, [True, False]])
def test_where_a_half_has_one_kind_only_nothing_is_to_be_ordered(right):
    found = reliability(np.linspace(-2, -1, len(right)), right)
    assert found.auc is None
    assert "neither half" in found.as_metrics()["confidence_auc_reason"]
    assert found.brier is not None


@pytest.mark.parametrize("ask", [fit_platt_scaler, reliability])
def test_unusable_input_is_refused(ask):
    with pytest.raises(DataError, match=r"shape \(2,\), right of \(1,\)"):
        ask([-1.0, -2.0], [True])
    with pytest.raises(DataError, match="caption 1 is -inf"):
        ask([-1.0, -math.inf], [True, False])
    with pytest.raises(DataError, match="caption 0 is nan"):
        ask([None, -1.0], [True, False])


# Captions, curve and measures in one


def test_captions_are_compared_with_their_own_references():
    captions = ["a dog", "two dogs", "a red cat", "the cat", "a dog", "a bird"]
    references = [["one dog"], ["a cat"], ["a cat", "a red thing"], ["cats"], ["a dog runs"], ["a plane"]]
    right = [True, False, True, True, True, False]
    mean_log_probs = [-0.5, -1.5, -0.7, -1.0, -0.4, -1.2]
    found = calibrate(captions, references, mean_log_probs)
    assert found.scaler == fit_platt_scaler(mean_log_probs, right)
    assert found.reliability == reliability(mean_log_probs, right)
    assert found.confidences == [found.scaler.confidence(each) for each in mean_log_probs]
    assert found.reliability.right == 4 / 6
    assert found.confidences[4] > found.confidences[1]


def test_of_no_captions_there_is_nothing_to_calibrate():
    found = calibrate([], [], [])
    assert (found.scaler, found.confidences, found.reliability.captions) == (None, [], 0)
