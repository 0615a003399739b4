"""Bootstrap intervals: worked by hand where the resamples can be counted, from theory where not."""

import math

import numpy as np
import pytest

from lcm.errors import DataError
from lcm.evaluation.bootstrap import Interval, bootstrap, bootstrap_difference, bootstrap_mean


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


def test_a_ratio_of_sums_by_hand():
    # Images of 1 error in 1 word and none in 3: drawn twice, 2 of 2, 1 of 4 (twice as often) or 0 of 6.
    errors, words = np.array([1, 0]), np.array([1, 3])
    interval = bootstrap(lambda places: errors[places].sum(axis=-1) / words[places].sum(axis=-1), 2)
    assert interval == Interval(0.25, 0.0, 1.0)


def test_difference_is_paired():
    # Images differ a lot, ours is a little better on every one: paired there is no doubt, unpaired nothing is seen.
    theirs = 100 * normal_values(40)
    difference = bootstrap_difference(theirs + 0.25, theirs)
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.25, 0.25, 0.25))
    assert bootstrap_mean(theirs).low < bootstrap_mean(theirs + 0.25).low < bootstrap_mean(theirs).high
    # 3 - 1 and 1 - 5: as with two images above, the ends are the two differences.
    assert bootstrap_difference([3, 1], [1, 5]) == Interval(-1.0, -4.0, 2.0)


@pytest.mark.parametrize("values", [[], [0.5]])
def test_too_few_values_are_refused(values):
    with pytest.raises(DataError, match=f"at least two images with a value; there are {len(values)}"):
        bootstrap_mean(values)


@pytest.mark.parametrize(
    ("value", "low", "high", "apart"),
    [
        (0.5, -1, 1, False),
        (0.5, 0, 1, False),
        (0.5, 0.1, 1, True),
        (0.0005, 0.0001, 0.001, True),
        (0.0004, 0.0001, 0.001, False),  # shown as 0.000
    ],
)
def test_an_interval_tells_two_apart_beyond_chance_and_rounding(value, low, high, apart):
    assert Interval(value, low, high).tells_apart is apart
    assert Interval(-value, -high, -low).tells_apart is apart
