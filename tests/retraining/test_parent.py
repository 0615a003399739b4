"""The parent model: what a retraining resumes from, and that nothing revoked lives on in it (row H17)."""

from pathlib import Path

import pytest

from lcm.captioning.bundle import WEIGHTS
from lcm.config import PrepareConfig
from lcm.contributions.store import Contribution
from lcm.errors import BundleError
from lcm.registry import publish, rollback
from lcm.retraining.select import QUARANTINED, SEEN, TESTED, TRAINED, current_parent, find_parent
from tests.fakes.tiny_graphs import tiny_manifest, use_tiny_encoder
from tests.fakes.tiny_versions import reseal, save_version


class Desk:
    """Makes bundles that have learned from contributions, and makes them current."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder, self.encoder = folder, use_tiny_encoder(folder, monkeypatch)
        self.models = folder / "home" / "models"

    def bundle(self, letters: str, trained: str = "", weights: bool = True, **numbers: str) -> Path:
        data = dict(tiny_manifest(self.encoder).training_data) | {TRAINED: trained} | numbers
        folder = save_version(self.folder / letters, self.encoder, letters, training_data=data)
        if weights:
            (folder / WEIGHTS).write_bytes(b"weights")
            reseal(folder)
        return folder

    def publish(self, letters: str, trained: str = "", **options) -> None:
        publish(self.bundle(letters, trained, **options), "why", make_current=True)


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


# The current model


def test_a_model_knows_what_it_has_learned_from_and_what_it_has_seen(desk):
    desk.publish("b", **{TRAINED: "1-9", TESTED: "10", QUARANTINED: "11,13", SEEN: "en 1-12\nfr 13"})
    start = current_parent()
    assert [start.ids(key) for key in (TRAINED, TESTED, QUARANTINED)] == [set(range(1, 10)), {10}, {11, 13}]
    sent = ((12, "en"), (13, "fr-ca"), (13, "en"), (14, "en"))
    assert [start.has_seen(Contribution(one, "", 0, "", 0, 0, "", "", code, "", "")) for one, code in sent] == [
        *(True, True, False, False)
    ]
    assert "squareb" in start.vocabulary.ids


def test_features_are_those_that_the_model_was_trained_with(desk):
    desk.publish("b")
    config = current_parent().adapt(PrepareConfig(run_dir="x", encoder="resnet50", features="grid", seed=7))
    assert (config.encoder, config.features, config.seed) == ("tiny", "pooled", 7)


# Which one to resume from


def test_h17_a_model_that_learned_from_what_is_revoked_is_skipped(desk):
    for letters, trained in (("b", "1-9"), ("c", "1-20"), ("d", "1-30")):
        desk.publish(letters, trained)
    start = find_parent("current", set(range(1, 31)) - {15})
    assert (start.version, start.skipped) == ("tiny-b", ("tiny-d", "tiny-c"))


def test_versions_that_were_rolled_back_are_none_before(desk):
    desk.publish("b", "1-3")
    desk.publish("c", "1-9")
    rollback()
    desk.publish("d", "1-20")
    assert find_parent("current", range(1, 10)).version == "tiny-b", "not c, from which somebody went back"


def test_a_model_without_weights_cannot_be_resumed(desk):
    desk.publish("b", weights=False)
    with pytest.raises(BundleError, match=r"has no weights\.npz; train from scratch with -p start_from ''"):
        find_parent("current", ())


def test_another_bundle_by_its_folder(desk):
    folder = desk.bundle("b", "1-9")
    start = find_parent(str(folder), range(1, 10))
    assert (start.folder, start.ids(TRAINED)) == (folder, set(range(1, 10)))
    with pytest.raises(BundleError, match="learned from 2 contributions that are revoked; start from another"):
        find_parent(str(folder), range(3, 10))
    with pytest.raises(BundleError, match="is no bundle"):
        find_parent(str(desk.folder), ())
