"""Selecting: contributions join the base data set, and what must not train is kept out of it."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcm import registry
from lcm.captioning.bundle import WEIGHTS
from lcm.captioning.captioner import models_folder
from lcm.config import PrepareConfig
from lcm.data.dataset import Dataset
from lcm.errors import ConfigError, NothingToDo
from lcm.features.encoders import EncoderIdentity
from lcm.registry import Event
from lcm.retraining import select
from lcm.retraining.placement import TEST, TRAIN
from lcm.retraining.select import (
    CONTRIBUTIONS,
    QUARANTINED,
    SEEN,
    SUSPECTS,
    TESTED,
    TRAINED,
    NewContributions,
    TrainingSet,
    build_training_set,
    read_new_contributions,
)
from tests.fakes.altered import alter
from tests.fakes.tiny_graphs import TAGGER
from tests.fakes.tiny_marian import EN_FR, make_marian
from tests.fakes.tiny_retraining import BASE, IDENTITY, SmallStore, base_dataset, encode, scene, use_colour_encoder
from tests.fakes.tiny_versions import save_version

SPLITS = {"one.png": "train", "two.png": "train", "held.png": "dev"}


class Desk:
    """A base data set, a store, and a current model of the encoder that sees colours."""

    def __init__(self, folder: Path):
        self.folder, self.dataset, self.store = (
            folder,
            base_dataset(folder / "base", SPLITS),
            SmallStore(folder / "store"),
        )
        self.versions = 0
        self.publish({})

    def publish(self, metrics: dict, encoder: EncoderIdentity = IDENTITY, vocabulary=(), **changes) -> None:
        """Make a model current that was trained by a run with these metrics; `vocabulary` is more of its words."""
        self.versions += 1
        name = f"tiny-{'bcdefgh'[self.versions]}"
        models_folder().mkdir(parents=True, exist_ok=True)
        data = {key: metrics[key] for key in CONTRIBUTIONS if key in metrics}
        changes = {"training_data": data, "tagger": {}} | changes
        folder = save_version(models_folder() / name, encoder, name[-1], **changes)
        (folder / WEIGHTS).write_bytes(b"")
        with (folder / "vocabulary.txt").open("a") as words:
            words.writelines(f"{word}\n" for word in vocabulary)
        (models_folder() / "current").write_text(f"{name}\n")
        registry.add_event(models_folder(), Event(registry.PROMOTE, name, "the one before"))

    def config(self, **changes) -> PrepareConfig:
        return PrepareConfig(run_dir="x", **{"contributions": "store"} | changes)

    def new(self, **changes) -> NewContributions:
        return read_new_contributions(self.config(**changes), self.store)

    def gather(self, **changes) -> TrainingSet:
        new = self.new(**changes)
        dataset = new.join(self.dataset)
        encoded = encode(dataset.paths)
        return build_training_set(dataset.without(encoded.unreadable), encoded, new, self.config(**changes))

    def contributed(self, training_set: TrainingSet) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Return the split and the captions of the contributed images that take part, by the number of the first."""
        names = {name: number for number, name in enumerate(self.store.names, 1)}
        found = [image for image in training_set.dataset.images if image.is_contributed]
        return {names[image.image_id]: (image.split, image.captions) for image in found}


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Desk:
    use_colour_encoder(tmp_path, monkeypatch)
    return Desk(tmp_path)


def numbers(training_set: TrainingSet) -> list[int]:
    return [*training_set.flagged]


# Nothing to do


def test_j01_without_new_contributions_there_is_nothing_to_do(desk):
    with pytest.raises(NothingToDo, match="there is no contribution that can train; nothing"):
        desk.new()
    desk.store.send(range(3))
    desk.publish(desk.gather().as_metrics())
    with pytest.raises(NothingToDo, match="no contribution that tiny-d, the current model, has not seen"):
        desk.new()


def test_h17_a_revocation_alone_is_something_to_do(desk):
    desk.store.send(range(3))
    desk.publish(desk.gather().as_metrics())
    desk.store.revoke(2, "asked")
    new = desk.new(start_from="current")
    assert new.new == set()
    assert (new.parent.version, new.parent.skipped) == ("tiny-c", ("tiny-d",))
    assert "not from tiny-d: it has learned from what is revoked" in str(new)


