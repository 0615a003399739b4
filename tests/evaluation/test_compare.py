"""Comparisons: who ranks where, which differences are more than chance, little to compare."""

import json
import random

import pytest

from lcm.errors import DataError
from lcm.evaluation import metrics
from lcm.evaluation.bootstrap import bootstrap_difference
from lcm.evaluation.compare import MEASURES, CaptionerOutput, compare, suffixes

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
    return compare(outputs, references, **{"meteor": False} | options)


def words_of(count, seed=0, error=0.0):
    """Return captions of `count` images; with an error, so many of their words are others."""
    drawn, slips = random.Random(0), random.Random(seed + 1)
    texts = [[f"w{drawn.randrange(30)}" for _ in range(drawn.randrange(4, 12))] for _ in range(count)]
    return [" ".join("x" if slips.random() < error else word for word in text) for text in texts]


# Ranks


def test_equals_share_a_rank_and_the_next_is_left_out():
    comparison = compared(WRONG, RIGHT, list(RIGHT), [""] * 4)
    assert comparison.ranks("wer") == {"a": 3, "b": 1, "c": 1, "d": 4}
    assert comparison.ranks("cider") == {"a": 3, "b": 1, "c": 1, "d": 4}
    assert comparison.best("wer") == "b, c"
    assert [result.name for result in comparison.ranked("wer")] == ["b", "c", "a", "d"]
    assert set(comparison.ranks("meteor").values()) == {None}
    assert comparison.best("meteor") == ""


# Intervals and differences


def test_intervals_hold_the_score_of_the_set():
    (result,) = compared(words_of(60, error=0.2), references=[[text] for text in words_of(60)]).results
    assert list(result.intervals) == [name for name in MEASURES if name != "meteor_mean"]
    for name, its in result.intervals.items():
        assert its.value == pytest.approx(getattr(result.scores, name))
        assert its.low < its.value < its.high


def test_differences_are_of_every_pair_first_minus_second_and_paired():
    references = [[text] for text in words_of(80)]
    captions = [words_of(80, seed=seed, error=error) for seed, error in ((1, 0.1), (2, 0.4), (3, 0.4))]
    comparison = compared(*captions, references=references)
    wer = [one for one in comparison.differences if one.measure == "wer"]
    assert [(one.first, one.second) for one in wer] == [("a", "b"), ("a", "c"), ("b", "c")]
    a, b = (result.scores.per_image["wer"] for result in comparison.results[:2])
    assert wer[0].interval == bootstrap_difference(a, b)
    assert wer[0].interval.high < 0  # a makes fewer errors
    better = {(one.measure, one.first, one.second): one.better for one in comparison.differences}
    assert [better[name, "a", "b"] for name in ("wer", "cider", "bleu_4", "wer_best")] == ["a"] * 4
    assert better["wer", "b", "c"] is None  # as bad as each other: zero is inside
    turned = comparison.difference("wer", "b", "a")
    assert (turned.value, turned.low, turned.high) == (
        -wer[0].interval.value,
        -wer[0].interval.high,
        -wer[0].interval.low,
    )
    assert comparison.difference("meteor_mean", "a", "b") is None


def test_meteor_of_the_set_and_of_images_are_told_apart(monkeypatch):
    monkeypatch.setattr(metrics, "score_meteor", lambda _, several: [(0.25, [0.1, 0.2, 0.3, 0.4])] * len(several))
    comparison = compared(WRONG, meteor=True)
    flat = comparison.results[0].as_metrics()
    assert flat["meteor"] == 0.25
    assert flat["meteor_mean"] == pytest.approx(0.25)
    assert flat["meteor_mean_low"] < 0.25 < flat["meteor_mean_high"]
    assert "meteor_low" not in flat


# Little to compare


def test_an_image_without_references_is_skipped_for_all():
    comparison = compared(["a cat", *RIGHT], ["a cow", *WRONG], references=[["?"], *REFERENCES])
    assert (comparison.images, comparison.skipped_images) == (4, 1)
    without = compared(RIGHT, WRONG)
    assert comparison.results[1].intervals == without.results[1].intervals
    assert comparison.differences == without.differences


@pytest.mark.parametrize("images", [0, 1])
def test_below_two_images_nothing_has_an_interval(images):
    comparison = compared(RIGHT[:images], WRONG[:images], references=REFERENCES[:images])
    assert comparison.images == images
    assert comparison.differences == ()
    flat = comparison.results[0].as_metrics()
    assert [flat[f"wer{end}"] is None for end in ("", "_low", "_high")] == [images == 0, True, True]
    assert "fewer than two" in flat["wer_low_reason"] if images else "no images" in flat["wer_reason"]
    json.dumps(comparison.as_record(), allow_nan=False)


def test_empty_captions_are_the_worst():
    comparison = compared([""] * 4, WRONG)
    assert comparison.results[0].scores.wer == 1
    assert comparison.results[0].scores.cider == 0
    assert comparison.results[0].as_metrics()["bleu_4_high"] == pytest.approx(0, abs=1e-6)


def test_outputs_that_cannot_be_compared_are_refused():
    with pytest.raises(DataError, match=r"b has 3 captions for 4 images"):
        compared(RIGHT, WRONG[:3])
    with pytest.raises(DataError, match=r"blip: no weights"):
        compared(not_run={"blip": "no weights"})


# Records


def test_metrics_are_flat_and_hold_each_captioner():
    outputs = [CaptionerOutput("m-1: A/b", RIGHT, [0.1, 0.2, 0.3], 12.5), CaptionerOutput("n", WRONG)]
    flat = compare(outputs, REFERENCES, meteor=False, not_run={"blip": "no weights"}).as_metrics()
    assert json.loads(json.dumps(flat, allow_nan=False)) == flat
    assert all(value is None or type(value) in (int, float, str) for value in flat.values())
    assert (flat["compared"], flat["not_run"], flat["best_by_wer"]) == ("m-1: A/b, n", "blip", "m-1: A/b")
    assert flat["wer_low_m_1_a_b"] < flat["wer_low_n"]
    assert (flat["seconds_median_m_1_a_b"], flat["peak_memory_mb_m_1_a_b"]) == (0.2, 12.5)
    assert flat["seconds_p95_m_1_a_b"] == pytest.approx(0.29)
    assert flat["seconds_median_n"] is None
    assert all(flat.get(f"{name}_reason") for name, value in flat.items() if value is None)
    assert compared(RIGHT).as_metrics()["compared_images"] == 4


def test_equal_suffixes_get_a_number():
    assert suffixes(["A b", "a/b", "c"]) == ["a_b_1", "a_b_2", "c"]


def test_the_record_holds_numbers_and_no_caption():
    comparison = compared(RIGHT, WRONG, not_run={"blip": "no weights"})
    text = json.dumps(record := comparison.as_record(), allow_nan=False)
    assert {"cider", "cider_low", "cider_high", "wer", "wer_low", "wer_high"} <= set(record["models"]["a"])
    assert record["not_run"] == {"blip": "no weights"}
    assert record["ranks"]["wer"] == {"a": 1, "b": 2}
    assert record["differences"][0] == {"measure": "wer", "first": "a", "second": "b"} | {
        end: getattr(comparison.differences[0].interval, end) for end in ("value", "low", "high")
    }
    spoken = [*RIGHT, *WRONG, *(reference for each in REFERENCES for reference in each)]
    assert not [caption for caption in spoken if " " in caption and caption in text]
