"""Sentences: the best one by beam search, others drawn from the model, all different; by hand and by a tiny bundle."""

import math
from pathlib import Path

import numpy as np
import pytest

from lcm.captioning import decoding, generate
from lcm.captioning.decoding import State
from lcm.captioning.generate import caption_features, write_captions
from lcm.data.dataset import LabelledImage
from lcm.data.text import END, RESERVED, Vocabulary
from lcm.features.cache import LabelledFeatures

END_WORD = RESERVED[END]


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    """The values below are worked out by hand with these; what lcm uses may change."""
    monkeypatch.setattr(decoding, "LENGTH_POWER", 0.7)
    monkeypatch.setattr(decoding.decode_nucleus, "__defaults__", (0.7,))


class Writer:
    """Writes what tables say: beginning -> {word: probability}; other beginnings end. An image's first
    feature is its table's number.

    Counts the texts of the first steps that it takes.
    """

    vocabulary = Vocabulary((*RESERVED, "a", "dog", "cat", "runs", "'s"))

    def __init__(self, *tables: dict):
        self.tables, self.texts_at_first_step = tables, []

    def start(self, features):
        return State((features[:, :1].astype(np.int64),), (np.zeros((len(features), 1, 0), np.int64),))  # which image

    def step(self, token_ids, state):
        (images,), (histories,) = state.images, state.rows  # [B, 1], [B, W, ids so far]
        if histories.shape[2] == 0:
            self.texts_at_first_step.append(token_ids.size)
        histories = np.concatenate([histories, token_ids[:, :, None]], axis=2)
        found = [
            [self._probabilities(image, ids[1:]) for ids in texts]
            for (image,), texts in zip(images.tolist(), histories.tolist(), strict=True)
        ]
        with np.errstate(divide="ignore"):
            return np.log(found), State(state.images, (histories,))

    def _probabilities(self, image: int, ids: list[int]) -> list[float]:
        following = self.tables[image].get(self.vocabulary.decode(ids), {END_WORD: 1.0})
        return [following.get(word, 0.0) for word in self.vocabulary.words]


def features_of(*images: int) -> np.ndarray:
    return np.array(images, np.float32).reshape(-1, 1)


def write(writer: Writer, samples: int, images=(0,), max_words: int = 5) -> list[list[str]]:
    return write_captions(writer, features_of(*images), ["en"] * len(images), 3, max_words, samples)[0]


# "dog" comes first more often, but the best caption is "cat", at log 0.45 / 2 ** 0.7 = -0.49: "dog" alone is at
# log 0.275 / 2 ** 0.7 = -0.79.
# The first draws of the samples 0, 1, 2, … are 0.637, 0.512, 0.262, 0.086; below 0.55 they give "dog".
CAT = {"": {"dog": 0.55, "cat": 0.45}, "dog": {END_WORD: 0.5, "runs": 0.5}, "cat": {END_WORD: 1.0}}
SURE = {"": {"a": 1.0}, "a": {"dog": 1.0}}


def test_the_best_caption_is_what_beam_search_finds_with_its_log_probability_a_word():
    # END counts where it was written: "cat" END at 0.45, "a dog" END at 1, and "dog" at 0.55, cut before END.
    captions, mean_log_probs = write_captions(Writer(CAT, SURE), features_of(0, 1, 0), ["en"] * 3, 3, 5)
    assert captions == [["cat"], ["a dog"], ["cat"]]
    assert mean_log_probs == pytest.approx([math.log(0.45) / 2, 0, math.log(0.45) / 2])
    assert write_captions(Writer(CAT), features_of(0), ["en"], 1, 1) == ([["dog"]], [pytest.approx(math.log(0.55))])


def test_samples_come_after_the_best_caption_in_the_order_of_their_numbers():
    # The samples 1 and 2 draw 0.512, 0.950 and 0.262, 0.298; after "dog", END and "runs" have 0.5 each.
    assert write(Writer(CAT), 2) == [["cat", "dog runs", "dog"]]


