"""The supervisor: a small process that keeps the serving one running.

Knows processes and signals, and starts the serving process anew when it dies. Refuses to know HTTP; it loads no model
and no more code than needed, for the serving process is a copy of it (ONNX Runtime's threads would not be copied).

SIGTERM and SIGINT: the serving process answers what it has accepted, then both end. A second SIGINT ends both at once,
a second SIGTERM changes nothing. SIGHUP: the serving process ends in the same way and a new one takes its place.
"""

import contextlib
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

from lcm.service.request_log import LOG

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)
SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.1, 4.0  # before a new start; doubled with each that did not last
LASTED_S = 60.0


class Supervisor:
    """Runs `work` in a process of its own, again and again, until told to stop."""

    def __init__(self, listener: socket.socket, work: Callable[[Callable[[], None]], int], kill_after_s: float) -> None:
        """`work` gets a function to call once it serves, and returns the process's exit code.

        `kill_after_s` is how long it may take to end after SIGTERM.
        """
        self._listener, self._work, self._kill_after_s = listener, work, kill_after_s
        self._was_ready = mmap.mmap(-1, 1)  # shared with the serving process
        self._worker = 0
        self._is_stopping = False

    def run(self) -> int:
        """Return the exit code: 0 when all accepted requests were answered before the end."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        failures = 0
        while True:
            started = time.monotonic()
            code = self._run_worker()
            if code == 0 and not self._is_stopping:  # it was told to end, by SIGHUP or by its own SIGTERM
                continue
            if self._is_stopping or not self._was_ready[0]:
                return code if code >= 0 else 128 - code  # as a shell counts ends by a signal
            failures = 0 if time.monotonic() - started > LASTED_S else failures + 1
            wait_s = min(LONGEST_WAIT_S, SHORTEST_WAIT_S * 2**failures)
            LOG.error("the serving process ended with %d; a new one starts in %.1f s", code, wait_s)
            until = time.monotonic() + wait_s
            while not self._is_stopping and time.monotonic() < until:
                time.sleep(0.05)
            if self._is_stopping:
                return 1

    def _run_worker(self) -> int:
        """Start the serving process and wait for its end; returns its exit code, or minus the signal that ended it."""
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until both processes know which one they are
        if self._is_stopping:
            return 0
        worker = os.fork()
        if not worker:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends these to both
                signal.signal(number, signal.SIG_IGN)
            raise SystemExit(self._work(self._be_ready))
        self._worker = worker
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        _, status = os.waitpid(worker, 0)
        self._worker = 0
        signal.setitimer(signal.ITIMER_REAL, 0)
        return os.waitstatus_to_exitcode(status)

    def _be_ready(self) -> None:
        self._was_ready[0] = 1

    def _on_signal(self, number: int, frame: object) -> None:  # noqa: ARG002 - Python's signature
        if number == signal.SIGALRM or (number == signal.SIGINT and self._is_stopping):
            self._tell(signal.SIGKILL)
        elif not self._is_stopping:
            if number != signal.SIGHUP:
                self._is_stopping = True
                self._listener.close()  # with the serving process's own, so that new connections are refused
            signal.setitimer(signal.ITIMER_REAL, self._kill_after_s)
            self._tell(signal.SIGTERM)

    def _tell(self, number: int) -> None:
        if self._worker:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._worker, number)
