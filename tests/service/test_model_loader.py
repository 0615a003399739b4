"""Section I of the acceptance list but for I15: a model that arrives late, and a newer one for a service that runs.

The case id leads each test's name. The versions are tiny: all words of an answer tell which one it is from. No thread
looks for models here, each test does; test_hot_swaps.py runs the real thing.
"""

import gc
import os
import pickle
import re
import shutil
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lcm import registry
from lcm.captioning.description import Description
from lcm.service import model_loader
from lcm.service.model_loader import ModelLoader
from tests.fakes.service_client import caption_body, question_body, service_in
from tests.fakes.tiny_graphs import use_tiny_encoder
from tests.fakes.tiny_versions import BROKEN, letters_of, reseal, save_version

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "truncated at 10 %": lambda data: data[: len(data) // 10],
    "truncated at 99 %": lambda data: data[: len(data) - 1 - len(data) // 100],
    "random": lambda data: os.urandom(len(data)),
    "one bit flipped": lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
}


class Running:
    """A service on a state folder, and the versions there."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder, self.encoder = folder, use_tiny_encoder(folder, monkeypatch)
        self.models = folder / "home" / "models"

    def start(self, **settings) -> None:
        """Start it, perhaps anew."""
        self.caller = service_in(self.folder, **settings)
        self.loader = self.caller.engine.models

    def bundle(self, letters: str) -> Path:
        folder = self.folder / f"bundle-{letters}"
        return folder if folder.exists() else save_version(folder, self.encoder, letters)

    def publish(self, *versions: str) -> None:
        """Make versions current, one after the other; each answers then, if the service runs."""
        for letters in versions:
            registry.publish(self.bundle(letters), "a test", make_current=True)
            if hasattr(self, "loader"):
                self.take_up()
                assert self.said() == letters

    def put_broken(self, letters: str, change: Callable[[Path], object]) -> Path:
        """Put a version there without publishing it, and make it current."""
        folder = Path(shutil.copytree(self.bundle(letters), self.models / f"tiny-{letters}"))
        change(folder)
        (self.models / "current").write_text(folder.name)
        self.take_up()
        return folder

    def take_up(self) -> None:
        """Look until what is there has stood still and was tried."""
        for _ in range(2):
            self.loader.look()

    def said(self) -> str:
        """Ask, and return the letters of the version that answered; its headers must say the same."""
        reply = self.caller.client.post("/learning-model", json=question_body())
        assert reply.status_code == 200, reply.text
        (letters,) = letters_of(reply.json["english_captions"], reply.json["tags"])
        assert reply.headers["X-LCM-Model"] == f"tiny-{letters}"
        return letters

    def health(self) -> dict:
        return self.caller.client.get("/healthz").json


@pytest.fixture
def service(tmp_path, monkeypatch) -> Running:
    """A service that is not started yet, without versions."""
    monkeypatch.setattr(ModelLoader, "start", ModelLoader.look)
    return Running(tmp_path, monkeypatch)


@pytest.fixture
def running(service) -> Running:
    """A service that answers from the current version "a"."""
    service.publish("a")
    service.start()
    return service


def errors(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


def assert_problem(service: Running, caplog, letters: str, told: str) -> None:
    """What is current now does not answer: told once, in one line, and by /healthz; another one does."""
    for _ in range(3):
        service.loader.look()
    assert service.said() == letters
    health = service.caller.send("GET", "/healthz")
    assert (health.status_code, health.json["model"]) == (200, f"tiny-{letters}")
    assert "cannot be loaded" in health.json["problem"]
    (line,) = errors(caplog)
    assert line.startswith(told)
    assert "\n" not in line


def assert_stays(service: Running, caplog, letters: str = "a") -> None:
    assert_problem(service, caplog, letters, f"tiny-{letters} stays: ")


def assert_not_ready(service: Running) -> None:
    reply = service.caller.post("/learning-model", question_body())
    assert reply.status_code == 503
    assert int(reply.headers["Retry-After"]) > 0
    assert "no model is loaded yet" in reply.json["error"]
    health = service.caller.send("GET", "/healthz")
    assert (health.status_code, health.json["ready"], health.json["model"]) == (503, False, None)
    assert service.caller.send("GET", "/").status_code == 200
    service.caller.answers("/caption", caption_body())


@pytest.mark.parametrize("by", ["LCM_BUNDLE", "current"])
def test_i01_ready_when_a_model_arrives(service, monkeypatch, by):
    folder = service.models / "tiny-a"
    if by == "current":  # where not even the shipped one is there: else that one would answer meanwhile
        monkeypatch.setattr("lcm.captioning.captioner.packaged_file", lambda _: service.folder / "nowhere")
        service.models.mkdir(parents=True)
        (service.models / "current").write_text(folder.name)
    service.start(bundle=str(folder) if by == "LCM_BUNDLE" else "")
    assert_not_ready(service)
    shutil.copytree(service.bundle("a"), folder)
    service.loader.look()
    assert service.said() == "a"
    reply = service.caller.post("/learning-model", question_body())
    assert re.fullmatch(r"[0-9a-f]{12}", reply.headers["X-LCM-Model-Version"])
    assert reply.headers["X-LCM-Source"] == "bundle"


def test_i02_copied_in_place_slowly(service, tmp_path):
    """A folder of its own (LCM_BUNDLE), over which another version is copied file by file, in halves."""
    folder = Path(shutil.copytree(service.bundle("a"), tmp_path / "pinned"))
    service.start(bundle=str(folder))
    for path in sorted(service.bundle("b").iterdir()):  # bundle.json first: it names files that are not there yet
        data = path.read_bytes()
        with (folder / path.name).open("wb") as file:
            for part in (data[: len(data) // 2], data[len(data) // 2 :]):
                assert service.said() == "a"
                file.write(part)
                file.flush()
                service.take_up()
    assert service.said() == "b"
    assert "problem" not in service.health()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["step.onnx", "vocabulary.txt"])
def test_i03_damaged_files(running, caplog, damage, name):
    running.put_broken("b", lambda folder: (folder / name).write_bytes(DAMAGES[damage]((folder / name).read_bytes())))
    assert_stays(running, caplog)


def test_i03_a_folder_is_tried_once_a_change_and_again_while_there_is_no_model(service, monkeypatch):
    tries, load = [], model_loader.load_tested
    monkeypatch.setattr(model_loader, "load_tested", lambda folder, *rest: tries.append(folder) or load(folder, *rest))
    folder = Path(shutil.copytree(service.bundle("a"), service.folder / "pinned"))
    (folder / "step.onnx").rename(folder / "elsewhere")
    service.start(bundle=str(folder))
    service.take_up()
    assert len(tries) == 1
    monkeypatch.setattr(model_loader, "RETRY_S", 0)
    service.loader.look()
    assert len(tries) == 2
    (folder / "elsewhere").rename(folder / "step.onnx")
    service.loader.look()
    assert service.said() == "a"
    (folder / "step.onnx").write_bytes(b"damaged")
    for _ in range(5):
        service.take_up()
    assert len(tries) == 4


@pytest.mark.parametrize("name", BROKEN)
def test_i04_what_loads_and_does_not_work(running, caplog, name):
    running.put_broken("b", BROKEN[name])
    assert_stays(running, caplog)
    running.publish("c")


@pytest.mark.parametrize("name", ["step.onnx", "vocabulary.txt", "tag_words.txt"])
def test_i05_files_of_two_versions(running, caplog, name):
    running.put_broken("b", lambda folder: shutil.copy(running.bundle("c") / name, folder))
    assert_stays(running, caplog)


def test_i05_files_replaced_while_they_are_loaded(running, monkeypatch):
    """The vocabulary is read, then the rest becomes another version's: nothing is ever answered with that."""
    load, replaced = model_loader.load_tested, []

    def load_slowly(folder, *options):
        captioner = load(folder, *options)
        if not replaced:
            replaced.append(captioner.name)
            for path in running.bundle("c").iterdir():
                shutil.copy(path, folder)
        return captioner

    registry.publish(running.bundle("b"), "a test", make_current=True)
    monkeypatch.setattr(model_loader, "load_tested", load_slowly)
    running.take_up()
    assert (replaced, running.said()) == (["tiny-b"], "a")
    running.take_up()
    assert running.said() == "c"


class Waiting:
    """A captioner that waits with its answer until it may continue."""

    tag_scorer, encoder, languages, runs_on = None, None, ("en",), "cpu"
    offered = languages

    def __init__(self, name: str):
        self.name, self.begun, self.may_continue = name, threading.Event(), threading.Event()

    def describe(self, *_):
        self.begun.set()
        self.may_continue.wait(60)
        return Description(f"a {self.name}", (f"a {self.name}",), (), self.name)


def test_i06_i07_a_request_keeps_the_model_it_began_with(service, monkeypatch):
    """The old one is gone with the last request that has it, without any help of the garbage collector."""
    old, new = Waiting("old"), Waiting("new")
    coming, is_old_there = [new, old], weakref.ref(old)
    monkeypatch.setattr(model_loader, "load_tested", lambda *_: coming.pop())
    service.publish("a")
    service.start()
    post = service.caller.client.post
    gc.disable()
    try:
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(post, "/learning-model", json=question_body())
            assert old.begun.wait(60)
            (service.models / "tiny-a" / "more").touch()
            service.take_up()
            new.may_continue.set()
            assert post("/learning-model", json=question_body()).json["captions"] == ["a new"]
            old.may_continue.set()
            assert asked.result().json["captions"] == ["a old"]
        del old, asked
        assert is_old_there() is None
    finally:
        gc.enable()


def test_i08_rollback(running, caplog):
    running.publish("b", "c")
    for letters in ("b", "a"):
        registry.rollback()
        running.take_up()
        assert running.said() == letters
    assert errors(caplog) == []


@pytest.mark.parametrize("is_gone", [False, True])
def test_i08_taken_back_while_it_is_loaded(running, caplog, monkeypatch, is_gone):
    """Published and rolled back within a second, its folder perhaps removed: one line, no error, no problem."""
    load = model_loader.load_tested

    def load_slowly(folder, *options):
        registry.rollback()
        if is_gone:
            shutil.rmtree(folder)
        return load(folder, *options)

    registry.publish(running.bundle("b"), "a test", make_current=True)
    caplog.clear()
    with monkeypatch.context() as patched:
        patched.setattr(model_loader, "load_tested", load_slowly)
        running.take_up()
    running.take_up()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", f"tiny-a stays: {model_loader.CHANGED}")
    ]
    assert running.said() == "a"
    assert "problem" not in running.health()


