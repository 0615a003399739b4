"""The production server: waitress, kept running by a supervisor.

Knows the listening socket, the loop over all connections, how the server stops, and what it tells the operator. Refuses
to know what the application does; it is made by `make_app`, in the process that serves.
"""

import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from lcm.errors import ConfigError
from lcm.service import request_log
from lcm.service.connections import TOO_BUSY, Bodies, Channel, Limits
from lcm.service.heap import give_memory_back
from lcm.service.parsing import MAX_HEADERS
from lcm.service.supervisor import Supervisor

BACKLOG = 1024  # connections that the system holds until they are accepted
OTHER_FILES = 200  # open files beside the connections: model, store, log; together below the usual limit of 1,024
IN_MEMORY = 1 << 40  # bytes beyond which waitress would write a body or a reply to a temporary file: never
RECEIVED_AT_ONCE = 64 << 10  # bytes
SENT_AT_ONCE = 16 << 10  # bytes; a small reply goes out whole, not its head first


class ServerSettings(Protocol):
    """The settings that the server reads."""

    host: str
    port: int
    http_threads: int  # requests handled at once
    max_body: int  # bytes
    time_limit_s: float  # for a body to arrive, and for a reply to be taken


def run(make_app: Callable[[], Any], settings: ServerSettings, limits: Limits | None = None) -> int:
    """Serve the WSGI application that `make_app` returns until a signal ends it; returns the exit code.

    `make_app` is called in the serving process, at its first start and each time it is started anew.
    Raises ConfigError when the address cannot be listened on. The serving process ends with SystemExit, or with the
    error that `make_app` raises.
    """
    limits = limits or Limits()
    request_log.set_up()
    listener = listen(settings.host, settings.port)
    parent = os.getpid()

    def work(be_ready: Callable[[], None]) -> int:
        give_memory_back()
        stop = StopSignal()
        server = Server(make_app(), listener, settings, limits)
        stop.wake = server.pull_trigger
        say(f"serving on {url_of(listener)}")
        be_ready()
        return server.serve(lambda: stop.was_sent or os.getppid() != parent)

    return Supervisor(listener, work, limits.drain_s + 2).run()


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; `::` takes IPv4 too, and of a name's addresses IPv4 comes first.

    Raises ConfigError when that is not possible.
    """
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except (OSError, UnicodeError) as error:
        is_name = isinstance(error, socket.gaierror | UnicodeError)
        reason = "there is no such host" if is_name else os.strerror(error.errno).lower()
        raise ConfigError(
            f"cannot listen on {where}: {reason}; end what listens there, or choose another by --host and --port "
            "(LCM_HOST, LCM_PORT; port 0 takes any free one)"
        ) from error


def url_of(listener: socket.socket) -> str:
    """Return the address that a listening socket has, with its real port."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def say(text: str) -> None:
    """Tell the operator something on stderr, if that is still there."""
    with suppress(OSError):
        print(f"lcm: {text}", file=sys.stderr, flush=True)


class StopSignal:
    """Remembers SIGTERM, from before the server exists until it stops."""

    def __init__(self) -> None:
        self.was_sent = False
        self.wake: Callable[[], None] = lambda: None
        signal.signal(signal.SIGTERM, self._receive)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())

    def _receive(self, number: int, frame: object) -> None:  # noqa: ARG002 - Python's signature
        self.was_sent = True
        self.wake()


class Relay(logging.Handler):
    """Puts what waitress logs into the service's log, without the text and tracebacks' messages of clients."""

    def emit(self, record: logging.LogRecord) -> None:
        text = request_log.escape(record.getMessage())
        if record.exc_info and record.exc_info[1]:
            text += "\n" + request_log.stack_of(record.exc_info[1])
        request_log.LOG.log(record.levelno, "%s", text)


