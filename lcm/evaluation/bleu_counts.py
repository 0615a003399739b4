"""What BLEU of a set adds up over its images, so that images can be drawn again and BLEU follow.

Knows the counts behind BLEU-4 and the way from their sums to the score. Refuses to know how images are drawn.

BLEU of a set is no mean over images: an image without a common four-word sequence has a BLEU-4 of 0 by itself, and
most have none. Its interval therefore comes from drawing images, adding up their counts and taking BLEU of the sums.

Shapes: B images, R sums of images, 10 counts: four of agreeing n-grams, four of all n-grams, the words of the
hypothesis, the words of the reference nearest in length.
"""

from collections.abc import Sequence

import numpy as np

from lcm.data.vocabulary import standardise
from lcm.errors import require
from lcm.evaluation.metrics import BLEU, usable_references

ORDERS = len(BLEU)
TINY, SMALL = 1e-15, 1e-9  # what pycocoevalcap's bleu_scorer.py adds above and below, so that nothing is divided by 0


def bleu_counts(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the counts [B, 10] of the images that have a usable reference, in their order."""
    scorer = require("pycocoevalcap.bleu.bleu_scorer", "evaluate")
    rows = []
    for place, usable in usable_references(references).items():
        cooked = scorer.cook_test(" ".join(standardise(hypotheses[place])), scorer.cook_refs(usable))
        words = cooked["testlen"]
        nearest = min((abs(length - words), length) for length in cooked["reflen"])[1]  # the shorter of two as near
        rows.append([*cooked["correct"], *cooked["guess"], words, nearest])
    return np.array(rows, np.float64).reshape(-1, 2 * ORDERS + 2)


def bleu_4(sums: np.ndarray) -> np.ndarray:
    """Return BLEU-4 [R] (Papineni et al. 2002) of sums [R, 10] of such counts, as `Scores.bleu_4` has it."""
    correct, every = sums[:, :ORDERS], sums[:, ORDERS : 2 * ORDERS]  # [R, 4] each
    precision = ((correct + TINY) / (every + SMALL)).prod(axis=1) ** (1 / ORDERS)
    ratio = (sums[:, -2] + TINY) / (sums[:, -1] + SMALL)
    return precision * np.exp(np.minimum(0, 1 - 1 / ratio))


def bleu_4_difference(sums: np.ndarray) -> np.ndarray:
    """Return how much BLEU-4 of the first ten counts exceeds that of the last ten [R], of sums [R, 20]."""
    first, second = np.split(sums, 2, axis=1)
    return bleu_4(first) - bleu_4(second)
