"""Beam search and nucleus sampling over hand-made distributions; no model anywhere.

Ids 4, 5, … are words. A fake step knows its images and all that was written so far from its state alone, so that
a state row which does not follow its beam gives other probabilities, and wrong captions; so does an image's array
that does not follow its image.
"""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lcm.captioning import decoding
from lcm.captioning.decoding import (
    Hypothesis,
    State,
    caption_features,
    decode_beam,
    decode_nucleus,
    draw,
    write_captions,
)
from lcm.data.dataset import LabelledImage
from lcm.data.text import END, PAD, RESERVED, START, UNKNOWN, Vocabulary, build_vocabulary
from lcm.features.cache import LabelledFeatures

A, B, C = 4, 5, 6
END_WORD = RESERVED[END]


@pytest.fixture(autouse=True)
def length_power(monkeypatch):
    """The values below are worked out by hand at 0.7; what lcm uses was chosen on dev and may change."""
    monkeypatch.setattr(decoding, "LENGTH_POWER", 0.7)
    monkeypatch.setattr(decoding.decode_nucleus, "__defaults__", (0.7,))


def step_over(distribution):
    """Return a step that gives log `distribution(image, words)`; its rows are [image, START, words…] in two forms."""

    def step(ids, state):
        (images,), (histories, doubled) = state.images, state.rows  # [B, 1], [B, W, T], [B, W, T, 2]
        assert ids.shape == histories.shape[:2]
        np.testing.assert_array_equal(doubled, np.stack([histories, 2 * histories], axis=3))
        np.testing.assert_array_equal(histories[:, :, 0], np.repeat(images, ids.shape[1], axis=1))
        histories = np.concatenate([histories, ids[:, :, None]], axis=2)
        found = [[distribution(text[0], tuple(text[2:])) for text in texts] for texts in histories.tolist()]
        with np.errstate(divide="ignore"):
            log_probs = np.log(np.array(found, np.float32))
        log_probs[..., [PAD, START, UNKNOWN]] = -np.inf
        return log_probs, State(state.images, (histories, np.stack([histories, 2 * histories], axis=3)))

    return step


def state_of(*images: int) -> State:
    numbers = np.array(images, dtype=np.int64).reshape(-1, 1)  # [B, 1]
    rows = numbers[:, :, None]  # [B, 1, 1]
    return State((numbers,), (rows, np.stack([rows, 2 * rows], axis=3)))


def tree(branches: dict, size=7):
    """Return a distribution from beginning -> {id: probability}; other ids have none, other beginnings end."""

    def distribution(_image, words):
        probabilities = np.zeros(size)
        for token_id, probability in branches.get(words, {END: 1.0}).items():
            probabilities[token_id] = probability
        return probabilities

    return distribution


def best(distribution, max_words=20, beam_width=3) -> Hypothesis:
    """The best caption of image 0."""
    (hypotheses,) = decode_beam(step_over(distribution), state_of(0), max_words, beam_width)
    return hypotheses[0]


def log(*probabilities: float) -> float:
    return pytest.approx(sum(map(math.log, probabilities)), rel=1e-6)


# By hand

# After A, the likelier first word, a caption can only reach 0.6 * 0.4; the best one is B, with 0.4 * 1.
GARDEN_PATH = tree({(): {A: 0.6, B: 0.4}, (A,): {END: 0.4, A: 0.3, B: 0.3}, (B,): {END: 1.0}})


def test_beam_finds_what_the_most_probable_words_miss():
    (hypotheses,) = decode_beam(step_over(GARDEN_PATH), state_of(0), 20, beam_width=2)
    # Both end at the second step: log 0.4 / 2 ** 0.7 = -0.564, log 0.24 / 2 ** 0.7 = -0.878. The beginnings A-A and
    # A-B stand at log 0.18 / 2 ** 0.7 = -1.056 then, and two captions have ended at no less: the search stops,
    # though with END both would come to log 0.18 / 3 ** 0.7 = -0.795 and one would be second.
    assert hypotheses == [Hypothesis((B,), log(0.4), ended=True), Hypothesis((A,), log(0.6, 0.4), ended=True)]
    assert [hypothesis.score for hypothesis in hypotheses] == pytest.approx([-0.564, -0.878], abs=1e-3)


def test_search_goes_on_while_a_beginning_scores_better_than_what_has_ended():
    # With room for three captions the third step is taken, and there are no beginnings after it.
    (hypotheses,) = decode_beam(step_over(GARDEN_PATH), state_of(0), 20, beam_width=3)
    assert hypotheses[0].token_ids == (B,)
    assert {hypothesis.token_ids for hypothesis in hypotheses[1:]} == {(A, A), (A, B)}
    # With room for one: A ends at log 0.45 / 2 ** 0.7 = -0.492 while A-A stands at log 0.55 / 2 ** 0.7 = -0.368.
    distribution = tree({(): {A: 1.0}, (A,): {END: 0.45, A: 0.55}})
    (hypotheses,) = decode_beam(step_over(distribution), state_of(0), 20, beam_width=1)
    assert hypotheses == [Hypothesis((A, A), log(0.55), ended=True)]


