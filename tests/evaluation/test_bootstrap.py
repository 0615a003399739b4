"""Bootstrap intervals: worked by hand where the resamples can be counted, from theory and SciPy where not."""

import math

import numpy as np
import pytest
from scipy import stats

from lcm.errors import DataError
from lcm.evaluation.bootstrap import RESAMPLES, Interval, bootstrap_difference, bootstrap_mean, bootstrap_statistic


def normal_values(images, mean=0.0):
    return mean + np.random.default_rng(7).standard_normal(images)


def test_two_images_by_hand():
    # Drawn twice with replacement, 0 and 1 have the means 0, 1/2, 1/2 and 1: a quarter of the resamples at either end.
    assert bootstrap_mean([0, 1]) == Interval(0.5, 0.0, 1.0)


def test_interval_of_many_images_is_that_of_the_normal_distribution():
    values = normal_values(1000, mean=3.0)
    interval = bootstrap_mean(values)
    half = 1.96 * values.std() / math.sqrt(1000)  # the central limit theorem
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_numbers_are_those_of_scipy():
    values = normal_values(30)
    options = {"n_resamples": RESAMPLES, "method": "percentile", "rng": np.random.default_rng(0)}
    theirs = stats.bootstrap((values,), np.mean, **options).confidence_interval
    interval = bootstrap_mean(values)
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high))


def test_blocks_do_not_change_the_numbers(monkeypatch):
    values = normal_values(11)
    whole = bootstrap_mean(values)
    monkeypatch.setattr("lcm.evaluation.bootstrap.BLOCK_DRAWS", 35)  # three resamples at a time, two left at the end
    assert bootstrap_mean(values) == whole
    monkeypatch.setattr("lcm.evaluation.bootstrap.BLOCK_DRAWS", 1)  # fewer draws than images: still one resample
    assert bootstrap_mean(values) == whole


def test_seed_decides():
    values = normal_values(50)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_difference_is_paired():
    # Images differ a lot, ours is a little better on every one: paired there is no doubt, unpaired nothing is seen.
    theirs = 100 * normal_values(40)
    difference = bootstrap_difference(theirs + 0.25, theirs)
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.25, 0.25, 0.25))
    assert bootstrap_mean(theirs).low < bootstrap_mean(theirs + 0.25).low < bootstrap_mean(theirs).high


def test_difference_by_hand():
    # 3 - 1 and 1 - 5: as with two images above, the ends are the two differences.
    assert bootstrap_difference([3, 1], [1, 5]) == Interval(-1.0, -4.0, 2.0)


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_missing_values_are_refused(missing):
    with pytest.raises(DataError, match=r"value 1 of 3 is .*leave out"):
        bootstrap_mean([0.5, missing, 0.5])
    with pytest.raises(DataError, match="value 1 of 3"):
        bootstrap_difference([0.5, 0.5, 0.5], [0.5, missing, 0.5])


@pytest.mark.parametrize("values", [[], [0.5]])
def test_too_few_values_are_refused(values):
    with pytest.raises(DataError, match="at least two images"):
        bootstrap_mean(values)


def test_different_lengths_are_refused():
    with pytest.raises(DataError, match="2 values against 1"):
        bootstrap_difference([1, 2], [1])


# Scores that are no mean over images


def test_a_ratio_of_sums_by_hand():
    # Images of 1 error in 1 word and none in 3: drawn twice, 2 of 2, 1 of 4 (twice as often) or 0 of 6.
    assert bootstrap_statistic([[1, 1], [0, 3]], lambda sums: sums[:, 0] / sums[:, 1]) == Interval(0.25, 0.0, 1.0)


def test_a_statistic_refuses_what_a_mean_refuses():
    with pytest.raises(DataError, match="at least two images"):
        bootstrap_statistic([[1, 2]], lambda sums: sums[:, 0])
    with pytest.raises(DataError, match="value 1 of 2"):
        bootstrap_statistic([[1, 2], [math.nan, 1]], lambda sums: sums[:, 0])


@pytest.mark.parametrize(("low", "high", "holds"), [(-1, 1, True), (0, 1, True), (-1, 0, True), (0.1, 1, False)])
def test_an_interval_says_whether_it_holds_zero(low, high, holds):
    assert Interval(0.5, low, high).holds_zero is holds
    assert Interval(-0.5, -high, -low).holds_zero is holds
