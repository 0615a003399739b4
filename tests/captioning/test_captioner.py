"""Captioners: from pictures to captions and tags, one or many, all worked out by hand.

The tiny captioner of tiny_graphs.py names the strongest of an image's mean colours, its tag scorer knows all three.
"""

import io
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

import lcm
from lcm.captioning import captioner, decoding
from lcm.captioning.captioner import (
    BundleCaptioner,
    current_version,
    fault_of,
    find_bundle,
    load_captioner,
    load_tested,
)
from lcm.captioning.description import BROKEN_CONFIDENCE, Description, PlattScaler
from lcm.errors import BadImageError, BundleError, ConfigError, DataError, LcmError
from tests.fakes.tiny_graphs import (
    PROBABLE,
    TAGGER,
    make_picture,
    save_bundle,
    save_step,
    use_tiny_encoder,
    varied_table,
)
from tests.fakes.tiny_versions import BROKEN, letters_of, red_picture, save_version


@pytest.fixture(autouse=True)
def length_power(monkeypatch):
    monkeypatch.setattr(decoding, "LENGTH_POWER", 0.9)


@pytest.fixture
def varied(tmp_path, encoder) -> Callable[..., Path]:
    """Save a bundle with tag scorer that writes three captions a colour: "a red square", "a square" and "a red"."""
    save_step(tmp_path / "varied.onnx", varied_table())
    step = ("step.onnx", (tmp_path / "varied.onnx").read_bytes())
    return lambda **changes: save_bundle(tmp_path / "tagged", encoder, [step], **{"tagger": TAGGER} | changes)


@pytest.fixture
def tagged(varied) -> Path:
    return varied()


NAN = float("nan")
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture
def pictures(tmp_path) -> dict[str, Path]:
    return {name: make_picture(tmp_path / f"{name}.png", colour) for name, colour in COLOURS.items()}


# One image


def test_it_says_what_was_worked_out_by_hand(folder, pictures):
    captioner = load_captioner(folder)
    for name, picture in pictures.items():
        expected = Description(f"a {name} square", (f"a {name} square",), (), "tiny-1")
        assert captioner.describe(picture) == expected


def test_tags_are_the_content_words_of_all_captions_with_their_shares(tagged, pictures):
    # At scale ln 4, cosine 1 of "red" has four parts and cosine 0 of "square" one.
    description = load_captioner(tagged).describe(pictures["red"])
    assert description.caption == description.english_captions[0] == "a red square"
    assert sorted(description.english_captions[1:]) == ["a red", "a square"]
    assert description.tags == (("red", pytest.approx(0.8)), ("square", pytest.approx(0.2)))


@pytest.mark.parametrize("samples", [0, 1, 4])
def test_as_many_captions_as_asked_for_as_far_as_there_are_different_ones(samples, tagged, pictures):
    captions = load_captioner(tagged).describe(pictures["green"], samples).english_captions
    assert captions[0] == "a green square"
    assert len(captions) == len(set(captions)) == 1 + min(samples, 2)
    assert set(captions) <= {"a green square", "a square", "a green"}


def test_labels_take_the_place_of_the_caption_s_words(tagged, pictures):
    # Cosines with green: 0, 1 and 0.5 ** 0.5, so 1, 4 and 2.665 parts of 7.665.
    captioner, labels = load_captioner(tagged), ["blue", "Green", "xyzzy", "green square"]
    description = captioner.describe(pictures["green"], 2, labels)
    assert description.tags == (
        ("Green", pytest.approx(0.5218, abs=1e-4)),
        ("green square", pytest.approx(0.3477, abs=1e-4)),
        ("blue", pytest.approx(0.1305, abs=1e-4)),
    )
    assert len(description.english_captions) == 3  # they come as they are asked for
    assert captioner.unknown_labels(labels) == ("xyzzy",)
    assert captioner.describe(pictures["green"], labels=["xyzzy"]).tags == ()


def test_a_probability_is_each_tag_s_own_and_what_is_improbable_is_no_tag(varied, pictures):
    captioner, probability = load_captioner(varied(tagger=PROBABLE)), {"scores": "probability"}
    green, square = ("green", pytest.approx(4 / 5)), ("square", pytest.approx(1 / 2))
    description = captioner.describe(pictures["green"], **probability)
    assert (description.tags, description.scores) == ((green, square), "probability")
    assert not fault_of(description), "they do not sum to 1"
    for least, tags in ((0.6, (green,)), (0.9, ())):
        assert captioner.describe(pictures["green"], min_score=least, **probability).tags == tags
    # Own and typical cosine times ln 4: (2 - 1) * ln 4 of green, on red -1 * ln 4; of the phrase 0.5 ** 0.5 of that.
    labels = ["blue", "green", "xyzzy", "green square"]
    asked = partial(captioner.describe, labels=labels, min_score=0.0, **probability)
    assert asked(pictures["green"]).tags == (
        green,
        ("green square", pytest.approx(1 / (1 + 4 ** -(0.5**0.5)))),
        ("blue", pytest.approx(1 / 2)),
    )
    assert dict(asked(pictures["red"]).tags)["green"] == pytest.approx(1 / 5)