def test_the_step_that_reaches_max_words_may_still_end():
    distribution = tree({(): {A: 1.0}, (A,): {B: 1.0}})
    for max_words, ended in ((3, True), (2, False)):
        expected = Hypothesis((A, B), log(1.0), ended)
        assert best(distribution, max_words) == expected
        assert decode_nucleus(step_over(distribution), state_of(0), max_words, [0]) == [[expected]]


# Random distributions


def random_distribution(seed: int, size: int):
    """A distribution that depends on the image and on each word written, reserved ids among it."""

    def distribution(image, words):
        return np.random.default_rng([seed, image, *words]).dirichlet(np.full(size, 0.7))

    return distribution


def all_captions(distribution, image: int, size: int, max_words: int) -> list[tuple[float, tuple[int, ...], bool]]:
    """Return score, words and whether it ended, of every caption there is, best first: no search at all."""
    captions = []
    for length in range(max_words + 1):
        for words in itertools.product(range(4, size), repeat=length):
            ids = words if length == max_words else (*words, END)
            probabilities = [distribution(image, words[:t])[token_id] for t, token_id in enumerate(ids)]
            captions.append((sum(map(math.log, probabilities)) / len(ids) ** 0.7, words, length < max_words))
    return sorted(captions, reverse=True)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("size", [6, 7])
def test_a_wide_beam_finds_what_enumeration_finds(seed, size):
    distribution, max_words = random_distribution(seed, size), 4
    width = (size - 4) ** max_words  # as many as there are beginnings
    (hypotheses,) = decode_beam(step_over(distribution), state_of(3), max_words, width)
    expected = all_captions(distribution, 3, size, max_words)[:width]
    assert [(one.token_ids, one.ended) for one in hypotheses] == [(words, ended) for _, words, ended in expected]
    assert [one.score for one in hypotheses] == pytest.approx([score for score, _, _ in expected], rel=1e-5)


@pytest.mark.parametrize("beam_width", [1, 2, 3, 5, 50])
def test_a_batch_gives_the_answers_of_its_images(beam_width):
    step, images = step_over(random_distribution(0, 12)), (7, 0, 3, 12, 5, 1)
    together = decode_beam(step, state_of(*images), 6, beam_width)
    for image, hypotheses in zip(images, together, strict=True):
        (alone,) = decode_beam(step, state_of(image), 6, beam_width)
        assert hypotheses == alone
    assert len({hypotheses[0].token_ids for hypotheses in together}) > 3  # not all the same
    assert len({len(hypotheses[0].token_ids) for hypotheses in together}) > 1  # nor of one length


# Nucleus sampling


def always(probabilities: dict):
    """Return a distribution that is the same after all beginnings."""
    return lambda _image, words: tree({words: probabilities})(0, words)


def first_words(probabilities: dict, nucleus: float, samples: int = 4000) -> dict[int, float]:
    """Return how often each word comes first, END too, as a share of many samples."""
    numbers = range(samples)
    (hypotheses,) = decode_nucleus(step_over(always(probabilities)), state_of(0), 1, numbers, nucleus)
    words = [one.token_ids[0] if one.token_ids else END for one in hypotheses]
    return {word: words.count(word) / samples for word in set(words)}


def test_words_come_as_often_as_their_share_of_the_nucleus_says():
    # 0.4 + 0.3 < 0.75 <= 0.4 + 0.3 + 0.2 of what may be written, so the shares are 4, 3 and 2 of 9, and C never comes.
    # Three standard deviations of a share of 4/9 over 4000 samples are 3 * sqrt(0.247 / 4000) = 0.024.
    reserved = {PAD: 0.4, START: 0.24, UNKNOWN: 0.16}  # take most of the probability, and none of the nucleus
    found = first_words(reserved | {A: 0.06, END: 0.08, B: 0.04, C: 0.02}, 0.75)
    assert found == {
        END: pytest.approx(4 / 9, abs=0.024),
        A: pytest.approx(3 / 9, abs=0.024),
        B: pytest.approx(2 / 9, abs=0.024),
    }


def test_a_draw_is_what_going_down_from_the_most_probable_word_finds():
    random = np.random.default_rng(0)
    for concentration, nucleus in itertools.product((0.02, 0.3, 5), (0.2, 0.7, 0.95, 1.0)):
        rows, draws = random.dirichlet(np.full(300, concentration), 20), random.random(20)
        expected = []
        for probabilities, number in zip(rows.tolist(), draws, strict=True):
            order = sorted(range(300), key=lambda word: -probabilities[word])
            sums = list(itertools.accumulate(probabilities[word] for word in order))
            size = next((place for place, total in enumerate(sums, 1) if total >= nucleus * sums[-1]), 300)
            expected.append(
                next(word for word, total in zip(order, sums, strict=True) if total > number * sums[size - 1])
            )
        with np.errstate(divide="ignore"):
            assert draw(np.log(rows), draws, nucleus).tolist() == expected


