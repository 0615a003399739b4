"""Confidence: Platt scaling of mean log-probabilities against what people wrote, and how far it can be trusted.

A caption is right when every content word of it (`lcm.data.text`: no stop words, by its lemma) is used by at least
one of the image's references. That is stricter than a reader: "crowd" is wrong where people wrote "audience"; and
laxer: who does what to whom is not looked at. The more references an image has, the more captions of it are right.
Reliability is measured out of sample: of images at even places by a curve fitted on those at odd ones, and vice versa.

Shapes: K captions, one an image; S signals of each.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lcm.captioning.description import PlattScaler
from lcm.data.text import ENGLISH, content_words
from lcm.errors import require
from lcm.evaluation.bootstrap import Interval

# Captions that a curve is fitted on. By curves of so many, drawn from Flickr8k's dev, confidences differ by 0.05 on
# average from those by the curve of all 1,000, where 0.16 is typical. (Of 200: 0.02. Of 20: 0.07, and one curve in nine
# has surer captions less often right. Of 10: 0.10, and one in three.)
LEAST = 50
BINS = 10
EQUAL = 1e-6  # mean log-probabilities that differ by less, relatively, are equal: no slope follows from rounding


class Bin(NamedTuple):
    """Captions of about the same confidence."""

    predicted: float  # mean confidence
    observed: float  # share that is right
    captions: int


@dataclass(frozen=True)
class Calibration:
    """Captions with their confidences, the curve that gave them, and how good such curves are on other images.

    The metrics are captions_right, the share of the captions with its interval (Wilson 1927); confidence_ece, the mean
    distance of predicted and observed over the bins (Naeini et al. 2015); confidence_auc, the share of the pairs of a
    right and a wrong caption where the model is surer of the right one; and `<name>_reason` where one is None.
    """

    scaler: PlattScaler | None  # fitted on LEAST captions or more, else that of the model before, where it had one
    confidences: list[float | None]
    bins: tuple[Bin, ...]  # BINS of them as equally filled as can be, least confident first; none below LEAST captions
    metrics: Mapping[str, float | str | None]  # for metrics.json

    def __str__(self) -> str:
        captions = len(self.confidences)
        if captions >= LEAST:
            return f"The curve is fitted on {captions} captions."
        kept = "That of the model before is kept." if self.scaler else "The model has no confidence."
        return f"The curve is fitted on {LEAST} captions at least; there are {captions}. {kept}"


def calibrate(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    mean_log_probs: Sequence[float],
    before: Mapping[str, float] | None = None,
    language: str = ENGLISH,
) -> Calibration:
    """Fit a curve to captions [K], measure how good such curves are, and return each caption's confidence.

    To fewer than LEAST captions nothing is fitted: the curve is `before`, of the model that training went on from.
    """
    signal = np.asarray(mean_log_probs, np.float64)
    right = np.array([is_right(one, its, language) for one, its in zip(captions, references, strict=True)], bool)
    is_enough = len(captions) >= LEAST
    scaler = PlattScaler(**before) if before else None
    if is_enough:
        scaler = PlattScaler(*fit_curve(signal[:, None], right))
    pairs = zip(captions, mean_log_probs, strict=True)
    confidences = [scaler and scaler.confidence_in(*pair, language=language) for pair in pairs]
    numbers: dict[str, float | None] = dict.fromkeys(("captions_right", "confidence_ece", "confidence_auc"))
    bins, why = (), f"needs {LEAST} captions; there are {len(captions)}"
    if captions:
        found = require("scipy.stats", "evaluate").binomtest(int(right.sum()), len(right))
        ends = found.proportion_ci(method="wilson")
        numbers |= Interval(found.statistic, ends.low, ends.high).as_metrics("captions_right")
    if is_enough:
        measured = cross_fit(signal[:, None], right, np.arange(len(captions)) % 2 == 1)
        groups = np.array_split(np.argsort(measured, kind="stable"), BINS)
        bins, numbers["confidence_ece"] = bin_up(measured, right, groups)
        why = "needs both right and wrong captions"
        if right.any() and not right.all():  # a confidence rises with the signal, so they order captions alike
            auc = require("sklearn.metrics", "evaluate").roc_auc_score(right, signal)
            numbers["confidence_auc"] = float(auc)
    reasons = {f"{name}_reason": why for name, value in numbers.items() if value is None}
    return Calibration(scaler, confidences, bins, numbers | reasons)


def is_right(caption: str, references: Sequence[str], language: str = ENGLISH) -> bool:
    """Return whether each content word of the caption is in a reference; a caption without any is not right."""
    words = content_words(caption, language).keys()
    return bool(words) and words <= set().union(*(content_words(text, language) for text in references))


def fit_curve(signals: np.ndarray, right: np.ndarray) -> list[float]:
    """Return the slopes of signals [K, S], and the intercept, of the most likely curve, given which are right [K].

    Platt's targets stand in for 1 and 0: (right ones + 1) / (right ones + 2) and 1 / (wrong ones + 2). So there always
    is one best curve and it is finite. Equal signals, and captions that are all right or all wrong, give the slope 0.
    """
    ones = np.count_nonzero(right)
    targets = np.where(right, (ones + 1) / (ones + 2), 1 / (len(signals) - ones + 2))
    centre, spread = signals.mean(0), signals.std(0)
    if (spread <= EQUAL * np.maximum(1.0, abs(centre))).any() or ones in (0, len(signals)):
        share = targets.mean()
        return [*np.zeros(len(centre)).tolist(), float(np.log(share / (1 - share)))]
    # scikit-learn takes no soft targets: each one is given as right and as wrong, weighted by its target.
    inputs = np.tile((signals - centre) / spread, (2, 1))
    classes, weights = np.repeat([1, 0], len(signals)), np.concatenate([targets, 1 - targets])
    regression = require("sklearn.linear_model", "evaluate").LogisticRegression
    fitted = regression(C=np.inf, solver="newton-cholesky", tol=1e-8).fit(inputs, classes, weights)
    slopes = fitted.coef_[0] / spread
    return [*slopes.tolist(), float(fitted.intercept_[0] - slopes @ centre)]


def cross_fit(signals: np.ndarray, right: np.ndarray, is_odd: np.ndarray) -> np.ndarray:
    """Return the probabilities [K] by curves of signals [K, S], each fitted on the half of the other `is_odd` [K]."""
    found = np.empty(len(right))
    for half in (True, False):
        *slopes, intercept = fit_curve(signals[is_odd == half], right[is_odd == half])
        found[is_odd != half] = require("scipy.special", "evaluate").expit(signals[is_odd != half] @ slopes + intercept)
    return found


def bin_up(probabilities: np.ndarray, right: np.ndarray, groups: Iterable[np.ndarray]) -> tuple[tuple[Bin, ...], float]:
    """Return a bin for each group of places, and the calibration error over them."""
    bins = tuple(Bin(float(probabilities[its].mean()), float(right[its].mean()), len(its)) for its in groups)
    return bins, sum(its.captions * abs(its.predicted - its.observed) for its in bins) / len(right)
