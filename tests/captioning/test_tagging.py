"""Shares of tags and the choice among captions, worked out by hand."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from lcm.captioning.tagging import Reranker, rank, tag_candidates


class FixedScorer:
    """Knows the cosine of some texts with the picture [1, 0]."""

    name, scale = "fixed", math.log(2)

    def __init__(self, **cosines: float):
        self.cosines = cosines

    def text_vectors(self, texts):
        known = {text: (cosine, math.sqrt(1 - cosine**2)) for text, cosine in self.cosines.items()}
        return np.array([known.get(text, (0, 0)) for text in texts], np.float32)


PICTURE = np.array([1, 0], np.float32)


def test_tags_are_ranked_by_their_share():
    # 2 ** 1, 2 ** 0 and 2 ** -1 are 4, 2 and 1 parts of seven.
    tags = rank(FixedScorer(cat=-1, dog=1, grass=0), PICTURE, ["cat", "dog", "grass"])
    assert tags == (("dog", pytest.approx(4 / 7)), ("grass", pytest.approx(2 / 7)), ("cat", pytest.approx(1 / 7)))
    assert [type(score) for _, score in tags] == [float] * 3


def test_what_the_scorer_does_not_know_gets_no_share():
    tags = rank(FixedScorer(dog=0.5, cat=0.5), PICTURE, ["xyzzy", "dog", "plugh", "cat"])
    assert tags == (("dog", pytest.approx(0.5)), ("cat", pytest.approx(0.5)))


def test_tags_are_chosen_from_the_content_words_of_all_captions():
    assert list(tag_candidates(["two dogs", "in the", "a dog on grass"], None, "en")) == ["dog", "grass"]
    assert tag_candidates(["there they are", ""], None, "en") == {}


def test_labels_take_the_place_of_the_words_and_stay_as_they_are():
    labels = ["red", "The Dogs", "red", "in the", "ice cream"]
    assert list(tag_candidates(["a dog"], labels, "en")) == ["red", "The Dogs", "in the", "ice cream"]
    assert tag_candidates([], ("x",), "en") == {"x": "x"}


# Choosing among captions, with vectors in the plane

TEXTS = {"east": (1, 0), "north": (0, 1), "between": (0.8, 0.6), "west": (-1, 0), "unread": (0, 0)}
EAST, NORTH = np.array([1, 0], np.float32), np.array([0, 1], np.float32)


class PlaneModel:
    """Features are vectors already, and texts have theirs in TEXTS."""

    def image_vectors(self, pooled: np.ndarray) -> np.ndarray:
        return pooled

    def text_vectors(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([TEXTS[text] for text in texts], np.float32)


def chosen(weight: float, images: Sequence[np.ndarray], candidates: list[list[str]], scores: list) -> list[str]:
    places = Reranker(PlaneModel(), weight, 0.9).choose(np.stack(images), candidates, scores)
    return [texts[place] for texts, place in zip(candidates, places, strict=True)]


def test_score_and_cosine_are_added_by_hand():
    # Of an image in the north, "between" has cosine 0.6 and "east" 0: it gains 0.6 * weight, and lacks 0.3.
    for weight, expected in ((0.49, "east"), (0.51, "between")):
        assert chosen(weight, [NORTH], [["east", "between"]], [[-1.0, -1.3]]) == [expected]


def test_of_equal_ones_the_first_is_chosen():
    assert Reranker(PlaneModel(), 1.0, 0.9).choose(EAST[None], [["west", "between", "between"]], [[-1.0] * 3]) == [1]
    assert chosen(1.0, [EAST], [["north", "unread"]], [[-1.0, -1.0]]) == ["north"]
    assert chosen(1.0, [EAST], [["unread", "north"]], [[-1.0, -1.0]]) == ["unread"]


def test_each_image_chooses_among_its_own_candidates_however_many():
    images = [EAST, NORTH, -EAST, NORTH]
    candidates = [["north"], ["east", "west", "between"], ["east", "west"], ["west", "east", "between", "north"]]
    scores = [[-1.0], [-1.0, -1.0, -1.1], [-1.0, -1.2], [-1.0, -1.0, -1.0, -9.0]]
    together = chosen(1.0, images, candidates, scores)
    assert together == ["north", "between", "west", "between"]
    each = zip(images, candidates, scores, strict=True)
    assert together == [chosen(1.0, [image], [texts], [its]).pop() for image, texts, its in each]