# Sentences: the best one by beam search, others drawn from the model, all different


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
    return write_captions(writer, features_of(*images), "en", 3, max_words, samples)[0]


# "dog" comes first more often, but the best caption is "cat", at log 0.45 / 2 ** 0.7 = -0.49: "dog" alone is at
# log 0.275 / 2 ** 0.7 = -0.79.
# The first draws of the samples 0, 1, 2, … are 0.637, 0.512, 0.262, 0.086; below 0.55 they give "dog".
CAT = {"": {"dog": 0.55, "cat": 0.45}, "dog": {END_WORD: 0.5, "runs": 0.5}, "cat": {END_WORD: 1.0}}
SURE = {"": {"a": 1.0}, "a": {"dog": 1.0}}


def test_the_best_caption_is_what_beam_search_finds_with_its_log_probability_a_word():
    # END counts where it was written: "cat" END at 0.45, "a dog" END at 1, and "dog" at 0.55, cut before END.
    captions, mean_log_probs = write_captions(Writer(CAT, SURE), features_of(0, 1, 0), "en", 3, 5)
    assert captions == [["cat"], ["a dog"], ["cat"]]
    assert mean_log_probs == pytest.approx([math.log(0.45) / 2, 0, math.log(0.45) / 2])
    assert write_captions(Writer(CAT), features_of(0), "en", 1, 1) == ([["dog"]], [pytest.approx(math.log(0.55))])


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
    assert decoding.ROUNDS == 4


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


# In a language of several


class Bilingual(Writer):
    """Its English captions have "run" too, its French ones have neither "dog" nor "a"."""

    vocabulary = build_vocabulary({"en": ["a dog", "un run"], "fr": ["un chien run"]}, 1)


# Most probable at each place is a word that the French captions never had.
FOREIGN = {
    "": {"dog": 0.6, "un": 0.4},
    "un": {"dog": 0.4, "chien": 0.3, "run": 0.25, "<en>": 0.05},
    "dog": {"run": 1.0},
}


def test_no_word_is_written_that_the_captions_of_the_language_never_had():
    french, english = (write_captions(Bilingual(FOREIGN), features_of(0), code, 3, 5, 8) for code in ("fr", "en"))
    assert (set(french[0][0]), french[0][0][0]) == ({"un chien", "un run"}, "un chien")
    assert french[1] == [pytest.approx(math.log(0.4 * 0.3) / 3)]
    assert set(english[0][0]) == {"dog run", "un dog", "un run"}


IMAGE = LabelledImage("1.jpg", Path("1.jpg"), "dev", ("a dog",))


@pytest.mark.parametrize("at_once", [1, 3])
def test_images_in_several_languages_keep_their_order(at_once, monkeypatch):
    monkeypatch.setattr(decoding, "PART", at_once)
    images = [replace(IMAGE, language=code) for code in ("fr", "en", "fr", "en", "en")]
    labelled = LabelledFeatures(images, np.array([0, 1, 1, 0, 1]), features_of(0, 1))
    found, _ = caption_features(Bilingual(FOREIGN, {"": {"run": 1.0}}), labelled, 3, 5, progress=False)
    assert found == [["un chien"], ["run"], ["run"], ["dog run"], ["run"]]


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
    captions, mean_log_probs = write_captions(Writer(CAT, SURE), features, "en", 3, 5, 0, reranker, pooled)
    assert captions == [["dog"], ["a dog"]]
    assert mean_log_probs == pytest.approx([CAT_FOUND["dog"][1], 0])
    ((seen, candidates, scores),) = reranker.asked
    assert seen is (features if pooled is None else pooled)
    assert candidates == [list(CAT_FOUND), ["a dog"]]
    assert scores == [pytest.approx([score for score, _ in CAT_FOUND.values()]), [pytest.approx(0)]]


# From features that are encoded already


@pytest.mark.parametrize("at_once", [1, 2, 256])
@pytest.mark.parametrize("samples", [0, 2])
def test_features_are_captioned_in_the_order_of_their_rows(at_once, samples, monkeypatch):
    monkeypatch.setattr(decoding, "PART", at_once)
    writer, rows = Writer(CAT, SURE), np.array([1, 0, 0, 1, 0])
    labelled = LabelledFeatures([IMAGE] * len(rows), rows, features_of(0, 1))
    found, mean_log_probs = caption_features(writer, labelled, 3, 5, samples, progress=False)
    assert found == write(writer, samples, rows)
    assert mean_log_probs == pytest.approx([0 if row else CAT_FOUND["cat"][1] for row in rows])
