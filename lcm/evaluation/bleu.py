"""BLEU: what a set of captions adds up over its images, and the score that follows from the sums.

Knows the counts behind BLEU and the way from their sums to the score. Refuses to know how images are drawn.

BLEU of a set is no mean over images: an image without a common four-word sequence has a BLEU-4 of 0 by itself, and
most have none. Its interval therefore comes from drawing images, adding up their counts and taking BLEU of the sums.
N-grams are counted by pycocoevalcap, an image at a time: its own scorer keeps those of the whole set.

Shapes: B images, R sums of images, 10 counts: four of agreeing n-grams, four of all n-grams, the words of the
hypothesis, the words of the reference nearest in length.
"""

import numpy as np

from lcm.errors import require
from lcm.evaluation.meteor import Captions

ORDERS = 4  # words of the longest n-gram
TINY, SMALL = 1e-15, 1e-9  # what pycocoevalcap's bleu_scorer.py adds above and below, so that nothing is divided by 0


def count_ngrams(references: Captions, hypotheses: Captions) -> np.ndarray:
    """Return the counts [B, 10] of images, in the order of `references`."""
    scorer = require("pycocoevalcap.bleu.bleu_scorer", "evaluate")
    rows = []
    for place, usable in references.items():
        (hypothesis,) = hypotheses[place]
        cooked = scorer.cook_test(hypothesis, scorer.cook_refs(usable))
        words = cooked["testlen"]
        nearest = min((abs(length - words), length) for length in cooked["reflen"])[1]  # the shorter of two as near
        rows.append([*cooked["correct"], *cooked["guess"], words, nearest])
    return np.array(rows, np.float64).reshape(-1, 2 * ORDERS + 2)


def bleu(sums: np.ndarray) -> np.ndarray:
    """Return BLEU-1 to BLEU-4 [R, 4] (Papineni et al. 2002) of sums [R, 10] of such counts."""
    correct, every = sums[:, :ORDERS], sums[:, ORDERS : 2 * ORDERS]  # [R, 4] each
    precision = np.cumprod((correct + TINY) / (every + SMALL), axis=1) ** (1 / np.arange(1, ORDERS + 1))
    ratio = (sums[:, -2:-1] + TINY) / (sums[:, -1:] + SMALL)
    return precision * np.exp(np.minimum(0, 1 - 1 / ratio))


def bleu_4(sums: np.ndarray) -> np.ndarray:
    """Return BLEU-4 [R] of sums [R, 10]."""
    return bleu(sums)[:, -1]


def bleu_4_difference(sums: np.ndarray) -> np.ndarray:
    """Return how much BLEU-4 of the first ten counts exceeds that of the last ten [R], of sums [R, 20]."""
    first, second = np.split(sums, 2, axis=1)
    return bleu_4(first) - bleu_4(second)