class Server(TcpWSGIServer):
    """Waitress's server with times and bounds for its connections, and an end that answers all it accepted."""

    channel_class = Channel

    def __init__(self, app: Any, listener: socket.socket, settings: ServerSettings, limits: Limits) -> None:
        _log_to_ours()
        self.limits = limits
        self.time_limit_s = settings.time_limit_s
        self.bodies = Bodies(limits.bodies * settings.max_body)
        self.stopped_at: float | None = None
        self.most_connections = min(limits.connections, _raise_file_limit(limits.connections + OTHER_FILES))
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.set_thread_count(settings.http_threads)
        adjustments = Adjustments(
            sockets=[listener],
            backlog=BACKLOG,
            connection_limit=1 << 30,  # ours is `most_connections`
            ident="",
            inbuf_overflow=IN_MEMORY,
            max_request_body_size=settings.max_body + 1,  # waitress refuses bodies from this size on
            max_request_header_size=MAX_HEADERS,
            outbuf_overflow=IN_MEMORY,
            recv_bytes=RECEIVED_AT_ONCE,
            send_bytes=SENT_AT_ONCE,
            server_name="localhost",
        )
        info = (listener.family, listener.type, listener.proto, listener.getsockname())
        super().__init__(app, {}, True, listener, dispatcher, adjustments, info, bind_socket=False)

    @property
    def is_stopping(self) -> bool:
        return self.stopped_at is not None

    def stopping_s(self, now: float) -> float:
        """Seconds since the server was told to stop."""
        return now - self.stopped_at if self.stopped_at is not None else 0.0

    def serve(self, is_told_to_stop: Callable[[], bool]) -> int:
        """Serve until told to stop and all accepted requests are answered; returns 0, or 1 when some were not."""
        use_poll = sys.platform != "darwin"  # whose poll() reports a client that only finished sending as gone
        swept_at = 0.0
        while True:
            wasyncore.loop(self.limits.sweep_s, use_poll, self._map, count=1)
            now = time.monotonic()
            if not self.is_stopping and is_told_to_stop():
                self.stop_listening(now)
            if now - swept_at >= self.limits.sweep_s:
                swept_at = now
                for channel in list(self.active_channels.values()):
                    channel.check(now)
            if self.is_stopping:
                if not self.active_channels and self.is_at_rest:
                    return 0
                if self.stopping_s(now) > self.limits.drain_s:
                    say(f"{len(self.active_channels)} connections were cut off after {self.limits.drain_s:g} s")
                    return 1

    @property
    def is_at_rest(self) -> bool:
        """Whether no thread works for a client, be it one that has gone."""
        return not self.task_dispatcher.queue and not self.task_dispatcher.active_count

    def stop_listening(self, now: float) -> None:
        """Accept the connections that are there already and refuse new ones."""
        self.stopped_at = now
        before = -1
        while before != len(self.active_channels):
            before = len(self.active_channels)
            self.handle_accept()
        wasyncore.dispatcher.close(self)

    def handle_accept(self) -> None:
        if len(self.active_channels) >= self.most_connections:
            waiting = [channel for channel in self.active_channels.values() if not channel.requests]
            if not waiting:
                return  # all are being answered; the system holds the new one until one is done
            min(waiting, key=lambda channel: channel.since).drop()
        super().handle_accept()

    def refuse_largest_body(self) -> None:
        """Refuse the largest of the bodies that are still arriving, so that the others can be finished."""
        arriving = [channel for channel in self.active_channels.values() if channel.request and channel.request.held]
        if arriving:
            max(arriving, key=lambda channel: channel.request.held).refuse(TOO_BUSY)

    def maintenance(self, now: float) -> None:
        """Waitress's own look at idle connections, by a clock that may jump; ours is `Channel.check`."""


def _log_to_ours() -> None:
    log = logging.getLogger("waitress")
    log.handlers, log.propagate = [Relay(logging.WARNING)], False
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it warns of each request that waits for a thread


def _raise_file_limit(wanted: int) -> int:
    """Let the process open as many files, if it may; returns how many of them are left for connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted:
        soft = wanted if hard == unlimited else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 30 if soft == unlimited else max(10, soft - OTHER_FILES)
