"""Learning at once: what was contributed is answered from the next request on, for copies of the image alone.

When a newer model takes the place of the old one, signatures stay if its encoder is the same. They are made anew if it
is another one: until then the same bytes are found, and nothing is ever compared with what the former encoder made.
"""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from lcm.captioning.captioner import BundleCaptioner
from lcm.captioning.description import Description
from lcm.contributions.duplicates import Signatures
from lcm.contributions.store import ContributionStore
from lcm.service import recall
from lcm.service.model_loader import Model
from tests.fakes import tiny_graphs
from tests.fakes.altered import ALTERED, alter, as_file, in_burst, scene
from tests.fakes.service_client import (
    Caller,
    caption_body,
    make_tiny_bundle,
    png,
    question_body,
    service_in,
    text_of,
    wait_until,
)
from tests.fakes.tiny_graphs import save_encoder

SHARP = 96  # pixels a side that the tiny encoder sees here: at its own 8, nothing tells a crop from another picture
OF_THE_MODEL = ("bundle", ["a red square", "a square", "a red"])
RED = as_file(Image.merge("RGB", [Image.radial_gradient("L"), *2 * [Image.new("L", (256, 256), 40)]]))


def make_sharp(folder: Path, encoder_seed: int = 0, **changes) -> BundleCaptioner:
    """The tiny captioner with larger pictures; its captions are sure to some degree."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(tiny_graphs, "SIZE", SHARP)
        monkeypatch.setattr(tiny_graphs, "save_encoder", lambda path, *_: save_encoder(path, encoder_seed))
        monkeypatch.setattr(tiny_graphs, "TinyConversion", partial(tiny_graphs.TinyConversion, encoder_seed))
        monkeypatch.delenv("LCM_CACHE", raising=False)  # it may hold the tiny encoder with few pixels
        changes |= {"calibration": {"slope": 2.0, "intercept": 1.0}}
        return BundleCaptioner(make_tiny_bundle(folder, monkeypatch, **changes))


@pytest.fixture(scope="module")
def sharp(tmp_path_factory) -> BundleCaptioner:
    return make_sharp(tmp_path_factory.mktemp("sharp"))


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> BundleCaptioner:
    """Its encoder is another one of the same name, as one with other weights."""
    return make_sharp(tmp_path_factory.mktemp("other"), encoder_seed=1)


@pytest.fixture
def start(tmp_path, sharp, monkeypatch):
    """Start a service on the same folder as before; all of them are stopped at the end."""
    started = []

    def make(captioner=sharp, poll_s=0.05, **changes) -> Caller:
        monkeypatch.setattr(recall, "POLL_S", poll_s)
        started.append(service_in(tmp_path, captioner, **{"memory": True} | changes))
        return started[-1]

    yield make
    for caller in started:
        caller.engine.close()


@pytest.fixture
def caller(start) -> Caller:
    return start()


def contribute(caller: Caller, image: bytes, caption: str, **fields) -> int:
    return caller.answers("/caption", caption_body(image=text_of(image), caption=caption, fileType="", **fields))["id"]


def ask(caller: Caller, image: bytes, **fields) -> SimpleNamespace:
    reply = caller.post("/learning-model", question_body(image=text_of(image), **fields))
    assert reply.status_code == 200, reply.text
    body = reply.json
    return SimpleNamespace(
        caption=body["captions"][0],
        english=body["english_captions"],
        tags=[word for word, _ in body["tags"]],
        source=reply.headers["X-LCM-Source"],
        headers=reply.headers,
    )


def test_the_next_request_for_the_same_bytes_has_the_caption(caller):
    before = ask(caller, RED)
    assert (before.source, before.english) == OF_THE_MODEL
    assert "X-LCM-Confidence" in before.headers
    contribute(caller, RED, "A blue lamp glows.")
    after = ask(caller, RED)
    assert after.caption == "A blue lamp glows."
    assert after.english == ["A blue lamp glows.", "a red square", "a square", "a red"]
    assert after.source == "contribution"
    assert after.tags == ["blue"]  # the tag scorer knows no lamp
    assert after.headers["X-LCM-Model"] == before.headers["X-LCM-Model"]
    assert "X-LCM-Confidence" not in after.headers


@pytest.mark.parametrize("how", ALTERED)
def test_the_next_request_for_an_altered_image_has_the_caption(start, how):
    caller = start(poll_s=60)  # the thread that looks now and then has no part in it
    contribute(caller, scene(1), "one")
    contribute(caller, scene(2), "two")
    for seed, caption in ((1, "one"), (2, "two")):
        found = ask(caller, alter(scene(seed), how))
        assert (found.source, found.caption) == ("contribution", caption)


def test_other_images_are_left_to_the_model(caller):
    for seed in range(5):
        contribute(caller, scene(seed), f"number {seed}")
    for seed in range(5, 25):
        assert ask(caller, scene(seed)).source == "bundle"
    assert ask(caller, png("blue")).source == "bundle"


@pytest.mark.parametrize("how", ["1 % to the right", "2 % down"])
def test_the_next_of_a_burst_is_left_to_the_model(start, how):
    caller = start(poll_s=60)
    first, after = (in_burst(scene(1), one, scene(101), 1) for one in ("first", how))
    contribute(caller, first, "one")
    assert caller.engine._recall._signatures.copies(caller.engine.models.model.captioner.see(after))
    assert (ask(caller, after).source, ask(caller, first).source) == ("bundle", "contribution")


def test_the_newest_caption_of_all_copies_is_given(caller):
    copy = alter(scene(1), "jpeg 75")
    contribute(caller, scene(1), "first")
    contribute(caller, copy, "second")
    contribute(caller, scene(2), "of another one")
    assert [ask(caller, image).caption for image in (scene(1), copy, alter(copy, "left"))] == ["second"] * 3
    contribute(caller, scene(1), "third")
    assert [ask(caller, image).caption for image in (scene(1), copy, alter(copy, "left"))] == ["third"] * 3


def test_the_words_of_a_contributed_caption_are_terms_of_the_vocabulary(start, tmp_path):
    (tmp_path / "terms.csv").write_text("term,synonyms,parent\ncolours,,\nazure,blue,colours\n")
    caller = start(vocabulary=str(tmp_path / "terms.csv"))
    contribute(caller, RED, "A blue lamp glows.")
    assert ask(caller, RED).tags == ["colours > azure"]


def test_what_is_revoked_is_given_no_more(caller, tmp_path):
    """Another process revokes, as `lcm contributions revoke` does."""
    first = contribute(caller, scene(1), "first")
    second = contribute(caller, scene(1), "second")
    contribute(caller, scene(2), "third")
    elsewhere = ContributionStore(tmp_path / "home" / "contributions")
    crop = alter(scene(1), "centre")
    elsewhere.revoke(second, "wrong")
    wait_until(lambda: ask(caller, crop).caption == "first")
    assert ask(caller, scene(1)).caption == "first"
    elsewhere.revoke(first, "wrong too")
    wait_until(lambda: ask(caller, crop).source == "bundle")
    assert ask(caller, scene(1)).source == "bundle"
    assert ask(caller, alter(scene(2), "corner")).source == "contribution"
    contribute(caller, scene(1), "again")
    assert ask(caller, crop).caption == "again"


def test_what_another_process_contributes_is_learned(caller, tmp_path):
    store = ContributionStore(tmp_path / "home" / "contributions")
    store.add(scene(1), "from elsewhere", source="import")
    wait_until(lambda: ask(caller, alter(scene(1), "left")).caption == "from elsewhere")
    assert ask(caller, scene(1)).source == "contribution"


def test_a_start_learns_what_the_store_holds(start):
    first = start()
    number = contribute(first, scene(1), "one")
    contribute(first, scene(2), "two")
    first.engine.close()
    first.store.revoke(number, "while nobody served")
    second = start()
    assert ask(second, scene(2)).caption == "two"
    wait_until(lambda: ask(second, alter(scene(2), "corner")).caption == "two")
    assert ask(second, scene(1)).source == "bundle"


def test_switched_off(start):
    caller = start(memory=False)
    contribute(caller, RED, "a blue lamp")
    found = ask(caller, RED)
    assert (found.source, found.english) == OF_THE_MODEL


class Plain:
    """A captioner with three captions that does not tell what it sees; its tag scorer knows four words."""

    name, languages, tag_scorer, encoder, terms = "plain-1", ("en",), None, None, None
    offered = languages
    known = ("dog", "grass", "ball", "frisbee")

    def describe(self, image, samples, labels, language, *_):
        assert language == "en"
        assert isinstance(image, bytes)
        words = [word for word in (labels or ["dog", "grass"]) if word in self.known]
        captions = ("a dog", "a dog on the grass", "two dogs")[: 1 + samples]
        return Description("a dog", captions, tuple((word, 1 / len(words)) for word in words), self.name, 0.5)

    def unknown_labels(self, labels):
        return tuple(label for label in labels if label not in self.known)


def test_a_captioner_that_does_not_say_what_it_sees_knows_the_same_bytes(start):
    caller = start(Plain())
    contribute(caller, scene(1), "one")
    assert ask(caller, scene(1)).caption == "one"
    assert ask(caller, alter(scene(1), "jpeg 75")).caption == "a dog"


@pytest.mark.parametrize(
    ("caption", "english", "tags"),
    [
        (
            "A zeppelin with a ball and a frisbee",
            ["A zeppelin with a ball and a frisbee", "a dog", "a dog on the grass", "two dogs"],
            ["ball", "frisbee"],
        ),
        ("Two dogs.", ["Two dogs.", "a dog", "a dog on the grass"], ["dog"]),  # said once
        ("42", ["42", "a dog", "a dog on the grass", "two dogs"], ["dog", "grass"]),  # no words that are known
    ],
)
def test_a_contributed_caption_comes_first_and_gives_the_tags_that_are_known(start, caption, english, tags):
    caller = start(Plain())
    contribute(caller, RED, caption)
    found = ask(caller, RED)
    assert (found.caption, found.english, found.tags) == (caption, english, tags)
    assert ask(caller, RED, samples=0).english == [caption]
    assert ask(caller, RED, labels=["grass"]).tags == ["grass"]


def test_another_encoder_encodes_anew_by_itself(start, other):
    """The same bytes are found at once; copies as soon as their signatures are made anew."""
    caller = start()
    contribute(caller, scene(1), "one")
    caller.engine.models.model = Model(other)
    assert ask(caller, scene(1)).caption == "one"
    wait_until(lambda: ask(caller, alter(scene(1), "corner")).caption == "one")


def test_an_index_that_fails_fails_no_request(caller, monkeypatch, caplog):
    secret = "disk image is malformed: secret"

    def refuse(*_):
        raise RuntimeError(secret)

    contribute(caller, RED, "a blue lamp")
    for name in ("copies", "add"):
        monkeypatch.setattr(Signatures, name, refuse)
    monkeypatch.setattr(ContributionStore, "of_image", refuse)
    assert ask(caller, RED).source == "bundle"
    contribute(caller, scene(3), "three")
    told = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert any(line.startswith("contributed captions: ") for line in told)
    assert secret not in " ".join(told)
    monkeypatch.undo()
    wait_until(lambda: ask(caller, scene(3)).caption == "three")
