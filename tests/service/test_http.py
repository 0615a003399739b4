"""Section C of the acceptance list, HTTP and JSON; every refusal of rows C to F is in one table.

The case id leads each test's name. C15 to C18 are asked of the server and its proxy.
"""

import json
import logging
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from lcm.captioning.captioner import BundleCaptioner
from tests.fakes.image_files import Cost
from tests.fakes.odd_json import ODD_JSON
from tests.fakes.service_client import GOOD, ROUTES, TOKEN, body_for, caption_body, question_body
from tests.frozen.refusal_cases import requests

REFUSALS = json.loads((Path(__file__).resolve().parents[1] / "frozen" / "refusals.json").read_text(encoding="utf-8"))


def test_rows_c_to_f_are_refused_as_frozen(service, monkeypatch):
    """In these exact words, with section A's invariants; nothing is fetched, no process is started (I9, E21)."""
    callers, number = {"C24": service(token=TOKEN)}, {}
    usual = service()
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection was asked for"))
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a process was asked for"))
    for row, method, path, data, headers in requests():
        number[row, path] = number.get((row, path), 0) + 1
        name = f"{row}.{number[row, path]} {path}"
        caller = callers.get(row, usual)
        reply = caller.send(method, path, data=data, headers=headers, follow_up=number[row, path] == 1)
        assert [reply.status_code, reply.text] == REFUSALS[name], name
    assert len(REFUSALS) == sum(number.values())
    assert list(usual.store.contributions()) == []


@pytest.mark.parametrize("route", ROUTES)
def test_c04_c08_c09_what_is_taken(caller, route):
    for content_type in (
        "application/json; charset=utf-8",
        'APPLICATION/JSON;charset="UTF-8"',
        "application/json; x=y",
    ):
        caller.answers(route, body_for(route), content_type=content_type)
    caller.answers(route, body_for(route), headers={"Content-Encoding": "identity"})
    for extra in ({"__proto__": {"image": "x"}}, {"": "", "Image": 7}, {f"key{n}": n for n in range(10_000)}):
        caller.answers(route, body_for(route) | extra)
    last_one_counts = json.dumps({"image": "b@d!"})[:-1] + "," + json.dumps(body_for(route))[1:]
    caller.answers(route, last_one_counts.encode())


@pytest.mark.parametrize("route", ROUTES)
def test_c11_many_parts_are_refused_before_they_become_objects(caller, route):
    with Cost() as cost:
        assert "brackets and commas" in caller.refuses(route, b'{"x":[' + b"[]," * 8_000_000 + b"0]}")
    assert cost.megabytes < 200, "as objects they would take over 300"


def test_c13_text_beyond_ascii_is_read(caller):
    caller.answers("/caption", json.dumps(caption_body(caption="ein rötlicher Hund 🐕"), ensure_ascii=False).encode())
    assert [one.caption for one in caller.store.contributions()] == ["ein rötlicher Hund 🐕"]


@pytest.mark.parametrize("route", ROUTES)
def test_c14_a_parser_test_suite(caller, route):
    assert len(ODD_JSON) >= 250
    for place, document in enumerate(ODD_JSON):
        reply = caller.post(route, document, follow_up=place % 50 == 0)
        assert reply.status_code == 400, f"{document[:80]}: {reply.text}"


@pytest.mark.parametrize("route", ROUTES)
def test_i7_the_memory_of_one_bad_request(caller, route):
    """The worst there is: 31 MB in which one sign makes Python hold each character in four bytes."""
    body = json.dumps(body_for(route, image="A" * (31 << 20), extra="🐕"), ensure_ascii=False).encode()
    with Cost() as cost:
        assert caller.client.post(route, data=body, content_type="application/json").status_code == 413
    assert cost.megabytes < 300
    assert cost.seconds < 2


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "TRACE", "FOO"])
def test_c20_a_wrong_method_is_told_the_right_ones(caller, method):
    for route in ROUTES:
        reply = caller.send(method, route, json=body_for(route))
        assert reply.status_code == 405
        assert set(reply.headers["Allow"].split(", ")) == {"OPTIONS", "POST"}


@pytest.mark.parametrize(
    "path",
    [
        *("/caption/", "//caption", "/caption%00", "/..%2f..%2fetc/passwd", "/" + "a" * 8000, "/%ff%fe", "/static/x"),
        *("/console", "/caption;x", "/caption%0d%0aSet-Cookie:a=b", "/<script>"),
    ],
)
def test_c21_c26_unknown_paths(caller, path):
    raw = {"PATH_INFO": unquote(path, "latin-1")}  # as a server gives it; the test client would take //x for a host
    for method in ("GET", "POST", "OPTIONS"):
        reply = caller.send(method, "/x", environ_overrides=raw)
        assert reply.status_code == 404
        assert "choose from GET /" in reply.json["error"]


def test_c22_head_and_options(caller):
    head = caller.send("HEAD", "/")
    assert (head.status_code, head.data) == (200, b"")
    for route in (*ROUTES, "/", "/healthz"):
        reply = caller.send("OPTIONS", route, headers={"Origin": "https://a.example"})
        assert (reply.status_code, reply.data) == (204, b"")
        assert "Access-Control" not in str(reply.headers)


