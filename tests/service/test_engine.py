"""The contract of the four routes, and how the parts of the service come together."""

import itertools
import math
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pytest

from lcm.captioning.captioner import BundleCaptioner
from lcm.captioning.description import Description, PlattScaler
from lcm.errors import ConfigError, StoreBusyError, StoreDamagedError, StoreError, StoreFullError
from lcm.service.engine import BoundedWork
from lcm.service.schemas import WaitedTooLongError
from serve import create_app
from tests.fakes.service_client import (
    ROUTES,
    TOKEN,
    Caller,
    MemoryStore,
    body_for,
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
    heavy = {"tensorflow", "keras", "torch", "onnxruntime", "transformers"}
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


def test_the_store_of_the_state_folder_and_its_mirror(tmp_path, captioner):
    """What the settings name is opened: the store in the state folder, and the copy of it elsewhere."""
    settings = settings_for(tmp_path, store_url=f"file://{tmp_path / 'copy'}")
    app = create_app(settings, captioner=captioner)
    caller = Caller(app, app.extensions["lcm"].store)
    caller.store.snapshot = caller.store.state
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


def test_a_contributor_is_no_token(service):
    caller = service(token=TOKEN)
    caller.refuses("/caption", caption_body(), 401, headers={"X-LCM-Contributor": "a b"})
    caller.answers("/caption", caption_body(), headers={"X-LCM-Contributor": "ann", "Authorization": f"Bearer {TOKEN}"})


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


GOOD_DESCRIPTION = Description("a dog", ("a dog",), (("dog", 1.0),), "waiting-1")


class Waiting:
    """A captioner, and a store, that wait until they may continue."""

    name = "waiting-1"

    def __init__(self):
        self.may_continue = threading.Event()

    def wait(self) -> None:
        assert self.may_continue.wait(60)

    def describe(self, *_) -> Description:
        self.wait()
        return GOOD_DESCRIPTION


class WaitingStore(MemoryStore):
    """A store that waits with what the captioner waits for."""

    waiting: Waiting

    def add(self, *arguments, **options):
        self.waiting.wait()
        return super().add(*arguments, **options)


@pytest.mark.parametrize("route", ROUTES)
def test_g03_g04_more_than_can_wait_is_refused_at_once(service, route):
    """Each route has its own places: the other one is answered meanwhile."""
    waiting, store = Waiting(), WaitingStore()
    store.waiting = waiting
    caller = service(waiting, store if route == "/caption" else None, predictions=2, queue=1)
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(caller.client.post, route, json=body_for(route)) for _ in range(5)]
        refused = [one.result() for one in itertools.islice(as_completed(asked, 60), 2)]
        assert [(one.status_code, one.headers["Retry-After"]) for one in refused] == [(429, "1")] * 2
        assert caller.client.get("/healthz").status_code == 200
        if route == "/learning-model":
            caller.answers("/caption", caption_body(), follow_up=False)
        waiting.may_continue.set()
        assert sorted(one.result().status_code for one in asked) == [200] * 3 + [429] * 2
    caller.answers(route, body_for(route))


def test_i15_inference_that_hangs_costs_one_place(service):
    waiting = Waiting()
    caller = service(waiting, predictions=2, queue=0, time_limit_s=0.2)
    assert caller.post("/learning-model", question_body(), follow_up=False).status_code == 504
    waiting.describe = lambda *_: GOOD_DESCRIPTION
    caller.answers("/learning-model", question_body())
    waiting.may_continue.set()


def test_i15_what_waits_too_long_is_never_begun():
    work, may_end = BoundedWork(1, 1, 0.2), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(work.run, may_end.wait, to_the_end=True)
        wait_until(first.running)
        with pytest.raises(WaitedTooLongError):
            work.run(lambda: pytest.fail("it began"))
        may_end.set()
        assert first.result()
    assert work.run(lambda: 7) == 7
