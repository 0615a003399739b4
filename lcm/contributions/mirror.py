"""The copy of all contributions in a store elsewhere, made behind the requests' backs.

Knows in which order objects are written and removed, whose turn it is, and when to try again what failed. Refuses to
know how contributions are kept here, what the copy looks like, and how the target is spoken to.
"""

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from lcm.contributions.approvals import APPROVED, approved_file
from lcm.contributions.layout import image_name, read_image_file, record_bytes, record_name, revocation_name
from lcm.contributions.records import OutboxEntry
from lcm.contributions.target import Target, TargetError
from lcm.data.remote import Address
from lcm.errors import StoreDamagedError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0  # between attempts; they double from the one to the other
LOOK_EVERY_S = 5.0  # for entries of other processes, which cannot wake this one, and for entries that become due
COMPLAIN_EVERY_S = 60.0  # at most one line about failures
BATCH = 50  # entries read from the outbox at once
LOCK_NAME = "mirror.lock"  # in the store's folder
_log = logging.getLogger(__name__)


class Outbox(Protocol):
    """What is still to be done, kept where the contributions are. Settling or postponing what is gone does nothing.

    `pending` returns what is due, oldest first, as things stand now: never a put of a contribution that was revoked,
    for it would bring back what a delete has removed; and `image_path` of a delete tells whether the image is in use.
    """

    def pending(self, limit: int, now: float) -> Sequence[OutboxEntry]: ...
    def settle(self, entry_id: int) -> None: ...
    def postpone(self, entry_id: int, until: float) -> None: ...


class Mirror:
    """A thread that empties an outbox into a target. Of all processes with one store, one mirror works at a time."""

    def __init__(
        self,
        outbox: Outbox,
        target: Target,
        folder: Path,
        *,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        look_every_s: float = LOOK_EVERY_S,
    ):
        """`folder` is the store's, for the lock and the approvals; `clock` and `chance` (0 to 1) are the tests' to set.

        Raises ConfigError when the target lies in that folder, or around it.
        """
        target.address.refuse_folder(folder)
        self._outbox, self._target, self._folder = outbox, target, folder
        self._approvals = b""  # as they were copied last
        self._clock, self._chance, self._look_every_s = clock, chance, look_every_s
        self._lock = FileLock(folder / LOCK_NAME, thread_local=False)
        self._thread: threading.Thread | None = None
        self._stopping, self._wake = threading.Event(), threading.Event()
        self._failures = 0  # in a row
        self._complained_at, self._unsaid = -math.inf, 0

    def start(self) -> None:
        """Start the thread, after any fork. What is wrong with the target is logged and tried again, never raised."""
        assert self._thread is None, "a mirror starts once"
        self._thread = threading.Thread(target=self._run, name="lcm-mirror", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Say that the outbox has something new; returns at once. While the target fails it shortens no pause."""
        self._wake.set()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End the thread; returns False when the target hangs: the thread is left behind, to die with the process."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._thread is None or not self._thread.is_alive()

    def copy_due(self) -> float:
        """Do all that is due, until something fails; returns the seconds until the next look."""
        while batch := self._outbox.pending(BATCH, self._clock()):
            for entry in sorted(batch, key=lambda entry: entry.attempts):  # first what may be none the worse
                if self._stopping.is_set():
                    return 0.0
                try:
                    self._copy(entry)
                except TargetError as error:  # the next entry would fail as well
                    return self._fail(entry, str(error))
                except StoreDamagedError as error:  # the other entries are none the worse
                    self._postpone(entry, str(error))
                else:
                    self._outbox.settle(entry.entry_id)
                    self._recover()
        return self._copy_approvals()

    def _copy_approvals(self) -> float:
        """Copy what is approved, where that has changed; returns the seconds until the next look."""
        approvals = approved_file(self._folder)
        if approvals != self._approvals:
            try:
                self._target.put(APPROVED, approvals)
            except TargetError as error:
                pause = self._back_off()
                self._complain(f"approvals: {error}; next attempt in {pause:.0f} s")
                return pause
            self._approvals = approvals
            self._recover()
        return self._look_every_s

    def _copy(self, entry: OutboxEntry) -> None:
        """Write an image before the record that names it, and remove the record first.

        What was revoked leaves a line, written before anything goes: whoever trains from the copy keeps its place free.
        """
        if entry.kind == "put":
            self._target.put(image_name(entry), read_image_file(entry))
            self._target.put(record_name(entry), record_bytes(entry))
            return
        assert entry.kind == "delete", entry.kind
        self._target.put(revocation_name(entry), record_bytes(entry))
        self._target.delete(record_name(entry))
        if entry.image_path is None:
            self._target.delete(image_name(entry))

    # Failures

    def _fail(self, entry: OutboxEntry, text: str) -> float:
        pause = self._back_off()
        self._postpone(entry, text)
        return pause

    def _back_off(self) -> float:
        """Count a failure; returns the seconds until the mirror's next attempt."""
        pause = backoff(self._failures, self._chance())
        self._failures += 1
        return pause

    def _postpone(self, entry: OutboxEntry, text: str) -> None:
        pause = backoff(entry.attempts + 1, self._chance())  # longer than the mirror's own: others come first
        self._outbox.postpone(entry.entry_id, self._clock() + pause)
        self._complain(f"contribution {entry.contribution_id}, {entry.kind}: {text}; next attempt in {pause:.0f} s")

    def _recover(self) -> None:
        if self._failures:
            self._failures, self._complained_at = 0, -math.inf
            _log.info("%s answers again", self._target.address.name)

    def _complain(self, text: str) -> None:
        """Log one line, but not too often: a target that is down fails every attempt."""
        if 0 <= self._clock() - self._complained_at < COMPLAIN_EVERY_S:
            self._unsaid += 1
            return
        unsaid = f" ({self._unsaid} more failures since the last such line)" if self._unsaid else ""
        _log.warning("%s: %s%s", self._target.address.name, text, unsaid)
        self._complained_at, self._unsaid = self._clock(), 0

    # The thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            pause = self._turn()
            (self._stopping if self._failures else self._wake).wait(pause)
        if not self._target.hangs:  # else another process's mirror waits until this one's last write cannot come
            self._lock.release()

    def _turn(self) -> float:
        """Do what is due, when it is this mirror's turn; returns the seconds until the next look."""
        try:
            if not self._lock.is_locked:
                self._lock.acquire(blocking=False)
            return self.copy_due()
        except Timeout:
            return self._look_every_s
        except Exception as error:  # whatever it is (the store is busy, the disk full), the thread must outlive it
            self._complain(f"{type(error).__name__}: {error}; next attempt in {self._look_every_s:.0f} s")
            return self._look_every_s


def backoff(attempts: int, chance: float) -> float:
    """Return the seconds until the next attempt; `chance`, 0 to 1, keeps many from coming back at once."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(attempts, 30)) * (1 + chance) / 2


def open_mirror(url: str, outbox: Outbox, folder: Path) -> Mirror | None:
    """Return the mirror of the store in `folder` to LCM_STORE_URL, not started; None when that is empty.

    Raises ConfigError for a bad address, an unknown protocol and a driver that is not installed.
    """
    return Mirror(outbox, Target(Address.parse(url, "LCM_STORE_URL")), folder) if url else None