def test_a_sample_like_the_best_caption_is_drawn_again_with_the_next_number():
    writer = Writer(CAT)
    assert write(writer, 1) == [["cat", "dog runs"]]
    assert writer.texts_at_first_step == [1, 1, 1]  # the beam's, sample 0, sample 1


def test_a_model_that_is_sure_is_not_asked_for_ever():
    writer = Writer(SURE)
    assert write(writer, 3) == [["a dog"]]
    assert writer.texts_at_first_step == [1, 3, 3, 3, 3]  # the beam's, then four rounds of three
    assert generate.ROUNDS == 4


def test_samples_that_do_not_end_or_say_nothing_are_left_out():
    endless = {"": {"dog": 0.6, "a": 0.4}, "a": {"a": 1.0}, "a a": {"a": 1.0}}
    assert write(Writer(endless), 3, max_words=3) == [["dog"]]
    silent = {"": {"dog": 0.6, END_WORD: 0.4}}
    assert write(Writer(silent), 3) == [["dog"]]


def test_an_image_gets_the_same_captions_in_any_company():
    many = {
        "": {"a": 0.33, "dog": 0.31, "cat": 0.36},
        "a": {"dog": 0.5, "cat": 0.5},
        "dog": {"runs": 0.4, END_WORD: 0.6},
    }
    writer, images = Writer(CAT, SURE, many), (1, 2, 0, 2, 1, 0)
    together = write(writer, 3, images)
    assert together == [write(writer, 3, [image])[0] for image in images]
    assert [len(captions) for captions in together] == [1, 4, 3, 4, 1, 3]  # they lack other numbers of samples


# With a reranker


class LastReranker:
    """Chooses each image's last candidate, and keeps what it was asked."""

    length_power = 0.7  # that beam search goes by here

    def __init__(self):
        self.asked = []

    def choose(self, pooled, candidates, scores):
        self.asked.append((pooled, candidates, scores))
        return [len(each) - 1 for each in candidates]


# Scores of CAT's candidates, and log-probabilities a word: END counts.
CAT_FOUND = {
    "cat": (math.log(0.45) / 2**0.7, math.log(0.45) / 2),
    "dog runs": (math.log(0.275) / 3**0.7, math.log(0.275) / 3),
    "dog": (math.log(0.275) / 2**0.7, math.log(0.275) / 2),
}


@pytest.mark.parametrize("pooled", [None, features_of(1, 1)])
def test_a_reranker_is_given_the_beam_s_candidates_best_first_and_decides(pooled):
    reranker, features = LastReranker(), features_of(0, 1)
    captions, mean_log_probs = write_captions(Writer(CAT, SURE), features, ["en"] * 2, 3, 5, 0, reranker, pooled)
    assert captions == [["dog"], ["a dog"]]
    assert mean_log_probs == pytest.approx([CAT_FOUND["dog"][1], 0])
    ((seen, candidates, scores),) = reranker.asked
    assert seen is (features if pooled is None else pooled)
    assert candidates == [list(CAT_FOUND), ["a dog"]]
    assert scores == [pytest.approx([score for score, _ in CAT_FOUND.values()]), [pytest.approx(0)]]


# From features that are encoded already


IMAGE = LabelledImage("1.jpg", Path("1.jpg"), "dev", ("a dog",))


@pytest.mark.parametrize("at_once", [1, 2, 256])
@pytest.mark.parametrize("samples", [0, 2])
def test_features_are_captioned_in_the_order_of_their_rows(at_once, samples, monkeypatch):
    monkeypatch.setattr(generate, "PART", at_once)
    writer, rows = Writer(CAT, SURE), np.array([1, 0, 0, 1, 0])
    labelled = LabelledFeatures([IMAGE] * len(rows), rows, features_of(0, 1))
    found, mean_log_probs = caption_features(writer, labelled, 3, 5, samples, progress=False)
    assert found == write(writer, samples, rows)
    assert mean_log_probs == pytest.approx([0 if row else CAT_FOUND["cat"][1] for row in rows])
