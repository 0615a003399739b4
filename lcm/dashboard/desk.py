"""The desk: who describes a photo and keeps a correction, a service over HTTP or this process itself.

Knows how to find a service, what it answers, and that both kinds of desk say the same in the same words. Refuses to
know widgets and HTML.

A service that LCM_SERVICE names is the only desk: were another store filled while it is away, corrections would be
lost to it. Without LCM_SERVICE, a service on this machine's usual port is used where one runs, else this process.
"""

import base64
import json
import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPException
from typing import Any, Protocol
from urllib.parse import urlsplit

from lcm.dashboard.answer import Answer, DeskError, Receipt
from lcm.errors import ConfigError, DataError, LcmError
from lcm.service.answers import as_body, as_headers
from lcm.service.payload import CONTRIBUTOR, read_source
from lcm.service.refusals import refusal_of
from lcm.service.settings import Settings

SERVICE = "LCM_SERVICE"  # the variable that names a service, such as http://127.0.0.1:8000
USUAL = "http://127.0.0.1:8000"
LOOK_S = 1.0  # for the question whether there is a service
TIME_LIMIT_S = 60.0  # for an answer
MODEL_WAIT_S = 120.0  # for this process's own model: the first time of all, its encoder is made
MAX_PHOTO = 10 << 20  # bytes; below what the service takes, and what voila.json lets through the websocket
MAX_REPLY = 1 << 20  # bytes of a reply that are read
NO_REPLY = (OSError, HTTPException, ValueError)  # nobody answers, or not with HTTP and a JSON object
LOG = logging.getLogger("lcm.dashboard")


class Desk(Protocol):
    """Who describes photos and keeps corrections. Whatever goes wrong is an LcmError whose message people can read."""

    place: str  # who that is, in words
    kept_elsewhere: str  # in words, that others may keep corrections than this LCM_HOME; empty: it does

    def make_ready(self) -> None:
        """Begin to get ready for questions, and return at once."""
        ...

    def version(self) -> str:
        """Return the first digits of the version that answers now; empty where that is not known."""
        ...

    def describe(self, photo: bytes) -> Answer:
        """Return what is said of a photo."""
        ...

    def contribute(self, photo: bytes, caption: str, contributor: str = "") -> Receipt:
        """Keep a photo with a caption; once this has returned it is on the disk."""
        ...


