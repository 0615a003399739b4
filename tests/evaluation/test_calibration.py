"""Confidence against the truth: known curves are found again, and measures are worked by hand."""

import math
import warnings

import numpy as np
import pytest

from lcm.captioning.description import BROKEN_CONFIDENCE, PlattScaler
from lcm.evaluation.calibration import LEAST, bin_up, calibrate, cross_fit, fit_curve, is_right


def fit(signal, right):
    return PlattScaler(*fit_curve(np.array(signal, float)[:, None], np.array(right)))


# What is right


@pytest.mark.parametrize(
    ("caption", "right"),
    [
        ("a dog in the grass", True),
        ("Dogs in the GRASS .", True),  # plurals are folded, case and punctuation do not count
        ("a brown dog in the grass", True),  # each word may come from another reference
        ("a black dog in the grass", False),
        ("a running", False),  # -ing stays: "runs" is not "running"
        ("in the", False),  # nothing is said of the image
        ("", False),
    ],
)
def test_a_caption_is_right_when_people_used_its_content_words(caption, right):
    assert is_right(caption, ["A dog runs through the grass .", "two brown dogs"]) is right
    assert is_right(caption, []) is False


# Fitting


def test_a_known_curve_is_found_again():
    rng = np.random.default_rng(0)
    signal = rng.normal(-1.2, 0.3, 200_000)  # mean log-probabilities as captioners give them
    scaler = fit(signal, rng.random(200_000) < 1 / (1 + np.exp(-(3.0 + 4.5 * signal))))
    assert (scaler.slope, scaler.intercept) == pytest.approx((4.5, 3.0), abs=0.1)


def test_two_captions_by_hand():
    # Platt's targets are 2/3 for the right one and 1/3 for the wrong one: logits of ln 2 and -ln 2, at 1 and 0.
    scaler = fit([1.0, 0.0], [True, False])
    assert (scaler.slope, scaler.intercept) == pytest.approx((2 * math.log(2), -math.log(2)))


@pytest.mark.parametrize(("right", "confidence"), [([True] * 8, 9 / 10), ([False] * 8, 1 / 10), ([True], 2 / 3)])
def test_where_all_are_alike_so_is_the_confidence_but_never_0_or_1(right, confidence):
    scaler = fit(np.linspace(-2, -1, len(right)), right)
    assert scaler.slope == pytest.approx(0, abs=1e-9)
    assert scaler.confidence(-1.5) == pytest.approx(confidence)


def test_equal_log_probabilities_give_the_share():
    scaler = fit([-1.2, -1.2 + 1e-12, -1.2], [True, False, False])  # rounding is no signal
    assert scaler.slope == 0
    assert scaler.confidence(-1.2) == pytest.approx((2 / 3 + 1 / 4 + 1 / 4) / 3)


@pytest.mark.parametrize(
    ("signal", "right"),
    [
        ([*np.linspace(-3, -2, 500), *np.linspace(-1, 0, 500)], [False] * 500 + [True] * 500),  # told apart wholly
        ([*np.linspace(0, 1e-4, 1000), -50.0], [True] * 1000 + [False]),
        ([-1e-9, -2e-9], [True, False]),
    ],
)
def test_odd_signals_give_a_finite_curve_without_a_warning(signal, right):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaler = fit(signal, right)
    confidences = [scaler.confidence(each) for each in signal]
    assert all(0 < each < 1 for each in confidences)
    assert np.mean(confidences) == pytest.approx(np.mean(right), abs=0.2)


# Measuring


def test_the_error_of_bins_is_weighted_by_what_is_in_them():
    groups = [np.array([0, 1]), np.array([2])]
    bins, error = bin_up(np.array([0.2, 0.4, 0.9]), np.array([False, True, True]), groups)
    assert bins == ((pytest.approx(0.3), 0.5, 2), (0.9, 1, 1))
    assert error == pytest.approx((2 * 0.2 + 0.1) / 3)


