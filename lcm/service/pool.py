"""A pool: work that is bounded in number and in time.

Knows how many tasks may run and wait, and that nobody waits beyond the time limit: a thread that hangs is given up
and another takes its place. Refuses to know what a task does.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from lcm.service.refusals import BusyError, TookTooLongError, WaitedTooLongError

Result = TypeVar("Result")
MAX_LOST = 8  # threads that hang at once; beyond, nothing new is begun: each holds memory, and none can be ended


class _Task(Generic[Result]):
    """One piece of work, with its result or its error once it is done."""

    def __init__(self, work: Callable[[], Result]):
        self.work, self.done = work, threading.Event()
        self.result: Result | None = None
        self.error: Exception | None = None
        self.lost = False  # nobody waits for it any more


class Pool:
    """At most `running` tasks at once and `waiting` behind them; safe to call from any number of threads."""

    def __init__(self, running: int, waiting: int, limit_s: float):
        """Remember the bounds; no thread is made before there is work."""
        self._max_running, self._max_waiting, self._limit_s = running, waiting, limit_s
        self._running = self._waiting = self._lost = 0
        self._freed = threading.Condition()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place among those that run, for work in the caller's own thread, which no time limit ends.

        Raises BusyError at once when there is no room to wait, WaitedTooLongError when the time limit passes first.
        """
        self._begin(time.monotonic() + self._limit_s)
        try:
            yield
        finally:
            self._end()

    def run(self, work: Callable[[], Result]) -> Result:
        """Return what `work()` returns, or raise what it raises, from another thread (made in 0.1 ms).

        Raises as `place` does, and TookTooLongError when the time limit passes before the work is done; the work then
        goes on, unheard.
        """
        end = time.monotonic() + self._limit_s
        self._begin(end)
        task = _Task(work)
        try:
            threading.Thread(target=self._do, args=(task,), daemon=True).start()
        except RuntimeError:  # the system gives no more threads
            self._end()
            raise BusyError("no thread could be started") from None
        if not task.done.wait(max(0, end - time.monotonic())) and self._give_up(task):
            raise TookTooLongError(f"a task took over {self._limit_s:g} s")
        try:
            if task.error is not None:
                raise task.error
            return task.result
        finally:
            del task  # else error, traceback and task hold each other, and an image of 20 MB with them

    def _begin(self, end: float) -> None:
        """Return when a task may run, those that came first before it."""
        with self._freed:
            if self._waiting or not self._is_free():
                if self._waiting >= self._max_waiting:
                    raise BusyError(f"{self._running} tasks run, {self._waiting} wait, {self._lost} hang")
                self._waiting += 1
                try:
                    if not self._freed.wait_for(self._is_free, max(0, end - time.monotonic())):
                        raise WaitedTooLongError(f"a task waited over {self._limit_s:g} s")
                finally:
                    self._waiting -= 1
            self._running += 1

    def _is_free(self) -> bool:
        return self._running < self._max_running and self._lost < MAX_LOST

    def _do(self, task: _Task) -> None:
        """Do a task's work in its own thread, and keep whatever comes of it."""
        try:
            task.result = task.work()
        except Exception as error:
            task.error = error
        except BaseException as error:  # SystemExit must not end the thread that serves the request
            task.error = RuntimeError(f"the work raised {type(error).__name__}")
        self._end(task)
        del task  # as in `run`: the error's traceback holds this frame

    def _end(self, task: _Task | None = None) -> None:
        with self._freed:
            if task and task.lost:
                self._lost -= 1
            else:
                self._running -= 1
            if task:
                task.done.set()
            self._freed.notify(self._max_running)

    def _give_up(self, task: _Task) -> bool:
        """Let another task take a hanging one's place; False when it was done in this very moment."""
        with self._freed:
            if task.done.is_set():
                return False
            task.lost = True
            self._running -= 1
            self._lost += 1
            self._freed.notify(self._max_running)
            return True