class RemoteDesk:
    """A service over HTTP."""

    def __init__(self, address: str, token: str = ""):
        """Take its address and the token that it asks for; nothing is sent yet. Raises ConfigError for the address."""
        host, port = _host_and_port(address)
        self._address, self._token = address.rstrip("/"), token
        self.place = f"the service at {host}{f':{port}' if port else ''}"
        self.kept_elsewhere = (
            f"Listed is what this machine's folder LCM_HOME holds. Corrections go to {self.place}: if that keeps them "
            "in another folder or on another machine, they are not in this list, and are approved or revoked there."
        )
        own = host in ("localhost", "127.0.0.1", "::1")  # no proxy leads back to this machine
        self._open = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if own else [])).open

    def is_there(self) -> bool:
        """Return whether a service of lcm answers, with a model or still without."""
        return "ready" in self._health()

    def make_ready(self) -> None:
        pass

    def version(self) -> str:
        return str(self._health().get("version") or "")

    def _health(self) -> dict[str, Any]:
        """Return what GET /healthz says, with whatever status; nothing where no service of lcm answers."""
        try:
            with self._open(f"{self._address}/healthz", timeout=LOOK_S) as reply:
                return _object(reply.read(MAX_REPLY))
        except urllib.error.HTTPError as error:
            with error, suppress(*NO_REPLY):
                return _object(error.read(MAX_REPLY))
        except NO_REPLY:
            pass
        return {}

    def describe(self, photo: bytes) -> Answer:
        return Answer.of(*self._post("/learning-model", {"image": _text(photo)}))

    def contribute(self, photo: bytes, caption: str, contributor: str = "") -> Receipt:
        _in_words(lambda: read_source(contributor or None))  # a name with other letters fits into no header
        names = {CONTRIBUTOR: contributor} if contributor else {}
        return Receipt.of(*self._post("/caption", _pair(photo, caption), names))

    def _post(
        self, route: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> tuple[dict[str, Any], Mapping[str, str]]:
        given = {"Content-Type": "application/json", **(headers or {})}
        given |= {"Authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            request = urllib.request.Request(f"{self._address}{route}", json.dumps(body).encode(), given)
            with self._open(request, timeout=TIME_LIMIT_S) as reply:
                return _object(reply.read(MAX_REPLY)), reply.headers
        except urllib.error.HTTPError as error:
            with error:
                raise DeskError(_reason(error)) from error
        except NO_REPLY as error:
            why = str(getattr(error, "reason", error)) or type(error).__name__
            raise DeskError(f"{self.place} does not answer ({why}); start it with lcm serve, then try again") from error


class LocalDesk:
    """The page's own process: the current model and the store of LCM_HOME, as the service would use them."""

    place = "this page itself (no service runs)"
    kept_elsewhere = ""

    def __init__(self, assemble: Callable[[], Any] | None = None):
        """Take what makes a Service; the one of the environment's settings is the default. Nothing is loaded yet."""
        self._assemble, self._service, self._lock = assemble or _assemble, None, threading.Lock()

    def make_ready(self) -> None:
        """Load the model in a thread of its own; what goes wrong is told when something is asked."""
        threading.Thread(target=self._try_to_load, daemon=True, name="lcm-desk").start()

    def version(self) -> str:
        model = self._load().watch.model
        return model.version if model else ""

    def describe(self, photo: bytes) -> Answer:
        return self._do(lambda service: self._answer(service, photo))

    def contribute(self, photo: bytes, caption: str, contributor: str = "") -> Receipt:
        def keep(service: Any) -> Receipt:
            kept = service.keep(json.dumps(_pair(photo, caption)).encode(), read_source(contributor or None))
            return Receipt(kept.id, kept.known)

        return self._do(keep)

    @staticmethod
    def _answer(service: Any, photo: bytes) -> Answer:
        description, model = service.describe(json.dumps({"image": _text(photo)}).encode())
        return Answer.of(as_body(description), as_headers(description, model.version, model.source))

    def _do(self, work: Callable[[Any], Any]) -> Any:
        service = self._load()
        return _in_words(lambda: work(service))

    def _load(self) -> Any:
        with self._lock:
            if not self._service:
                self._service = self._assemble()
                self._service.watch.wait(MODEL_WAIT_S)
            return self._service

    def _try_to_load(self) -> None:
        with suppress(LcmError):
            self._load()


def open_desk(environment: Mapping[str, str] = os.environ) -> Desk:
    """Return the desk that the environment names: see above. Raises ConfigError for a bad address."""
    address, token = environment.get(SERVICE, "").strip(), environment.get("LCM_TOKEN", "").strip()
    remote = RemoteDesk(address or USUAL, token)
    return remote if address or remote.is_there() else LocalDesk()


def check_photo(photo: bytes) -> bytes:
    """Return a photo that is not too large for the page; raises DataError."""
    if len(photo) > MAX_PHOTO:
        raise DataError(
            f"the file has {len(photo) / (1 << 20):.1f} MB; up to {MAX_PHOTO >> 20} MB are taken: save it smaller"
        )
    return photo


def _in_words(work: Callable[[], Any]) -> Any:
    """Return what `work` does; its errors get the words that the service has for them, their own go to the log."""
    try:
        return work()
    except LcmError as error:
        message = refusal_of(error).message
        if message:
            LOG.error("%s: %s", message, error)
        raise DeskError(message or str(error)) from error


def _host_and_port(address: str) -> tuple[str, int | None]:
    """Return what an address names; raises ConfigError for one that is none of a service."""
    with suppress(ValueError):  # a port that is no number, or too large
        parts = urlsplit(address)
        if parts.scheme in ("http", "https") and parts.hostname:
            return parts.hostname, parts.port
    raise ConfigError(f"{SERVICE} is {address!r}; it must be an address such as {USUAL}")


def _assemble() -> Any:
    from lcm.service.state import Service

    return Service.assemble(Settings.from_environment(), None, None)


def _pair(photo: bytes, caption: str) -> dict[str, Any]:
    return {"image": _text(photo), "caption": caption, "fileType": ""}


def _text(photo: bytes) -> str:
    return base64.b64encode(photo).decode()


def _object(data: bytes) -> dict[str, Any]:
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("it sent no JSON object")
    return found


def _reason(error: urllib.error.HTTPError) -> str:
    """Return the service's own words for a refusal."""
    try:
        said = str(_object(error.read(MAX_REPLY))["error"])
    except (*NO_REPLY, KeyError):
        said = f"the service refused with {error.code}"
    return f"{said} (set LCM_TOKEN where this page is started)" if error.code == 401 else said
