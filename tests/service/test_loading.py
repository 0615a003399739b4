"""Section I of the acceptance list, loading and inference: I01, I09, I10, I15, and G03 as far as it needs no socket.

The case id leads each test's name.
"""

import json
import os
import pickle
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lcm.captioning.captioner import BundleCaptioner
from lcm.captioning.description import Description
from lcm.errors import DataError
from lcm.features.encoders import file_sha256
from lcm.service import model_loader
from serve import create_app
from tests.fakes.service_client import (
    Caller,
    MemoryStore,
    caption_body,
    make_tiny_bundle,
    question_body,
    settings_for,
    wait_until,
)


@pytest.fixture
def from_folder(tmp_path, monkeypatch):
    """Make a service that loads its model from a folder, with the tiny encoder at hand; stopped at the end."""
    monkeypatch.setattr(model_loader, "POLL_S", 0.02)
    made = []
    bundle = make_tiny_bundle(tmp_path, monkeypatch, "made")

    def make(**changes) -> tuple[Caller, Path]:
        store = MemoryStore()
        app = create_app(settings_for(tmp_path, **changes), store=store)
        made.append(app)
        return Caller(app, store), bundle

    yield make
    for app in made:
        app.extensions["lcm"].models.stop()


def assert_not_ready(caller: Caller) -> None:
    reply = caller.post("/learning-model", question_body())
    assert reply.status_code == 503
    assert int(reply.headers["Retry-After"]) > 0
    assert "no model is loaded yet" in reply.json["error"]
    health = caller.send("GET", "/healthz")
    assert (health.status_code, health.json["ready"], health.json["model"]) == (503, False, None)
    assert caller.send("GET", "/").status_code == 200
    caller.answers("/caption", caption_body())


def test_i01_ready_when_a_model_arrives(from_folder, tmp_path):
    caller, bundle = from_folder(bundle=str(tmp_path / "later"))
    assert_not_ready(caller)
    bundle.rename(tmp_path / "later")
    wait_until(lambda: caller.client.get("/healthz").status_code == 200)
    reply = caller.post("/learning-model", question_body())
    assert reply.json["captions"] == ["a red square"]
    assert re.fullmatch(r"[0-9a-f]{12}", reply.headers["X-LCM-Model-Version"])
    assert reply.headers["X-LCM-Source"] == "bundle"


def test_i01_model_named_by_current(from_folder, tmp_path, monkeypatch):
    """Where not even the shipped one is there: else that one would answer meanwhile."""
    monkeypatch.setattr("lcm.captioning.captioner.packaged_file", lambda _: tmp_path / "nowhere")
    models = tmp_path / "home" / "models"
    models.mkdir(parents=True)
    (models / "current").symlink_to(models / "v2")
    caller, bundle = from_folder()
    assert_not_ready(caller)
    shutil.move(bundle, models / "v2")
    wait_until(lambda: caller.client.get("/healthz").status_code == 200)


def test_i04_a_model_is_tried_out_before_it_answers(from_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(BundleCaptioner, "describe", lambda *_: Description("a", ("a",), (("a", float("nan")),), "m"))
    caller, _ = from_folder(bundle=str(make_tiny_bundle_again(tmp_path)))
    assert_not_ready(caller)


def test_i09_keeps_serving_when_its_folder_vanishes(from_folder, tmp_path):
    bundle = make_tiny_bundle_again(tmp_path)
    caller, _ = from_folder(bundle=str(bundle))
    expected = caller.answers("/learning-model", question_body(labels=["red", "blue"]))
    shutil.rmtree(bundle)
    time.sleep(0.1)
    assert caller.answers("/learning-model", question_body(labels=["red", "blue"])) == expected
    assert caller.send("GET", "/healthz").status_code == 200


def make_tiny_bundle_again(folder: Path) -> Path:
    """A copy of the bundle that `from_folder` made."""
    return Path(shutil.copytree(folder / "made", folder / "copy"))


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize(
    "name", ["bundle.json", "vocabulary.txt", "step.onnx", "tag_vectors.npy", "model.pkl", "model.pt"]
)
def test_i10_pickles_are_refused(from_folder, tmp_path, name):
    """Even sealed with its hash, nothing of a bundle is ever unpickled."""
    bundle, touched = make_tiny_bundle_again(tmp_path), tmp_path / "touched"
    payload = pickle.dumps(Payload(touched))
    (bundle / name).write_bytes(payload)
    if name not in ("bundle.json", "model.pkl", "model.pt"):
        reseal(bundle, name)
    caller, _ = from_folder(bundle=str(bundle))
    if name.startswith("model."):
        assert (
            caller.send("GET", "/healthz").status_code == 200
        )  # a stray file beside the bundle's own is not looked at
    else:
        assert_not_ready(caller)
    assert not touched.exists()


def reseal(bundle: Path, name: str) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["files"][name] = file_sha256(bundle / name)
    (bundle / "bundle.json").write_text(json.dumps(manifest))


class Odd:
    """A captioner that does what it is told to."""

    name = "odd-1"

    def __init__(self, act):
        self.act = act

    def describe(self, *_):
        return self.act()


GOOD_DESCRIPTION = Description("a dog", ("a dog", "a cat"), (("dog", 0.75), ("cat", 0.25)), "odd-1")


def description(**changes) -> Description:
    return replace(GOOD_DESCRIPTION, **changes)


BROKEN = {
    "nan": description(tags=(("dog", float("nan")),)),
    "infinite": description(tags=(("dog", float("inf")),)),
    "negative": description(tags=(("dog", 1.5), ("cat", -0.5))),
    "sum": description(tags=(("dog", 0.5), ("cat", 0.4))),
    "no-captions": description(english_captions=()),
}


@pytest.mark.parametrize("name", BROKEN)
def test_i15_a_broken_answer_never_leaves(service, name):
    odd = Odd(lambda: BROKEN[name])
    caller = service(odd)
    message = caller.refuses("/learning-model", question_body(), 500, follow_up=False)
    assert "something went wrong in the service" in message
    odd.act = lambda: GOOD_DESCRIPTION
    caller.answers("/learning-model", question_body())


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("s3cr3t /work"),
        MemoryError(),
        KeyError("s3cr3t"),
        RecursionError(),
        DataError("/x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_i15_inference_raises(service, error, caplog):
    def trip():
        raise error

    odd = Odd(trip)
    caller = service(odd, predictions=1, queue=0)
    for _ in range(3):
        reply = caller.post("/learning-model", question_body(), follow_up=False)
        assert reply.status_code == 500
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert reply.headers["X-LCM-Request-Id"] in text
    assert "s3cr3t" not in text
    renamed = {"DataError": "BrokenAnswerError"}
    assert renamed.get(type(error).__name__, type(error).__name__) in text
    assert "in trip" in text or isinstance(error, DataError), "the traceback says where"
    odd.act = lambda: GOOD_DESCRIPTION
    caller.answers("/learning-model", question_body())
