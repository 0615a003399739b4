"""Gating: from a comparison on disk to a published version, or a refusal that says why."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lcm import registry
from lcm.captioning.captioner import current_version
from lcm.config import PublishConfig
from lcm.data.dataset import Dataset, LabelledImage
from lcm.errors import DataError
from lcm.evaluation.compare import (
    CaptionerOutput,
    compare,
    held_out_images,
    languages_left_out,
    save_record,
    save_rows,
)
from lcm.paths import RunDir
from lcm.registry import publish
from lcm.retraining.gate import decide, summarise
from tests.fakes.tiny_graphs import use_tiny_encoder
from tests.fakes.tiny_versions import save_version

THINGS = ("dog", "boat", "horse", "car", "tree", "bird", "house", "child")


def said(place: int) -> str:
    return f"a {THINGS[place % 8]} by day {place}"


class Desk:
    """A run folder as 04_compare leaves it: the run's bundle "new" against version "old", which is current."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder, self.encoder = folder, use_tiny_encoder(folder, monkeypatch)
        self.models, self.run = folder / "home" / "models", RunDir.at(folder / "run")
        self.publish("old")
        save_version(self.run.bundle, self.encoder, "new")
        self.run.add_metrics(generated_data=0)

    def publish(self, letters: str) -> None:
        publish(save_version(self.folder / letters, self.encoder, letters), "before", make_current=True)

    @property
    def config(self) -> PublishConfig:
        return PublishConfig(run_dir=str(self.run.path))

    @property
    def current(self) -> str:
        return current_version(self.models)

    def compare(self, new="tiny-new", old="tiny-old", names=("new", "current"), split="dev", better=True) -> None:
        """Write a comparison on 30 base images, on which all are the same, and 20 contributed ones."""
        base = [LabelledImage(f"{place}.png", Path("x"), split, (said(place),)) for place in range(30)]
        sent = [LabelledImage(f"contributions/{place:064x}", Path("x"), "test", (said(place),)) for place in range(20)]
        french = [replace(base[0], language="fr"), *(replace(image, language="fr") for image in sent[:2])]
        dataset = Dataset((*sent, *french, *base))
        images = held_out_images(dataset, split, "en")
        assert images == base + sent
        self.run.add_metrics(not_compared=languages_left_out(dataset, split, "en"))
        right, wrong = [said(place) for place in range(20)], ["nothing at all"] * 20
        captions = [said(place) for place in range(30)]
        outputs = [
            CaptionerOutput(names[0], captions + (right if better else wrong), note=new),
            CaptionerOutput(names[1], captions + wrong, note=old),
            CaptionerOutput("nearest", ["a cat"] * 50),
        ]
        comparison = compare(outputs, images, meteor=False)
        save_rows(comparison.rows, self.run.path / "comparison.jsonl")
        save_record(comparison, "data", split, self.run.path / "comparison.json")

    def gate(self) -> dict:
        return json.loads((self.run.path / "gate.json").read_text())


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def test_a_better_model_is_published_with_the_decision_in_the_history(desk):
    desk.compare()
    outcome = decide(desk.run, desk.config)
    assert (outcome.version, desk.current) == ("tiny-new", "tiny-new")
    *_, published, promoted = registry.read_history(desk.models)
    assert (published.action, promoted.action, promoted.previous) == ("publish", "promote", "tiny-old")
    left_out = "not compared: held-out images with captions in other languages (fr 3)"
    assert published.reason == f"all checks passed. {left_out}"
    assert "not compared: held-out images" in summarise(desk.run)
    assert published.decision["publish"] is True
    assert published.decision["numbers"]["contributed_wer_new"] == 0
    assert desk.gate()["version"] == "tiny-new"
    metrics = outcome.as_metrics()
    assert (metrics["gate"], metrics["published_version"]) == ("passed", "tiny-new")
    assert metrics["gate_contributed_wer_new"] == 0


def test_a_model_that_is_not_better_is_refused(desk):
    desk.compare(better=False)
    outcome = decide(desk.run, desk.config)
    assert (outcome.version, desk.current) == ("", "tiny-old")
    assert outcome.as_metrics()["gate"] == "refused"
    assert "CIDEr on contributions: it rises" in outcome.as_metrics()["gate_reason"]
    assert (desk.gate()["publish"], desk.gate()["version"]) == (False, "")
    assert len(registry.read_history(desk.models)) == 2, "of the version before, alone"


def test_publish_false_only_says_what_would_be_done(desk):
    desk.compare()
    config = PublishConfig(run_dir=str(desk.run.path), publish=False)
    outcome = decide(desk.run, config)
    assert outcome.publish
    assert summarise(desk.run).splitlines()[2].startswith("**Passed, not published**: all checks passed")
    assert (outcome.version, desk.current, desk.gate()["version"]) == ("", "tiny-old", "")
    assert not (desk.models / "tiny-new").exists()


def test_published_and_not_made_current(desk):
    desk.compare()
    outcome = decide(desk.run, PublishConfig(run_dir=str(desk.run.path), make_current=False))
    assert (outcome.version, desk.current) == ("tiny-new", "tiny-old")
    assert (desk.models / "tiny-new").is_dir()


@pytest.mark.parametrize("noted", [{"generated_data": 1}, {"generated_data": None}, {}])
def test_what_was_trained_on_the_stand_in_is_not_published(desk, noted):
    """Nor where 01_prepare has not noted what the base is."""
    desk.compare()
    desk.run.metrics.unlink()
    desk.run.add_metrics(**noted)
    outcome = decide(desk.run, desk.config)
    assert (outcome.version, desk.current) == ("", "tiny-old")
    assert "base data" in outcome.reason


def test_another_model_that_is_current_meanwhile(desk):
    desk.compare()
    desk.publish("meanwhile")
    with pytest.raises(DataError, match="tiny-old was compared as 'current', and the current model is by now"):
        decide(desk.run, desk.config)
    assert desk.current == "tiny-meanwhile"
    assert not (desk.models / "tiny-new").exists()
    assert (desk.gate()["publish"], desk.gate()["version"]) == (True, ""), "the decision stays to be read"


def test_a_bundle_that_was_trained_anew_since_the_comparison(desk):
    desk.compare(new="tiny-earlier")
    with pytest.raises(DataError, match="tiny-earlier was compared as 'new', and the bundle of this run is tiny-new"):
        decide(desk.run, desk.config)
    assert desk.current == "tiny-old"


def test_images_that_train_decide_nothing(desk):
    desk.compare(split="train")
    with pytest.raises(DataError, match="compared on images that train; run 04_compare with -p split dev or test"):
        decide(desk.run, desk.config)
    assert desk.current == "tiny-old"


def test_without_a_comparison(desk):
    with pytest.raises(DataError, match=r"comparison\.jsonl is not there; run 04_compare for this run folder first"):
        decide(desk.run, desk.config)
