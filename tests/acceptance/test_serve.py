"""The contract of the four routes, and how the parts of the service come together."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

import serve
from lcm.captioning.captioner import BundleCaptioner
from lcm.captioning.description import Description, PlattScaler
from lcm.cli import main
from lcm.errors import ConfigError, StoreBusyError, StoreDamagedError, StoreError, StoreFullError
from lcm.service.settings import Settings
from serve import create_app
from tests.acceptance.service_client import (
    TOKEN,
    Caller,
    MemoryStore,
    caption_body,
    make_tiny_bundle,
    png,
    question_body,
    settings_for,
    wait_until,
)

ROOT = Path(__file__).resolve().parents[2]


def test_hello(caller):
    reply = caller.send("GET", "/")
    assert reply.status_code == 200
    assert reply.text.startswith("Hello World")
    assert reply.mimetype == "text/plain"


def test_caption_keeps_the_pair(caller):
    reply = caller.post("/caption", caption_body(language="pt-BR"))
    assert (reply.status_code, reply.json) == (200, {"status": "success", "id": 1})
    assert caller.store.rows == [(png(), "a red square", "pt-br", "http")]
    assert reply.headers["X-LCM-Known"] == "false"


def test_learning_model_describes(caller):
    reply = caller.post("/learning-model", question_body())
    assert reply.status_code == 200
    assert reply.json["captions"] == ["a red square"]
    assert set(reply.json["english_captions"]) == {"a red square", "a square", "a red"}
    assert [word for word, _ in reply.json["tags"]] == ["red", "square"]
    assert reply.headers["X-LCM-Model"] == "tiny-1"
    assert reply.headers["X-LCM-Source"] == "given"
    assert "X-LCM-Confidence" not in reply.headers  # the bundle has no calibration


def test_confidence_is_in_a_header(service, tmp_path, monkeypatch):
    curve = PlattScaler(2.0, 1.0)
    captioner = BundleCaptioner(make_tiny_bundle(tmp_path, monkeypatch, calibration=curve.as_record()))
    for body in (question_body(), question_body(samples=0), question_body(labels=["zeppelin"])):
        reply = service(captioner).post("/learning-model", body)
        # "a red square" has 0.5, 0.4, 0.4 and, with END, 0.5.
        assert reply.headers["X-LCM-Confidence"] == f"{curve.confidence(math.log(0.04) / 4):.4f}" == "0.3522"


@pytest.mark.parametrize(("confidence", "said"), [(0.0, "0.0000"), (0.43217, "0.4322"), (1.0, "1.0000"), (None, None)])
def test_any_confidence_is_in_a_header_but_none(confidence, said, service):
    class Sure:
        name = "sure-1"

        def describe(self, *_):
            return Description("a dog", ("a dog",), (("dog", 1.0),), self.name, confidence)

    reply = service(Sure()).post("/learning-model", question_body())
    assert reply.headers.get("X-LCM-Confidence") == said


def test_samples_and_labels(caller):
    assert caller.answers("/learning-model", question_body(samples=0))["english_captions"] == ["a red square"]
    body = caller.answers("/learning-model", question_body(labels=["blue", " Red ", "red", "RED"]))
    assert [word for word, _ in body["tags"]][-1] == "blue"
    assert len(body["tags"]) == 2
    nothing = caller.post("/learning-model", question_body(labels=["zeppelin"]))
    assert nothing.json["tags"] == []


def test_model_name_is_safe_in_a_header(service):
    class Named:
        name = "müller\r\nSet-Cookie: a=b"

        def describe(self, *_):
            return Description("a dog", ("a dog",), (("dog", 1.0),), self.name)

    reply = service(Named()).post("/learning-model", question_body())
    assert reply.headers["X-LCM-Model"] == "m%C3%BCller%0D%0ASet-Cookie: a=b"


def test_health(service):
    state = service().send("GET", "/healthz")
    assert state.status_code == 200
    assert state.json.items() >= {"ready": True, "model": "tiny-1"}.items()
    assert state.json["uptime_s"] >= 0


def test_importing_serve_loads_nothing_heavy():
    heavy = {"tensorflow", "keras", "torch", "onnxruntime", "transformers", "sqlite3"}
    code = f"import sys, serve; sys.exit(', '.join({heavy!r} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StoreBusyError("database is locked: /var/lib/lcm/x.sqlite"), 503),
        (StoreError("[Errno 5] /var/lib/lcm"), 503),
        (StoreDamagedError("malformed /var/lib/lcm"), 503),
        (StoreFullError("No space left on device: '/var/lib/lcm/x.tmp'"), 507),
        (RuntimeError("/var/lib/lcm is odd"), 500),
        (OSError(28, "No space left", "/tmp/x"), 500),
    ],
    ids=lambda value: type(value).__name__,
)
def test_store_errors(service, error, status):
    caller = service(store=MemoryStore(error=error))
    reply = caller.post("/caption", caption_body())
    assert reply.status_code == status
    assert "/var" not in reply.text
    assert ("Retry-After" in reply.headers) == (status != 500)
    caller.store.error = None
    caller.answers("/caption", caption_body())


def test_settings_come_from_the_environment(monkeypatch, tmp_path, captioner):
    monkeypatch.setenv("LCM_HOME", str(tmp_path))
    monkeypatch.setenv("LCM_TOKEN", TOKEN)
    app = create_app(captioner=captioner, store=MemoryStore())
    assert app.extensions["lcm"].settings == Settings(home=tmp_path, token=TOKEN)
    assert app.test_client().post("/caption", json=caption_body()).status_code == 401


@pytest.mark.parametrize("code", [0, 1])
def test_the_serving_process_ends_without_waiting_for_threads(monkeypatch, code):
    """Python's own end aborts the process (exit code 134) when a thread is in native code, as while a model loads."""

    def run(make_app, settings):
        assert (make_app, settings.port) is not None
        raise SystemExit(code)

    ended = []
    monkeypatch.setattr("lcm.service.server.run", run)
    monkeypatch.setattr("os._exit", ended.append)
    serve.start(Settings())
    assert ended == [code]