def test_each_half_is_measured_by_the_other():
    # Even places: the surer, the righter. Odd places: the other way round. Fitted on one, wrong about the other.
    signal = np.repeat(np.linspace(-2, 0, 200), 2)
    right = signal > -1
    right[1::2] = ~right[1::2]
    measured = cross_fit(signal[:, None], right, np.arange(400) % 2 == 1)
    assert abs(measured - right).mean() > 0.9


# Captions, curve and measures in one


def test_captions_are_compared_with_their_own_references():
    captions = ["a dog", "two dogs", "a red cat", "the cat", "a dog", "a bird"] * 10
    references = [
        ["one dog"],
        ["a cat"],
        ["a cat", "a red thing"],
        ["cats"],
        ["a dog runs"],
        ["a plane"],
    ]
    right = [True, False, True, True, True, False] * 10
    mean_log_probs = np.random.default_rng(0).normal(-1, 0.3, 60)
    found = calibrate(captions, references * 10, mean_log_probs, curve := {"slope": 1.0, "intercept": 3.0})
    assert found.scaler == fit(mean_log_probs, right)
    assert [each.captions for each in found.bins] == [6] * 10
    assert [each.predicted for each in found.bins] == sorted(each.predicted for each in found.bins)
    assert 0 < found.metrics["confidence_ece"] < 1
    wins = [sure > other for sure, its in zip(mean_log_probs, right, strict=True) if its
            for other, one in zip(mean_log_probs, right, strict=True) if not one]  # fmt: skip
    assert found.metrics["confidence_auc"] == pytest.approx(np.mean(wins))
    assert found.confidences == [found.scaler.confidence(each) for each in mean_log_probs]
    assert str(found) == "The curve is fitted on 60 captions."
    metrics = found.metrics
    assert metrics["captions_right"] == 4 / 6
    # Wilson: (p + z²/2n ± z sqrt(p(1 - p)/n + z²/4n²)) / (1 + z²/n), p = 2/3, n = 60, z = 1.96
    assert (metrics["captions_right_low"], metrics["captions_right_high"]) == pytest.approx((0.5405, 0.7727), abs=1e-4)
    broken = calibrate(["a dog in a"], [["a dog"]], [-1.0], curve)
    assert broken.confidences == [BROKEN_CONFIDENCE], "as the captioner says it"


@pytest.mark.parametrize(("captions", "share"), [(0, None), (1, 1.0), (LEAST - 1, 1.0)])
def test_to_few_captions_no_curve_is_fitted(captions, share):
    few = ["a dog"] * captions, [["a dog"]] * captions, [-1.0] * captions
    found = calibrate(*few)
    assert (found.scaler, found.confidences, found.bins) == (None, [None] * captions, ())
    assert str(found).endswith(f"there are {captions}. The model has no confidence.")
    metrics = found.metrics
    assert (metrics["captions_right"], metrics["confidence_ece"], metrics["confidence_auc"]) == (share, None, None)
    why = f"needs {LEAST} captions; there are {captions}"
    assert metrics["confidence_ece_reason"] == metrics["confidence_auc_reason"] == why
    assert ("captions_right_reason" in metrics) == (share is None)
    kept = calibrate(*few, {"slope": 2.0, "intercept": 1.0})
    assert kept.scaler == PlattScaler(2.0, 1.0)
    assert kept.confidences == [kept.scaler.confidence(-1.0)] * captions
    assert str(kept).endswith("That of the model before is kept.")


@pytest.mark.parametrize("right", [True, False])
def test_where_all_are_alike_nothing_is_to_be_ordered(right):
    found = calibrate(["a dog" if right else "a cat"] * LEAST, [["a dog"]] * LEAST, np.linspace(-2, -1, LEAST))
    assert found.metrics["confidence_ece"] is not None
    assert found.metrics["confidence_auc"] is None
    assert "both right and wrong" in found.metrics["confidence_auc_reason"]
