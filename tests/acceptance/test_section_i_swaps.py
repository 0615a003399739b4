"""Section I of the acceptance list, a newer model for a service that runs: I02, I03, I04, I05, I07, I08; also I14.

The case id leads each test's name. The versions are tiny: all words of an answer tell which one it is from.
"""

import gc
import os
import shutil
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from lcm import registry
from lcm.captioning.description import Description
from lcm.service import model_watch
from lcm.service.model_watch import Model
from serve import create_app
from tests.acceptance.service_client import Caller, MemoryStore, question_body, settings_for, wait_until
from tests.fakes.tiny_graphs import use_tiny_encoder
from tests.fakes.tiny_versions import BROKEN, letters_of, save_version

POLL_S = 0.02
SETTLED_S = 10 * POLL_S  # after which a folder that stood still has been tried
BIG = ("step.onnx", "vocabulary.txt", "tag_vectors.npy")  # the files whose damage is tried
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "truncated at 10 %": lambda data: data[: len(data) // 10],
    "truncated at 50 %": lambda data: data[: len(data) // 2],
    "truncated at 99 %": lambda data: data[: max(1, len(data) * 99 // 100)][: len(data) - 1],
    "random": lambda data: os.urandom(len(data)),
    "one bit flipped": lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
}


class Running(Caller):
    """A service that answers from the current version, which is "a" in the beginning."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **changes):
        self.folder, self.encoder, self.changes = folder, use_tiny_encoder(folder, monkeypatch), changes
        self.models = folder / "home" / "models"
        self.publish("a")
        self.start()

    def start(self) -> None:
        """Start it, perhaps anew."""
        store = MemoryStore()
        super().__init__(create_app(settings_for(self.folder, **self.changes), store=store), store)
        self.watch = self.app.extensions["lcm"].watch

    def bundle(self, letters: str) -> Path:
        folder = self.folder / f"bundle-{letters}"
        return folder if folder.exists() else save_version(folder, self.encoder, letters)

    def publish(self, letters: str) -> None:
        registry.publish(self.bundle(letters), "a test", make_current=True)

    def point_to(self, version: str) -> None:
        """Change `current` by hand, whatever the version is."""
        temporary = self.models / "new-pointer"
        temporary.write_text(version)
        temporary.replace(self.models / "current")

    def put_broken(self, letters: str, change: Callable[[Path], None]) -> Path:
        """Put a version there without publishing it, and make it current."""
        folder = Path(shutil.copytree(self.bundle(letters), self.models / f"tiny-{letters}"))
        change(folder)
        self.point_to(folder.name)
        return folder

    def said(self) -> str:
        """Ask, and return the letters of the version that answered; its headers must say the same."""
        reply = self.client.post("/learning-model", json=question_body())
        assert reply.status_code == 200, reply.text
        (letters,) = letters_of(reply.json["english_captions"], reply.json["tags"])
        assert reply.headers["X-LCM-Model"] == f"tiny-{letters}"
        return letters

    def health(self) -> dict:
        return self.client.get("/healthz").json


@pytest.fixture
def running(tmp_path, monkeypatch):
    """Make a running service; stopped at the end."""
    monkeypatch.setattr(model_watch, "POLL_S", POLL_S)
    made = []

    def make(**changes) -> Running:
        made.append(Running(tmp_path, monkeypatch, **changes))
        return made[-1]

    yield make
    for one in made:
        one.watch.stop()


def errors(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


def assert_stays(service: Running, caplog, letters: str = "a") -> None:
    """What is current now is refused, and the old one answers."""
    assert_problem(service, caplog, letters, f"tiny-{letters} stays: ")


def assert_problem(service: Running, caplog, letters: str, told: str) -> None:
    """What is current now does not answer: told once, in one line, and by /healthz; another one does."""
    wait_until(lambda: "problem" in service.health())
    for _ in range(3):
        assert service.said() == letters
    health = service.send("GET", "/healthz")
    assert (health.status_code, health.json["model"]) == (200, f"tiny-{letters}")
    assert "cannot be loaded" in health.json["problem"]
    assert len(errors(caplog)) == 1
    assert errors(caplog)[0].startswith(told)
    assert "\n" not in errors(caplog)[0]


def test_a_newer_version_is_picked_up(running, caplog):
    service = running()
    old = service.health()
    assert service.said() == "a"
    service.publish("b")
    wait_until(lambda: service.said() == "b")
    new = service.health()
    assert (new["model"], "problem" in new) == ("tiny-b", False)
    assert new["version"] != old["version"]
    assert errors(caplog) == []


def test_i02_copied_in_place_slowly(running, tmp_path):
    """A folder of its own (LCM_BUNDLE), over which another version is copied file by file, in halves."""
    folder = tmp_path / "pinned"
    service = running(bundle=str(folder))
    shutil.copytree(service.bundle("a"), folder)
    wait_until(lambda: service.watch.model)
    new = service.bundle("b")
    for path in sorted(new.iterdir()):  # bundle.json first: it names files that are not there yet
        data = path.read_bytes()
        with (folder / path.name).open("wb") as file:
            for part in (data[: len(data) // 2], data[len(data) // 2 :]):
                assert service.said() == "a"
                file.write(part)
                file.flush()
                time.sleep(SETTLED_S)
                if path.name != "vocabulary.txt" or part != data[len(data) // 2 :]:
                    assert service.said() == "a", path.name
    wait_until(lambda: service.said() == "b")
    assert "problem" not in service.health()


def test_i02_current_before_it_is_whole(running, caplog):
    service = running()
    new, folder = service.bundle("b"), service.models / "tiny-b"
    folder.mkdir()
    service.point_to("tiny-b")
    assert_stays(service, caplog)
    for path in sorted(new.iterdir(), reverse=True):  # bundle.json last but for nothing
        if path.name != "bundle.json":
            shutil.copy(path, folder)
            time.sleep(POLL_S)
            assert service.said() == "a"
    time.sleep(SETTLED_S)
    assert service.said() == "a"
    assert len(errors(caplog)) == 1
    shutil.copy(new / "bundle.json", folder)
    wait_until(lambda: service.said() == "b")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", BIG)
def test_i03_damaged_files(running, caplog, damage, name):
    service = running()
    service.put_broken("b", lambda folder: (folder / name).write_bytes(DAMAGES[damage]((folder / name).read_bytes())))
    assert_stays(service, caplog)


def test_i03_retries_are_bounded(running, caplog, monkeypatch):
    monkeypatch.setattr(model_watch, "RETRY_S", 0.0)
    service, tries = running(), []
    load = service.watch._load
    monkeypatch.setattr(service.watch, "_load", lambda folder: tries.append(folder.name) or load(folder))
    folder = service.put_broken("b", lambda folder: (folder / "step.onnx").unlink())
    wait_until(lambda: len(tries) == model_watch.TRIES)
    time.sleep(SETTLED_S)
    assert tries == ["tiny-b"] * model_watch.TRIES
    assert_stays(service, caplog)
    shutil.copy(service.bundle("b") / "step.onnx", folder)
    wait_until(lambda: service.said() == "b")
    assert len(tries) == model_watch.TRIES + 1


def test_i03_back_to_the_one_that_answers(running, caplog):
    service = running()
    service.put_broken("b", lambda folder: (folder / "step.onnx").write_bytes(b""))
    assert_stays(service, caplog)
    service.point_to("tiny-a")
    wait_until(lambda: "problem" not in service.health())
    assert service.said() == "a"
    service.point_to("tiny-b")
    wait_until(lambda: len(errors(caplog)) == 2)


@pytest.mark.parametrize("name", BROKEN)
def test_i04_what_loads_and_does_not_work(running, caplog, name):
    service = running()
    service.put_broken("b", BROKEN[name])
    assert_stays(service, caplog)
    service.publish("c")
    wait_until(lambda: service.said() == "c")


@pytest.mark.parametrize("name", ["step.onnx", "vocabulary.txt", "tag_words.txt"])
def test_i05_files_of_two_versions(running, caplog, name):
    service = running()
    other = service.bundle("c")
    service.put_broken("b", lambda folder: shutil.copy(other / name, folder))
    assert_stays(service, caplog)


def test_i05_files_replaced_while_they_are_loaded(running, monkeypatch):
    """The vocabulary is read, then the rest becomes another version's: nothing is ever answered with that."""
    service = running()
    load, replaced = model_watch.load_tested, []

    def load_slowly(folder, *options):
        captioner = load(folder, *options)
        if not replaced:
            replaced.append(captioner.name)
            for path in service.bundle("c").iterdir():
                shutil.copy(path, folder)
        return captioner

    monkeypatch.setattr(model_watch, "load_tested", load_slowly)
    service.publish("b")
    said = set()
    wait_until(lambda: said.add(service.said()) or "c" in said)
    assert replaced == ["tiny-b"]
    assert said == {"a", "c"}


class Waiting:
    """A captioner that waits with its answer until it may go on."""

    tag_scorer = None

    def __init__(self, name: str):
        self.name, self.begun, self.go_on = name, threading.Event(), threading.Event()
        self.weights = bytearray(1 << 20)

    def describe(self, *_) -> Description:
        self.begun.set()
        self.go_on.wait(60)
        return Description(f"a {self.name}", (f"a {self.name}",), (), self.name)


def test_i06_i07_a_request_keeps_the_model_it_began_with(service, tmp_path):
    """The old one is gone with the last request that has it, without any help of the garbage collector."""
    captioners = {"old": Waiting("old"), "new": Waiting("new")}
    caller = service(captioners["old"])
    watch = caller.app.extensions["lcm"].watch
    watch._load, watch._folder = lambda _: Model(captioners["new"], "1234"), lambda: tmp_path / "new"
    replies = []
    old, is_old_there = captioners["old"], weakref.ref(captioners["old"])
    asking = threading.Thread(
        target=lambda: replies.append(caller.client.post("/learning-model", json=question_body()))
    )
    asking.start()
    assert old.begun.wait(60)
    watch.look()
    assert watch.model.captioner is old, "a folder that has just changed is looked at again first"
    watch.look()
    captioners["new"].go_on.set()
    later = caller.client.post("/learning-model", json=question_body())
    assert (later.json["captions"], later.headers["X-LCM-Model-Version"]) == (["a new"], "1234")
    gc.disable()
    try:
        del captioners["old"]
        go_on = old.go_on
        del old
        assert is_old_there() is not None, "a request is still with it"
        go_on.set()
        asking.join(60)
        assert (replies[0].json["captions"], replies[0].headers["X-LCM-Model-Version"]) == (["a old"], "")
        wait_until(lambda: is_old_there() is None)
    finally:
        gc.enable()


def test_i07_an_old_bundle_is_freed(running, monkeypatch):
    """And the memory that it held is given back then, not before."""
    service, trims = running(), []
    monkeypatch.setattr(model_watch, "trim", lambda: trims.append(old()))
    assert service.said() == "a"
    old = weakref.ref(service.watch.model.captioner)
    gc.collect()
    gc.disable()
    try:
        service.publish("b")
        wait_until(lambda: service.said() == "b")
        wait_until(lambda: old() is None)
        wait_until(lambda: trims)
        assert trims == [None]
    finally:
        gc.enable()


def test_i07_what_was_refused_is_freed(running, caplog, monkeypatch):
    service, refused = running(), []
    load = model_watch.load_tested

    def load_and_watch(*arguments):
        captioner = load(*arguments)
        refused.append(weakref.ref(captioner))
        (arguments[0] / "stray").touch()  # so that it changed while it was loaded
        return captioner

    monkeypatch.setattr(model_watch, "load_tested", load_and_watch)
    monkeypatch.setattr(model_watch, "TRIES", 1)
    gc.collect()
    gc.disable()
    try:
        service.publish("b")
        wait_until(lambda: refused and errors(caplog))
        assert "changed while it was loaded" in errors(caplog)[0]
        service.watch.stop()
        wait_until(lambda: all(one() is None for one in refused))
    finally:
        gc.enable()


def test_i08_rollback(running, caplog):
    service = running()
    for letters in ("b", "c"):
        service.publish(letters)
        wait_until(lambda letters=letters: service.said() == letters)
    registry.rollback()
    wait_until(lambda: service.said() == "b")
    registry.rollback()
    wait_until(lambda: service.said() == "a")
    assert errors(caplog) == []


def test_i08_rollback_after_the_active_folder_is_gone(running, caplog):
    service = running()
    service.publish("b")
    wait_until(lambda: service.said() == "b")
    shutil.rmtree(service.models / "tiny-b")
    assert_stays(service, caplog, "b")
    registry.rollback()
    wait_until(lambda: service.said() == "a")
    assert "problem" not in service.health()


def test_i08_back_to_the_shipped_model(running, monkeypatch):
    service = running()
    shipped = service.bundle("s")
    monkeypatch.setattr("lcm.captioning.captioner.resource", lambda _: shipped)
    registry.promote("shipped")
    wait_until(lambda: service.said() == "s")


def stopped_after(running, *published: str) -> Running:
    """A service that has answered from each of some versions and then was stopped."""
    service = running()
    for letters in published:
        service.publish(letters)
        wait_until(lambda letters=letters: service.said() == letters)
    service.watch.stop()
    return service


@pytest.mark.parametrize("damage", ["damaged", "broken", "gone"])
def test_i08_started_with_a_current_version_that_does_not_work(running, caplog, damage):
    """The one before answers until the current one is repaired."""
    service = stopped_after(running, "b", "c")
    folder = service.models / "tiny-c"
    if damage == "broken":
        BROKEN["nan"](folder)
    elif damage == "damaged":
        (folder / "step.onnx").write_bytes(b"")
    else:
        shutil.rmtree(folder)
    service.start()
    assert service.said() == "b"
    assert_problem(service, caplog, "b", "tiny-b, an earlier version, answers: ")
    shutil.copytree(service.bundle("c"), folder, dirs_exist_ok=True)
    wait_until(lambda: service.said() == "c")
    assert "problem" not in service.health()


def test_i08_started_with_the_version_before_damaged_too(running, caplog):
    service = stopped_after(running, "b", "c")
    for letters in ("b", "c"):
        (service.models / f"tiny-{letters}" / "vocabulary.txt").unlink()
    service.start()
    assert_problem(service, caplog, "a", "tiny-a, an earlier version, answers: ")
    registry.rollback()
    wait_until(lambda: "problem" not in service.health())
    assert service.said() == "a"


def test_i08_started_with_every_version_damaged(running, caplog, monkeypatch):
    """The shipped one is the last to answer; without it there is none, until a rollback or a repair."""
    service = stopped_after(running)
    shipped = service.bundle("s")
    (service.models / "tiny-a" / "step.onnx").unlink()
    monkeypatch.setattr("lcm.captioning.captioner.resource", lambda _: shipped)
    service.start()
    assert_problem(service, caplog, "s", "tiny-s, an earlier version, answers: ")
    service.watch.stop()
    caplog.clear()
    shutil.rmtree(shipped)
    service.start()
    assert service.client.get("/healthz").status_code == 503
    assert [line[:10] for line in errors(caplog)] == ["no model: "]
    shutil.rmtree(service.models / "tiny-a")
    service.publish("a")
    wait_until(lambda: service.watch.model)
    assert service.said() == "a"


def test_i08_no_version_stands_in_for_lcm_bundle(running, tmp_path):
    service = running(bundle=str(tmp_path / "pinned"))
    assert service.client.get("/healthz").status_code == 503


def test_i14_a_publish_that_stops_half_way_changes_nothing_for_the_service(running, monkeypatch, caplog):
    service = running()

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(registry, "_point_to", stop)
        with pytest.raises(KeyboardInterrupt):
            service.publish("b")
    time.sleep(SETTLED_S)
    assert service.said() == "a"
    service.publish("b")
    wait_until(lambda: service.said() == "b")
    assert errors(caplog) == []