@pytest.mark.parametrize(
    ("scores", "min_score"),
    [("odds", None), (None, None), ("share", 0.5), *(("probability", value) for value in ("x", -0.1, 1.1, NAN, [0.5]))],
)
def test_scores_that_cannot_be_asked_are_refused(scores, min_score, varied, folder, pictures):
    captioner = load_captioner(varied(tagger=PROBABLE))
    with pytest.raises(ConfigError) as refused:
        captioner.describe(pictures["red"], scores=scores, min_score=min_score)
    assert str(refused.value).startswith(f"scores is {scores!r} and min_score {min_score!r}; choose scores from share,")
    with pytest.raises(ConfigError, match=r"no probabilities of tags; .*03_evaluate measure it on 50 photos"):
        load_captioner(folder).describe_many([], scores="probability")


def test_a_bundle_without_tag_scorer_gives_no_tags(folder, pictures):
    captioner = load_captioner(folder)
    assert captioner.tag_scorer is None
    assert captioner.describe(pictures["red"]).tags == ()
    assert captioner.describe(pictures["red"], labels=["red"]).tags == ()
    assert captioner.unknown_labels(["red", "blue"]) == ("red", "blue")


def test_the_writer_may_ask_for_grid_features_and_tags_still_get_the_pooled_ones(tmp_path, encoder):
    captioner = load_captioner(save_bundle(tmp_path / "grid", encoder, feature_kind="grid", tagger=TAGGER))
    description = captioner.describe(make_picture(tmp_path / "picture.png", (255, 0, 51)), 0, ["red", "green"])
    assert description.caption == "a red square"
    # The cosine with red is 1 / 1.04 ** 0.5 = 0.9806, and 4 ** 0.9806 = 3.894 parts of 4.894.
    assert description.tags[0] == ("red", pytest.approx(0.7957, abs=1e-4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((11,), "samples is 11; it must be a whole number, 0 to 10"),
        (("x",), "samples is 'x'; it must be"),
        ((True,), "samples is True; it must be"),
        ((2.0,), "samples is 2.0; it must be"),
        ((5, []), "labels is empty"),
        ((5, "cat"), r"labels is 'cat'; it must be a list of words or phrases, as \['dog', 'red car'\]"),
        ((5, ["cat", 3]), "labels is .*3.*; it must be a list of words"),
        ((5, 3), "labels is 3; it must be a list of words"),
    ],
)
def test_what_cannot_be_asked_is_refused(arguments, message, folder, pictures):
    captioner = load_captioner(folder)
    for ask in (captioner.describe, lambda picture, *rest: captioner.describe_many([picture], *rest)):
        with pytest.raises(ConfigError, match=message):
            ask(pictures["red"], *arguments)


def test_one_and_several_are_told_apart(folder, pictures):
    captioner, red = load_captioner(folder), pictures["red"]
    for several in ([red, red], (red,)):
        with pytest.raises(BadImageError, match=f"received a {type(several).__name__}; one picture is "):
            captioner.describe(several)
    for one in (red, str(red), red.read_bytes(), io.BytesIO(red.read_bytes()), Image.open(red), None):
        with pytest.raises(ConfigError, match=r"describe_many takes a list of pictures: give one to describe"):
            captioner.describe_many(one)


def test_a_picture_gets_the_same_answer_in_whatever_way_it_is_given(tagged, pictures):
    captioner, red = load_captioner(tagged), pictures["red"]
    expected = captioner.describe(red)
    file = io.BytesIO(b"before" + red.read_bytes())
    file.seek(6)
    with red.open("rb") as opened, Image.open(red) as picture:
        ways = [str(red), red.read_bytes(), opened, file, picture, np.array(picture), captioner.see(red)]
        assert [captioner.describe(way) for way in ways[:-1]] == [expected] * 6
        opened.seek(0)
        file.seek(6)
        given, answers = zip(*captioner.describe_many(iter(ways)), strict=True)
    assert [one is way for one, way in zip(given[:-1], ways[:-1], strict=True)] == [True] * 6
    assert answers == (expected,) * 7


