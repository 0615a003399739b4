"""Versions of models: published, promoted, rolled back and cleared away; what a kill or a second one leaves."""

import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from lcm import registry
from lcm.captioning.bundle import Manifest, verify
from lcm.captioning.captioner import SHIPPED, current_version
from lcm.errors import BundleError, ConfigError, PublishError
from lcm.registry import REFUSED, all_versions, promote, prune, publish, rollback
from tests.fakes.publisher import POINTS
from tests.fakes.tiny_graphs import use_tiny_encoder
from tests.fakes.tiny_versions import BROKEN, save_version

ROOT = Path(__file__).resolve().parent.parent


class Workshop:
    """Makes bundles and publishes them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder, self.encoder = folder, use_tiny_encoder(folder, monkeypatch)
        self.models = folder / "home" / "models"

    def bundle(self, letters: str, folder: str = "", **changes) -> Path:
        return save_version(self.folder / (folder or f"bundle-{letters}"), self.encoder, letters, **changes)

    def publish(self, *letters: str, **options) -> None:
        for one in letters:
            publish(self.bundle(one), f"because of {one}", **{"make_current": True} | options)

    @property
    def current(self) -> str:
        return current_version(self.models)

    @property
    def names(self) -> list[str]:
        return [one.version for one in all_versions()]

    def damage(self, letters: str) -> None:
        with (self.models / f"tiny-{letters}" / "step.onnx").open("ab") as file:
            file.write(b"x")

    def hidden(self) -> list[str]:
        return sorted(path.name for path in self.models.iterdir() if path.name.startswith(".") and path.is_dir())


@pytest.fixture
def shop(tmp_path, monkeypatch) -> Workshop:
    return Workshop(tmp_path, monkeypatch)


def test_a_publish_copies_the_bundle_and_nothing_else(shop):
    (shipped,) = all_versions()
    assert (shipped.version, shipped.current, shipped.fault) == (SHIPPED, True, "")
    assert not shop.models.exists(), "looking makes nothing"
    bundle = shop.bundle("b")
    (bundle / "stray.pkl").write_bytes(b"x")
    done = publish(bundle, "it is better")
    assert (done.version, done.previous, done.known) == ("tiny-b", SHIPPED, False)
    copy = shop.models / "tiny-b"
    verify(copy, Manifest.load(copy))
    assert {path.name for path in copy.iterdir()} == {path.name for path in bundle.iterdir()} - {"stray.pkl"}
    assert shop.current == SHIPPED, "it was not asked to be current"
    inode = (copy / "step.onnx").stat().st_ino
    history = (shop.models / registry.HISTORY).read_bytes()
    assert publish(bundle, "again").known
    assert (copy / "step.onnx").stat().st_ino == inode
    assert (shop.models / registry.HISTORY).read_bytes() == history
    shutil.rmtree(bundle)
    assert promote("tiny-b").previous == SHIPPED
    assert shop.current == "tiny-b"
    assert shop.hidden() == []


def test_the_history_tells_who_made_what_current_and_why(shop):
    publish(shop.bundle("b"), "it is better", {"cider": 0.5}, make_current=True)
    events = registry.read_history(shop.models)
    assert [(one.action, one.version, one.previous) for one in events] == [
        ("publish", "tiny-b", SHIPPED),
        ("promote", "tiny-b", SHIPPED),
    ]
    assert all(one.reason == "it is better" and one.decision == {"cider": 0.5} for one in events)
    assert all("@" in one.who and one.when.endswith("+00:00") for one in events)
    (_, version) = all_versions()
    assert asdict(version) == {
        "version": "tiny-b",
        "digest": version.digest,
        "current": True,
        "before": False,
        "fault": "",
        "published": events[0].when,
        "by": events[0].who,
        "reason": "it is better",
        "decision": {"cider": 0.5},
        "metrics": {},
    }


def test_another_bundle_of_the_same_name_stands_beside_it(shop):
    publish(shop.bundle("b"), "first")
    done = publish(shop.bundle("b", "again", beam_width=3), "measured with another beam")
    assert done.version.startswith("tiny-b-")
    assert done.version.removeprefix("tiny-b-") == all_versions()[2].digest
    assert [Manifest.load(shop.models / name).beam_width for name in shop.names[1:]] == [2, 3]
    assert publish(shop.folder / "again", "once more").version == done.version
    (shop.models / "tiny-c").mkdir()
    (shop.models / "tiny-c" / "notes.txt").touch()
    assert publish(shop.bundle("c"), "beside a folder").version.startswith("tiny-c-")
    assert (shop.models / "tiny-c" / "notes.txt").exists(), "what is no version is left alone"


def test_a_damaged_version_is_put_right_by_publishing_it_again(shop):
    shop.publish("b")
    shop.damage("b")
    assert "sha256 differs" in all_versions()[1].fault
    assert not publish(shop.folder / "bundle-b", "again").known
    assert all_versions()[1].fault == ""
    assert shop.names == [SHIPPED, "tiny-b"]


@pytest.mark.parametrize("name", ["nan", "empty-captions", "no-graph"])
def test_what_does_not_work_is_not_published(shop, name):
    bundle = shop.bundle("b")
    BROKEN[name](bundle)
    with pytest.raises(BundleError):
        publish(bundle, "why not", make_current=True)
    assert (shop.names, shop.current, shop.hidden()) == ([SHIPPED], SHIPPED, [])
    assert registry.read_history(shop.models) == []


def test_i05_what_is_damaged_or_no_bundle_is_not_published(shop):
    bundle = shop.bundle("b")
    (bundle / "vocabulary.txt").write_text("x")
    with pytest.raises(BundleError, match="sha256 differs"):
        publish(bundle, "why not")
    (bundle / "vocabulary.txt").unlink()
    with pytest.raises(BundleError, match=r"lacks vocabulary\.txt"):
        publish(bundle, "why not")
    with pytest.raises(BundleError, match="is no bundle"):
        publish(shop.folder, "why not")
    assert (shop.names, shop.hidden()) == ([SHIPPED], [])


@pytest.mark.parametrize("name", ["current", "shipped", "../up", "a b", "", ".hidden", "x" * 101, "müller"])
def test_a_name_that_no_version_can_have(shop, name):
    with pytest.raises(BundleError, match="which no version can have; use"):
        publish(shop.bundle("b", name=name), "why not")


def test_a_model_of_the_generated_sample_is_published_by_force_only(shop):
    drawn = shop.bundle("a", training_data={"source": "sample"})
    with pytest.raises(PublishError, match=r"generated scenes alone; lcm run --params adapt .* --force publishes it"):
        publish(drawn, "because")
    assert shop.names == [SHIPPED]
    assert publish(drawn, "because", force=True).version == "tiny-a"


@pytest.mark.parametrize("outcome", REFUSED)
def test_a_bad_verdict_is_overruled_by_force_or_by_the_gate_only(shop, outcome):
    metrics = {"verdict": outcome, "verdict_text": "Below the shipped model.\nNext: keep it."}
    bad = shop.bundle("a", metrics=metrics)
    with pytest.raises(PublishError) as error:
        publish(bad, "because")
    assert f"for 03_evaluate found it {outcome}; --force publishes it all the same." in str(error.value)
    assert str(error.value).endswith(metrics["verdict_text"])
    assert shop.names == [SHIPPED]
    assert publish(bad, "because", force=True).version == "tiny-a"
    assert publish(shop.bundle("b", metrics=metrics), "all checks passed", {"publish": True}).version == "tiny-b"
    unmeasured = publish(shop.bundle("c", metrics={"verdict": "not measured"}), "because")
    assert (unmeasured.version, unmeasured.unmeasured) == ("tiny-c", True)
    assert not publish(shop.bundle("d", metrics={"verdict": "better"}), "because").unmeasured


def test_the_folder_of_a_run_is_published_by_its_bundle(shop):
    (shop.folder / "run").mkdir()
    shop.bundle("b", "run/bundle")
    assert publish(shop.folder / "run", "because").version == "tiny-b"


def test_a_decision_holds_against_the_version_it_was_made_against(shop):
    shop.publish("b")
    publish(shop.bundle("c"), "judged", make_current=True, instead_of="tiny-b")
    with pytest.raises(PublishError, match="judged against tiny-b and tiny-c is current by now"):
        publish(shop.bundle("d"), "judged", make_current=True, instead_of="tiny-b")
    assert (shop.current, shop.names) == ("tiny-c", [SHIPPED, "tiny-b", "tiny-c"])


def test_only_whole_versions_are_promoted(shop):
    shop.publish("b", "c")
    shop.damage("b")
    with pytest.raises(BundleError, match=r"tiny-b was not promoted, tiny-c stays current: .*sha256 differs"):
        promote("tiny-b")
    with pytest.raises(ConfigError, match=r"no version 'tiny-x' in .*; choose from shipped, tiny-b, tiny-c"):
        promote("tiny-x")
    with pytest.raises(ConfigError):
        promote("../models/tiny-b")
    assert shop.current == "tiny-c"
    assert promote("tiny-c") == registry.Change("tiny-c", "tiny-c")
    assert len(registry.read_history(shop.models)) == 4


def test_each_rollback_goes_one_further_back(shop):
    shop.publish("b", "c", "d")
    assert [one.version for one in all_versions() if one.before] == ["tiny-c"]
    assert [rollback().version for _ in range(3)] == ["tiny-c", "tiny-b", SHIPPED]
    with pytest.raises(PublishError, match="shipped is current and none was so before; choose one with"):
        rollback()
    shop.publish("e")
    assert rollback().version == SHIPPED
    promote("tiny-d")
    promote("tiny-b")
    assert rollback().version == "tiny-d"


def test_i08_a_rollback_skips_what_is_damaged_and_does_not_need_the_newer_folder(shop):
    shop.publish("b", "c", "d")
    shop.damage("c")
    shutil.rmtree(shop.models / "tiny-d")
    (gone,) = [one for one in all_versions() if one.current]
    assert (gone.version, "no bundle.json" in gone.fault) == ("tiny-d", True)
    assert [one.version for one in all_versions() if one.before] == ["tiny-b"]
    assert "tiny-c" in prune(0), "a rollback would not go there"
    publish(shop.folder / "bundle-c", "again")
    shop.damage("c")
    done = rollback()
    assert (done.version, done.skipped[0].partition(":")[0]) == ("tiny-b", "tiny-c")


def test_what_was_changed_by_hand_can_be_rolled_back(shop):
    shop.publish("b", "c")
    publish(shop.bundle("d"), "later")
    (shop.models / "current").write_text("tiny-d")
    assert rollback().version == "tiny-c"
    (shop.models / "current").write_text("tiny-d")
    promote("tiny-b")
    assert rollback().version == "tiny-d"


def test_prune_keeps_the_newest_the_current_and_the_one_before(shop):
    shop.publish("b", "c")
    shop.publish("d", "e", "f", make_current=False)
    shutil.copytree(shop.bundle("z"), shop.models / "by-hand")
    assert prune(2) == ("tiny-d",)
    shop.damage("f")
    assert prune(1) == ("tiny-f",), "what is damaged does not count as one of the newest"
    assert shop.names == [SHIPPED, "by-hand", "tiny-b", "tiny-c", "tiny-e"]
    assert prune(0) == ("tiny-e",)
    assert prune(0) == ()
    assert (shop.current, rollback().version) == ("tiny-c", "tiny-b")
    assert prune(0) == ("tiny-c",)


def test_the_shipped_bundle_among_the_versions_of_a_clone_is_never_removed(shop, monkeypatch):
    shop.models.mkdir(parents=True)
    shipped = shutil.copytree(shop.bundle("s"), shop.models / "flickr8k")
    for module in (registry, sys.modules["lcm.captioning.captioner"]):
        monkeypatch.setattr(module, "packaged_file", lambda _: shipped)
    shop.publish("b")
    assert shop.names == [SHIPPED, "tiny-b"]
    promote(SHIPPED)
    promote("tiny-b")
    promote(SHIPPED)
    assert prune(0) == ()
    assert shipped.exists()


def test_a_disk_that_cannot_be_written_is_told_in_one_line(shop, monkeypatch):
    shop.publish("b")
    (shop.models / "current").unlink()
    (shop.models / "current").mkdir()
    with pytest.raises(PublishError, match="cannot be used"):
        promote("tiny-b")
    (shop.models / "current").rmdir()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(PublishError, match="No space left on device"):
        publish(shop.bundle("c"), "why not")
    assert shop.hidden() == []


def start_publisher(point: str, *folders: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.fakes.publisher", point, *map(str, folders)]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})


def assert_whole(shop: Workshop) -> None:
    assert [one.fault for one in all_versions()] == [""] * len(shop.names)
    for name in shop.names[1:]:
        said = Manifest.load(shop.models / name).name.removeprefix("tiny-")
        assert (shop.models / name / "vocabulary.txt").read_text().split()[-1] == f"blue{said}"


@pytest.mark.parametrize("point", POINTS)
def test_i14_a_publish_that_is_killed_mixes_nothing_and_can_be_run_again(shop, point):
    shop.publish("b")
    bundle = shop.bundle("c")
    assert start_publisher(point, bundle).wait(60) == -9
    assert_whole(shop)
    assert shop.current == ("tiny-c" if point == "after current" else "tiny-b")
    assert start_publisher("", bundle).wait(60) == 0
    assert_whole(shop)
    assert (shop.current, shop.names, shop.hidden()) == ("tiny-c", [SHIPPED, "tiny-b", "tiny-c"], [])
    assert rollback().version == "tiny-b"


def test_i14_publishes_at_once_are_never_mixed(shop):
    """Three that publish the same two bundles in turn, and a fourth that is killed half way."""
    first, second = shop.bundle("b"), shop.bundle("d")
    started = [start_publisher("", *order) for order in ((first, second), (second, first), (first, second))]
    killed = start_publisher("copying", second)
    assert [one.wait(120) for one in started] == [0, 0, 0]
    assert killed.wait(60) == -9
    promote(SHIPPED)
    assert (shop.names[0], sorted(shop.names[1:]), shop.hidden()) == (SHIPPED, ["tiny-b", "tiny-d"], [])
    assert_whole(shop)
    events = registry.read_history(shop.models)
    assert sorted(one.version for one in events if one.action == "publish") == ["tiny-b", "tiny-d"]
    current = SHIPPED
    for one in events:
        assert one.previous == current, "each saw what the one before it left"
        current = one.version if one.action == "promote" else current


def test_only_one_works_at_a_time(shop, monkeypatch):
    shop.publish("b")
    monkeypatch.setattr(registry, "LOCK_WAIT_S", 0.05)
    with registry.FileLock(shop.models / ".lock"), pytest.raises(PublishError, match="another lcm has been working"):
        promote(SHIPPED)
    assert shop.current == "tiny-b"
