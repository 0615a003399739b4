"""Comparisons: who ranks where, which differences are more than chance, little to compare."""

import json
import os
import random
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcm.captioning.captioner import load_captioner
from lcm.data.dataset import LabelledImage
from lcm.errors import ConfigError
from lcm.evaluation import compare as compare_module
from lcm.evaluation.bootstrap import bootstrap_difference
from lcm.evaluation.compare import MEASURES, CaptionerOutput, caption_photos, compare, parse_captioners, run_captioners
from lcm.features.cache import encode_images
from lcm.features.encoders import find_encoder

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
    costly = CaptionerOutput("a", RIGHT, "a note", {"seconds_median": 0.2}), CaptionerOutput("b", WRONG)
    record = compare(costly, labelled(REFERENCES), not_run={"blip": "no weights"}, meteor=False).record
    text = json.dumps(record, allow_nan=False)
    assert {"cider", "cider_low", "cider_high", "wer", "wer_low", "wer_high"} <= set(record["models"]["a"])
    assert record["not_run"] == {"blip": "no weights"}
    assert record["models"]["a"].items() >= {"note": "a note", "seconds_median": 0.2}.items()
    assert {"measure", "first", "second", "value", "low", "high"} == set(record["differences"][0])
    spoken = [*RIGHT, *WRONG, *(reference for each in REFERENCES for reference in each)]
    assert not [caption for caption in spoken if " " in caption and caption in text]


def test_the_rows_hold_the_captions_of_every_captioner_with_their_scores():
    first, *_ = compared(RIGHT, WRONG).rows
    assert (first["image_id"], first["references"]) == ("0", ("the dog runs fast", "a dog runs"))
    assert {name: its["caption"] for name, its in first["captioners"].items()} == {"a": RIGHT[0], "b": WRONG[0]}
    assert first["captioners"]["a"]["wer_best"] == 0


# Captioners at work: how they are named, run, timed, and left out


def die(*_):
    """Stand in for a captioner whose process is killed."""
    os._exit(9)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(3):
        small = random.integers(0, 256, (4, 5, 3), np.uint8)
        Image.fromarray(small).resize((200, 160)).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:60])
    names = ("0.png", "broken.png", "1.png", "2.png")
    return [LabelledImage(name, folder / name, "dev", (f"a dog {name}", "a cat")) for name in names]


def test_a_captioner_is_its_own_name_unless_it_is_given_one():
    named = parse_captioners("bundle, old = models/a=b/bundle ,blip:some/checkpoint,", "runs/x")
    assert named == {"bundle": "bundle", "old": "models/a=b/bundle", "blip:some/checkpoint": "blip:some/checkpoint"}


def test_nearest_alone_searches_the_run_that_compares():
    named = parse_captioners("nearest, theirs=nearest:runs/y, new=trained", "runs/x")
    assert named == {"nearest": "nearest:runs/x", "theirs": "nearest:runs/y", "new": "bundle:runs/x/bundle"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" , ", "captioners is empty; name at least one, such as trained, nearest or blip"),
        ("=bundle", "captioners holds '=bundle'; write NAME=CAPTIONER"),
        ("mine=", "captioners holds 'mine='; write NAME=CAPTIONER"),
        ("bundle, bundle=other", "captioners holds 'bundle' twice; give each another name"),
    ],
)
def test_what_is_no_list_of_captioners_is_refused(text, message):
    with pytest.raises(ConfigError) as error:
        parse_captioners(text, "runs/x")
    assert message in str(error.value)


def test_a_captioner_says_what_it_says_by_itself_and_an_unreadable_photo_has_no_caption(images):
    (output,), not_run = run_captioners({"shipped": "bundle"}, images, timed=2)
    captioner = load_captioner()
    expected = ["" if one.path.stem == "broken" else captioner.describe(one.path, samples=0).caption for one in images]
    assert output.captions == expected
    assert all(expected[place] for place in (0, 2, 3))
    assert (output.name, output.note, not_run) == ("shipped", captioner.name, {})
    assert output.costs["seconds_photos"] == 2
    assert 0 < output.costs["seconds_median"] <= output.costs["seconds_p95"] < 5
    assert 50 < output.costs["peak_memory_mb"] < 1500


def test_a_photo_that_is_encoded_is_not_read_again_and_gets_the_same_caption(images, tmp_path, monkeypatch):
    photos, captioner = [image.path for image in images], load_captioner()
    monkeypatch.setenv("LCM_CACHE", str(tmp_path))
    expected = caption_photos(captioner, photos, "x")
    encoder = find_encoder(captioner.encoder, threads=1)
    encode_images({"first": photos[0], "last": photos[3]}, encoder, captioner.feature_kinds)
    assert caption_photos(captioner, photos, "x") == expected
    monkeypatch.setattr(captioner, "see", None)
    assert caption_photos(captioner, [photos[0], photos[3]], "x") == [expected[0], expected[3]]


def test_one_that_cannot_be_loaded_is_left_out_with_the_reason_and_the_others_run(images, tmp_path, capsys):
    outputs, not_run = run_captioners(
        {"none": str(tmp_path / "nothing"), "unknown": "blap", "good": "bundle"}, images[:1], timed=0
    )
    assert [output.name for output in outputs] == ["good"]
    assert list(not_run) == ["none", "unknown"]
    assert "bundle.json" in not_run["none"]
    assert "unknown captioner 'blap'; choose from bundle, blip, nearest" in not_run["unknown"]
    assert "unknown is left out: unknown captioner 'blap'" in capsys.readouterr().err
    assert (outputs[0].costs["seconds_photos"], outputs[0].costs["seconds_median"]) == (0, None)


def test_one_whose_process_dies_is_left_out(images, monkeypatch):
    monkeypatch.setattr(compare_module, "caption_and_time", die)
    with pytest.raises(ConfigError) as error:
        run_captioners({"greedy": "bundle"}, images, timed=0)
    assert str(error.value) == f"none of the captioners could be run:\ngreedy: {compare_module.DIED}"