def test_h17_all_that_the_model_learned_from_may_be_revoked(desk):
    """There is a start then, and no contribution: the run says from where it resumes."""
    desk.store.send(range(2))
    desk.publish(desk.gather().as_metrics())
    for number in (1, 2):
        desk.store.revoke(number, "asked")
    training_set = desk.gather(start_from="current")
    assert training_set.as_metrics()["start_from"] == str(models_folder() / "tiny-c")
    assert "no contributions take part\ntraining resumes from tiny-c" in str(training_set.contributions)
    assert training_set.dataset == desk.dataset


def test_metrics_without_contributions_replace_those_of_an_earlier_run(desk):
    """Training would resume from its start otherwise, and the bundle would say that it had learned from them."""
    desk.store.send(range(12))
    before = desk.gather().as_metrics()
    new = desk.new(contributions="")
    assert str(new) == "no contributions take part"
    training_set = build_training_set(desk.dataset, encode(desk.dataset.paths), new, desk.config(contributions=""))
    assert training_set.dataset == desk.dataset
    after = training_set.as_metrics()
    assert set(before) == set(after)
    assert not any(after.values())


def test_a_run_without_contributions_resumes_from_a_model_and_says_what_that_has_learned(desk):
    """What the parent's weights hold, those of the new model hold too: a later revocation must find it."""
    desk.store.send(range(4))
    desk.publish(desk.gather().as_metrics())
    new = desk.new(contributions="", start_from="current")
    assert (new.images, new.parent.version) == ((), models_folder().joinpath("current").read_text().strip())
    training_set = build_training_set(desk.dataset, encode(desk.dataset.paths), new, desk.config(contributions=""))
    learned = new.parent.manifest.training_data["contributions"]
    assert learned
    assert training_set.as_metrics()["contributions"] == learned


def test_a_folder_that_is_none_is_refused_and_not_made(desk):
    with pytest.raises(ConfigError, match="which is no folder; give 'store' or a store's folder"):
        read_new_contributions(desk.config(contributions=str(desk.folder / "typo")))
    assert not (desk.folder / "typo").exists()


def test_approvals_that_the_store_notes_count(desk):
    bad = spam(desk, 12)
    desk.store.approve([bad[0], bad[5]])
    assert numbers(desk.gather()) == [number for number in bad if number not in (bad[0], bad[5])]


# Who takes part


def test_contributed_images_join_the_base_each_in_its_split(desk):
    desk.store.send(range(20))
    training_set = desk.gather()
    splits = [split for split, _ in desk.contributed(training_set).values()]
    assert [number for number, split in enumerate(splits, 1) if split == TEST] == [10, 20]
    assert training_set.dataset.images[:3] == desk.dataset.images
    metrics = training_set.as_metrics()
    assert (metrics[TRAINED], metrics[TESTED], metrics[SEEN]) == ("1-9,11-19", "10,20", "en 1-20")
    assert (metrics["contributed_train_images"], metrics["contributed_test_images"]) == (18, 2)
    assert metrics["contributions_new"] == 20


def test_j04_copies_of_what_the_base_holds_out_are_seen_and_do_not_train(desk):
    desk.store.keep(alter(scene(BASE + 2), "jpeg 30"), "a held picture")
    desk.store.send([0])
    training_set = desk.gather()
    assert list(desk.contributed(training_set)) == [2]
    metrics = training_set.as_metrics()
    assert (metrics[TRAINED], metrics[SEEN], metrics["contributed_copies_of_held_out"]) == ("2", "en 1-2", 1)


def test_images_move_with_no_revocation_once_a_model_has_learned_from_them(desk):
    desk.store.send(range(5))
    copy = desk.store.keep(alter(scene(0), "corner"), "a copy")
    desk.store.send(range(5, 15))
    before = desk.gather()
    desk.publish(before.as_metrics())
    desk.store.revoke(copy, "asked")
    desk.store.send(range(15, 25))
    placed = desk.gather().placement.splits
    known = {name: split for name, split in before.placement.splits.items() if name in desk.store.names}
    assert {name: placed[name] for name in known} == known
    assert list(placed.values()).count(TEST) == 2


