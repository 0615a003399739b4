"""Versions of models: published, promoted, rolled back and cleared away; what a kill or a second one leaves."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lcm import registry
from lcm.captioning.bundle import Manifest, verify
from lcm.captioning.captioner import SHIPPED, SHIPPED_BUNDLE, current_folder, current_version
from lcm.errors import BundleError, ConfigError, PublishError
from lcm.paths import packaged_file
from lcm.registry import all_versions, promote, prune, publish, rollback
from tests.fakes.tiny_graphs import use_tiny_encoder
from tests.fakes.tiny_versions import BROKEN, save_version

ROOT = Path(__file__).resolve().parent.parent


class Desk:
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
        return [one.name for one in all_versions()]

    def damage(self, letters: str) -> None:
        with (self.models / f"tiny-{letters}" / "step.onnx").open("ab") as file:
            file.write(b"x")

    def hidden(self) -> list[str]:
        return sorted(path.name for path in self.models.iterdir() if path.name.startswith(".") and path.is_dir())


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def test_the_shipped_bundle_is_a_version(desk):
    (only,) = all_versions()
    assert (only.name, only.is_current, only.is_before, only.fault) == (SHIPPED, True, False, "")
    assert current_folder(desk.models) == packaged_file(SHIPPED_BUNDLE)
    assert not desk.models.exists(), "looking makes nothing"


def test_a_publish_copies_the_bundle_and_nothing_else(desk):
    bundle = desk.bundle("b")
    (bundle / "stray.pkl").write_bytes(b"x")
    done = publish(bundle, "it is better", {"cider_difference_low": 0.01, "passed": True})
    assert (done.version, done.previous, done.known) == ("tiny-b", SHIPPED, False)
    copy = desk.models / "tiny-b"
    verify(copy, Manifest.load(copy))
    assert {path.name for path in copy.iterdir()} == {path.name for path in bundle.iterdir()} - {"stray.pkl"}
    assert desk.current == SHIPPED, "it was not asked to be current"
    shutil.rmtree(bundle)
    assert promote("tiny-b").previous == SHIPPED
    assert (desk.models / "current").read_text() == "tiny-b\n"
    assert current_folder(desk.models) == copy
    assert desk.hidden() == []


def test_the_history_tells_who_made_what_current_and_why(desk):
    publish(desk.bundle("b"), "it is better", {"cider": 0.5}, make_current=True)
    events = registry.read_history(desk.models)
    assert [(one.action, one.version, one.previous) for one in events] == [
        ("publish", "tiny-b", SHIPPED),
        ("promote", "tiny-b", SHIPPED),
    ]
    assert all(one.reason == "it is better" and one.decision == {"cider": 0.5} for one in events)
    assert all("@" in one.who and one.when.endswith("+00:00") for one in events)
    (_, version) = all_versions()
    assert version.as_record() == {
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


def test_a_line_that_a_crash_cut_off_harms_no_other(desk):
    desk.publish("b")
    with (desk.models / "history.jsonl").open("a") as file:
        file.write('{"action": "promote", "vers')
    assert len(registry.read_history(desk.models)) == 2
    promote(SHIPPED)
    assert [one.action for one in registry.read_history(desk.models)] == ["publish", "promote", "promote"]
    assert len((desk.models / "history.jsonl").read_text().splitlines()) == 4


def test_the_same_bundle_is_published_once(desk):
    bundle = desk.bundle("b")
    assert not publish(bundle, "first").known
    before = (desk.models / "tiny-b" / "step.onnx").stat().st_ino
    assert publish(bundle, "again", make_current=True).known
    assert (desk.models / "tiny-b" / "step.onnx").stat().st_ino == before
    assert desk.names == [SHIPPED, "tiny-b"]
    assert all_versions()[1].published.reason == "again"


def test_another_bundle_of_the_same_name_stands_beside_it(desk):
    publish(desk.bundle("b"), "first")
    done = publish(desk.bundle("b", "again", beam_width=3), "measured with another beam")
    assert done.version.startswith("tiny-b-")
    assert done.version.removeprefix("tiny-b-") == all_versions()[2].digest
    assert [Manifest.load(desk.models / name).beam_width for name in desk.names[1:]] == [2, 3]
    assert publish(desk.folder / "again", "once more").version == done.version


def test_a_damaged_version_is_put_right_by_publishing_it_again(desk):
    desk.publish("b")
    desk.damage("b")
    assert "sha256 differs" in all_versions()[1].fault
    assert not publish(desk.folder / "bundle-b", "again").known
    assert all_versions()[1].fault == ""
    assert desk.names == [SHIPPED, "tiny-b"]


@pytest.mark.parametrize("name", ["nan", "empty-captions", "no-graph"])
def test_what_does_not_work_is_not_published(desk, name):
    bundle = desk.bundle("b")
    BROKEN[name](bundle)
    with pytest.raises(BundleError):
        publish(bundle, "why not", make_current=True)
    assert (desk.names, desk.current, desk.hidden()) == ([SHIPPED], SHIPPED, [])
    assert registry.read_history(desk.models) == []


def test_what_is_damaged_or_no_bundle_is_not_published(desk):
    bundle = desk.bundle("b")
    (bundle / "vocabulary.txt").write_text("x")
    with pytest.raises(BundleError, match="sha256 differs"):
        publish(bundle, "why not")
    (bundle / "vocabulary.txt").unlink()
    with pytest.raises(BundleError, match=r"lacks vocabulary\.txt"):
        publish(bundle, "why not")
    with pytest.raises(BundleError, match="is no bundle"):
        publish(desk.folder, "why not")
    assert (desk.names, desk.hidden()) == ([SHIPPED], [])


@pytest.mark.parametrize("name", ["current", "shipped", "../up", "a b", "", ".hidden", "x" * 101, "müller"])
def test_a_name_that_no_version_can_have(desk, name):
    with pytest.raises(BundleError, match="which no version can have; use"):
        publish(desk.bundle("b", name=name), "why not")


def test_files_outside_of_the_bundle_stay_there(desk):
    bundle = desk.bundle("b")
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["files"]["../../secret"] = manifest["files"]["step.onnx"]
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    (desk.folder / "secret").write_text("x")
    with pytest.raises(BundleError):
        publish(bundle, "why not")
    assert not list(desk.models.rglob("secret"))


def test_a_decision_holds_against_the_version_it_was_made_against(desk):
    desk.publish("b")
    publish(desk.bundle("c"), "judged", make_current=True, instead_of="tiny-b")
    with pytest.raises(PublishError, match="judged against tiny-b and tiny-c is current by now"):
        publish(desk.bundle("d"), "judged", make_current=True, instead_of="tiny-b")
    assert (desk.current, desk.names) == ("tiny-c", [SHIPPED, "tiny-b", "tiny-c"])


def test_only_whole_versions_are_promoted(desk):
    desk.publish("b", "c")
    desk.damage("b")
    with pytest.raises(BundleError, match=r"tiny-b was not promoted, tiny-c stays current: .*sha256 differs"):
        promote("tiny-b")
    with pytest.raises(ConfigError, match=r"no version 'tiny-x' in .*; choose from shipped, tiny-b, tiny-c"):
        promote("tiny-x")
    with pytest.raises(ConfigError):
        promote("../models/tiny-b")
    assert desk.current == "tiny-c"
    assert promote("tiny-c") == registry.Change("tiny-c", "tiny-c")
    assert len(registry.read_history(desk.models)) == 4


def test_each_rollback_goes_one_further_back(desk):
    desk.publish("b", "c", "d")
    assert [one.name for one in all_versions() if one.is_before] == ["tiny-c"]
    assert [rollback().version for _ in range(3)] == ["tiny-c", "tiny-b", SHIPPED]
    with pytest.raises(PublishError, match="shipped is current and none was so before; choose one with"):
        rollback()
    desk.publish("e")
    assert rollback().version == SHIPPED
    promote("tiny-d")
    promote("tiny-b")
    assert rollback().version == "tiny-d"


def test_i08_a_rollback_does_not_need_the_newer_folder(desk):
    desk.publish("b", "c")
    shutil.rmtree(desk.models / "tiny-c")
    (gone,) = [one for one in all_versions() if one.is_current]
    assert (gone.name, "no bundle.json" in gone.fault) == ("tiny-c", True)
    assert rollback().version == "tiny-b"


def test_a_rollback_passes_over_what_is_damaged(desk):
    desk.publish("b", "c", "d")
    desk.damage("c")
    assert [one.name for one in all_versions() if one.is_before] == ["tiny-b"]
    done = rollback()
    assert done.version == "tiny-b"
    assert len(done.passed_over) == 1
    assert done.passed_over[0].startswith("tiny-c: ")
    assert rollback().version == SHIPPED


def test_what_was_changed_by_hand_is_written_down_and_can_be_rolled_back(desk):
    desk.publish("b", "c")
    publish(desk.bundle("d"), "later")
    (desk.models / "current").unlink()
    (desk.models / "current").symlink_to("tiny-d")
    assert desk.current == "tiny-d"
    assert rollback().version == "tiny-c"
    assert not (desk.models / "current").is_symlink()
    assert [one.action for one in registry.read_history(desk.models)][-2:] == ["found", "rollback"]


def test_current_may_lead_elsewhere(desk):
    desk.publish("b")
    elsewhere = desk.bundle("c")
    (desk.models / "current").unlink()
    (desk.models / "current").symlink_to(elsewhere)
    assert [(one.name, one.fault) for one in all_versions() if one.is_current] == [(str(elsewhere), "")]
    assert rollback().version == "tiny-b"


def test_prune_keeps_the_newest_the_current_and_the_one_before(desk):
    desk.publish("b", "c")
    desk.publish("d", "e", "f", make_current=False)
    shutil.copytree(desk.bundle("z"), desk.models / "by-hand")
    assert prune(2) == ("tiny-d",)
    desk.damage("f")
    assert prune(1) == ("tiny-f",), "what is damaged does not count as one of the newest"
    assert desk.names == [SHIPPED, "by-hand", "tiny-b", "tiny-c", "tiny-e"]
    assert prune(0) == ("tiny-e",)
    assert prune(0) == ()
    assert (desk.current, rollback().version) == ("tiny-c", "tiny-b")
    assert prune(0) == ("tiny-c",)
    with pytest.raises(ConfigError, match="keep is -1"):
        prune(-1)


def test_prune_keeps_what_a_rollback_would_really_go_to(desk):
    desk.publish("b", "c", "d")
    desk.damage("c")
    assert prune(0) == ("tiny-c",)
    assert rollback().version == "tiny-b"


def test_the_shipped_bundle_among_the_versions_of_a_clone_is_never_removed(desk, monkeypatch):
    desk.models.mkdir(parents=True)
    shipped = shutil.copytree(desk.bundle("s"), desk.models / "flickr8k")
    for module in (registry, sys.modules["lcm.captioning.captioner"]):
        monkeypatch.setattr(module, "packaged_file", lambda _: shipped)
    desk.publish("b")
    assert desk.names == [SHIPPED, "tiny-b"]
    promote(SHIPPED)
    promote("tiny-b")
    promote(SHIPPED)
    assert prune(0) == ()
    assert shipped.exists()


def test_a_disk_that_cannot_be_written_is_told_in_one_line(desk, monkeypatch):
    desk.publish("b")
    (desk.models / "current").unlink()
    (desk.models / "current").mkdir()
    with pytest.raises(PublishError, match="cannot be used"):
        promote("tiny-b")
    (desk.models / "current").rmdir()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(registry, "_copy_file", full)
    with pytest.raises(PublishError, match="No space left on device"):
        publish(desk.bundle("c"), "why not")
    assert desk.hidden() == []


PUBLISHER = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from lcm.features.encoders import ENCODERS
from tests.fakes.tiny_graphs import TinyConversion, tiny_spec
from lcm import registry
ENCODERS["tiny"] = tiny_spec(TinyConversion())
die = lambda *_: os.kill(os.getpid(), 9)

def die_at_second(function):
    calls = []
    def call(*arguments):
        calls.append(1)
        return die() if len(calls) == 2 else function(*arguments)
    return call

point = sys.argv[2]
if point == "copying":
    registry._copy_file = die_at_second(registry._copy_file)
elif point == "tried out":
    registry._place_for = die
elif point == "renamed":
    registry.add_event = die
elif point == "before current":
    Path.replace = die
elif point == "after current":
    registry.add_event = die_at_second(registry.add_event)
for folder in sys.argv[3:]:
    registry.publish(folder, "in a process of its own", make_current=True)
"""
POINTS = ("copying", "tried out", "renamed", "before current", "after current")