def test_a_picture_of_no_kind_stops_no_other(folder, pictures):
    captioner = load_captioner(folder)
    wrong = [None, [pictures["red"]], 3, np.zeros((4, 4)), io.StringIO("a photo"), "https://here/photo.jpg?key=1"]
    answers = dict(enumerate(answer for _, answer in captioner.describe_many([*wrong, pictures["red"]])))
    assert answers.pop(6).caption == "a red square"
    for place, reason in enumerate(("NoneType; one", "list; one", "int; one", "an array", "no bytes", "an address")):
        assert isinstance(answers[place], BadImageError)
        assert reason in str(answers[place])


# With the tag scorer's help


# Scores are -0.924 of "a red square" and -1.198 of "a red", cosines 0.707 and 1: they are equal at a weight of 0.933.
@pytest.mark.parametrize(("weight", "caption"), [(0.0, "a red square"), (0.9, "a red square"), (0.96, "a red")])
@pytest.mark.parametrize("tagger", [None, "dual_encoder", "none"])
def test_the_bundle_s_tag_scorer_helps_to_choose_the_caption_whatever_scores_the_tags(
    tagger, weight, caption, varied, pictures
):
    description = load_captioner(varied(beam_width=3, rerank_weight=weight), tagger).describe(pictures["red"])
    assert description.caption == description.english_captions[0] == caption
    assert len(description.english_captions) == 3
    assert [word for word, _ in description.tags[:1]] == ([] if tagger == "none" else ["red"])


def test_the_confidence_is_that_of_the_caption_that_was_chosen(varied, pictures):
    captioner = load_captioner(varied(beam_width=3, rerank_weight=1.0, calibration={"slope": 2.0, "intercept": 1.0}))
    description = captioner.describe(pictures["red"])
    assert description.caption == "a red"
    assert description.confidence == pytest.approx(
        PlattScaler(2.0, 1.0).confidence(np.log(0.04) / 3)
    )  # two words and END


@pytest.mark.parametrize(
    "caption", ["", "a man in a", "a dog with the", "a a a", "A dog and a dog .", "a man in a in a"]
)
def test_nobody_is_sure_of_a_broken_caption(caption):
    sure, unsure = PlattScaler(slope=0.0, intercept=0.5), PlattScaler(slope=0.0, intercept=-9.0)
    assert sure.confidence_in(caption, -1.0) == BROKEN_CONFIDENCE
    assert sure.confidence_in("a man in a hat", -1.0) == sure.confidence(-1.0) > BROKEN_CONFIDENCE
    assert unsure.confidence_in(caption, -1.0) == unsure.confidence(-1.0) < BROKEN_CONFIDENCE


def test_a_caption_that_the_search_has_cut_is_for_a_person_to_look_at(tmp_path, encoder, pictures):
    """The same words, which the model is as sure of; with three at most, END comes too late."""
    confidences = []
    for most in (4, 3):
        calibration = {"slope": 0.0, "intercept": 9.0}
        folder = save_bundle(tmp_path / f"up to {most}", encoder, max_words=most, calibration=calibration)
        description = load_captioner(folder).describe(pictures["red"], 0)
        assert description.caption == "a red square"
        confidences.append(description.confidence)
    assert confidences == [PlattScaler(0.0, 9.0).confidence(-1.0), BROKEN_CONFIDENCE]


# Many images


@pytest.fixture
def small_parts(monkeypatch) -> None:
    """Two images a part, so that few images make many."""
    monkeypatch.setattr(BundleCaptioner, "part", 2)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(("workers", "arguments"), [(0, ()), (1, (0,)), (3, (2, ["red", "green square", "xyzzy"]))])
def test_many_images_get_what_each_gets_alone(workers, arguments, tagged, pictures, tmp_path):
    """Paths, bytes and texts, one twice, and three that are no images: at both ends and beside a good one."""
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    red, green, blue = pictures.values()
    images = [bad, red, str(green), blue.read_bytes(), b"", make_picture(tmp_path / "grey.png", "grey"), red, str(bad)]
    captioner = load_captioner(tagged)
    seen, found = zip(*captioner.describe_many(images, *arguments, workers=workers), strict=True)
    assert list(seen) == images
    for image, one in zip(images, found, strict=True):
        if isinstance(one, BadImageError):
            with pytest.raises(BadImageError, match=re.escape(str(one))):
                captioner.describe(image, *arguments)
        else:
            alone = captioner.describe(image, *arguments)
            assert one.english_captions == alone.english_captions
            assert [word for word, _ in one.tags] == [word for word, _ in alone.tags]
            assert dict(one.tags) == pytest.approx(dict(alone.tags))
    assert [place for place, one in enumerate(found) if isinstance(one, BadImageError)] == [0, 4, 7]


