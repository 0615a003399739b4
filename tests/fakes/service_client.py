"""A client of the service that holds every reply to section A of the acceptance list, and what it talks to.

The store is the real one; the captioner is the tiny one of tiny_graphs.py.
"""

import base64
import io
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from PIL import Image
from werkzeug.test import TestResponse

from lcm.contributions.store import ContributionStore
from lcm.service.settings import Settings
from serve import create_app
from tests.fakes.service_process import wait_until as wait_until
from tests.fakes.tiny_graphs import TAGGER, save_bundle, save_step, use_tiny_encoder, varied_table

TOKEN = "correct-horse-battery-staple"
ROUTES = ("/caption", "/learning-model")
LEAKS = re.compile(
    r"0x[0-9a-f]{4,}|Traceback|[^a-z](usr|tmp|home|work|root|etc)/|site-packages|\.py\b|Werkzeug|Flask|Pillow|PIL\b|"
    r"BytesIO|onnx|numpy|SQL|sqlite|Python|Errno|Error\b|Exception|LCM_",
)


def png(colour: str = "red", size: tuple[int, int] = (40, 24)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


GOOD = text_of(png())


def caption_body(**changes: Any) -> dict[str, Any]:
    """Return what POST /caption takes; None takes a key out."""
    body = {"image": GOOD, "caption": "a red square", "fileType": "png"} | changes
    return {key: value for key, value in body.items() if value is not None}


def question_body(**changes: Any) -> dict[str, Any]:
    return {"image": GOOD} | changes


def body_for(route: str, **changes: Any) -> dict[str, Any]:
    return caption_body(**changes) if route == "/caption" else question_body(**changes)


class DiskStore(ContributionStore):
    """The real store, whose whole content can be compared."""

    def snapshot(self) -> list:
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return [*self.contributions(), *((path.relative_to(self.folder), path.stat().st_size) for path in files)]


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not strict JSON")


class Caller:
    """Sends requests to an app; what comes back is checked, whatever it is."""

    def __init__(self, app: Flask):
        self.app, self.client = app, app.test_client()
        self.engine = app.extensions["lcm"]
        self.store: DiskStore = self.engine.store

    def send(self, method: str, path: str, follow_up: bool = True, **options: Any) -> TestResponse:
        """Send a request as it is; a good one after it must be answered."""
        before = self.store.snapshot()
        reply = self.client.open(path, method=method, **options)
        if not 200 <= reply.status_code < 300:
            assert self.store.snapshot() == before, "I3: nothing is stored when the answer is no success"
        self.check(reply, method, '"probability"' not in str(options.get("data")))
        if follow_up:
            assert self.client.get("/").status_code == 200, "I6"
            if self.engine.models.model:
                again = self.client.post("/learning-model", json=question_body(samples=0), **self._with(options))
                assert again.status_code == 200, f"I6: {again.text}"
        return reply

    def post(self, route: str, body: Any, **options: Any) -> TestResponse:
        """Post JSON, or bytes that pretend to be."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send("POST", route, data=data, **{"content_type": "application/json"} | options)

    def answers(self, route: str, body: Any, status: int = 200, **options: Any) -> Any:
        """Post and return what the reply's JSON holds; its status must be `status`."""
        reply = self.post(route, body, **options)
        assert reply.status_code == status, f"{reply.status_code}: {reply.text[:300]}"
        return self.json(reply)

    def refuses(self, route: str, body: Any, status: int = 400, **options: Any) -> str:
        """Post and return the message with which the service refuses."""
        return self.answers(route, body, status, **options)["error"]

    @staticmethod
    def json(reply: TestResponse) -> Any:
        return json.loads(reply.text, parse_constant=refuse_constant)

    @staticmethod
    def _with(options: Mapping[str, Any]) -> dict[str, Any]:
        headers = dict(options.get("headers") or {})
        return {"headers": {"Authorization": headers["Authorization"]}} if "Authorization" in headers else {}

    def check(self, reply: TestResponse, method: str, is_share: bool) -> None:
        """Section A: one shape, strict JSON, nothing that tells of the inside."""
        assert reply.status_code < 500 or reply.status_code in (500, 503, 504, 507)
        shown = f"{reply.text}\n{reply.headers}"
        assert not (leak := LEAKS.search(shown)), f"I2: {leak}: {shown[:500]}"
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["Cache-Control"] == "no-store"
        assert re.fullmatch(r"[0-9a-f]{16}", reply.headers["X-LCM-Request-Id"])
        assert "Server" not in reply.headers
        if reply.status_code == 204 or method == "HEAD" or reply.mimetype == "text/plain":
            return
        assert reply.headers["Content-Type"] == "application/json"
        body = self.json(reply)
        if reply.status_code >= 400:
            assert isinstance(body["error"], str)
            assert len(body["error"]) > 20
            assert set(body) == {"error"} or reply.request.path == "/healthz"
        elif reply.request.path == "/caption":
            assert set(body) == {"status", "id"}
            assert body["status"] == "success"
            assert type(body["id"]) is int
        elif reply.request.path == "/learning-model":
            check_description(body, reply.headers["Content-Language"], is_share)


def check_description(body: Any, language: str, is_share: bool = True) -> None:
    """E26: the contract of POST /learning-model; alt_text where it is asked for."""
    assert {*body} - {"alt_text"} == {"tags", "captions", "english_captions"}
    words, scores = [tag[0] for tag in body["tags"]], [tag[1] for tag in body["tags"]]
    assert all(len(tag) == 2 and isinstance(tag[0], str) for tag in body["tags"])
    assert all(isinstance(score, float) and math.isfinite(score) and 0 <= score <= 1 for score in scores)
    assert scores == sorted(scores, reverse=True)
    assert len(set(words)) == len(words)
    assert not scores or not is_share or abs(sum(scores) - 1) < 1e-6
    assert len(body["captions"]) == 1
    assert re.fullmatch("[a-z]{2,3}(-[a-z0-9]{1,8}){0,3}", language)
    assert not language.startswith("en") or body["english_captions"][0] == body["captions"][0]
    assert all(isinstance(text, str) for text in body["english_captions"])


def service_in(folder: Path, captioner: Any = None, **changes: Any) -> Caller:
    """Return a caller of a service whose state folder is in `folder`; without a captioner it looks for a bundle."""
    store = DiskStore(folder / "home" / "contributions")
    return Caller(create_app(settings_for(folder, **changes), captioner=captioner, store=store))


def settings_for(folder: Path, **changes: Any) -> Settings:
    """Return settings whose state folder is in `folder`."""
    return Settings(**{"home": folder / "home", "time_limit_s": 20.0, "memory": False} | changes)


def make_tiny_bundle(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "bundle", **changes: Any) -> Path:
    """A bundle that writes three captions a colour: "a red square", "a square" and "a red"."""
    identity = use_tiny_encoder(folder, monkeypatch)
    save_step(folder / "varied.onnx", varied_table())
    step = ("step.onnx", (folder / "varied.onnx").read_bytes())
    return save_bundle(folder / name, identity, [step], **{"tagger": TAGGER} | changes)
