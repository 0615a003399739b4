"""Captioners at work for a comparison: how they are named, run, timed, and left out."""

import os
import statistics

import numpy as np
import pytest
from PIL import Image

from lcm.captioning.captioner import load_captioner
from lcm.captioning.description import SeenImage
from lcm.data.dataset import LabelledImage
from lcm.errors import ConfigError
from lcm.evaluation import compare as compare_module
from lcm.evaluation.compare import parse_captioners, run_captioners
from lcm.features.cache import encode_images
from lcm.features.encoders import find_encoder


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


# Names


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


# Runs


def test_a_captioner_says_what_it_says_by_itself_and_an_unreadable_photo_has_no_caption(images):
    (output,), not_run = run_captioners({"shipped": "bundle"}, images, timed=2)
    captioner = load_captioner()
    expected = ["" if one.path.stem == "broken" else captioner.describe(one.path, samples=0).caption for one in images]
    assert output.captions == expected
    assert all(expected[place] for place in (0, 2, 3))
    assert (output.name, output.note, not_run) == ("shipped", captioner.name, {})
    assert len(output.seconds) == 2
    assert 0 < statistics.median(output.seconds) < 5
    assert 50 < output.peak_memory_mb < 1500


def test_a_photo_that_is_encoded_is_not_read_again_and_gets_the_same_caption(images, tmp_path, monkeypatch):
    photos, captioner = [image.path for image in images], load_captioner()
    monkeypatch.setenv("LCM_CACHE", str(tmp_path))
    expected = [answer for _, answer in captioner.describe_many(photos, samples=0)]
    assert list(compare_module.with_known_features(captioner, photos)) == photos
    encoder = find_encoder(captioner.encoder, threads=1)
    encode_images({"first": photos[0], "last": photos[3]}, encoder, captioner.feature_kinds)
    known = list(compare_module.with_known_features(captioner, photos))
    assert [isinstance(one, SeenImage) for one in known] == [True, False, False, True]
    found = [answer for _, answer in captioner.describe_many(known, samples=0)]
    assert [one.caption for place, one in enumerate(found) if place != 1] == [expected[n].caption for n in (0, 2, 3)]
    monkeypatch.setattr(captioner, "see", None)
    (_, first), (_, last) = captioner.describe_many([known[0], known[3]], samples=0)
    assert (first.caption, last.caption) == (expected[0].caption, expected[3].caption)


def test_one_that_cannot_be_loaded_is_left_out_with_the_reason_and_the_others_run(images, tmp_path, capsys):
    outputs, not_run = run_captioners(
        {"none": str(tmp_path / "nothing"), "unknown": "blap", "good": "bundle"}, images[:1], timed=0
    )
    assert [output.name for output in outputs] == ["good"]
    assert list(not_run) == ["none", "unknown"]
    assert "bundle.json" in not_run["none"]
    assert "unknown captioner 'blap'; choose from bundle, blip, nearest" in not_run["unknown"]
    assert "unknown is left out: unknown captioner 'blap'" in capsys.readouterr().err
    assert outputs[0].seconds == []


def test_one_whose_process_dies_is_left_out(images, monkeypatch):
    monkeypatch.setattr(compare_module, "caption_and_time", die)
    with pytest.raises(ConfigError) as error:
        run_captioners({"greedy": "bundle"}, images, timed=0)
    assert str(error.value) == f"none of the captioners could be run:\ngreedy: {compare_module.DIED}"
