"""The contract of the four routes, and how the parts of the service come together."""

import itertools
import math
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lcm.captioning.captioner import BundleCaptioner
from lcm.captioning.description import Description, PlattScaler
from lcm.errors import ConfigError, DataError, StoreBusyError, StoreDamagedError, StoreError, StoreFullError
from lcm.service.engine import BoundedWork
from lcm.service.schemas import CONTRIBUTOR, RefusedError
from serve import create_app
from tests.fakes.service_client import (
    ROUTES,
    TOKEN,
    DiskStore,
    body_for,
    caption_body,
    make_tiny_bundle,
    png,
    question_body,
    settings_for,
    wait_until,
)
from tests.fakes.tiny_graphs import PROBABLE

ROOT = Path(__file__).resolve().parents[2]
RULE = "choose scores from share, probability, and for probabilities alone a min_score from 0 to 1"


def test_hello(caller):
    reply = caller.send("GET", "/")
    assert reply.status_code == 200
    assert reply.text.startswith("Hello World")
    assert reply.mimetype == "text/plain"


def test_caption_keeps_the_pair(caller):
    reply = caller.post("/caption", caption_body(language="pt-BR"))
    assert (reply.status_code, reply.json) == (200, {"status": "success", "id": 1})
    (kept,) = caller.store.contributions()
    assert (kept.caption, kept.language, kept.source) == ("a red square", "pt-br", "http")
    assert caller.store.read_image(kept) == png()
    assert reply.headers["X-LCM-Known"] == "false"


def test_learning_model_describes(caller):
    reply = caller.post("/learning-model", question_body())
    assert reply.status_code == 200
    assert reply.json["captions"] == ["a red square"]
    assert set(reply.json["english_captions"]) == {"a red square", "a square", "a red"}
    assert [word for word, _ in reply.json["tags"]] == ["red", "square"]
    assert reply.headers["X-LCM-Model"] == "tiny-1"
    assert reply.headers["X-LCM-Source"] == "bundle"
    assert "X-LCM-Confidence" not in reply.headers  # the bundle has no calibration


def test_confidence_is_in_a_header(service, tmp_path, monkeypatch):
    curve = PlattScaler(2.0, 1.0)
    captioner = BundleCaptioner(make_tiny_bundle(tmp_path, monkeypatch, calibration=asdict(curve)))
    for body in (question_body(), question_body(samples=0), question_body(labels=["zeppelin"])):
        reply = service(captioner).post("/learning-model", body)
        # "a red square" has 0.5, 0.4, 0.4 and, with END, 0.5.
        assert reply.headers["X-LCM-Confidence"] == f"{curve.confidence(math.log(0.04) / 4):.4f}" == "0.3522"


def test_probabilities_where_they_are_asked_for_and_there_are_any(service, tmp_path, monkeypatch):
    asked = question_body(scores="probability")
    refused = service().refuses("/learning-model", asked, 400)
    assert refused.startswith("this model has no probabilities of tags; leave scores out")
    caller = service(BundleCaptioner(make_tiny_bundle(tmp_path, monkeypatch, "probable", tagger=PROBABLE)))
    # Cosines of 1 and 0 at a scale of ln 4: see CURVES.
    assert caller.answers("/learning-model", asked)["tags"] == [["red", pytest.approx(0.8)], ["square", 0.5]]
    assert caller.answers("/learning-model", asked | {"min_score": 1})["tags"] == []
    assert sum(score for _, score in caller.answers("/learning-model", question_body())["tags"]) == pytest.approx(1)
    shares = caller.refuses("/learning-model", question_body(min_score=0.5), 400)
    assert shares == f"scores is 'share' and min_score 0.5; {RULE}"


def test_model_name_is_safe_in_a_header(service):
    odd = Odd(lambda: replace(GOOD_DESCRIPTION, model="müller\r\nSet-Cookie: a=b"))
    reply = service(odd).post("/learning-model", question_body())
    assert reply.headers["X-LCM-Model"] == "m%C3%BCller%0D%0ASet-Cookie: a=b"


def test_health(service):
    state = service().send("GET", "/healthz")
    assert state.status_code == 200
    assert state.json.items() >= {"ready": True, "model": "tiny-1", "languages": ["en"]}.items()
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
def test_store_errors(caller, error, status, monkeypatch):
    def fail(*_):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(DiskStore, "add", fail)
        reply = caller.post("/caption", caption_body())
    assert reply.status_code == status
    assert "/var" not in reply.text
    assert ("Retry-After" in reply.headers) == (status != 500)
    caller.answers("/caption", caption_body())


def test_the_store_of_the_state_folder_and_its_mirror(tmp_path, captioner):
    """What the settings name is opened: the store in the state folder, and the copy of it elsewhere."""
    settings = settings_for(tmp_path, store_url=f"file://{tmp_path / 'copy'}")
    app = create_app(settings, captioner=captioner)
    try:
        assert app.extensions["lcm"].store.folder == tmp_path / "home" / "contributions"
        assert app.test_client().post("/caption", json=caption_body(language="de")).status_code == 200
        wait_until(lambda: list((tmp_path / "copy").rglob("*.png")), 3.0)  # the mirror looks by itself every 5 s
    finally:
        app.extensions["lcm"].close()