def test_c22_origins_that_are_named(service):
    caller = service(origins=("https://photos.example", "http://localhost:3000"), token=TOKEN)
    asked = {"Origin": "https://photos.example", "Access-Control-Request-Method": "POST"}
    reply = caller.client.open("/caption", method="OPTIONS", headers=asked)
    assert reply.status_code == 204
    assert reply.headers["Access-Control-Allow-Origin"] == "https://photos.example"
    assert "POST" in reply.headers["Access-Control-Allow-Methods"]
    assert reply.headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type, X-LCM-Contributor"
    assert "Access-Control-Allow-Credentials" not in reply.headers
    for status, headers in ((200, {"Authorization": f"Bearer {TOKEN}"}), (401, {})):
        reply = caller.post("/caption", caption_body(), headers=headers | {"Origin": "http://localhost:3000"})
        assert reply.status_code == status
        assert reply.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
        assert "X-LCM-Known" in reply.headers["Access-Control-Expose-Headers"]
    for origin in ("https://photos.example.evil", "null", "http://photos.example", "*"):
        reply = caller.send("OPTIONS", "/caption", headers=asked | {"Origin": origin})
        assert "Access-Control" not in str(reply.headers)
        assert "Origin" in reply.headers["Vary"]


def test_c23_odd_headers_have_no_effect(caller):
    headers = {"Host": "evil.example", "X-Forwarded-For": "<script>", "X-Request-Id": "\x1b", "Cookie": "a=b"}
    headers |= {f"X-{n}": "x" for n in range(200)}
    for route in ROUTES:
        reply = caller.post(route, body_for(route), headers=headers)
        assert reply.status_code == 200
        assert "evil" not in str(reply.headers)


BAD_TOKENS = {
    "none": None,
    "wrong": "Bearer wrong",
    "longer": f"Bearer {TOKEN}x",
    "basic": f"Basic {TOKEN}",
    "beyond-ascii": "Bearer \xe9\xff",
    "beyond-latin": "Bearer \u20ac",
    "1-mb": "Bearer " + "x" * (1 << 20),
}


@pytest.mark.parametrize("name", BAD_TOKENS)
def test_c24_bad_tokens(service, name):
    caller = service(token=TOKEN)
    header = {} if BAD_TOKENS[name] is None else {"HTTP_AUTHORIZATION": BAD_TOKENS[name]}
    reply = caller.post("/caption", caption_body(), environ_overrides=header)
    assert reply.status_code == 401
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert TOKEN not in reply.text + str(reply.headers)
    assert caller.post("/learning-model", question_body(), environ_overrides=header).status_code == 200


def test_c24_the_right_token(service):
    caller = service(token=TOKEN, token_for_learning=True)
    for header in (f"Bearer {TOKEN}", f"bearer  {TOKEN} "):
        for route in ROUTES:
            caller.answers(route, body_for(route), headers={"Authorization": header})
    assert caller.post("/learning-model", question_body(), follow_up=False).status_code == 401
    assert caller.client.get("/healthz").status_code == 200


def test_c25_i10_one_line_a_request_with_nothing_raw(service, caplog):
    caller = service(token=TOKEN)
    caplog.set_level(logging.DEBUG)
    caption = "secret-caption \u202e"
    caller.send("POST", f"/caption?token={TOKEN}&x=%0d%0aINJECTED", json=caption_body(caption=caption))
    headers = {"Authorization": f"Bearer {TOKEN}", "User-Agent": "evil\x1b[31m", "X-Request-Id": "forged"}
    caller.send("POST", "/caption", json=caption_body(caption=caption), headers=headers, follow_up=False)
    caller.send("POST", "/caption", json=caption_body(caption="secret " * 999), headers=headers, follow_up=False)
    caller.send("POST", "/caption", json=caption_body(image="S3CR3T!"), headers=headers, follow_up=False)
    caller.send("GET", "/s3cr3t-path%0aINJECTED", follow_up=False)
    caller.send("GET\x1b[31m", "/caption", follow_up=False)
    lines = [record.getMessage() for record in caplog.records if record.name == "lcm.service"]
    assert len(lines) == 8, "six, and two that follow the first"
    pattern = r"[0-9a-f]{16} [A-Z]+(\\x1b\[31M)? (/[a-z-]*|\(no such route\)) \d{3} [\d.]+ ms.{,150}"
    for line in lines:
        assert re.fullmatch(pattern, line), line
        assert not re.search("secret|s3cr3t|evil|forged|INJECTED|token=", line, re.IGNORECASE)
        assert TOKEN not in line
        assert GOOD[:20] not in line


def test_c26_debug_mode_cannot_be_switched_on(service, monkeypatch):
    monkeypatch.setenv("FLASK_DEBUG", "1")
    caller = service()
    assert not caller.app.debug
    caller.app.testing = True
    monkeypatch.setattr(BundleCaptioner, "describe", lambda *_: 1 / 0)
    assert caller.post("/learning-model", question_body(), follow_up=False).status_code == 500
