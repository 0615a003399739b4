"""The production server: cheroot, until SIGTERM, SIGINT or SIGHUP; then everything accepted is answered before the end.

There is one process; after a crash, compose or systemd starts it again. Clients that send or read slowly hold a thread
each, up to IDLE_S: where they are not trusted, a proxy belongs in front, as in compose.yaml.
"""

import json
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from queue import SimpleQueue
from typing import Any

from cheroot.server import HTTPConnection, HTTPRequest
from cheroot.wsgi import Server

from lcm.errors import ConfigError
from lcm.service.http import HEADERS, LOG, escape
from lcm.service.schemas import HTTP_MESSAGES
from lcm.service.settings import Settings

SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")  # all of them end the service; Windows has no SIGHUP
CHEAP = 12  # requests answered beside all those that wait for the model or the store: GET / and /healthz
BACKLOG = 1024  # connections that the system holds until they are accepted
KEPT_ALIVE = 800  # connections that wait for their next request; below the usual limit of 1,024 open files
MAX_HEADERS = 32 << 10  # bytes of a request line with its headers; beyond, 413 or 414
IDLE_S = 10.0  # that a client may stand still while it sends or reads, and between two requests
DRAIN_S = 26.0  # for all requests once the server stops; the caller's own limit is often 30 s


class Request(HTTPRequest):
    """A request that cheroot reads; what it refuses itself is answered in the service's own shape."""

    def simple_response(self, status: str | int, msg: str = "") -> None:
        """Refuse the request and close its connection; `msg`, which may repeat what was sent, is left out."""
        code = HTTPStatus(int(str(status)[:3]))
        if code < 400:
            super().simple_response(status, msg)
            return
        LOG.info("(not routed) %d", code)
        body = json.dumps({"error": HTTP_MESSAGES.get(code, code.phrase)})
        headers = HEADERS | {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        head = [f"HTTP/1.1 {code.value} {code.phrase}", *map(": ".join, headers.items())]
        self.close_connection = True
        with suppress(OSError):  # the client has gone
            self.conn.wfile.write("\r\n".join([*head, "", body]).encode())


class Connection(HTTPConnection):
    """A connection of such requests."""

    RequestHandlerClass = Request


def run(make_app: Callable[[], Any], settings: Settings) -> int:
    """Serve what `make_app` returns until a signal ends it; returns 0 when all requests were answered, else 1."""
    signals: SimpleQueue[int] = SimpleQueue()  # its `put` is safe in a signal handler
    for name in SIGNALS:
        if number := getattr(signal, name, None):
            signal.signal(number, lambda number, _: signals.put(number))
    server = listen(settings)
    try:
        server.wsgi_app = make_app()
    except BaseException:
        server.stop()  # its threads would keep the process, which answers nobody
        raise
    threading.Thread(target=server.serve, name="lcm-server", daemon=True).start()
    _say(f"serving on http://{_joined(*server.bind_addr[:2])}")  # with the real port
    signals.get()
    draining = threading.Thread(target=server.stop, daemon=True)  # it waits without a limit for a thread that hangs
    draining.start()
    draining.join(DRAIN_S + 1)
    if draining.is_alive():
        _say(f"requests were cut off after {DRAIN_S:g} s")
    return int(draining.is_alive())


def listen(settings: Settings) -> Server:
    """Return a server that listens and does not yet answer; raises ConfigError where that is not possible."""
    host, port = settings.host, settings.port
    threads = 2 * (settings.predictions + settings.queue) + CHEAP  # of both routes at their busiest
    server = Server(
        (host, port),
        None,
        numthreads=threads,
        server_name="lcm",
        max=threads,
        request_queue_size=BACKLOG,
        timeout=IDLE_S,
        shutdown_timeout=DRAIN_S,
    )
    server.ConnectionClass = Connection
    server.max_request_header_size = MAX_HEADERS
    server.keep_alive_conn_limit = KEPT_ALIVE
    server.error_log = _log_error
    try:
        server.prepare()
    except (OSError, UnicodeError) as error:
        reason = str(error).rpartition("] ")[2].rstrip(")").lower()
        raise ConfigError(
            f"cannot listen on {_joined(host, port)}: {reason}; end what listens there, or choose another by --host "
            "and --port (LCM_HOST, LCM_PORT; port 0 takes any free one)"
        ) from error
    return server


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _log_error(msg: str = "", level: int = 20, traceback: bool = False) -> None:
    """Put what cheroot logs into the service's log, without the text of clients."""
    error = sys.exc_info()[1] if traceback else None
    LOG.log(level, "%s", escape(msg + (f" ({type(error).__name__})" if error else "")))


def _say(text: str) -> None:
    with suppress(OSError):
        print(f"lcm: {text}", file=sys.stderr, flush=True)