# Which bundle, which encoder


def test_an_encoder_that_gives_other_features_is_refused(tmp_path, encoder):
    other = replace(encoder, golden=tuple(value + 0.01 for value in encoder.golden))
    with pytest.raises(BundleError, match=r"the encoder tiny of .*other gives other features .*or export the bundle"):
        load_captioner(save_bundle(tmp_path / "other", other))


def test_a_bundle_of_any_encoder_answers_without_cache(tmp_path, encoder, pictures, monkeypatch):
    monkeypatch.setenv("LCM_CACHE", str(tmp_path / "empty"))
    folder = save_bundle(tmp_path / "other", replace(encoder, name="owner/some-vision-model"))
    assert load_captioner(folder).describe(pictures["red"]).caption == "a red square"
    assert not (tmp_path / "empty").exists()


@pytest.fixture
def versions(tmp_path, encoder, monkeypatch) -> Path:
    """The folder of the versions `mine` and `other`; a third bundle stands where the shipped one is."""
    shipped = save_bundle(tmp_path / "in lcm", encoder, name="tiny-shipped")
    monkeypatch.setattr(captioner, "packaged_file", lambda _name: shipped)
    monkeypatch.delenv("LCM_BUNDLE", raising=False)
    models = captioner.models_folder()
    models.mkdir(parents=True)
    for name in ("mine", "other"):
        save_bundle(models / name, encoder, name=f"tiny-{name}")
    return models


@pytest.mark.parametrize(
    ("spec", "lcm_bundle", "current", "answers"),
    [
        (None, None, None, "shipped"),
        (None, None, "mine", "mine"),
        (None, "other", "mine", "other"),
        (None, "MODELS/other", "mine", "other"),
        ("bundle", "other", "mine", "other"),
        ("mine", "other", None, "mine"),
        ("MODELS/mine", "other", "other", "mine"),
        ("current", "other", "mine", "mine"),
        ("shipped", "other", "mine", "shipped"),
    ],
)
def test_an_explicit_bundle_answers_else_lcm_bundle_else_the_current_version_else_the_shipped_one(
    spec, lcm_bundle, current, answers, versions, monkeypatch
):
    if lcm_bundle:
        monkeypatch.setenv("LCM_BUNDLE", lcm_bundle.replace("MODELS", str(versions)))
    if current:
        (versions / "current").write_text(f"{current}\n")
    spec = spec and spec.replace("MODELS", str(versions))
    assert lcm.load_captioner(spec).name == f"tiny-{answers}"


def test_the_current_version_may_be_gone(versions):
    (versions / "current").write_text("gone\n")
    assert (find_bundle(), current_version(versions)) == (versions / "gone", "gone")
    with pytest.raises(BundleError, match="gone is no bundle"):
        load_captioner()


# Which captioner


def test_a_bundle_is_meant_by_its_folder_with_or_without_its_kind(tagged, monkeypatch):
    monkeypatch.setattr(captioner, "packaged_file", None)
    monkeypatch.setenv("HOME", str(tagged.parent))
    monkeypatch.chdir(tagged.parent)
    for spec in (tagged, str(tagged), f"bundle:{tagged}", "tagged", "./tagged", "bundle:~/tagged", "~/tagged"):
        assert load_captioner(spec).name == "tiny-1"