def test_what_the_bundle_to_start_from_has_learned_from_trains(desk):
    """The current model knows nothing of it, and by its place it would test."""
    desk.store.send(range(10))
    other = save_version(desk.folder / "other", IDENTITY, "o", training_data={TRAINED: "10"})
    (other / WEIGHTS).write_bytes(b"")
    assert TEST not in desk.gather(start_from=str(other)).placement.splits.values()
    assert TEST in desk.gather().placement.splits.values()


def test_j05_unreadable_images_are_left_out_and_counted(desk):
    desk.store.send(range(3))
    desk.store.damage(2)
    training_set = desk.gather()
    assert list(desk.contributed(training_set)) == [1, 3]
    metrics = training_set.as_metrics()
    assert (metrics[TRAINED], metrics[SEEN]) == ("1,3", "en 1-3")


# Languages

WHY = (
    "captions in fr, which the current model does not know: they wait until 4 are there (now {}), or for a Marian "
    "checkpoint in LCM_TRANSLATOR that translates them"
)


def french(training_set: TrainingSet) -> dict[str, str]:
    """Return the French captions that take part, and their splits."""
    return {text: one.split for one in training_set.dataset.images if one.language == "fr" for text in one.captions}


@pytest.fixture
def few(monkeypatch) -> None:
    monkeypatch.setattr(select, "LEAST_OF_A_LANGUAGE", 4)


FR_EN = {french: english for english, french in EN_FR.items()}


@pytest.fixture(scope="module")
def marian_from_french(tmp_path_factory) -> Path:
    return make_marian(tmp_path_factory.mktemp("marian") / "opus-mt-fr-en", FR_EN, "fr", "en")


@pytest.fixture
def from_french(marian_from_french, monkeypatch) -> None:
    monkeypatch.setenv("LCM_TRANSLATOR", str(marian_from_french))


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("start_from", ["", "current"])
def test_captions_in_a_language_that_the_model_does_not_know_wait_until_enough_are_there(desk, start_from):
    desk.store.send(range(3), "une image", "fr-ca")
    with pytest.raises(
        NothingToDo,
        match=re.escape(
            f"no contribution that can train; nothing is trained. Send some with "
            f"POST /caption or lcm contributions import; {WHY.format(3)}"
        ),
    ):
        desk.new(start_from=start_from)
    desk.store.send([0, 5])
    first = desk.gather(start_from=start_from)
    assert WHY.format(3) in str(first.contributions)
    assert (french(first), first.as_metrics()[SEEN]) == ({}, "en 4-5")
    desk.publish(first.as_metrics())
    desk.store.send([7], "une image", "fr")
    both = desk.gather(start_from=start_from)
    assert "wait" not in str(both.contributions)
    assert list(french(both)) == ["une image 0", "une image 1", "une image 2", "une image 7"]
    assert desk.contributed(both)[1][0] == TRAIN
    assert (both.as_metrics()["contributions_new"], both.as_metrics()["contributed_train_images"]) == (4, 5)


@pytest.mark.usefixtures("few")
def test_a_language_that_the_model_knows_waits_for_nothing(desk):
    desk.publish({}, vocabulary=("<fr>",))
    desk.store.send([0], "une image", "fr")
    assert french(desk.gather(start_from="current")) == {"une image 0": TRAIN}


@pytest.mark.usefixtures("few", "from_french")
def test_with_a_translator_captions_train_in_its_translation_until_enough_are_there(desk):
    """Once: they are seen then. When the language enters, they are learned anew as they were sent."""
    texts, translations = [*FR_EN], [*FR_EN.values()]
    for place in range(3):
        desk.store.keep(scene(place), texts[place], language="fr-ca")
    first = desk.gather(start_from="current")
    assert "3 captions in fr train in translation" in str(first.contributions)
    assert [text for _, (text,) in desk.contributed(first).values()] == translations[:3]
    assert (first.as_metrics()[TRAINED], first.as_metrics()[SEEN]) == ("1-3", "fr 1-3")
    assert [one.caption for one in desk.store.contributions()] == texts[:3]
    desk.publish(first.as_metrics())
    with pytest.raises(NothingToDo, match="has not seen"):
        desk.new(start_from="current")
    desk.store.keep(scene(3), texts[3], language="fr")
    assert list(french(desk.gather(start_from="current"))) == texts
    assert desk.new(start_from="current").new == {1, 2, 3, 4}


