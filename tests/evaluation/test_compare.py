"""Comparisons: who ranks where, which differences are more than chance, little to compare."""

import json
import random
from dataclasses import astuple
from pathlib import Path

import pytest

from lcm.data.dataset import LabelledImage
from lcm.evaluation.bootstrap import bootstrap_difference
from lcm.evaluation.compare import MEASURES, CaptionerOutput, compare

REFERENCES = [
    ["the dog runs fast", "a dog runs"],
    ["two cats sleep", "cats"],
    ["a red boat on a lake"],
    ["a man sings"],
]
RIGHT = ["a dog runs", "two cats sleep", "a red boat on a lake", "a man sings"]
WRONG = ["a horse", "two dogs", "a red boat", "the man sings loudly"]


def compared(*captions, references=REFERENCES, **options):
    outputs = [CaptionerOutput(name, each) for name, each in zip("abcdef", captions, strict=False)]
    return compare(outputs, labelled(references), **{"meteor": False} | options)


def labelled(references):
    return [LabelledImage(f"{place}", Path("x"), "dev", tuple(its)) for place, its in enumerate(references)]


def words_of(count, seed=0, error=0.0):
    """Return captions of `count` images; with an error, so many of their words are others."""
    drawn, slips = random.Random(0), random.Random(seed + 1)
    texts = [[f"w{drawn.randrange(30)}" for _ in range(drawn.randrange(4, 12))] for _ in range(count)]
    return [" ".join("x" if slips.random() < error else word for word in text) for text in texts]


# Ranks


def test_the_best_comes_first_and_what_is_not_measured_has_none():
    comparison = compared(WRONG, RIGHT, [""] * 4)
    assert comparison.ranked("wer") == comparison.ranked("cider") == ["b", "a", "c"]
    flat = comparison.as_metrics()
    assert (flat["compared"], flat["best_by_wer"], flat["best_by_cider"]) == ("a, b, c", "b", "b")
    assert compared(RIGHT[:1], references=REFERENCES[:1]).as_metrics()["best_by_cider"] == ""


# Intervals and differences


def test_intervals_hold_the_score_of_the_set():
    numbers = compared(words_of(60, error=0.2), references=[[text] for text in words_of(60)]).models["a"]
    assert [key.removesuffix("_low") for key in numbers if key.endswith("_low")] == list(MEASURES)
    assert all(numbers[f"{name}_low"] < numbers[name] < numbers[f"{name}_high"] for name in MEASURES)


def test_differences_are_of_every_pair_first_minus_second_and_paired():
    references = [[text] for text in words_of(80)]
    captions = [words_of(80, seed=seed, error=error) for seed, error in ((1, 0.1), (2, 0.4), (3, 0.4))]
    comparison = compared(*captions, references=references)
    wer = [one for one in comparison.differences if one.measure == "wer"]
    assert [(one.first, one.second) for one in wer] == [("a", "b"), ("a", "c"), ("b", "c")]
    a, b = ([row["captioners"][name]["wer"] for row in comparison.rows] for name in "ab")
    assert astuple(wer[0])[:3] == pytest.approx(astuple(bootstrap_difference(a, b)))
    assert wer[0].high < 0  # a makes fewer errors
    better = {(one.measure, one.first, one.second): one.better for one in comparison.differences}
    assert [better[name, "a", "b"] for name in ("wer", "cider", "bleu_4", "wer_best")] == ["a"] * 4
    assert better["wer", "b", "c"] is None  # as bad as each other: zero is inside
    assert comparison.difference("wer", "b", "a") == wer[0]
    assert comparison.difference("meteor", "a", "b") is None


# Little to compare


def test_an_image_without_references_is_skipped_for_all():
    comparison = compared(["a cat", *RIGHT], ["a cow", *WRONG], references=[["?"], *REFERENCES])
    without = compared(RIGHT, WRONG)
    assert (comparison.record["images"], comparison.record["skipped_images"]) == (4, 1)
    assert comparison.differences == without.differences
    measured = [key for key in without.models["b"] if key.removesuffix("_low").removesuffix("_high") in MEASURES]
    assert [comparison.models["b"][key] for key in measured] == [without.models["b"][key] for key in measured]
    assert comparison.rows[0]["captioners"]["a"]["wer"] is None


@pytest.mark.parametrize("images", [0, 1])
def test_below_two_images_nothing_has_an_interval(images):
    comparison = compared(RIGHT[:images], WRONG[:images], references=REFERENCES[:images])
    assert (comparison.record["images"], comparison.differences) == (images, [])
    flat = comparison.models["a"]
    assert (flat["wer"] is None, flat.get("wer_reason")) == (images == 0, None if images else "there are no images")
    assert "wer_low" not in flat
    json.dumps(comparison.record, allow_nan=False)


# Records


def test_the_record_holds_numbers_and_no_caption():
    costly = CaptionerOutput("a", RIGHT, [0.1, 0.2, 0.3], 12.5), CaptionerOutput("b", WRONG)
    record = compare(costly, labelled(REFERENCES), not_run={"blip": "no weights"}, meteor=False).record
    text = json.dumps(record, allow_nan=False)
    assert {"cider", "cider_low", "cider_high", "wer", "wer_low", "wer_high"} <= set(record["models"]["a"])
    assert record["not_run"] == {"blip": "no weights"}
    costs = {"seconds_median": 0.2, "seconds_p95": pytest.approx(0.29), "seconds_photos": 3, "peak_memory_mb": 12.5}
    assert record["models"]["a"] | costs == record["models"]["a"]
    assert record["models"]["b"]["seconds_median"] is None
    assert {"measure", "first", "second", "value", "low", "high"} == set(record["differences"][0])
    spoken = [*RIGHT, *WRONG, *(reference for each in REFERENCES for reference in each)]
    assert not [caption for caption in spoken if " " in caption and caption in text]


def test_the_rows_hold_the_captions_of_every_captioner_with_their_scores():
    first, *_ = compared(RIGHT, WRONG).rows
    assert (first["image_id"], first["references"]) == ("0", ("the dog runs fast", "a dog runs"))
    assert {name: its["caption"] for name, its in first["captioners"].items()} == {"a": RIGHT[0], "b": WRONG[0]}
    assert first["captioners"]["a"]["wer_best"] == 0
