"""Tag quality worked by hand: one ranking, the scorer beside simple orders, retrieval, and the whole report."""

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
from lcm.evaluation.tags import (
    KS,
    TagReport,
    average_precision,
    compare_orders,
    gold_tags,
    precision_at_5,
    report_tags,
    retrieval,
)
from lcm.features.cache import LabelledFeatures

# Image 0: the words are dog, grass, ball; held by 2, 2 and 3 captions. Gold is dog.
# Image 1: the words are man, red, shirt; held by one caption each. Gold are man and shirt.
# Image 2: no word is in two references, so it is skipped.
CAPTIONS = [
    ["a dog on grass", "dog with ball", "a ball on the grass", "a ball"],
    ["man in red shirt"],
    ["a cat"],
]
REFERENCES = [
    ["a dog", "the dogs run", "the cat"],
    ["a man with a shirt", "shirts on men", "red"],
    ["a cat", "a house"],
]
TAGS = [["grass", "dog"], ["red", "man", "shirt"], ["cat"]]  # the scorer cannot read "ball"
# Average precision   image 0                                image 1                                      mean
# scorer              grass dog           1/2                red man shirt       (1/2 + 2/3) / 2 = 7/12   13/24
# caption order       dog grass ball      1                  man red shirt       (1 + 2/3) / 2 = 5/6      11/12
# upper bound         dog grass ball      1                  man shirt red       1                        1
# Precision at 5: 1/5 and 2/5 whatever the order, for there are but three words.


# Gold tags


def test_gold_tags_are_in_two_references():
    references = ["A dog runs on grass.", "two dogs jump", "The dog on the grass"]
    assert gold_tags(references) == {"dog", "grass"}


@pytest.mark.parametrize("references", [[], ["a dog and a dog"], ["", "a dog"]])
def test_one_reference_has_no_gold_tags(references):
    assert gold_tags(references) == frozenset()


# One ranking


def test_average_precision_by_hand():
    # Hits at ranks 1 and 3: 1/1 and 2/3; of three gold tags, one is never proposed.
    assert average_precision(["dog", "red", "grass", "ball"], {"dog", "grass", "sky"}) == pytest.approx(5 / 9)


def test_precision_by_hand():
    ranked = ["dog", "red", "grass", "ball", "tree", "sky"]
    assert precision_at_5(ranked, {"dog", "grass", "sky"}) == 2 / 5  # sky is the sixth
    assert precision_at_5(["dog"], {"dog"}) == 1 / 5  # fewer proposed than five
    assert precision_at_5([], {"dog"}) == 0


def test_repeated_tag_counts_once():
    # As if it were [red, dog, ball, grass]: 1/2 and 2/4 of two.
    ranked = ["red", "dog", "dog", "ball", "grass"]
    assert average_precision(ranked, {"dog", "grass"}) == pytest.approx(1 / 2)
    assert precision_at_5(ranked, {"dog", "grass"}) == 2 / 5


# The scorer beside other orders


@pytest.mark.parametrize(
    ("name", "image_0", "image_1"),
    [
        ("tag_map", 1 / 2, 7 / 12),
        ("tag_map_caption_order", 1, 5 / 6),
        ("tag_map_over_caption_order", -1 / 2, -1 / 4),  # paired by image
        ("tag_map_upper_bound", 1, 1),
        ("tag_precision_5", 1 / 5, 2 / 5),
        ("tag_precision_5_caption_order", 1 / 5, 2 / 5),
        ("tag_precision_5_over_caption_order", 0, 0),
        ("tag_precision_5_upper_bound", 1 / 5, 2 / 5),
    ],
)
def test_orders_by_hand(name, image_0, image_1):
    found = compare_orders(TAGS, CAPTIONS, REFERENCES)
    # Of two images a quarter of the resamples is either alone: the ends of the interval are the two values.
    ends = [found[name], found[f"{name}_low"], found[f"{name}_high"]]
    assert ends == pytest.approx([(image_0 + image_1) / 2, *sorted([image_0, image_1])])
    assert (len(found), found["tag_images"], found["tag_skipped_images"]) == (3 * 8 + 2, 2, 1)


def test_an_image_without_tags_is_scored_as_the_worst():
    found = compare_orders([[], ["man", "shirt"]], CAPTIONS[:2], REFERENCES[:2])
    assert [found[f"tag_map{end}"] for end in ("", "_low", "_high")] == pytest.approx([1 / 2, 0, 1])