@pytest.mark.parametrize(
    ("header", "field", "name"),
    [
        *((name, None, name) for name in ("Ann Lee", "+49-30 100%")),
        ("UTF-8''%C3%89va%20%C5%81uk", None, "Éva Łuk"),
        ("utf-8'zh-Hant'%e6%9d%8e", None, "李"),
        ("UTF-8''E%CC%81va%20O'Brien", None, "Éva O'Brien"),  # decomposed; what encodeURIComponent leaves
        (None, " E\u0301va  Łuk ", "Éva Łuk"),
        ("ann", "Éva", "ann"),
        *((header, " ", "") for header in (" ", "UTF-8''")),
        ("UTF-8''%20", "Éva", "Éva"),
    ],
)
def test_a_contributor_is_kept_as_the_source(caller, header, field, name):
    headers = {CONTRIBUTOR: header} if header else {}
    number = caller.answers("/caption", caption_body(contributor=field), headers=headers)["id"]
    kept = caller.store.get(number)
    assert (kept.source, kept.contributor) == (f"http:{name}" if name else "http", name)


REFUSED_NAMES = {
    "1 to 64 are kept: shorten it": ["x" * 30_000, "UTF-8''" + "%C3%89" * 65],
    "such as UTF-8''%C3%89va": ["\xe9", "UTF-8''%E9va", "UTF-8'\xe9'a", "UTF-8'a"],
}


@pytest.mark.parametrize(("name", "words"), [(name, words) for words, names in REFUSED_NAMES.items() for name in names])
def test_other_names_of_contributors_are_refused_without_being_repeated(caller, caplog, name, words):
    sent = {"HTTP_X_LCM_CONTRIBUTOR": name.encode().decode("latin-1")}  # as a server gives it, even with controls
    message = caller.refuses("/caption", caption_body(), environ_overrides=sent)
    assert words in message
    assert len(message) < 200
    assert len(name) < 2 or name not in message + caplog.text


def test_a_contributor_in_the_body_is_a_name(caller):
    assert "must be text; it is a number" in caller.refuses("/caption", caption_body(contributor=5))
    number = caller.answers("/caption", caption_body(contributor="a\x1b[31m\nb"))["id"]
    assert caller.store.get(number).contributor == "a[31m b"


def test_a_contributor_is_no_token(service):
    caller = service(token=TOKEN)
    caller.refuses("/caption", caption_body(), 401, headers={CONTRIBUTOR: "\xe9"})
    caller.answers("/caption", caption_body(), headers={CONTRIBUTOR: "ann", "Authorization": f"Bearer {TOKEN}"})


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


GOOD_DESCRIPTION = Description("a dog", ("a dog", "a cat"), (("dog", 0.75), ("cat", 0.25)), "odd-1")


class Odd:
    """A captioner that does what it is told to."""

    name, languages, tag_scorer, encoder, runs_on = "odd-1", ("en",), None, None, ""
    offered = languages

    def __init__(self, act=lambda: GOOD_DESCRIPTION):
        self.act = act

    def describe(self, *_):
        return self.act()


BROKEN = {
    "nan": {"tags": (("dog", float("nan")),)},
    "sum": {"tags": (("dog", 0.5), ("cat", 0.4))},
    "no-captions": {"english_captions": ()},
}


@pytest.mark.parametrize("name", BROKEN)
def test_i15_a_broken_answer_never_leaves(service, name):
    odd = Odd(lambda: replace(GOOD_DESCRIPTION, **BROKEN[name]))
    caller = service(odd)
    message = caller.refuses("/learning-model", question_body(), 500, follow_up=False)
    assert "something went wrong in the service" in message
    odd.act = lambda: GOOD_DESCRIPTION
    caller.answers("/learning-model", question_body())


@pytest.mark.parametrize("error", [RuntimeError("s3cr3t /work"), MemoryError(), KeyError("s3cr3t"), DataError("/x")])
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
    assert " ms /x" in text or (type(error).__name__ in text and "in trip" in text)
    odd.act = lambda: GOOD_DESCRIPTION
    caller.answers("/learning-model", question_body())


@pytest.mark.parametrize("route", ROUTES)
def test_g03_g04_more_than_can_wait_is_refused_at_once(service, route, monkeypatch):
    """Each route has its own places: the other one is answered meanwhile."""
    may_continue, add = threading.Event(), DiskStore.add
    odd = Odd(lambda: GOOD_DESCRIPTION if may_continue.wait(60) else None)
    if route == "/caption":
        monkeypatch.setattr(DiskStore, "add", lambda *one: add(*one) if may_continue.wait(60) else None)
    caller = service(odd, predictions=2, queue=1)
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(caller.client.post, route, json=body_for(route)) for _ in range(5)]
        refused = [one.result() for one in itertools.islice(as_completed(asked, 60), 2)]
        assert [(one.status_code, one.headers["Retry-After"]) for one in refused] == [(429, "1")] * 2
        assert caller.client.get("/healthz").status_code == 200
        if route == "/learning-model":
            caller.answers("/caption", caption_body(), follow_up=False)
        may_continue.set()
        assert sorted(one.result().status_code for one in asked) == [200] * 3 + [429] * 2
    caller.answers(route, body_for(route))


def test_i15_inference_that_hangs_costs_one_place(service):
    may_continue = threading.Event()
    odd = Odd(lambda: may_continue.wait(60))
    caller = service(odd, predictions=2, queue=0, time_limit_s=0.2)
    assert caller.post("/learning-model", question_body(), follow_up=False).status_code == 504
    odd.act = lambda: GOOD_DESCRIPTION
    caller.answers("/learning-model", question_body())
    may_continue.set()


def test_i15_what_waits_too_long_is_never_begun():
    work, may_end = BoundedWork(1, 1, 0.2), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(work.run, may_end.wait, to_the_end=True)
        wait_until(first.running)
        with pytest.raises(RefusedError, match="had no time for this request"):
            work.run(lambda: pytest.fail("it began"))
        may_end.set()
        assert first.result()
    assert work.run(lambda: 7) == 7
