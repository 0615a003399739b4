"""Sentences: the best one by beam search, others drawn from the model, all different; by hand and by a tiny bundle."""

import math

import numpy as np
import pytest
from tiny_graphs import SIZE, make_picture, save_bundle, use_tiny_encoder

from lcm.captioning import decoding, writing
from lcm.captioning.bundle import Bundle
from lcm.captioning.writing import add_samples, best_captions, caption_features
from lcm.data.images import read_image
from lcm.data.vocabulary import END, RESERVED, UNKNOWN, Vocabulary
from lcm.encoding.encoders import load_encoder
from lcm.encoding.prepared import LabelledFeatures

END_WORD, UNKNOWN_WORD = RESERVED[END], RESERVED[UNKNOWN]


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    """The values below are worked out by hand with these; what lcm uses may change."""
    monkeypatch.setattr(decoding, "LENGTH_POWER", 0.7)
    monkeypatch.setattr(decoding.decode_nucleus, "__defaults__", (0.7,))


class Writer:
    """Writes what tables say: beginning -> {word: probability}; other beginnings end. An image is its table's number.

    Counts the rows that it starts and the first steps that it takes.
    """

    vocabulary = Vocabulary((*RESERVED, "a", "dog", "cat", "runs", "'s"))

    def __init__(self, *tables: dict):
        self.tables, self.started, self.rows_at_first_step = tables, [], []

    def start(self, features):
        self.started.append(len(features))
        return (features.astype(np.int64),)  # [B, 1]: which image

    def step(self, token_ids, state):
        (histories,) = state  # [R, 1 + ids so far]
        if histories.shape[1] == 1:
            self.rows_at_first_step.append(len(histories))
        histories = np.column_stack([histories, token_ids])
        with np.errstate(divide="ignore"):
            return np.log([self._probabilities(row[0], row[2:]) for row in histories.tolist()]), (histories,)

    def _probabilities(self, image: int, ids: list[int]) -> list[float]:
        following = self.tables[image].get(self.vocabulary.decode(ids), {END_WORD: 1.0})
        return [following.get(word, 0.0) for word in self.vocabulary.words]


def features_of(*images: int) -> np.ndarray:
    return np.array(images, np.float32).reshape(-1, 1)


def write(writer: Writer, samples: int, images=(0,), max_words: int = 5) -> list[list[str]]:
    features = features_of(*images)
    return add_samples(writer, features, best_captions(writer, features, 3, max_words), samples, max_words)


# "dog" comes first more often, but the best caption is "cat", at log 0.45 / 2 ** 0.7 = -0.49: "dog" alone is at
# log 0.275 / 2 ** 0.7 = -0.79.
# The first draws of the samples 0, 1, 2, … are 0.637, 0.512, 0.262, 0.086; below 0.55 they give "dog".
CAT = {"": {"dog": 0.55, "cat": 0.45}, "dog": {END_WORD: 0.5, "runs": 0.5}, "cat": {END_WORD: 1.0}}
SURE = {"": {"a": 1.0}, "a": {"dog": 1.0}}


def test_the_best_caption_is_what_beam_search_finds():
    assert best_captions(Writer(CAT, SURE), features_of(0, 1, 0), 3, 5) == ["cat", "a dog", "cat"]
    assert best_captions(Writer(CAT), features_of(0), beam_width=1, max_words=1) == ["dog"]


def test_samples_come_after_the_best_caption_in_the_order_of_their_numbers():
    # Second draws of the samples 1 and 2, after "dog": 0.950 and 0.298; END and "runs" have 0.5 each.
    assert np.random.default_rng(1).random(2) == pytest.approx([0.512, 0.950], abs=1e-3)
    assert np.random.default_rng(2).random(2) == pytest.approx([0.262, 0.298], abs=1e-3)
    assert write(Writer(CAT), 2) == [["cat", "dog runs", "dog"]]


def test_a_sample_like_the_best_caption_is_drawn_again_with_the_next_number():
    writer = Writer(CAT)
    assert write(writer, 1) == [["cat", "dog runs"]]
    assert writer.rows_at_first_step == [1, 1, 1]  # the beam's, sample 0, sample 1


