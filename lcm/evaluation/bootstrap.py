"""How sure a score over images is: percentile bootstrap intervals (Efron and Tibshirani 1993, chapter 13).

The images are drawn again with replacement, as many as there are, and the middle 95 % of the scores of these resamples
are the interval. It says how the score could have come out with other images of the same kind, not with another
training run. The same seed and number of images draw the same images.

Shapes: B images, R resamples, K counts of an image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lcm.errors import DataError

RESAMPLES = 2000  # another seed moves an end by 3 % of the interval's half width (standard deviation, 1,000 images)
LEVEL = 0.95  # the share of the resampled scores inside the interval
BLOCK_DRAWS = 1 << 18  # draws held at once: 2 MB of places, which stay in the cache


@dataclass(frozen=True)
class Interval:
    """A score over images, and where it could have come out."""

    value: float  # of the images as they are
    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        """Whether a difference may be chance: an accident of the images."""
        return self.low <= 0 <= self.high


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> Interval:
    """Return the mean of `values` [B], one an image, with its 95 % interval.

    Raises DataError when there are fewer than two values, of which no interval follows, or one is not finite.
    """
    sample = _checked(values)
    return _bootstrap(len(sample), lambda places: sample[places].mean(axis=-1), seed)


def bootstrap_difference(ours: Sequence[float], theirs: Sequence[float], seed: int = 0) -> Interval:
    """Return the mean of ours minus theirs [B] with its interval, paired: `ours[i]` and `theirs[i]` are of one image.

    Pairing takes out how hard the images are, so the interval is narrower than those of the two means suggest.
    Raises what `bootstrap_mean` raises, and DataError when the two do not have the same length.
    """
    if len(ours) != len(theirs):
        raise DataError(f"{len(ours)} values against {len(theirs)}; give both of the same images, in the same order")
    return bootstrap_mean(_checked(ours) - _checked(theirs), seed)


def bootstrap_statistic(counts: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0) -> Interval:
    """Return a score that is no mean over images, as BLEU of a set, with its interval.

    `counts` [B, K] hold what the score adds up over images; `statistic` turns sums of them, [R, K], into scores [R].
    Two models' counts beside each other, and a statistic that is the difference of theirs, make it paired.
    Raises what `bootstrap_mean` raises.
    """
    rows = np.asarray(counts, np.float64)
    _checked(rows.sum(axis=1))

    def score(places: np.ndarray) -> np.ndarray:
        """Add the counts up by how often each image was drawn: faster than gathering them."""
        ahead = places + len(rows) * np.arange(len(places))[:, None]
        times = np.bincount(ahead.ravel(), minlength=places.size).reshape(places.shape)  # [R, B]
        return statistic(times @ rows)

    return _bootstrap(len(rows), score, seed)


def _bootstrap(images: int, score: Callable[[np.ndarray], np.ndarray], seed: int) -> Interval:
    """Return the interval of a score; `score` turns the places of the images drawn, [R, B], into scores [R]."""
    draw = np.random.default_rng(seed).integers
    rows = max(1, BLOCK_DRAWS // images)
    sizes = [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]
    redrawn = np.concatenate([score(draw(0, images, (size, images))) for size in sizes])
    low, high = np.quantile(redrawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(score(np.arange(images)[None])[0]), float(low), float(high))


def _checked(values: Sequence[float]) -> np.ndarray:
    """Return the values as float64 [B]; None becomes NaN on the way, and is refused with it."""
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or len(sample) < 2:
        raise DataError(f"values of shape {list(sample.shape)}; an interval needs one an image, of at least two images")
    if not (usable := np.isfinite(sample)).all():
        place = int(usable.argmin())
        raise DataError(f"value {place} of {len(sample)} is {values[place]}; leave out the images without a value")
    return sample