def start_publisher(point: str, *folders: Path) -> subprocess.Popen:
    arguments = [sys.executable, "-c", PUBLISHER, str(ROOT / "tests"), point, *map(str, folders)]
    return subprocess.Popen(arguments, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})


def assert_whole(desk: Desk) -> None:
    assert [one.fault for one in all_versions()] == [""] * len(desk.names)
    for name in desk.names[1:]:
        said = Manifest.load(desk.models / name).name.removeprefix("tiny-")
        assert (desk.models / name / "vocabulary.txt").read_text().split()[-1] == f"blue{said}"


@pytest.mark.parametrize("point", POINTS)
def test_i14_a_publish_that_is_killed_mixes_nothing_and_can_be_run_again(desk, point):
    desk.publish("b")
    bundle = desk.bundle("c")
    assert start_publisher(point, bundle).wait(60) == -9
    assert_whole(desk)
    assert desk.current == ("tiny-c" if point == "after current" else "tiny-b")
    assert start_publisher("", bundle).wait(60) == 0
    assert_whole(desk)
    assert (desk.current, desk.names, desk.hidden()) == ("tiny-c", [SHIPPED, "tiny-b", "tiny-c"], [])
    assert rollback().version == "tiny-b"


def test_i14_publishes_at_once_are_never_mixed(desk):
    """Three that publish the same two bundles in turn, and a fourth that is killed half way."""
    first, second = desk.bundle("b"), desk.bundle("d")
    started = [start_publisher("", *order) for order in ((first, second), (second, first), (first, second))]
    killed = start_publisher("copying", second)
    assert [one.wait(120) for one in started] == [0, 0, 0]
    assert killed.wait(60) == -9
    promote(SHIPPED)
    assert (desk.names[0], sorted(desk.names[1:]), desk.hidden()) == (SHIPPED, ["tiny-b", "tiny-d"], [])
    assert_whole(desk)
    events = registry.read_history(desk.models)
    assert len([one for one in events if one.action == "publish"]) == 6
    current = SHIPPED
    for one in events:
        assert one.previous == current, "each saw what the one before it left"
        current = one.version if one.action == "promote" else current


def test_only_one_works_at_a_time(desk, monkeypatch):
    desk.publish("b")
    monkeypatch.setattr(registry, "LOCK_WAIT_S", 0.05)
    with registry.FileLock(desk.models / ".lock"), pytest.raises(PublishError, match="another lcm has been working"):
        promote(SHIPPED)
    assert desk.current == "tiny-b"