def test_i08_i09_rollback_after_the_active_folder_is_gone(running, caplog):
    running.publish("b")
    shutil.rmtree(running.models / "tiny-b")
    running.take_up()
    assert_stays(running, caplog, "b")
    registry.rollback()
    running.take_up()
    assert running.said() == "a"
    assert "problem" not in running.health()


def test_i08_back_to_the_shipped_model(running, monkeypatch):
    shipped = running.bundle("s")
    monkeypatch.setattr("lcm.captioning.captioner.packaged_file", lambda _: shipped)
    registry.promote("shipped")
    running.take_up()
    assert running.said() == "s"


@pytest.mark.parametrize("damage", ["damaged", "broken", "gone"])
def test_i08_started_with_a_current_version_that_does_not_work(running, caplog, damage):
    """The one before answers until the current one is repaired."""
    running.publish("b", "c")
    folder = running.models / "tiny-c"
    if damage == "broken":
        BROKEN["nan"](folder)
    elif damage == "damaged":
        (folder / "step.onnx").write_bytes(b"")
    else:
        shutil.rmtree(folder)
    running.start()
    assert_problem(running, caplog, "b", "tiny-b, an earlier version, answers: ")
    shutil.copytree(running.bundle("c"), folder, dirs_exist_ok=True)
    running.take_up()
    assert running.said() == "c"
    assert "problem" not in running.health()


