"""Bounded work: how many tasks run and wait, and that a hanging one costs no place. Threads are real, events too."""

import gc
import itertools
import threading
import time
import weakref
from types import SimpleNamespace

import pytest

from lcm.service import pool as pools
from lcm.service.pool import MAX_LOST, Pool
from lcm.service.refusals import BusyError, TookTooLongError, WaitedTooLongError


class Held:
    """Tasks that go on until they are released."""

    def __init__(self, pool: Pool):
        self.pool, self.go_on, self.begun = pool, threading.Event(), threading.Semaphore(0)
        self.threads: list[threading.Thread] = []
        self.outcomes: list[object] = []

    def work(self) -> str:
        self.begun.release()
        assert self.go_on.wait(60)
        return "done"

    def start(self, count: int, begin: int) -> None:
        """Start tasks from threads of their own; return when `begin` of them run and the others wait."""
        for _ in range(count):
            self.threads.append(threading.Thread(target=self._run))
            self.threads[-1].start()
        for _ in range(begin):
            assert self.begun.acquire(timeout=60)
        wait_until(lambda: self.pool._waiting == count - begin)

    def _run(self) -> None:
        try:
            self.outcomes.append(self.pool.run(self.work))
        except Exception as error:
            self.outcomes.append(type(error))

    def finish(self) -> list[object]:
        self.go_on.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()
        return self.outcomes