def test_the_store_of_the_state_folder_and_its_mirror(tmp_path, captioner):
    """What the settings name is opened: the store in the state folder, and the copy of it elsewhere."""
    settings = settings_for(tmp_path, store_url=f"file://{tmp_path / 'copy'}")
    app = create_app(settings, captioner=captioner)
    caller = Caller(app, app.extensions["lcm"].store.contributions)
    caller.store.snapshot = lambda: list(caller.store.contributions())
    try:
        number = caller.answers("/caption", caption_body(language="de"))["id"]
        caller.refuses("/caption", caption_body(caption=""))
        assert caller.store.get(number).source == "http"
        assert caller.store.folder == tmp_path / "home" / "contributions"
        wait_until(lambda: list((tmp_path / "copy").rglob("*.png")), 3.0)  # the mirror looks by itself every 5 s
    finally:
        app.extensions["lcm"].close()


@pytest.mark.parametrize("name", ["a", "Z9", "ann.lee_2@example.org", "+49-30", "-", "x" * 64, "http"])
def test_a_contributor_is_kept_as_the_source(caller, name):
    caller.answers("/caption", caption_body(), headers={"X-LCM-Contributor": name})
    assert [row[3] for row in caller.store.rows] == [f"http:{name}"]


def test_without_a_contributor_the_source_is_http(caller):
    caller.answers("/caption", caption_body())
    assert [row[3] for row in caller.store.rows] == ["http"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "x" * 65,
        "x" * 30_000,
        "a b",
        "a,b",
        "a/b",
        "a:b",
        "a\tb",
        "a\n",
        "a\x1b[31m",
        "a\x00",
        "\xe9",
        "\u0660",
        "a%0a",
    ],
)
def test_other_names_of_contributors_are_refused_without_being_repeated(caller, caplog, name):
    sent = {"HTTP_X_LCM_CONTRIBUTOR": name.encode().decode("latin-1")}  # as a server gives it, even with controls
    message = caller.refuses("/caption", caption_body(), environ_overrides=sent)
    assert message.startswith("X-LCM-Contributor must be 1 to 64 characters")
    assert len(message) < 200
    assert len(name) < 2 or name not in message + caplog.text


def test_a_contributor_matters_to_captions_alone(caller):
    caller.answers("/learning-model", question_body(), headers={"X-LCM-Contributor": "a b"})


def test_a_contributor_is_no_token(service):
    caller = service(token=TOKEN)
    caller.refuses("/caption", caption_body(), 401, headers={"X-LCM-Contributor": "a b"})
    caller.answers("/caption", caption_body(), headers={"X-LCM-Contributor": "ann", "Authorization": f"Bearer {TOKEN}"})


def test_a_contributor_is_listed(on_disk, capsys):
    number = on_disk.answers("/caption", caption_body(caption="by ann"), headers={"X-LCM-Contributor": "ann"})["id"]
    assert main(["contributions", "--store", str(on_disk.store.folder), "list", "--json"]) == 0
    listed = {one["id"]: one["source"] for one in map(json.loads, capsys.readouterr().out.splitlines())}
    assert listed[number] == "http:ann"


@pytest.mark.parametrize(
    ("error", "changes"),
    [
        (ConfigError, {"store_url": "gopher://x"}),
        (StoreError, {"home": Path("/dev/null")}),
        (ConfigError, {"tagger": "clap"}),
    ],
)
def test_g13_what_cannot_work_stops_the_start(tmp_path, captioner, error, changes):
    with pytest.raises(error):
        create_app(settings_for(tmp_path, **changes), captioner=captioner)
