"""Choosing among captions, by hand: vectors in the plane, and the tiny tag scorer of tiny_graphs.py."""

from collections.abc import Sequence

import numpy as np

from lcm.captioning.taggers import DualEncoder
from lcm.captioning.tagging import Reranker
from tests.fakes.tiny_graphs import TAGGER, WIDTH, save_tag_files

TEXTS = {"east": (1, 0), "north": (0, 1), "between": (0.8, 0.6), "west": (-1, 0), "unread": (0, 0)}
EAST, NORTH = np.array([1, 0], np.float32), np.array([0, 1], np.float32)


class PlaneModel:
    """Features are vectors already, and texts have theirs in TEXTS; keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def image_vectors(self, pooled: np.ndarray) -> np.ndarray:
        self.asked.append(len(pooled))
        return pooled

    def text_vectors(self, texts: Sequence[str]) -> np.ndarray:
        self.asked.append(list(texts))
        return np.array([TEXTS[text] for text in texts], np.float32)


def chosen(weight: float, images: Sequence[np.ndarray], candidates: list[list[str]], scores: list) -> list[str]:
    places = Reranker(PlaneModel(), weight).choose(np.stack(images), candidates, scores)
    assert all(type(place) is int for place in places)
    return [texts[place] for texts, place in zip(candidates, places, strict=True)]


def test_score_and_cosine_are_added_by_hand():
    # Of an image in the north, "between" has cosine 0.6 and "east" 0: it gains 0.6 * weight, and lacks 0.3.
    for weight, expected in ((0.49, "east"), (0.51, "between")):
        assert chosen(weight, [NORTH], [["east", "between"]], [[-1.0, -1.3]]) == [expected]


def test_of_equal_ones_the_first_is_chosen():
    assert Reranker(PlaneModel(), 1.0).choose(EAST[None], [["west", "between", "between"]], [[-1.0] * 3]) == [1]
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


def test_a_bundle_s_tag_scorer_can_choose(tmp_path):
    save_tag_files(tmp_path)
    features = np.zeros((2, WIDTH), np.float32)
    features[0, 0] = features[1, 2] = 1.0  # red and blue
    candidates = [["a blue square", "a red square", "a red"], ["a blue square", "a red square"]]
    scores = [[-1.0, -1.0, -1.2], [-1.5, -1.0]]  # cosines 0, 0.71 and 1; 0.71 and 0
    model = DualEncoder(tmp_path, TAGGER)
    assert Reranker(model, 0.6).choose(features, candidates, scores) == [1, 1]
    assert Reranker(model, 0.8).choose(features, candidates, scores) == [2, 0]
