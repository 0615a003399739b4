"""How sure a score over images is: percentile bootstrap intervals (Efron and Tibshirani 1993, chapter 13), by SciPy.

The middle 95 % of the scores of resamples say how the score could have come out with other images of the same kind, not
with another training run. The same number of images draws the same images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lcm.errors import DataError, require

RESAMPLES = 2000  # another seed moves an end by 3 % of the interval's half width (standard deviation, 1,000 images)
BATCH = 100  # resamples held at once
SHOWN = 0.0005  # a smaller difference is shown as 0.000


@dataclass(frozen=True)
class Interval:
    """A score over images, and where it could have come out."""

    value: float  # of the images as they are
    low: float
    high: float

    @property
    def tells_apart(self) -> bool:
        """Whether a difference is one: more than an accident of the images, and not 0.000 when it is shown."""
        return abs(self.value) >= SHOWN and not self.low <= 0 <= self.high

    def as_metrics(self, name: str) -> dict[str, float]:
        """Return the score and the ends for metrics.json."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def bootstrap(score: Callable[[np.ndarray], np.ndarray], images: int) -> Interval:
    """Return a score with its 95 % interval; `score` turns the places of the images drawn, [..., B], into scores [...].

    Raises DataError for fewer than two images, of which no interval follows.
    """
    if images < 2:
        raise DataError(f"an interval needs at least two images with a value; there are {images}")
    drawn = require("scipy.stats", "evaluate").bootstrap(
        (np.arange(images),),
        lambda places, **_: score(places),  # the images lie along the last axis, always
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=BATCH,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = drawn.confidence_interval
    return Interval(float(score(np.arange(images))), float(low), float(high))


def bootstrap_mean(values: Sequence[float]) -> Interval:
    """Return the mean of `values` [B], one an image, with its interval."""
    sample = np.asarray(values, np.float64)
    return bootstrap(lambda places: sample[places].mean(axis=-1), len(sample))


def bootstrap_difference(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Return the mean of ours minus theirs [B], paired by image, which takes out how hard the images are."""
    return bootstrap_mean(np.subtract(ours, theirs, dtype=np.float64))