def test_i08_started_with_every_version_damaged(running, caplog, monkeypatch):
    """The shipped one is the last to answer; without it there is none."""
    shipped = running.bundle("s")
    (running.models / "tiny-a" / "step.onnx").unlink()
    monkeypatch.setattr("lcm.captioning.captioner.packaged_file", lambda _: shipped)
    running.start()
    assert_problem(running, caplog, "s", "tiny-s, an earlier version, answers: ")
    caplog.clear()
    shutil.rmtree(shipped)
    running.start()
    assert_not_ready(running)
    assert [line[:10] for line in errors(caplog)] == ["no model: "]


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("name", ["bundle.json", "vocabulary.txt", "step.onnx", "tag_word_rows.npy", "model.pkl"])
def test_i10_pickles_are_refused(running, caplog, tmp_path, name):
    """Even sealed with its hash, nothing of a bundle is ever unpickled; a stray file beside its own is not read."""
    payload, is_stray = pickle.dumps(Payload(tmp_path / "touched")), name == "model.pkl"

    def change(folder: Path) -> None:
        (folder / name).write_bytes(payload)
        if name != "bundle.json":
            reseal(folder)

    running.put_broken("b", change)
    if is_stray:
        assert running.said() == "b"
    else:
        assert_stays(running, caplog)
    assert not (tmp_path / "touched").exists()
