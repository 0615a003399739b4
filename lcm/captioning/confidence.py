"""Confidence: how probable it is that a caption is right, from how probable the model finds its words.

Knows the curve that turns a caption's mean log-probability into a probability, and how people read one. Refuses to
know what "right" means and how the curve was fitted: `lcm.evaluation.calibration` does both. No more is needed to serve
a confidence.

The curve is that of Platt, "Probabilistic Outputs for Support Vector Machines" (1999): a logistic function with two
fitted numbers. It is only as true as the images are like those that it was fitted on.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Calibration:
    """A fitted curve: the probability is 1 / (1 + e ** -(intercept + slope * mean_log_prob))."""

    slope: float  # per nat a word; above zero where the model is right more often when it is surer
    intercept: float

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that are not finite."""
        if not (math.isfinite(self.slope) and math.isfinite(self.intercept)):
            raise ValueError(f"slope {self.slope} and intercept {self.intercept} of a calibration must be finite")

    def confidence(self, mean_log_prob: float) -> float:
        """Return the probability that a caption is right, 0 to 1.

        `mean_log_prob` is its log-probability over its number of words, END counted, in nats.
        """
        return (1 + math.tanh((self.intercept + self.slope * mean_log_prob) / 2)) / 2  # e ** x would overflow

    def as_record(self) -> dict[str, float]:
        """Return what `from_record` reads, for JSON."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Read back what `as_record` made; raises KeyError, TypeError or ValueError when it cannot be that."""
        return cls(float(record["slope"]), float(record["intercept"]))


def percent(probability: float) -> str:
    """Return a probability to read; what is not quite sure is never 100 % or 0 %."""
    rounded = round(100 * probability)
    return f"{rounded} %" if 0 < rounded < 100 else "over 99 %" if rounded else "under 1 %"