@pytest.mark.usefixtures("from_french")
def test_a_flagged_translation_is_shown_as_it_was_sent(desk):
    for seed in range(12):
        desk.store.keep(scene(seed), "un rouge", language="fr")
    desk.store.keep(scene(20), "un carré vert", language="fr")
    training_set = desk.gather()
    assert "un rouge&#x27;: 12 of 13 new contributions have this caption" in training_set.as_html()
    assert desk.contributed(training_set) == {13: (TRAIN, ("a green square",))}


@pytest.mark.usefixtures("few")
def test_an_image_with_captions_in_two_languages_is_there_twice_in_one_split(desk):
    desk.store.send(range(10))
    desk.store.send(range(6, 10), "une image", "fr")
    found = [one for one in desk.gather().dataset.images if one.is_contributed]
    assert len(found) == 14
    assert len({(one.image_id, one.split) for one in found}) == 10
    assert [one.split for one in found if one.captions == ("une image 9",)] == [TEST]


@pytest.mark.usefixtures("few")
def test_captions_that_were_learned_in_another_language_are_learned_anew_once_corrected(desk):
    desk.store.send(range(5), "une image")
    first = desk.gather()
    desk.publish(first.as_metrics())
    desk.store.set_language([1, 2], "fr")
    with pytest.raises(NothingToDo, match=re.escape(WHY.format(2))):
        desk.new(start_from="current")
    desk.store.set_language([3, 4], "fr")
    second = desk.gather(start_from="current")
    assert len(french(second)) == second.as_metrics()["contributions_new"] == 4
    assert second.as_metrics()[TRAINED] == "1-5"


def test_a_correction_between_two_languages_that_the_model_knows_is_something_new_to_train_on(desk):
    desk.publish({}, vocabulary=("<fr>",))
    desk.store.send(range(12), "une image")
    desk.publish(desk.gather().as_metrics(), vocabulary=("<fr>",))
    desk.store.set_language([2, 10], "fr-ca")
    again = desk.gather(start_from="current")
    assert (again.contributions.new, again.as_metrics()[SEEN]) == ({2, 10}, "en 1,3-9,11-12\nfr 2,10")
    assert french(again) == {"une image 1": TRAIN, "une image 9": TEST}
    desk.publish(again.as_metrics(), vocabulary=("<fr>",))
    with pytest.raises(NothingToDo):
        desk.new(start_from="current")


@pytest.mark.usefixtures("few")
def test_what_the_parent_has_learned_and_waits_by_now_can_still_be_revoked(desk):
    desk.store.send(range(3), "une image")
    desk.publish(desk.gather().as_metrics())
    desk.store.set_language([1], "fr")
    desk.store.send([5])
    metrics = desk.gather(start_from="current").as_metrics()
    assert (metrics[TRAINED], metrics[SEEN]) == ("1-4", "en 2-4")


# Suspects


def spam(desk: Desk, count: int, first: int = 100, caption: str = "buy pills") -> list[int]:
    return [desk.store.keep(scene(first + seed), caption) for seed in range(count)]


def test_j02_suspects_neither_train_nor_test_and_are_listed(desk, tmp_path):
    desk.store.send(range(9))
    bad = spam(desk, 12)
    training_set = desk.gather()
    assert numbers(training_set) == bad
    assert list(desk.contributed(training_set)) == list(range(1, 10))
    metrics = training_set.as_metrics()
    assert (metrics[TRAINED], metrics[TESTED], metrics[QUARANTINED]) == ("1-9", "", "10-21")
    assert (metrics[SEEN], metrics["contributions_suspected"]) == ("en 1-21", 12)
    training_set.save_flagged(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / SUSPECTS).read_text().splitlines()]
    assert [line["id"] for line in lines] == bad
    assert lines[0]["reason"] == "12 of 21 new contributions have this caption; at most 10 may"


