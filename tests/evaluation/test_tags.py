"""Tag quality worked by hand: gold tags, average precision, and the scorer beside the simple orders."""

import pytest

from lcm.evaluation.tags import average_precision, compare_orders, gold_tags, precision_at_5

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


def near(interval, *expected):
    return (interval.value, interval.low, interval.high) == pytest.approx(expected)


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
    intervals, images = compare_orders(TAGS, CAPTIONS, REFERENCES)
    # Of two images a quarter of the resamples is either alone: the ends of the interval are the two values.
    assert near(intervals[name], (image_0 + image_1) / 2, *sorted([image_0, image_1]))
    assert (len(intervals), images) == (8, 2)


def test_an_image_without_tags_is_scored_as_the_worst():
    intervals, _ = compare_orders([[], ["man", "shirt"]], CAPTIONS[:2], REFERENCES[:2])
    assert near(intervals["tag_map"], 1 / 2, 0, 1)


@pytest.mark.parametrize("images", [0, 1])
def test_too_few_images_have_no_intervals(images):
    assert compare_orders(TAGS[:images], CAPTIONS[:images], REFERENCES[:images]) == ({}, images)
