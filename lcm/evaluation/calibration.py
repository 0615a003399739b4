"""Confidence: Platt scaling of mean log-probabilities against what people wrote, and how far it can be trusted.

A caption is right when every content word of it (`lcm.data.text`: no stop words, plurals folded) is used by at least
one of the image's references. That is stricter than a reader: "crowd" is wrong where people wrote "audience"; and
laxer: who does what to whom is not looked at. The more references an image has, the more captions of it are right.

Reliability is measured out of sample: the images are parted in two halves, those at even and at odd places; a curve is
fitted on one and measured on the other, both ways, so that each caption has a confidence from captions of other images.

Shapes: K captions, one an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import numpy as np

from lcm.captioning.description import PlattScaler
from lcm.data.text import candidates, content_words
from lcm.errors import DataError, require

BINS = 10
EQUAL = 1e-6  # mean log-probabilities that differ by less, relatively, are equal: no slope follows from rounding


class Bin(NamedTuple):
    """Captions of about the same confidence."""

    predicted: float  # mean confidence
    observed: float  # share that is right
    captions: int


@dataclass(frozen=True)
class Reliability:
    """How good confidences are on images that they were not fitted on; the keys of `reasons` are None."""

    captions: int
    right: float | None = None  # share of the captions
    brier: float | None = None  # mean squared distance of confidence and 1 or 0 (Brier 1950); lower is better
    brier_constant: float | None = None  # the same, were each confidence the share of right ones in the other half
    ece: float | None = None  # mean distance of predicted and observed over the bins (Naeini et al. 2015)
    auc: float | None = None  # share of the pairs of a right and a wrong caption of one half where the right is surer
    bins: tuple[Bin, ...] = ()  # BINS of them as equally filled as can be, least confident first
    reasons: dict[str, str] = field(default_factory=dict)  # why a measure is None

    def as_metrics(self) -> dict[str, float | str | None]:
        """Return the flat object for metrics.json: captions_right, confidence_brier to confidence_auc, reasons."""
        keys = {name: "captions_right" if name == "right" else f"confidence_{name}" for name in MEASURES}
        flat: dict[str, float | str | None] = {key: getattr(self, name) for name, key in keys.items()}
        return flat | {f"{keys[name]}_reason": why for name, why in self.reasons.items()}


MEASURES = tuple(each.name for each in fields(Reliability) if each.default is None)


def is_right(caption: str, references: Sequence[str]) -> bool:
    """Return whether each content word of the caption is in a reference; a caption without any is not right."""
    words = content_words(caption)
    return bool(words) and set(words).issubset(candidates(references))


def fit_platt_scaler(mean_log_probs: Sequence[float], right: Sequence[bool]) -> PlattScaler | None:
    """Return the most likely curve, given the captions' mean log-probabilities [K] and which are right [K].

    None without captions: of nothing, no confidence follows.

    Platt's targets stand in for 1 and 0: (right ones + 1) / (right ones + 2) and 1 / (wrong ones + 2). So there always
    is one best curve and it is finite, also where all captions are right, all are wrong, or few or one are given.
    Equal log-probabilities, and captions that are all right or all wrong, give the slope 0.
    Raises DataError when lengths differ or a log-probability is not finite.
    """
    signal, is_one = _checked(mean_log_probs, right)
    if not len(signal):
        return None
    ones = np.count_nonzero(is_one)
    targets = np.where(is_one, (ones + 1) / (ones + 2), 1 / (len(signal) - ones + 2))
    centre, spread = signal.mean(), signal.std()
    if spread <= EQUAL * max(1.0, abs(centre)) or ones in (0, len(signal)):
        share = targets.mean()
        return PlattScaler(0.0, float(np.log(share / (1 - share))))
    # scikit-learn takes no soft targets: each caption is given as right and as wrong, weighted by its target.
    inputs = np.tile((signal - centre) / spread, 2)[:, None]
    classes, weights = np.repeat([1, 0], len(signal)), np.concatenate([targets, 1 - targets])
    regression = require("sklearn.linear_model", "evaluate").LogisticRegression
    fitted = regression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(inputs, classes, weights)
    slope = fitted.coef_[0, 0] / spread
    return PlattScaler(float(slope), float(fitted.intercept_[0] - slope * centre))


def reliability(mean_log_probs: Sequence[float], right: Sequence[bool]) -> Reliability:
    """Measure out of sample how good confidences from mean log-probabilities [K] are, for captions right or not [K].

    Raises DataError when lengths differ or a log-probability is not finite; with fewer than two captions, measures
    are None.
    """
    signal, is_one = _checked(mean_log_probs, right)
    share = float(is_one.mean()) if len(is_one) else None
    if len(signal) < 2:
        why = f"needs two captions, one to fit on and one to measure; there are {len(signal)}"
        without = [name for name in MEASURES if name != "right" or share is None]
        return Reliability(len(signal), share, reasons=dict.fromkeys(without, why))
    confidences, constants = np.empty(len(signal)), np.empty(len(signal))
    halves = slice(0, None, 2), slice(1, None, 2)
    for measured, fitted in (halves, halves[::-1]):
        scaler = fit_platt_scaler(signal[fitted], is_one[fitted])
        confidences[measured] = [scaler.confidence(each) for each in signal[measured]]
        constants[measured] = is_one[fitted].mean()
    groups = np.array_split(np.argsort(confidences, kind="stable"), min(BINS, len(signal)))
    bins = tuple(Bin(float(confidences[each].mean()), float(is_one[each].mean()), len(each)) for each in groups)
    auc = _auc([(confidences[half], is_one[half]) for half in halves])
    return Reliability(
        captions=len(signal),
        right=share,
        brier=float(np.mean((confidences - is_one) ** 2)),
        brier_constant=float(np.mean((constants - is_one) ** 2)),
        ece=sum(each.captions * abs(each.predicted - each.observed) for each in bins) / len(signal),
        auc=auc,
        bins=bins,
        reasons={} if auc is not None else {"auc": "neither half has both right and wrong captions"},
    )


def _auc(halves: Sequence[tuple[np.ndarray, np.ndarray]]) -> float | None:
    """Return the AUC over the pairs of a right and a wrong caption within a half; None without any.

    Across halves no pairs are formed: two curves are not one scale, and a half with fewer right ones than the other
    gives the other the lower confidences, which would pass for a bad signal.
    """
    wins, pairs = 0.0, 0
    for confidences, is_one in halves:
        if its_pairs := np.count_nonzero(is_one) * np.count_nonzero(~is_one):
            wins += its_pairs * require("sklearn.metrics", "evaluate").roc_auc_score(is_one, confidences)
            pairs += its_pairs
    return float(wins / pairs) if pairs else None


def _checked(mean_log_probs: Sequence[float], right: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays, float64 [K] and bool [K]."""
    signal, is_one = np.asarray(mean_log_probs, np.float64), np.asarray(right, bool)
    if signal.ndim != 1 or signal.shape != is_one.shape:
        raise DataError(f"log-probabilities of shape {signal.shape}, right of {is_one.shape}; give both a caption")
    if not (usable := np.isfinite(signal)).all():
        place = int(usable.argmin())
        raise DataError(f"the log-probability of caption {place} is {signal[place]}; leave out what was not written")
    return signal, is_one


@dataclass(frozen=True)
class Calibrated:
    """Captions with their confidences, the curve that gave them, and how good it is."""

    scaler: PlattScaler | None  # None without captions
    reliability: Reliability
    confidences: list[float]


def calibrate(
    captions: Sequence[str], references: Sequence[Sequence[str]], mean_log_probs: Sequence[float]
) -> Calibrated:
    """Fit a curve to captions [K], measure how good such curves are, and return each caption's confidence."""
    right = [is_right(caption, its) for caption, its in zip(captions, references, strict=True)]
    scaler = fit_platt_scaler(mean_log_probs, right)
    confidences = [scaler.confidence(each) for each in mean_log_probs] if scaler else []
    return Calibrated(scaler, reliability(mean_log_probs, right), confidences)