def test_captions_are_never_more_than_asked_for():
    for samples in range(6):
        (captions,) = write(Writer(CAT), samples)
        assert len(captions) == len(set(captions)) == min(1 + samples, 3)  # there are three in all


def test_no_samples_take_no_step_beyond_the_beam_s():
    writer = Writer(CAT)
    assert write(writer, 0) == [["cat"]]
    assert writer.started == [1]


def test_a_model_that_is_sure_is_not_asked_for_ever():
    writer = Writer(SURE)
    assert write(writer, 3) == [["a dog"]]
    assert writer.rows_at_first_step == [1, 3, 3, 3, 3]  # the beam's, then four rounds of three
    assert writing.ROUNDS == 4


def test_samples_that_do_not_end_or_say_nothing_are_left_out():
    endless = {"": {"dog": 0.6, "a": 0.4}, "a": {"a": 1.0}, "a a": {"a": 1.0}}
    assert write(Writer(endless), 3, max_words=3) == [["dog"]]
    silent = {"": {"dog": 0.6, END_WORD: 0.4}}
    assert write(Writer(silent), 3) == [["dog"]]
    lost = {"": {"dog": 0.5, "a": 0.5}, "a": {UNKNOWN_WORD: 1.0}}
    assert write(Writer(lost), 3) == [["dog"]]


def test_a_best_caption_may_be_empty_or_endless_and_stays_first():
    assert write(Writer({"": {END_WORD: 0.6, "dog": 0.4}}), 2) == [["", "dog"]]
    assert write(Writer({"": {"a": 1.0}, "a": {"a": 1.0}}), 2, max_words=2) == [["a a"]]


def test_captions_are_joined_as_they_are_read():
    writer = Writer({"": {"a": 1.0}, "a": {"dog": 1.0}, "a dog": {"'s": 1.0}, "a dog's": {"cat": 1.0}})
    assert write(writer, 1) == [["a dog's cat"]]


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


def test_only_images_that_lack_captions_are_asked_again():
    writer = Writer(CAT, SURE)
    write(writer, 2, (0, 1, 0))
    assert writer.rows_at_first_step == [3, 6, 6, 2, 2]  # after two rounds both images 0 have all


# From features that are encoded already


def labelled(features: np.ndarray, rows: np.ndarray) -> LabelledFeatures:
    return LabelledFeatures([None] * len(rows), rows, features)


@pytest.mark.parametrize("at_once", [1, 2, 5, 256])
@pytest.mark.parametrize("samples", [0, 2])
def test_features_are_captioned_in_the_order_of_their_rows(at_once, samples, monkeypatch):
    monkeypatch.setattr(writing, "IMAGES_AT_ONCE", at_once)
    writer, rows = Writer(CAT, SURE), np.array([1, 0, 0, 1, 0])
    found = caption_features(writer, labelled(features_of(0, 1), rows), 3, 5, samples, progress=False)
    assert found == write(writer, samples, rows)
    assert math.ceil(5 / at_once) * (2 if samples else 1) + (2 if samples else 1) == len(writer.started)


def test_no_features_give_no_captions(capfd):
    writer = Writer(CAT)
    assert caption_features(writer, labelled(features_of(0), np.array([], int)), 3, 5, 2, progress=False) == []
    assert writer.started == []
    assert capfd.readouterr().err == ""


def test_a_bundle_captions_features_as_it_captions_pictures(tmp_path, monkeypatch):
    bundle = Bundle(save_bundle(tmp_path / "bundle", use_tiny_encoder(tmp_path, monkeypatch)))
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (9, 8, 7), (7, 8, 9)]
    pictures = [make_picture(tmp_path / f"{place}.png", colour) for place, colour in enumerate(colours)]
    pooled = load_encoder("tiny").encode(np.stack([read_image(path, SIZE) for path in pictures]))["pooled"]
    found = caption_features(bundle, labelled(pooled, np.array([4, 0, 1, 2, 3])), 2, 5, progress=False)
    assert found == [["a blue square"], ["a red square"], ["a green square"], ["a blue square"], ["a red square"]]
    assert caption_features(bundle, labelled(pooled, np.array([4])), 1, max_words=2, progress=False) == [["a blue"]]