@pytest.mark.parametrize("images", [0, 1])
def test_too_few_images_have_no_intervals(images):
    found = compare_orders(TAGS[:images], CAPTIONS[:images], REFERENCES[:images])
    reason = found.pop("tag_map_reason")
    assert found == {"tag_images": images, "tag_skipped_images": 0, "tag_map": None}
    assert reason.startswith(f"{images} of {images} images have a gold tag")


# Retrieval


def recalls(*args):
    """Return both recalls at 1, 5 and 10: of images that look for texts, of texts that look for images."""
    found = retrieval(*args)
    assert list(found) == [f"recall_{k}_{name}" for name in ("image_to_text", "text_to_image") for k in KS]
    return tuple(tuple(found[f"recall_{k}_{name}"] for k in KS) for name in ("image_to_text", "text_to_image"))


def directions(*degrees):
    """Return unit vectors [.., 2] by their angle: the smaller the angle between two, the higher their cosine."""
    angles = np.radians(np.array(degrees, np.float64))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_recall_by_hand():
    # Twelve items, each along its own axis: a query's numbers, over its length, are its cosines with them.
    # Query i looks for item i; before it come 0, 4, 5 and 10 others, and none for the eight remaining queries.
    items = np.eye(12)
    queries = 2 * np.eye(12)
    for query, better in enumerate([0, 4, 5, 10]):
        others = [item for item in range(12) if item != query]
        queries[query, others[:better]] = 3.0
    expected = (9 / 12, 10 / 12, 11 / 12)
    assert recalls(items, unit(queries), np.arange(12))[1] == expected
    assert recalls(unit(queries), items, np.arange(12))[0] == expected


def test_one_near_caption_of_several_is_enough():
    # Images at 0 and 90 degrees. The first has captions at 80 and at 10 degrees, the second at 85 and at 5.
    # Image 0: nearest are 5 (of the other), 10 (own): missed at 1. Image 1: 85 (own) before 80: found.
    # Texts 80 and 5 are nearer to the other's image, 10 and 85 to their own.
    found = recalls(directions(0, 90), directions(80, 85, 10, 5), np.array([0, 1, 0, 1]))
    assert found == ((1 / 2, 1, 1), (2 / 4, 1, 1))


def test_agrees_with_sorting_the_whole_matrix():
    """Texts resemble their images, and owners are in mixed order; recall is far from 0 and from 1."""
    rng = np.random.default_rng(5)
    images, owner = unit(rng.standard_normal((60, 8))), rng.permutation(np.repeat(np.arange(60), 3))
    texts = unit(images[owner] + 0.4 * rng.standard_normal((180, 8)))
    cosines = texts @ images.T  # [K, B]
    to_text, to_image = recalls(images, texts, owner)
    assert 0.1 < to_image[0] < to_text[0] < 1
    for place, k in enumerate(KS):
        own = [image in owner[np.argsort(-cosines[:, image])[:k]] for image in range(60)]
        assert to_text[place] == pytest.approx(np.mean(own))
        own = [owner[text] in np.argsort(-cosines[text])[:k] for text in range(180)]
        assert to_image[place] == pytest.approx(np.mean(own))


@pytest.mark.parametrize("width", [3, 500])
def test_collapsed_model_finds_nothing(width):
    one = np.random.default_rng(0).standard_normal((1, width)).astype(np.float32)
    one /= np.linalg.norm(one)
    owner = np.repeat(np.arange(50), 2)
    assert recalls(np.tile(one, (50, 1)), np.tile(one, (100, 1)), owner) == ((0, 0, 0), (0, 0, 0))


def test_a_tie_with_another_s_is_behind_it_and_zeros_rank_last():
    # Both images are the same, as are a text of each; only the first image has a nearer text beside.
    to_text, to_image = recalls(directions(0, 0), directions(0, 20, 20), np.array([0, 0, 1]))
    assert to_text[0] == 1 / 2  # image 0 by its text at 0 degrees; that text is before the one of image 1
    assert to_image[0] == 0  # both images are as near to any text
    images = directions(0, 90)
    to_text, to_image = recalls(images, np.concatenate([images, np.zeros((1, 2))]), np.array([0, 1, 1]))
    assert (to_text[0], to_image[0]) == (1, 2 / 3)


