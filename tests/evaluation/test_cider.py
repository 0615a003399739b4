"""The reward of self-critical training: CIDEr-D over word ids, against pycocoevalcap's own and worked by hand."""

import math
import random

import numpy as np
import pytest
from pycocoevalcap.cider.cider_scorer import CiderScorer

from lcm.data.text import END
from lcm.evaluation.metrics import CiderD

DOG, RUNS, CAT, SITS, TREE, OF, A, MAN = range(10, 18)


def cider_of_all(references, captions) -> np.ndarray:
    """pycocoevalcap's CIDEr-D [images] of one caption for each image; it counts n-grams in all `references`."""
    scorer = CiderScorer()
    for theirs, caption in zip(references, captions, strict=True):
        scorer.cook_append(as_text(caption), [as_text(reference) for reference in theirs])
    return scorer.compute_score()[1]


def as_text(token_ids) -> str:
    return " ".join(map(str, token_ids))


def random_caption(chance: random.Random, longest: int) -> list[int]:
    """Words of which the first are far more common, as in a language; now and then none at all."""
    return [min(int(chance.expovariate(0.3)), 30) for _ in range(chance.randint(0, longest))]


def one_score(references, caption) -> float:
    """The reward of a caption for the first image."""
    return CiderD(references).score([0], [[caption]]).item()


# pycocoevalcap


def test_random_captions_score_as_in_pycocoevalcap():
    chance = random.Random(0)
    references = [[random_caption(chance, 16) for _ in range(chance.randint(1, 6))] for _ in range(40)]
    captions = [[random_caption(chance, 24) for _ in references] for _ in range(4)]
    expected = np.stack([cider_of_all(references, each) for each in captions], axis=1)  # [B, S]
    scorer, captions = CiderD(references), list(zip(*captions, strict=True))
    scores = scorer.score(range(40), captions)
    assert scores.dtype == np.float64
    assert (expected > 0.5).any()
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-12)
    batch = [17, 3, 29, 3]
    np.testing.assert_array_equal(scorer.score(batch, [captions[place] for place in batch]), scores[batch])


# By hand. With two images, every n-gram that one of them alone holds weighs log 2, which a cosine does not show.


def test_a_word_of_two_by_hand():
    # n = 1: 1 of sqrt(1) * sqrt(2); no longer n-grams; one word of difference in length
    assert one_score([[[DOG, RUNS]], [[CAT]]], [DOG]) == pytest.approx(10 / 4 / math.sqrt(2) * math.exp(-1 / 72))


def test_rarer_words_earn_more():
    references = [[[A, DOG]], [[A, CAT]], [[TREE]], [[OF]]]  # idf: A log 4 - log 2, DOG log 4, twice as much
    reward = CiderD(references).score([0], [[[A], [DOG]]])[0]
    assert reward == pytest.approx(10 / 4 * math.exp(-1 / 72) * np.array([1, 2]) / math.sqrt(5))


def test_repeating_a_word_gains_nothing():
    references = [[[A, DOG]], [[CAT]]]
    # clipped to the reference's 1; the caption's norm is 4; two words longer
    assert one_score(references, [DOG] * 4) == pytest.approx(10 / 4 / (4 * math.sqrt(2)) * math.exp(-4 / 72))
    scores = CiderD(references).score([0], [[[DOG] * times for times in (1, 2, 3, 4)]])[0].tolist()
    assert scores == sorted(set(scores), reverse=True)


# END


def test_a_caption_that_was_cut_earns_less_than_the_same_that_ended():
    references = [[[A, DOG, RUNS, END], [DOG, RUNS, END]], [[A, CAT, SITS, END]], [[A, MAN, SITS, END]]]
    ended, cut = CiderD(references).score([0], [[[A, DOG, RUNS, END], [A, DOG, RUNS]]])[0]
    assert ended > cut + 1


# Little to score
