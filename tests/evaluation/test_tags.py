"""Tag quality worked by hand: gold tags, average precision, and the scorer beside the simple orders."""

import json

import pytest

from lcm.evaluation.bootstrap import Interval
from lcm.evaluation.tags import (
    BASELINES,
    average_precision,
    compare_tags,
    folded_counts,
    gold_tags,
    precision_at_5,
)

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
TRAIN_COUNTS = {"grass": 9, "ball": 1, "red": 5}
# Average precision   image 0                                image 1                                      mean
# scorer              grass dog           1/2                red man shirt       (1/2 + 2/3) / 2 = 7/12   13/24
# caption order       dog grass ball      1                  man red shirt       (1 + 2/3) / 2 = 5/6      11/12
# frequency           grass ball dog      1/3                red man shirt       7/12                     11/24
# votes               ball dog grass      1/2                man red shirt       5/6                      2/3
# upper bound         dog grass ball      1                  man shirt red       1                        1
# Precision at 5: 1/5 and 2/5 whatever the order, for there are but three words.


@pytest.fixture(scope="module")
def comparison():
    return compare_tags(TAGS, CAPTIONS, REFERENCES, TRAIN_COUNTS)


def near(interval, *expected):
    return (interval.value, interval.low, interval.high) == pytest.approx(expected)


# Gold tags


def test_counts_are_of_captions_and_folded():
    captions = ["A dog runs on grass.", "two dogs jump", "The dog on the grass, with a dog", ""]
    assert folded_counts(captions) == {"dog": 3, "grass": 2, "run": 1, "jump": 1}


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


# The scorer beside the simple orders


@pytest.mark.parametrize(
    ("order", "image_0", "image_1"),
    [
        ("scorer", 1 / 2, 7 / 12),
        ("caption_order", 1, 5 / 6),
        ("frequency", 1 / 3, 7 / 12),
        ("votes", 1 / 2, 5 / 6),
        ("upper_bound", 1, 1),
    ],
)
def test_orders_by_hand(comparison, order, image_0, image_1):
    # Of two images a quarter of the resamples is either alone: the ends of the interval are the two values.
    assert near(comparison.means[order]["map"], (image_0 + image_1) / 2, *sorted([image_0, image_1]))
    assert near(comparison.means[order]["precision_5"], 3 / 10, 1 / 5, 2 / 5)
    assert (comparison.images, comparison.skipped_images) == (2, 1)


def test_differences_are_paired_by_image(comparison):
    # 1/2 - 1/3 and 0; 1/2 - 1 and 7/12 - 5/6; 1/2 - 1/2 and 7/12 - 5/6
    assert near(comparison.scorer_over["frequency"]["map"], 1 / 12, 0, 1 / 6)
    assert near(comparison.scorer_over["caption_order"]["map"], -3 / 8, -1 / 2, -1 / 4)
    assert near(comparison.scorer_over["votes"]["map"], -1 / 8, -1 / 4, 0)
    assert comparison.scorer_over["votes"]["precision_5"] == Interval(0.0, 0.0, 0.0)


def test_precision_sees_the_first_five_of_many():
    # Six words; gold is the sixth in caption order. Four captions hold it, one each the others.
    captions = [["dog cat bird fish horse tree", *["tree"] * 3]] * 2
    comparison = compare_tags([["tree"]] * 2, captions, [["tree", "trees"]] * 2, {})
    precision = {name: its["precision_5"].value for name, its in comparison.means.items()}
    expected = {"scorer": 1 / 5, "caption_order": 0, "frequency": 0, "votes": 1 / 5, "upper_bound": 1 / 5}
    assert precision == pytest.approx(expected)


def test_an_image_without_tags_is_scored_as_the_worst():
    comparison = compare_tags([[], ["man", "shirt"]], CAPTIONS[:2], REFERENCES[:2], TRAIN_COUNTS)
    assert near(comparison.means["scorer"]["map"], 1 / 2, 0, 1)


def test_metrics_are_flat_and_named_by_one_scheme(comparison):
    metrics = comparison.as_metrics()
    measures = ["tag_map", "tag_precision_5"]
    names = [name for m in measures for name in (m, *(f"{m}{over}_{b}" for b in BASELINES for over in ("", "_over")))]
    ends = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    assert sorted(metrics) == sorted([*ends, "tag_images", "tag_skipped_images"])
    expected = {
        "tag_map": 13 / 24,
        "tag_map_low": 1 / 2,
        "tag_map_high": 7 / 12,
        "tag_map_votes": 2 / 3,
        "tag_map_over_frequency": 1 / 12,
        "tag_map_over_frequency_low": 0,
        "tag_map_over_frequency_high": 1 / 6,
        "tag_map_over_upper_bound": 13 / 24 - 1,
        "tag_precision_5": 3 / 10,
        "tag_precision_5_upper_bound_high": 2 / 5,
        "tag_images": 2,
        "tag_skipped_images": 1,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    json.dumps(metrics)


@pytest.mark.parametrize("images", [0, 1])
def test_too_few_images_give_a_reason_instead_of_numbers(images, comparison):
    few = compare_tags(TAGS[:images], CAPTIONS[:images], REFERENCES[:images], TRAIN_COUNTS)
    metrics = few.as_metrics()
    assert metrics.pop("tag_map_reason") == few.reason
    assert f"{images} of {images} images have a gold tag" in few.reason
    assert (metrics.pop("tag_images"), metrics.pop("tag_skipped_images")) == (images, 0)
    assert set(metrics.values()) == {None}
    assert metrics.keys() < comparison.as_metrics().keys()
