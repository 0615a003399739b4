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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lcm import registry
from lcm.captioning.description import Description
from lcm.errors import BundleError
from lcm.service import model_loader
from lcm.service.model_loader import Model, ModelLoader
from serve import create_app
from tests.fakes.service_client import Caller, MemoryStore, question_body, settings_for, wait_until
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
        self.loader = self.app.extensions["lcm"].models

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
    monkeypatch.setattr(model_loader, "POLL_S", POLL_S)
    made = []

    def make(**changes) -> Running:
        made.append(Running(tmp_path, monkeypatch, **changes))
        return made[-1]

    yield make
    for one in made:
        one.loader.stop()


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
    wait_until(lambda: service.loader.model)
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


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", BIG)
def test_i03_damaged_files(running, caplog, damage, name):
    service = running()
    service.put_broken("b", lambda folder: (folder / name).write_bytes(DAMAGES[damage]((folder / name).read_bytes())))
    assert_stays(service, caplog)


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
    load, replaced = model_loader.load_tested, []

    def load_slowly(folder, *options):
        captioner = load(folder, *options)
        if not replaced:
            replaced.append(captioner.name)
            for path in service.bundle("c").iterdir():
                shutil.copy(path, folder)
        return captioner

    monkeypatch.setattr(model_loader, "load_tested", load_slowly)
    service.publish("b")
    said = set()
    wait_until(lambda: said.add(service.said()) or "c" in said)
    assert replaced == ["tiny-b"]
    assert said == {"a", "c"}


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
    monkeypatch.setattr("lcm.captioning.captioner.packaged_file", lambda _: shipped)
    registry.promote("shipped")
    wait_until(lambda: service.said() == "s")


def stopped_after(running, *published: str) -> Running:
    """A service that has answered from each of some versions and then was stopped."""
    service = running()
    for letters in published:
        service.publish(letters)
        wait_until(lambda letters=letters: service.said() == letters)
    service.loader.stop()
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


def test_i08_started_with_every_version_damaged(running, caplog, monkeypatch):
    """The shipped one is the last to answer; without it there is none, until a rollback or a repair."""
    service = stopped_after(running)
    shipped = service.bundle("s")
    (service.models / "tiny-a" / "step.onnx").unlink()
    monkeypatch.setattr("lcm.captioning.captioner.packaged_file", lambda _: shipped)
    service.start()
    assert_problem(service, caplog, "s", "tiny-s, an earlier version, answers: ")
    service.loader.stop()
    caplog.clear()
    shutil.rmtree(shipped)
    service.start()
    assert service.client.get("/healthz").status_code == 503
    assert [line[:10] for line in errors(caplog)] == ["no model: "]
    shutil.rmtree(service.models / "tiny-a")
    service.publish("a")
    wait_until(lambda: service.loader.model)
    assert service.said() == "a"


class Waiting:
    """A captioner that waits with its answer until it may continue."""

    tag_scorer = None

    def __init__(self, name: str):
        self.name, self.begun, self.may_continue = name, threading.Event(), threading.Event()

    def describe(self, *_) -> Description:
        self.begun.set()
        self.may_continue.wait(60)
        return Description(f"a {self.name}", (f"a {self.name}",), (), self.name)


def test_i06_i07_a_request_keeps_the_model_it_began_with(service, tmp_path, monkeypatch):
    """The old one is gone with the last request that has it, without any help of the garbage collector."""
    current, is_old_there = [Waiting("old")], None
    loader = ModelLoader(lambda _: Model(current[0], current[0].name), lambda: tmp_path / current[0].name)
    loader.look()
    monkeypatch.setattr(ModelLoader, "of", lambda _: loader)
    caller = service(current[0])
    old, is_old_there = current[0], weakref.ref(current[0])
    gc.disable()
    try:
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(caller.client.post, "/learning-model", json=question_body())
            assert old.begun.wait(60)
            current[0] = Waiting("new")
            wait_until(lambda: loader.model.version == "new")
            current[0].may_continue.set()
            later = caller.client.post("/learning-model", json=question_body())
            assert (later.json["captions"], later.headers["X-LCM-Model-Version"]) == (["a new"], "new")
            old.may_continue.set()
            first = asked.result()
            assert (first.json["captions"], first.headers["X-LCM-Model-Version"]) == (["a old"], "old")
        del old, asked, first
        wait_until(lambda: is_old_there() is None)
    finally:
        gc.enable()
        loader.stop()


def test_i03_retries_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(model_loader, "RETRY_S", 0.0)
    tries, good = [], Model(Waiting("good"), "1")

    def load(folder: Path) -> Model:
        tries.append(folder.name)
        if folder.name == "bad":
            raise BundleError("it is damaged")
        return good

    current = ["good"]
    loader = ModelLoader(load, lambda: tmp_path / current[0])
    loader.look()
    current[0] = "bad"
    for _ in range(model_loader.TRIES + 5):
        loader.look()
    assert tries == ["good", *["bad"] * model_loader.TRIES]
    assert loader.model is good
    assert "cannot be loaded" in loader.problem