def test_images_without_texts_are_not_asked_but_can_be_found():
    # The text at 4 degrees is of the image at 0, but the image at 3, which has no text, is nearer to it.
    to_text, to_image = recalls(directions(0, 90, 3), directions(4, 90), np.array([0, 1]))
    assert to_text == (1, 1, 1)
    assert to_image[0] == 1 / 2


# The whole report

# Five images in the plane, the first and the last the same; each reference lies on its image; "glorp" cannot be read.
VECTORS = [(1, 0), (0, 1), (0.6, 0.8), (0.8, 0.6), (1, 0)]
SAID = [
    ("a zebra", "zebras in the sky"),
    ("a dog", "two dogs in the sky"),
    ("the zebra", "the sky"),
    ("a kite with a glorp", "kites in the sky"),
    ("one dog", "the dog in the sky"),
]
WRITTEN = [["a kite", "the zebra"], ["a zebra with a kite"], ["a glorp"], ["the"], ["a dog"]]
WORDS = {"zebra": (1, 0), "kite": (0, 1), "dog": (0.6, 0.8), "sky": (0.8, 0.6), "run": (0, 1)}
SENTENCES = {text: vector for texts, vector in zip(SAID, VECTORS, strict=True) for text in texts}


class PlaneScorer:
    """A tag scorer that has its texts in a table and shows an image's features as they are."""

    name, scale, sigmoid = "plane", log(3), None
    texts = WORDS | SENTENCES

    def image_vector(self, photo: SeenImage) -> np.ndarray:
        return photo.features["pooled"]

    def text_vectors(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self.texts.get(text, (0, 0)) for text in texts], np.float32).reshape(len(texts), 2)


def label(references: Sequence[tuple[str, ...]] = SAID) -> LabelledFeatures:
    images = [LabelledImage(f"{i}.jpg", Path(f"{i}.jpg"), "dev", texts) for i, texts in enumerate(references)]
    # the rows lie in the store the other way round, with one of another split among them
    store = np.array([(9, 9), *VECTORS[::-1]], np.float32)
    return LabelledFeatures(images, np.arange(5, 5 - len(images), -1), store)


@pytest.fixture(scope="module")
def report() -> TagReport:
    return report_tags(PlaneScorer(), label(), WRITTEN)


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
        assert [report.metrics[f"recall_{k}_{name}"] for k in KS] == [3 / 5, 1, 1]


# Metrics


def test_metrics_are_flat_and_hold_all_parts(report):
    """Gold are zebra, dog, nothing, kite, dog: of four images the first and the last have their tag in front."""
    metrics = report.metrics
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
    metrics = report.metrics
    assert metrics["tag_finds_one"] == metrics["tag_says_none"] == pytest.approx(share)
    assert 0 < metrics["tag_words_ece"] < 0.02
    assert 0 < metrics["tag_labels_ece"] < 0.03
    assert json.loads(json.dumps(report.curves)) == report.curves
    scorer.sigmoid = [100.0, 0.0, -50.0]  # sure of what is seen, so wrong where the name is odd
    checked = report_tags(scorer, photos, [["a dog and a cat"]] * 400)
    assert checked.curves == report.curves
    assert checked.metrics["tag_words_ece_sigmoid"] == pytest.approx(is_odd.mean(), abs=1e-6)
    scorer.curves = report.curves
    assert [word for word, _ in rank(scorer, photos.store[0], names, (names, "probability", 0.5))] == ["dog"]
    few = report_tags(scorer, photos.at(np.arange(LEAST - 1)), [["a dog"]] * (LEAST - 1))
    assert (few.curves, few.bins) == (None, {})
    scorer.texts = {}
    assert report_tags(scorer, photos, [["a dog and a cat"]] * 400).curves is None, "it reads none of the words"


# Where there is little to measure


def test_without_a_scorer_or_images_there_are_no_tags_and_a_reason():
    report = report_tags(None, label(), WRITTEN)
    assert report.tags == [()] * 5
    assert report.metrics == {"tag_map": None, "tag_map_reason": "the bundle has no tag scorer"}
    report = report_tags(PlaneScorer(), label([]), [])
    assert report.tags == []
    assert report.metrics == {"tag_map": None, "tag_map_reason": "there are no images"}


def test_one_image_has_recall_and_a_reason_for_the_rest():
    report = report_tags(PlaneScorer(), label(SAID[:1]), WRITTEN[:1])
    metrics = report.metrics
    assert metrics["recall_1_text_to_image"] == 1
    assert metrics["tag_map"] is None
    assert metrics["tag_map_reason"]
