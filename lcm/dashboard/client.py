"""The HTTP service as the dashboard asks it: descriptions of photos, and corrections to keep.

Only the service that LCM_SERVICE names is asked: if corrections went to another store while it is away, they would be
lost to it.
"""

import base64
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from lcm.dashboard.language import number, say
from lcm.data.text import ENGLISH, language_code
from lcm.errors import ConfigError, DataError, LcmError

SERVICE = "LCM_SERVICE"  # the variable that names the service
DEFAULT_ADDRESS = "http://127.0.0.1:8000"
THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
HEALTH_TIMEOUT_S = 1.0  # for the question whether a service is there
TIMEOUT_S = 60.0  # for an answer
MAX_PHOTO = 10 << 20  # bytes; below what the service takes, and what voila.json lets through the websocket


class ServiceError(LcmError):
    """A service that does not answer, or refuses; the message says why."""


@dataclass(frozen=True)
class Answer:
    """What the service says of a photo."""

    caption: str
    others: tuple[str, ...]  # other captions, the best first
    tags: tuple[tuple[str, float], ...]  # best first
    model: str
    version: str  # first digits of the hash of the bundle's manifest; empty: unknown
    contributed: bool  # whether a person wrote the caption
    confidence: float | None  # of the caption; None: not calibrated, or contributed
    language: str = ""  # of caption and tags; empty: not told


class ServiceClient:
    """A service at an address. Whatever goes wrong is an LcmError whose message people can read."""

    def __init__(self, address: str = DEFAULT_ADDRESS, token: str = ""):
        """Take its address and the token that it asks for; sends nothing. Raises ConfigError for a bad address."""
        self.host, self.port = _host_and_port(address)
        self.place = f"{self.host}:{self.port}"
        self.is_local = self.host in THIS_MACHINE
        self._address, self._token = address.rstrip("/"), token
        # No proxy leads back to this machine.
        handlers = [urllib.request.ProxyHandler({})] if self.is_local else []
        self._open = urllib.request.build_opener(*handlers).open

    @classmethod
    def from_environment(cls) -> Self:
        address, token = (os.environ.get(name, "").strip() for name in (SERVICE, "LCM_TOKEN"))
        return cls(address or DEFAULT_ADDRESS, token)

    def no_answer(self, why: str = "") -> str:
        return say(
            "No answer from the service at {place}{why}: start it there with lcm serve --port {port}, or name another "
            "one in LCM_SERVICE; then reload this page.",
            **{"place": self.place, "port": self.port, "why": why and f" ({why})"},
        )

    def health(self) -> Mapping[str, Any]:
        """Return what a service of lcm says of itself ("ready", "version"), with a model or still without; else {}."""
        with suppress(ServiceError):
            _, reply, _ = self._send("/healthz", timeout_s=HEALTH_TIMEOUT_S)
            return reply if "ready" in reply else {}
        return {}

    def describe(self, photo: bytes, language: str = ENGLISH) -> Answer:
        """Return what the service says of a photo, in a language if it can; raises DataError for one too large."""
        if len(photo) > MAX_PHOTO:
            size = number(len(photo) / (1 << 20), 1)
            raise DataError(say("the file has {size} MB; up to 10 MB are accepted: save it smaller", size=size))
        body, headers = self._post("/learning-model", {"image": base64.b64encode(photo).decode(), "language": language})
        try:
            caption, confidence = str(body["captions"][0]), headers.get("X-LCM-Confidence")
            return Answer(
                caption=caption,
                others=tuple(str(one) for one in body["english_captions"] if one != caption),
                tags=tuple((str(word), float(score)) for word, score in body["tags"]),
                model=unquote(headers.get("X-LCM-Model", "")),
                version=headers.get("X-LCM-Model-Version", ""),
                contributed=headers.get("X-LCM-Source") == "contribution",
                confidence=float(confidence) if confidence else None,
                language=language_code(headers.get("Content-Language", "")),
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ServiceError(say("the service answered with something else than lcm; is it lcm?")) from error

    def contribute(
        self, photo: bytes, caption: str, contributor: str = "", language: str = ENGLISH
    ) -> tuple[int, bool]:
        """Have a photo kept with a caption, on the service's disk; returns its number, and whether it was known."""
        sent = {"image": base64.b64encode(photo).decode(), "caption": caption, "language": language, "fileType": ""}
        body, headers = self._post("/caption", sent | ({"contributor": contributor} if contributor else {}))
        if type(body.get("id")) is not int:
            raise ServiceError(say("the service answered with something else than lcm; is it lcm?"))
        return body["id"], headers.get("X-LCM-Known") == "true"

    def _post(self, route: str, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """Return the JSON object and the headers of a reply; raises ServiceError with the words of a refusal."""
        status, reply, headers = self._send(route, body)
        if status >= 400:
            why = str(reply.get("error") or say("the service refused with {status}", status=status))
            token = say("set LCM_TOKEN where this page is started")
            raise ServiceError(f"{why} ({token})" if status == 401 else why)
        return reply, headers

    def _send(
        self, route: str, body: Mapping[str, Any] | None = None, timeout_s: float = TIMEOUT_S
    ) -> tuple[int, Mapping[str, Any], Mapping[str, str]]:
        """Return status, JSON object (empty for another body) and headers; raises ServiceError when nobody answers."""
        sent, headers = json.dumps(body).encode() if body else None, {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(f"{self._address}{route}", sent, headers)
        try:
            try:
                reply = self._open(request, timeout=timeout_s)
            except urllib.error.HTTPError as error:
                reply = error  # which is the reply, too
            with reply:
                status, data, reply_headers = reply.status, reply.read(), reply.headers
        except (OSError, HTTPException) as error:
            why = str(getattr(error, "reason", error)) or type(error).__name__
            raise ServiceError(self.no_answer(why)) from error
        found = None
        with suppress(ValueError):
            found = json.loads(data)
        return status, found if isinstance(found, dict) else {}, reply_headers


def _host_and_port(address: str) -> tuple[str, int]:
    with suppress(ValueError):  # a port that is no number, or too large
        parts = urlsplit(address)
        if parts.scheme in ("http", "https") and parts.hostname:
            return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    raise ConfigError(f"{SERVICE} is {address!r}; it must be an address such as {DEFAULT_ADDRESS}")
