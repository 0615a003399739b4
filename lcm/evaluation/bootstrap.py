"""How sure a score over images is: bootstrap confidence intervals.

Knows how images are drawn anew and what interval the redrawn scores span. Refuses to know what the values measure.

The interval is the percentile one (Efron and Tibshirani 1993, chapter 13): the images are drawn again with
replacement, as many as there are, and the middle 95 % of the means of these resamples are the interval. It says how
the mean could have come out with other images of the same kind; not how it would with another training run.

`scipy.stats.bootstrap(method="percentile")` gives the same numbers from the same seed, but nothing else here needs
SciPy: 143 MB on disk, and most of a second to import, for the ten lines below.

Shapes: B images, R resamples, K counts of an image.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lcm.errors import ConfigError, DataError

RESAMPLES = 2000  # another seed moves an end by 3 % of the interval's half width (standard deviation, 1,000 images)
LEVEL = 0.95  # the share of the resampled means inside the interval
BLOCK_DRAWS = 1 << 18  # draws held at once: 2 MB of places and 2 MB of values, which stay in the cache


@dataclass(frozen=True)
class Interval:
    """A score over images, and where it could have come out."""

    value: float  # of the images as they are
    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        """Whether a difference may be none at all: an accident of the images."""
        return self.low <= 0 <= self.high


def bootstrap_mean(
    values: Sequence[float], resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Interval:
    """Return the mean of `values` [B], one an image, with its percentile bootstrap interval.

    The same seed and number of values draw the same images. Memory: 4 MB, or 16 bytes an image where that is more.
    Raises DataError when there are fewer than two values, of which no interval follows, or one is None or not finite;
    ConfigError for a level outside 0 to 1 or fewer than one resample.
    """
    sample = _checked(values)
    means = [sample[places].mean(axis=1) for places in _drawn(len(sample), resamples, level, seed)]
    return _interval(float(sample.mean()), np.concatenate(means), level)


def bootstrap_difference(
    ours: Sequence[float],
    theirs: Sequence[float],
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Return the mean of ours minus theirs [B] with its interval, paired: `ours[i]` and `theirs[i]` are of one image.

    Pairing takes out how hard the images are, so the interval is narrower than those of the two means suggest; zero
    outside of it says that the difference is hardly an accident of the images.
    Raises what `bootstrap_mean` raises, and DataError when the two do not have the same length.
    """
    if len(ours) != len(theirs):
        raise DataError(f"{len(ours)} values against {len(theirs)}; give both of the same images, in the same order")
    return bootstrap_mean(_checked(ours) - _checked(theirs), resamples, level, seed)


def bootstrap_statistic(
    counts: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Return a score that is no mean over images, as BLEU of a set, with its interval.

    `counts` [B, K] hold what the score adds up over images; `statistic` turns sums of them, [R, K], into scores [R].
    Two models' counts beside each other, and a statistic that is the difference of theirs, make it paired.
    Raises what `bootstrap_mean` raises.
    """
    rows = np.asarray(counts, np.float64)
    _checked(rows.sum(axis=1))
    sums = []
    for places in _drawn(len(rows), resamples, level, seed):
        ahead = places + len(rows) * np.arange(len(places))[:, None]
        times = np.bincount(ahead.ravel(), minlength=places.size).reshape(places.shape)  # [rows, B] an image was drawn
        sums.append(times @ rows)
    return _interval(float(statistic(rows.sum(axis=0)[None])[0]), statistic(np.concatenate(sums)), level)


def _drawn(images: int, resamples: int, level: float, seed: int) -> Iterator[np.ndarray]:
    """Yield the places of the images drawn, [rows, B] at a time, of `resamples` rows in all."""
    if not (0 < level < 1 and resamples >= 1):
        raise ConfigError(f"level is {level} and resamples {resamples}; give a level between 0 and 1 and a resample")
    draw = np.random.default_rng(seed).integers
    rows = max(1, BLOCK_DRAWS // images)
    for start in range(0, resamples, rows):
        yield draw(0, images, (min(rows, resamples - start), images))


def _interval(value: float, redrawn: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(redrawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def _checked(values: Sequence[float]) -> np.ndarray:
    """Return the values as float64 [B]; None becomes NaN on the way, and is refused with it."""
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or len(sample) < 2:
        raise DataError(f"values of shape {list(sample.shape)}; an interval needs one an image, of at least two images")
    if not (usable := np.isfinite(sample)).all():
        place = int(usable.argmin())
        raise DataError(f"value {place} of {len(sample)} is {values[place]}; leave out the images without a value")
    return sample
