"""The report on a tag scorer whose vectors are known, worked by hand."""

import json
from collections.abc import Sequence
from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest

from lcm.captioning.tagging import SeenImage, rank
from lcm.data.dataset import LabelledImage
from lcm.evaluation.calibration import LEAST
from lcm.evaluation.tags import KS, TagReport, report_tags
from lcm.features.cache import LabelledFeatures

# Five images in the plane, the first and the last the same; each reference lies on its image; "glorp" cannot be read.
VECTORS = [(1, 0), (0, 1), (0.6, 0.8), (0.8, 0.6), (1, 0)]
REFERENCES = [
    ("a zebra", "zebras in the sky"),
    ("a dog", "two dogs in the sky"),
    ("the zebra", "the sky"),
    ("a kite with a glorp", "kites in the sky"),
    ("one dog", "the dog in the sky"),
]
CAPTIONS = [["a kite", "the zebra"], ["a zebra with a kite"], ["a glorp"], ["the"], ["a dog"]]
WORDS = {"zebra": (1, 0), "kite": (0, 1), "dog": (0.6, 0.8), "sky": (0.8, 0.6), "run": (0, 1)}
SENTENCES = {text: vector for texts, vector in zip(REFERENCES, VECTORS, strict=True) for text in texts}


class PlaneScorer:
    """A tag scorer that has its texts in a table and shows an image's features as they are."""

    name, scale, sigmoid = "plane", log(3), None
    texts = WORDS | SENTENCES

    def image_vector(self, photo: SeenImage) -> np.ndarray:
        return photo.features["pooled"]

    def text_vectors(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self.texts.get(text, (0, 0)) for text in texts], np.float32).reshape(len(texts), 2)


def label(references: Sequence[tuple[str, ...]] = REFERENCES) -> LabelledFeatures:
    images = [LabelledImage(f"{i}.jpg", Path(f"{i}.jpg"), "dev", texts) for i, texts in enumerate(references)]
    # the rows lie in the store the other way round, with one of another split among them
    store = np.array([(9, 9), *VECTORS[::-1]], np.float32)
    return LabelledFeatures(images, np.arange(5, 5 - len(images), -1), store)


@pytest.fixture(scope="module")
def report() -> TagReport:
    return report_tags(PlaneScorer(), label(), CAPTIONS)


# What was measured


def test_tags_are_the_readable_key_words_with_their_shares(report):
    """Cosines 1 and 0 at a scale of ln 3: 3 to 1."""
    first, second, unreadable, wordless, alone = report.tags
    assert first == (("zebra", pytest.approx(3 / 4)), ("kite", pytest.approx(1 / 4)))
    assert second == (("kite", pytest.approx(3 / 4)), ("zebra", pytest.approx(1 / 4)))
    assert unreadable == wordless == ()
    assert alone == (("dog", 1.0),)


def test_recall_is_that_of_people_s_captions(report):
    """The first and the last image are the same: each finds the other's captions too, and ties count against it."""
    for name in ("image_to_text", "text_to_image"):
        assert [report.recall[f"recall_{k}_{name}"] for k in KS] == [3 / 5, 1, 1]


# Metrics


def test_metrics_are_flat_and_hold_all_parts(report):
    """Gold are zebra, dog, nothing, kite, dog: of four images the first and the last have their tag in front."""
    metrics = report.as_metrics()
    assert metrics["recall_5_text_to_image"] == 1
    assert metrics["tag_map"] == pytest.approx(2 / 4)
    assert (metrics["tag_images"], metrics["tag_skipped_images"]) == (4, 1)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert all(isinstance(value, int | float) for value in metrics.values())


# Probabilities


def test_a_word_is_as_probable_as_it_is_right():
    """Each photo looks like one of two animals, and one in twenty is called by the name of the other."""
    names, scorer, random = ("dog", "cat"), PlaneScorer(), np.random.default_rng(0)
    seen, is_odd = random.choice(2, 400, p=(0.6, 0.4)), random.random(400) < 0.05
    called = [names[animal ^ odd] for animal, odd in zip(seen, is_odd, strict=True)]
    references = [(f"a {name}", f"the {name}") for name in called]
    photos = replace(label(references), rows=seen, store=np.eye(2, dtype=np.float32))
    scorer.texts = {name: np.eye(2)[place] for place, name in enumerate(names)}
    report = report_tags(scorer, photos, [["a dog and a cat"]] * 400)
    assert [sum(each.captions for each in report.bins[kind]) for kind in ("words", "labels")] == [800, 400 * 32]
    share = 1 - is_odd.mean()
    words = report.bins["words"][-1]
    assert (words.observed, words.predicted) == (pytest.approx(share), pytest.approx(share, abs=0.02))
    metrics = report.as_metrics()
    assert metrics["tag_finds_one"] == metrics["tag_says_none"] == pytest.approx(share)
    assert 0 < metrics["tag_words_ece"] < 0.02
    assert 0 < metrics["tag_labels_ece"] < 0.03
    assert json.loads(json.dumps(report.curves)) == report.curves
    scorer.sigmoid = [100.0, 0.0, -50.0]  # sure of what is seen, so wrong where the name is odd
    checked = report_tags(scorer, photos, [["a dog and a cat"]] * 400)
    assert checked.curves == report.curves
    assert checked.as_metrics()["tag_words_ece_sigmoid"] == pytest.approx(is_odd.mean(), abs=1e-6)
    scorer.curves = report.curves
    assert [word for word, _ in rank(scorer, photos.store[0], names, (names, "probability", 0.5))] == ["dog"]
    few = report_tags(scorer, photos.at(np.arange(LEAST - 1)), [["a dog"]] * (LEAST - 1))
    assert (few.curves, few.bins) == (None, {})
    scorer.texts = {}
    assert report_tags(scorer, photos, [["a dog and a cat"]] * 400).curves is None, "it reads none of the words"


# Where there is little to measure


def test_without_a_scorer_or_images_there_are_no_tags_and_a_reason():
    report = report_tags(None, label(), CAPTIONS)
    assert report.tags == [()] * 5
    assert report.as_metrics() == {"tag_map": None, "tag_map_reason": "the bundle has no tag scorer"}
    report = report_tags(PlaneScorer(), label([]), [])
    assert report.tags == []
    assert report.as_metrics() == {"tag_map": None, "tag_map_reason": "there are no images"}


def test_one_image_has_recall_and_a_reason_for_the_rest():
    report = report_tags(PlaneScorer(), label(REFERENCES[:1]), CAPTIONS[:1])
    metrics = report.as_metrics()
    assert metrics["recall_1_text_to_image"] == 1
    assert metrics["tag_map"] is None
    assert metrics["tag_map_reason"]
