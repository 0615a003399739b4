"""Tag quality worked by hand: gold tags, average precision, and the scorer beside the simple orders."""

import json
from dataclasses import replace

import pytest

from lcm.errors import ConfigError, DataError
from lcm.evaluation.bootstrap import Interval
from lcm.evaluation.tags import (
    BASELINES,
    OrderQuality,
    TagComparison,
    average_precision,
    compare_tags,
    folded_counts,
    gold_tags,
    precision_at,
    score_tags,
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
    assert gold_tags(references, least=3) == {"dog"}
    assert gold_tags(references, least=1) == {"dog", "grass", "run", "jump"}


@pytest.mark.parametrize("references", [[], ["a dog and a dog"], ["", "a dog"]])
def test_one_reference_has_no_gold_tags(references):
    assert gold_tags(references) == frozenset()


# One ranking


def test_average_precision_by_hand():
    # Hits at ranks 1 and 3: 1/1 and 2/3; of three gold tags, one is never proposed.
    assert average_precision(["dog", "red", "grass", "ball"], {"dog", "grass", "sky"}) == pytest.approx(5 / 9)


def test_average_precision_of_perfect_and_hopeless_rankings():
    assert average_precision(["dog", "grass", "red"], ["dog", "grass"]) == 1
    assert average_precision(["red", "ball"], {"dog"}) == 0
    assert average_precision([], {"dog"}) == 0


def test_precision_by_hand():
    ranked = ["dog", "red", "grass", "ball", "tree", "sky"]
    assert precision_at(ranked, {"dog", "grass", "sky"}) == 2 / 5  # sky is the sixth
    assert precision_at(ranked, {"dog", "grass", "sky"}, k=1) == 1
    assert precision_at(["dog"], {"dog"}) == 1 / 5  # fewer proposed than five
    assert precision_at([], {"dog"}) == 0


def test_repeated_tag_counts_once():
    # As if it were [red, dog, ball, grass]: 1/2 and 2/4 of two.
    ranked = ["red", "dog", "dog", "ball", "grass"]
    assert average_precision(ranked, {"dog", "grass"}) == pytest.approx(1 / 2)
    assert precision_at(ranked, {"dog", "grass"}, k=3) == 1 / 3


def test_unusable_questions_are_refused():
    with pytest.raises(DataError, match="no gold tags"):
        average_precision(["dog"], set())
    with pytest.raises(ConfigError, match="precision at 0"):
        precision_at(["dog"], {"dog"}, k=0)


# Many images


def test_scores_are_means_over_images_with_gold_tags():
    scores = score_tags(TAGS, REFERENCES)
    assert scores.per_image["average_precision"] == pytest.approx([1 / 2, 7 / 12, None])
    assert scores.per_image["precision_5"] == pytest.approx([1 / 5, 2 / 5, None])
    assert scores.as_metrics() == {
        "tag_map": pytest.approx(13 / 24),
        "tag_precision_5": pytest.approx(3 / 10),
        "tag_images": 2,
        "tag_skipped_images": 1,
    }


def test_image_without_tags_is_scored_as_the_worst():
    scores = score_tags([[], ["man", "shirt"]], REFERENCES[:2])
    assert (scores.map, scores.precision_5, scores.images) == (1 / 2, 1 / 5, 2)


def test_no_image_with_gold_tags_has_no_score():
    scores = score_tags([["cat"]], [["a cat"]])
    assert (scores.map, scores.precision_5, scores.images, scores.skipped_images) == (None, None, 0, 1)
    assert score_tags([["cat"]], [["a cat"]], least=1).map == 1


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
    scores = comparison.orders[order].scores
    assert scores.per_image["average_precision"] == pytest.approx([image_0, image_1, None])
    assert scores.per_image["precision_5"] == pytest.approx([1 / 5, 2 / 5, None])
    # Of two images a quarter of the resamples is either alone: the ends of the interval are the two values.
    assert near(comparison.orders[order].means["map"], (image_0 + image_1) / 2, *sorted([image_0, image_1]))


def test_differences_are_paired_by_image(comparison):
    # 1/2 - 1/3 and 0; 1/2 - 1 and 7/12 - 5/6; 1/2 - 1/2 and 7/12 - 5/6
    assert near(comparison.orders["frequency"].scorer_over["map"], 1 / 12, 0, 1 / 6)
    assert near(comparison.orders["caption_order"].scorer_over["map"], -3 / 8, -1 / 2, -1 / 4)
    assert near(comparison.orders["votes"].scorer_over["map"], -1 / 8, -1 / 4, 0)
    assert comparison.orders["votes"].scorer_over["precision_5"] == Interval(0.0, 0.0, 0.0)
    assert comparison.orders["scorer"].scorer_over == {}


def test_precision_sees_the_first_five_of_many():
    # Six words; gold is the sixth in caption order. Four captions hold it, one each the others.
    captions = [["dog cat bird fish horse tree", *["tree"] * 3]] * 2
    comparison = compare_tags([["tree"]] * 2, captions, [["tree", "trees"]] * 2, {})
    precision = {name: order.means["precision_5"].value for name, order in comparison.orders.items()}
    expected = {"scorer": 1 / 5, "caption_order": 0, "frequency": 0, "votes": 1 / 5, "upper_bound": 1 / 5}
    assert precision == pytest.approx(expected)


def test_upper_bound_counts_gold_tags_that_no_caption_holds():
    comparison = compare_tags([["dog"]] * 2, [["a dog"]] * 2, [["dog and cat", "cat and dog"]] * 2, {})
    assert comparison.orders["upper_bound"].scores.map == 1 / 2


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


def test_table(comparison):
    assert comparison.as_table().splitlines() == [
        "| order | MAP (95 %) | P@5 (95 %) | MAP of the scorer minus this (95 %) |",
        "| --- | --- | --- | --- |",
        "| scorer | 0.542 (0.500 to 0.583) | 0.300 (0.200 to 0.400) |  |",
        "| caption order | 0.917 (0.833 to 1.000) | 0.300 (0.200 to 0.400) | -0.375 (-0.500 to -0.250) |",
        "| training frequency | 0.458 (0.333 to 0.583) | 0.300 (0.200 to 0.400) | +0.083 (+0.000 to +0.167) |",
        "| caption votes | 0.667 (0.500 to 0.833) | 0.300 (0.200 to 0.400) | -0.125 (-0.250 to +0.000) |",
        "| upper bound | 1.000 (1.000 to 1.000) | 0.300 (0.200 to 0.400) | -0.458 (-0.500 to -0.417) |",
    ]


def test_table_shows_a_loss_too_small_to_see_as_none():
    order = OrderQuality(None, dict.fromkeys(["map", "precision_5"], Interval(0.5, 0.5, 0.5)), {})
    baseline = replace(order, scorer_over={"map": Interval(-0.0001, -0.2, 0.2)})
    table = TagComparison({"scorer": order, **dict.fromkeys(BASELINES, baseline)}, 2, 0).as_table()
    assert "| +0.000 (-0.200 to +0.200) |" in table


@pytest.mark.parametrize("images", [0, 1])
def test_too_few_images_give_a_reason_instead_of_numbers(images, comparison):
    few = compare_tags(TAGS[:images], CAPTIONS[:images], REFERENCES[:images], TRAIN_COUNTS)
    metrics = few.as_metrics()
    assert metrics.pop("tag_map_reason") == few.as_table() == few.reason
    assert f"{images} of {images} images have a gold tag" in few.reason
    assert (metrics.pop("tag_images"), metrics.pop("tag_skipped_images")) == (images, 0)
    assert set(metrics.values()) == {None}
    assert metrics.keys() < comparison.as_metrics().keys()


def test_unlike_lengths_are_refused():
    with pytest.raises(DataError, match="tags of 3, references of 2 images"):
        score_tags(TAGS, REFERENCES[:2])
    with pytest.raises(DataError, match="tags of 3, captions of 1, references of 3 images"):
        compare_tags(TAGS, CAPTIONS[:1], REFERENCES, TRAIN_COUNTS)


def test_tags_from_elsewhere_are_refused():
    with pytest.raises(DataError, match="image 0 has tags that its captions do not hold: sky, tree"):
        compare_tags([["dog", "tree", "sky"]], CAPTIONS[:1], REFERENCES[:1], TRAIN_COUNTS)