def wait_until(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def assert_at_rest(pool: Pool) -> None:
    assert (pool._running, pool._waiting, pool._lost) == (0, 0, 0)


def test_gives_what_the_work_gives():
    pool = Pool(1, 0, 5)
    assert pool.run(lambda: 7) == 7
    assert pool.run(lambda: None) is None
    assert pool.run(threading.current_thread) is not threading.current_thread()
    assert_at_rest(pool)


@pytest.mark.parametrize("error", [ValueError("x"), MemoryError(), RecursionError()])
def test_raises_what_the_work_raises(error):
    pool = Pool(1, 0, 5)

    def trip():
        raise error

    for _ in range(3):
        with pytest.raises(type(error)) as caught:
            pool.run(trip)
        assert caught.value is error
        assert_at_rest(pool)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_would_end_a_thread_becomes_an_error(error):
    pool = Pool(1, 0, 5)

    def trip():
        raise error

    with pytest.raises(RuntimeError, match=type(error).__name__):
        pool.run(trip)
    assert_at_rest(pool)


def test_no_more_run_and_wait_than_may():
    pool = Pool(2, 3, 60)
    held = Held(pool)
    held.start(5, begin=2)
    assert (pool._running, pool._waiting) == (2, 3)
    start = time.perf_counter()
    for _ in range(3):
        with pytest.raises(BusyError):
            pool.run(lambda: 1)
        with pytest.raises(BusyError), pool.place():
            pass
    assert time.perf_counter() - start < 30, "refused at once"
    assert held.finish() == ["done"] * 5
    assert_at_rest(pool)
    assert pool.run(lambda: 7) == 7


def test_those_that_wait_come_before_those_that_come():
    """While one waits, a newcomer waits too, even in the moment in which a place is free."""
    pool = Pool(1, 1, 60)
    held = Held(pool)
    held.start(2, begin=1)
    with pool._freed:
        pool._running -= 1  # a place is free, and whoever waits has not woken up yet
        with pytest.raises(BusyError):
            pool._begin(time.monotonic() + 1)
        pool._running += 1
    assert held.finish() == ["done", "done"]


def test_waiting_ends_at_the_limit():
    pool = Pool(1, 1, 0.2)
    with pool.place():
        start = time.perf_counter()
        with pytest.raises(WaitedTooLongError):
            pool.run(lambda: 1)
        assert 0.15 < time.perf_counter() - start < 30
    assert_at_rest(pool)


def test_waiting_and_working_share_one_limit(monkeypatch):
    """By a clock that is set by hand: 59.9 of 60 s pass before there is a place; 0.1 s are left to work."""
    now, caller, limits = [0.0], threading.current_thread(), []
    wait = threading.Event.wait

    def note(event, timeout=None):
        if threading.current_thread() is caller and timeout is not None:
            limits.append(timeout)
        return wait(event, timeout)

    monkeypatch.setattr(pools, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(threading.Event, "wait", note)
    pool, go_on = Pool(1, 1, 60), threading.Event()
    held = Held(pool)
    held.start(1, begin=1)

    def make_room():
        wait_until(lambda: pool._waiting == 1)
        now[0] = 59.9
        held.go_on.set()

    threading.Thread(target=make_room).start()
    with pytest.raises(TookTooLongError):
        pool.run(lambda: go_on.wait(60))
    assert limits == [pytest.approx(0.1)]
    assert held.finish() == ["done"]
    go_on.set()
    wait_until(lambda: pool._lost == 0)


def test_a_hanging_task_gives_its_place_back_at_the_limit():
    pool = Pool(1, 0, 0.1)
    go_on = threading.Event()
    with pytest.raises(TookTooLongError):
        pool.run(lambda: go_on.wait(60))
    assert (pool._running, pool._lost) == (0, 1)
    assert pool.run(lambda: 7) == 7
    go_on.set()
    wait_until(lambda: pool._lost == 0)
    assert_at_rest(pool)


def test_so_many_may_hang_and_no_more():
    pool = Pool(2, 1, 0.05)
    go_on = threading.Event()
    for _ in range(MAX_LOST):
        with pytest.raises(TookTooLongError):
            pool.run(lambda: go_on.wait(60))
    started = threading.active_count()
    with pytest.raises(WaitedTooLongError):
        pool.run(lambda: go_on.wait(60))
    assert threading.active_count() == started
    go_on.set()
    wait_until(lambda: pool._lost == 0)
    assert pool.run(lambda: 7) == 7
    assert_at_rest(pool)


def test_a_task_that_is_done_at_the_very_limit_is_not_given_up(monkeypatch):
    """The wait ends empty-handed, and the task is done before it can be given up."""
    pool = Pool(1, 0, 60)
    wait = threading.Event.wait

    def too_late(event, timeout=None):
        wait(event, timeout)
        return False

    monkeypatch.setattr(pools.threading.Event, "wait", too_late)
    assert pool.run(lambda: 7) == 7
    assert_at_rest(pool)


def test_no_thread_to_be_had(monkeypatch):
    pool = Pool(1, 0, 5)

    def refuse(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(BusyError):
            pool.run(lambda: 1)
    assert_at_rest(pool)
    assert pool.run(lambda: 7) == 7


def test_a_place_is_given_back_whatever_happens():
    pool = Pool(1, 0, 5)
    with pytest.raises(ValueError, match="x"), pool.place():
        raise ValueError("x")
    assert_at_rest(pool)


def test_nothing_of_a_failed_task_is_kept():
    """An image that could not be read is freed at once, not at the next collection of garbage."""

    class Image:
        pass

    def trip(_):
        raise ValueError("no image")

    image = Image()
    gone = weakref.ref(image)
    pool = Pool(1, 0, 5)
    gc.disable()
    try:
        with pytest.raises(ValueError, match="no image"):
            pool.run(lambda image=image: trip(image))
        del image
        wait_until(lambda: gone() is None)
    finally:
        gc.enable()


def test_many_at_once_from_many_threads():
    pool, most, running, lock = Pool(3, 1000, 60), 0, 0, threading.Lock()
    numbers, together = itertools.count(), threading.Barrier(3, timeout=60)

    def work():
        nonlocal most, running
        with lock:
            running += 1
            most = max(most, running)
            is_early = next(numbers) < 3
        if is_early:
            together.wait()  # three are at work at once
        time.sleep(0.001)
        with lock:
            running -= 1

    threads = [threading.Thread(target=lambda: [pool.run(work) for _ in range(10)]) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == 3
    assert_at_rest(pool)