def test_an_image_trains_with_its_other_captions(desk):
    bad = spam(desk, 12, first=0)
    desk.store.send([0], "a fine picture")
    training_set = desk.gather()
    assert numbers(training_set) == bad
    assert desk.contributed(training_set) == {1: (TRAIN, ("a fine picture 0",))}
    assert training_set.as_metrics()[TRAINED] == "13"


def test_suspects_do_not_pass_with_the_next_run(desk):
    """They are not new then, and a larger batch would hide them."""
    bad = spam(desk, 12)
    desk.publish(desk.gather().as_metrics())
    for seed in range(200, 500):
        desk.store.keep(scene(seed % 7), f"picture {seed}")
    training_set = desk.gather()
    assert numbers(training_set) == bad
    assert set(training_set.flagged.values()) == {"an earlier run kept it out, and nobody has approved it since"}
    assert training_set.as_metrics()[QUARANTINED] == "1-12"
    assert training_set.as_metrics()["contributions_new"] == 300


@pytest.mark.parametrize(("approved", "left"), [("2-3", "1,4-12"), ("all", "")])
def test_suspects_that_are_approved_later_are_something_to_do(desk, approved, left):
    spam(desk, 12)
    desk.publish(desk.gather().as_metrics())
    with pytest.raises(NothingToDo):
        desk.new()
    training_set = desk.gather(approved=approved)
    assert training_set.as_metrics()[QUARANTINED] == left
    assert len(desk.contributed(training_set)) == 12 - len(training_set.flagged)
    desk.publish(training_set.as_metrics())
    with pytest.raises(NothingToDo):
        desk.new(approved=approved)


def coloured(desk: Desk, captions: list[str]) -> None:
    """Send pictures that are red, each with its caption."""
    for place, caption in enumerate(captions):
        pixels = np.zeros((12, 16, 3), np.uint8)
        pixels[..., 0] = np.random.default_rng(place).integers(100, 255, (12, 16))
        file = io.BytesIO()
        Image.fromarray(pixels).resize((160, 120)).save(file, "PNG")
        desk.store.keep(file.getvalue(), caption)


def test_the_model_s_own_tag_scorer_finds_misfits(desk):
    desk.dataset = with_captions(desk.dataset, ["redd squared", "greend squared", "blued squared"])
    desk.publish({}, tagger=TAGGER)
    coloured(desk, ["redd"] * 3 + ["greend"])
    assert numbers(desk.gather(misfit_share=0.2)) == [4]
    assert numbers(desk.gather(misfit_share=0.0)) == []


def test_a_caption_that_the_tag_scorer_cannot_read_is_no_misfit(desk, monkeypatch):
    monkeypatch.setattr(select, "LEAST_OF_A_LANGUAGE", 1)
    desk.dataset = with_captions(desk.dataset, ["redd squared", "greend squared", "blued squared"])
    desk.publish({}, tagger=TAGGER)
    coloured(desk, ["redd"] * 3 + ["greend"])
    desk.store.set_language([4], "fr")
    assert numbers(desk.gather(misfit_share=0.3)) == []
    desk.publish({}, tagger=TAGGER | {"languages": ["fr"]})
    desk.dataset = Dataset(tuple(replace(image, language="fr") for image in desk.dataset.images))
    assert numbers(desk.gather(misfit_share=0.3)) == [4]


def with_captions(dataset: Dataset, captions: list[str]) -> Dataset:
    return Dataset(tuple(replace(image, split="train", captions=tuple(captions)) for image in dataset.images))


def test_the_notebook_shows_suspects_and_no_markup_of_theirs(desk):
    desk.store.send(range(9))
    spam(desk, 30, caption="<script>alert(1)</script>")
    shown = desk.gather().as_html()
    assert "<script>" not in shown
    assert shown.count("&lt;script&gt;") == 20
    assert "20 of 30, all in suspects.jsonl" in shown
    assert "contributions suspected: 30\n" in shown
