"""Connections: what a client may send, how much of it, and how long it may take.

Knows waitress's channel and tasks, and adds what they leave open: a time for each stage of a request, a bound on the
bodies held in memory, errors as JSON, and closing without cutting the reply off. Refuses to know processes, signals
and what the application does.
"""

import json
import secrets
import socket
import threading
import time
from dataclasses import dataclass

from waitress.channel import HTTPChannel
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import Error

from lcm.service.parsing import MAX_HEADERS, Parser
from lcm.service.request_log import log_request

MESSAGES = {
    400: "the request is not well-formed HTTP/1.1; check the request line, the headers and the length of the body",
    408: "the request did not arrive in time; send it again over a faster connection",
    413: "the request body is larger than the service takes; send a smaller image",
    431: "the request line and headers are larger than the service takes; send shorter ones",
    500: "something went wrong in the service; its log names the cause",
    503: "the service is receiving as much as it takes on; send the request again a little later",
}
RETRY_AFTER_S = 1


@dataclass(frozen=True)
class Limits:
    """What one client may take up; the body's size and time come from the settings."""

    header_s: float = 10.0  # from a request's first byte, or from connecting, until its headers are complete
    idle_s: float = 75.0  # between two requests; above the 60 s that most proxies keep an unused connection
    linger_s: float = 2.0  # that a closed connection may go on sending, so that the reply is not lost
    linger_idle_s: float = 0.5  # that an idle connection may still send a request once the server stops
    drain_s: float = 26.0  # for all requests once the server stops; the caller's own limit is often 30 s
    sweep_s: float = 0.5  # between two looks at all these times
    body_rate: int = 64 << 10  # bytes; each so many that arrived give the body one second more
    connections: int = 800  # open at once; one more closes that which has waited longest for its client
    bodies: int = 4  # bodies of the largest size held in memory at once, arriving and being answered together


def _error(code: int, reason: str) -> Error:
    error = Error("")
    error.code, error.reason = code, reason
    return error


LATE = _error(408, "Request Timeout")
TOO_BUSY = _error(503, "Service Unavailable")


class Task(WSGITask):
    """Answers by the application."""

    def build_response_header(self) -> bytes:
        if self.channel.server.is_stopping:
            self.set_close_on_finish()
        return super().build_response_header()

    def get_environment(self) -> dict:
        environ = super().get_environment()
        if self.request.path.startswith("//"):
            environ["PATH_INFO"] = self.request.path  # waitress would take //caption for /caption
        return environ


class RefusalTask(ErrorTask):
    """Answers what never gets to the application, in the service's own shape."""

    def __init__(self, channel: "Channel", request: Parser) -> None:
        super().__init__(channel, request)
        self.version = "1.1"

    def execute(self) -> None:
        error = self.request.error
        request_id = secrets.token_hex(8)
        body = json.dumps({"error": MESSAGES.get(error.code, error.reason)}).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers += [
            ("Content-Type", "application/json"),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-LCM-Request-Id", request_id),
        ]
        if error is TOO_BUSY:
            self.response_headers.append(("Retry-After", str(RETRY_AFTER_S)))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)
        log_request(request_id, "(any method)", "(not routed)", error.code, time.time() - self.start_time, error.reason)


class Bodies:
    """How many bytes of bodies all connections hold in memory, against the most there may be."""

    def __init__(self, most: int) -> None:
        self._most, self._total, self._lock = most, 0, threading.Lock()

    def count(self, channel: "Channel") -> None:
        """Take note of what a connection holds now; it may be called from any thread."""
        with self._lock:
            held = sum(request.held for request in [*channel.requests, channel.request] if request)
            self._total += held - channel.held
            channel.held = held

    @property
    def is_over(self) -> bool:
        return self._total > self._most


class Channel(HTTPChannel):
    """One connection. Its `since` is when it began to wait for what it waits for now."""

    task_class = Task
    error_task_class = RefusalTask
    parser_class = Parser

    def __init__(self, server, sock, addr, adj, map=None) -> None:  # noqa: A002 - waitress's own
        self.since = time.monotonic()
        self.is_fresh = True  # until its first reply
        self.held = 0  # bytes of bodies, as far as `server.bodies` counts them
        self.linger_until: float | None = None
        self.discarded = 0
        super().__init__(server, sock, addr, adj, map=map)

    def received(self, data: bytes) -> bool:
        before = self.request
        taken = super().received(data)
        if self.request is not before:
            self.since = time.monotonic()
        self.server.bodies.count(self)
        if self.server.bodies.is_over:
            self.server.refuse_largest_body()
        return taken

    def service(self) -> None:
        super().service()
        self.is_fresh, self.since = False, time.monotonic()
        self.server.bodies.count(self)

    def refuse(self, error: Error) -> None:
        """Answer the request that is arriving with an error, and close."""
        with self.requests_lock:
            request, self.request = self.request, None
            request.close()
            request.error, request.completed = error, True
            self.requests.append(request)
            if len(self.requests) == 1:
                self.server.add_task(self)
        self.server.bodies.count(self)

    def readable(self) -> bool:
        return self.linger_until is not None or super().readable()

    def handle_read(self) -> None:
        if self.linger_until is None:
            super().handle_read()
            return
        self.discarded += len(self.recv(self.adj.recv_bytes))
        if self.discarded > self.adj.max_request_body_size + MAX_HEADERS and self.connected:
            self.drop()

    def handle_close(self) -> None:
        """Close; after a reply, once the client has closed too: what it still sends would destroy the reply."""
        if self.will_close and self.connected and self.linger_until is None:
            self.will_close = False
            self.linger_until = time.monotonic() + self.server.limits.linger_s
            try:
                self.socket.shutdown(socket.SHUT_WR)
                return
            except OSError:
                pass  # the client has gone
        super().handle_close()
        self.request = None
        self.server.bodies.count(self)

    def drop(self) -> None:
        """Close at once."""
        self.linger_until = 0.0
        self.handle_close()

    def check(self, now: float) -> None:
        """Close the connection if its client has taken too long."""
        if self.linger_until is not None:
            if now > self.linger_until:
                self.drop()
        elif self.requests or now - self.since <= self._allowed_s():
            pass  # it is our turn, or there is time left
        elif self.request is not None:
            self.refuse(LATE)
        elif self.total_outbufs_len:
            self.handle_write()  # where this process stood still, nobody has offered the reply yet
            if self.connected and self.total_outbufs_len:
                self.drop()
        else:
            self.will_close = True

    def _allowed_s(self) -> float:
        """Return how long the client may take for what it has to do next."""
        limits, server = self.server.limits, self.server
        if self.request is None and self.total_outbufs_len:
            return server.time_limit_s
        if self.request is None and server.stopped_at is not None:
            return limits.linger_idle_s + max(0.0, server.stopped_at - self.since)
        if self.request is None and not self.is_fresh:
            return limits.idle_s
        if self.request is None or not self.request.headers_finished:
            return limits.header_s
        return server.time_limit_s + self.request.body_bytes_received / limits.body_rate