@pytest.fixture
def loaded(monkeypatch) -> list[tuple]:
    """What loaders other than the bundle's are asked for."""
    asked = []
    monkeypatch.setattr(captioner, "BlipCaptioner", lambda *given: asked.append(("blip", *given)) or SimpleNamespace())
    nearest = lambda *given: asked.append(("nearest", *given)) or SimpleNamespace()  # noqa: E731
    monkeypatch.setitem(captioner.CAPTIONERS, "nearest", nearest)
    return asked


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        ("blip", ("blip", "Salesforce/blip-image-captioning-base", "clip")),
        ("blip:owner/name", ("blip", "owner/name", "clip")),
        ("blip:~/name", ("blip", "HOME/name", "clip")),
        ("nearest:reports/runs/mine", ("nearest", "reports/runs/mine", "clip", 3)),
    ],
)
def test_a_captioner_is_asked_for_by_its_kind(spec, asked, loaded, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blip").mkdir()  # a kind comes before a folder, which ./blip still means
    load_captioner(spec, "clip", 3)
    assert loaded == [tuple(str(each).replace("HOME", str(tmp_path)) if each != 3 else 3 for each in asked)]


@pytest.mark.parametrize("spec", ["blipp:owner", "nowhere", "Blip"])
def test_an_unknown_captioner_is_refused_with_the_choices(spec):
    choices = r"choose from bundle, blip, nearest, current and shipped, or give the name of a version .*or the folder"
    with pytest.raises(ConfigError, match=f"unknown captioner '{spec}'; {choices}"):
        load_captioner(spec)


@pytest.mark.parametrize("spec", ["./blip", "bundle:blip", Path("nearest:x"), "c:/models"])
def test_a_folder_that_holds_no_bundle_is_refused(spec, loaded, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blip").mkdir()
    with pytest.raises(BundleError, match=r"is no bundle: no bundle.json to read"):
        load_captioner(spec)
    assert loaded == []


# The smoke test


def test_a_version_that_works_passes(tmp_path, monkeypatch):
    folder = save_version(tmp_path / "b", use_tiny_encoder(tmp_path, monkeypatch), "b", ballast_mb=1)
    said = load_tested(folder).describe(red_picture())
    assert said.caption == "ab redb squareb"
    assert letters_of(list(said.english_captions), list(said.tags)) == {"b"}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_work_is_refused_in_one_line(name, tmp_path, monkeypatch):
    folder = save_version(tmp_path / "b", use_tiny_encoder(tmp_path, monkeypatch), "b")
    BROKEN[name](folder)
    with pytest.raises(LcmError) as refused:
        load_tested(folder)
    assert "\n" not in str(refused.value)
    assert "again" in str(refused.value) or "broken" in str(refused.value)


@pytest.mark.parametrize(
    ("captions", "tags", "confidence", "fault"),
    [
        (("a dog", "a cat"), (("dog", 0.75), ("cat", 0.25)), 0.5, ""),
        (("",), (), None, ""),  # of some pictures there is nothing to say
        ((), (), None, "gave no captions"),
        (("a dog",), (), NAN, "confidence"),
        (("a dog",), (), 1.5, "confidence"),
        (("a dog",), (("dog", 0.5),), None, "do not sum to 1"),
        (("a dog",), (("dog", 1.5), ("cat", -0.5)), None, "are no shares"),
        (("a dog",), (("dog", NAN), ("cat", 0.5)), None, "are no shares"),
    ],
)
def test_what_is_an_answer(captions, tags, confidence, fault):
    found = fault_of(Description("a dog", captions, tags, "m", confidence))
    assert fault in found
    assert bool(fault) == bool(found)


# Bundles at an address


@pytest.fixture
def remote(whole, monkeypatch, tmp_path) -> MemoryFileSystem:
    """The bundle `whole` at memory://models/whole, and an empty cache."""
    monkeypatch.setenv("LCM_CACHE", str(tmp_path / "cache"))
    fs = MemoryFileSystem()
    fs.put(str(whole), "/models/whole", recursive=True)
    yield fs
    fs.rm("/models", recursive=True)
    captioner._fetch_once.cache_clear()


ADDRESS = "memory://models/whole"


def test_a_bundle_at_an_address_is_fetched_once_and_answers(remote, pictures, monkeypatch):
    assert load_captioner(ADDRESS).describe(pictures["red"]).caption == "a red square"
    monkeypatch.setattr(remote, "store", {})  # the place is gone: this process has it
    monkeypatch.setenv("LCM_BUNDLE", ADDRESS)
    assert load_captioner().runs_on == "CPUExecutionProvider"


@pytest.mark.parametrize("name", ["step.onnx", "bundle.json"])
def test_a_bundle_at_an_address_that_is_not_what_was_exported_never_answers(name, remote):
    remote.pipe_file(f"/models/whole/{name}", remote.cat_file(f"/models/whole/{name}")[:-9])
    with pytest.raises(BundleError, match=rf"{name} is (not what was exported|damaged)"):
        load_captioner(ADDRESS)


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("memory://models/none", DataError, "^memory://models/none cannot be read: FileNotFoundError"),
        ("nonsense://models", ConfigError, "^captioner: unknown protocol nonsense://; choose from az://.*hf://"),
    ],
)
def test_an_address_without_a_bundle_says_what_to_do(address, error, message, remote):  # noqa: ARG001
    with pytest.raises(error, match=message):
        load_captioner(address)
