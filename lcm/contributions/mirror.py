"""The mirror: a copy of all contributions on any fsspec target, made behind the requests' backs, and the way back.

The copy holds contributions/<id>.json, the images that these name, revocations/<id>.json with the line that stays of
what was revoked, and approved.txt. An image is written before the record that names it; a line about a revocation is
written before anything goes, so that a machine that trains from the copy can keep its place free.

Messages hold no credentials, for they repeat nothing that a driver says: `explain` names the error and what to do.
"""

import json
import logging
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from lcm.contributions.store import DATABASE, Contribution, ContributionStore, Revocation, store_errors
from lcm.contributions.text import MAX_SENT, clean_text, id_ranges, parse_id_ranges
from lcm.data.remote import Address, explain
from lcm.errors import BadImageError, ConfigError, DataError, LcmError, StoreDamagedError
from lcm.paths import home, sync_folder, write_atomic

# The mirror
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0  # between attempts; they double from the one to the other
LOOK_EVERY_S = 5.0  # for what other processes have changed, which cannot wake this one, and for what becomes due
COMPLAIN_EVERY_S = 60.0  # at most one line about failures
LOCK_NAME = "mirror.lock"  # in the store's folder

# The target
LIMIT_S = 300.0  # for one operation: the largest image through 1 Mbit/s takes 170 s
READ_BACK_BYTES = 65_536  # an object up to this size is compared by content after it was sent, a larger one by size
MARKER, MARKER_TEXT = "README.txt", b"Contributions to an lcm service, copied by the service; do not edit.\n"
CONTRIBUTIONS, REVOCATIONS, APPROVED = "contributions", "revocations", "approved.txt"
PART = ".part"  # ends the name of an object that is not whole yet
_NOT_THERE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)  # what drivers raise for no such object

# The way back
ORIGIN = "copy_of"  # file in the store's folder: the address that all in it came from
RECORDS_AT_ONCE, IMAGES_AT_ONCE = 200, 8  # objects that are read beside one another
TOLERATED = 0.01  # of the contributions; more damaged ones are no accident
GONE = "no longer in the copy"  # the reason of what the copy lacks, where it has no line about it
_RECORD = re.compile(r"([1-9][0-9]{0,17})\.json")
_SHA256 = re.compile("[0-9a-f]{64}")
_log = logging.getLogger(__name__)
Entry = TypeVar("Entry", Contribution, Revocation)


class TargetError(LcmError):
    """The target did not do what it was asked; the message holds no credentials."""


def _limited(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Do a target's operation in its own thread and wait for it up to the limit; its errors become TargetErrors.

    An operation that was given up on may still write when the network comes back. So none starts before it has ended.
    """

    @wraps(operation)
    def limited(target: "Target", *args: Any) -> Any:
        if target.hangs:
            raise TargetError("an earlier operation has not come back yet")
        outcome: Future = Future()

        def run() -> None:
            try:
                outcome.set_result(operation(target, *args))
            except BaseException as error:  # asyncio's CancelledError among them; raised again below
                outcome.set_exception(error)

        target.thread = threading.Thread(target=run, name="lcm-mirror-target", daemon=True)
        target.thread.start()
        if not wait([outcome], target.limit_s).done:
            raise TargetError(f"no answer within {target.limit_s:g} s")
        target.thread.join()
        error = outcome.exception()
        if error is None:
            return outcome.result()
        target.reconnect()
        is_ours = isinstance(error, TargetError | ConfigError)
        raise TargetError(str(error) if is_ours else explain(error)) from None

    return limited


class Target:
    """The folder behind an address. One operation at a time; each may raise TargetError, and may be done again."""

    def __init__(
        self, address: Address, *, limit_s: float = LIMIT_S, connect: Callable[[], tuple[Any, str]] | None = None
    ):
        """Open nothing yet; `connect` (for tests) returns a file system and the folder in it."""
        self.address, self.limit_s = address, limit_s
        self._connect = connect or address.connect
        self._fs, self._root = None, ""
        self._found = False  # whether the target was there once
        self.thread: threading.Thread | None = None  # of the latest operation

    @property
    def hangs(self) -> bool:
        """Whether an operation that was given up on still runs."""
        return self.thread is not None and self.thread.is_alive()

    def reconnect(self) -> None:
        """Drop a connection that broke, for it stays broken; asynchronous drivers make their own anew."""
        if self._fs is not None and not self._fs.async_impl:
            self._fs = None

    @_limited
    def put(self, name: str, data: bytes) -> None:
        """Make the object `name` hold the data; it is never seen in part, and sent only if it is not there already."""
        path = self._writable_path(name)
        if not self._holds(path, data):
            self._write(path, data)
            if not self._holds(path, data):
                raise TargetError(f"{name} did not arrive whole")

    @_limited
    def delete(self, name: str) -> None:
        """Remove the object `name`, if it is there."""
        path = self._writable_path(name)
        for one in (path,) if self._is_object_store else (path, path + PART):
            try:
                self._fs.rm_file(one)
            except FileNotFoundError:
                self._confirm()

    @_limited
    def read_all(self, names: Sequence[str]) -> list[bytes | None]:
        """Return what some objects hold, None of those that are not there; at once where the driver can."""
        paths = [self._path(name) for name in names]
        if self._fs.async_impl:
            found = self._fs.cat(paths, on_error="return")
        else:  # `cat` would take brackets in a disk's folder for a pattern
            found = {path: self._read(path) for path in paths}
        if failed := [one for one in found.values() if isinstance(one, Exception) and not isinstance(one, _NOT_THERE)]:
            raise failed[0]
        return [None if isinstance(found[path], Exception) else found[path] for path in paths]

    @_limited
    def names(self, folder: str) -> list[str]:
        """Return the names of the objects right inside a folder, without it; none where there is no such folder."""
        path = self._path(folder)
        self._fs.invalidate_cache()
        try:  # not `find`, which skips a folder that cannot be listed as if it held nothing
            found = self._fs.ls(path, detail=True)
        except FileNotFoundError:
            return []
        return sorted(one["name"].rpartition("/")[2] for one in found if one["type"] == "file")

    def _read(self, path: str) -> bytes | Exception:
        try:
            return self._fs.cat_file(path)
        except _NOT_THERE as error:
            return error

    def _path(self, name: str) -> str:
        if self._fs is None:
            self._fs, self._root = self._connect()
        return f"{self._root}/{name}"

    def _writable_path(self, name: str) -> str:
        """Return the driver's name of an object; makes sure, once, that the target is there."""
        path = self._path(name)
        if not self._found:
            if not self._is_object_store:
                self._fs.makedirs(self._root or "/", exist_ok=True)
            self._write(self._path(MARKER), MARKER_TEXT)
            self._found = True
        return path

    @property
    def _is_object_store(self) -> bool:
        """Whether one call writes a whole object. In fsspec such stores are asynchronous; making a folder in one may
        make a bucket, and moving is copying.
        """
        return self._fs.async_impl or self.address.protocol == "memory"

    def _holds(self, path: str, data: bytes) -> bool:
        """Return whether the object is there with this content, or at least, where reading costs, with this size."""
        self._fs.invalidate_cache()
        try:
            if self._fs.info(path)["size"] != len(data):
                return False
            cheap = len(data) <= READ_BACK_BYTES or self.address.is_disk or self.address.protocol == "memory"
            return not cheap or self._fs.cat_file(path) == data
        except FileNotFoundError:
            return False

    def _write(self, path: str, data: bytes) -> None:
        if self._is_object_store:
            self._fs.pipe_file(path, data)
            return
        self._confirm()  # making the folders below would hide that the disk is not mounted any more
        folder, part = path.rpartition("/")[0], path + PART
        self._fs.makedirs(folder, exist_ok=True)
        with self._fs.open(part, "wb") as file:
            file.write(data)
            if self.address.is_disk:
                file.flush()
                os.fsync(file.fileno())
        self._fs.mv(part, path)
        if self.address.is_disk:
            sync_folder(Path(folder))

    def _confirm(self) -> None:
        """Raise FileNotFoundError unless the target is there: in a bucket that is not, nothing was ever removed."""
        if self._is_object_store:
            self._fs.pipe_file(self._path(MARKER), MARKER_TEXT)
        elif not self._fs.isdir(self._root or "/"):
            raise FileNotFoundError(f"{self.address.name} is gone")


class Mirror:
    """A thread that copies a store to a target. Of all processes with one store, one mirror works at a time."""

    def __init__(
        self,
        store: ContributionStore,
        target: Target,
        *,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        look_every_s: float = LOOK_EVERY_S,
    ):
        """`clock` and `chance` (0 to 1) are the tests' to set.

        Raises ConfigError when the target lies in the store's folder, or around it.
        """
        target.address.refuse_folder(store.folder)
        self._store, self._target = store, target
        self._clock, self._chance, self._look_every_s = clock, chance, look_every_s
        self._approvals: str | None = None  # as they were copied last
        self._attempts: dict[Contribution | Revocation | None, int] = {}  # of what has failed
        self._due: dict[Contribution | Revocation | None, float] = {}
        self._failures = 0  # of the target, in a row
        self._complained_at, self._unsaid = -math.inf, 0
        self._lock = FileLock(store.folder / LOCK_NAME, thread_local=False)
        self._thread: threading.Thread | None = None
        self._stopping, self._wake = threading.Event(), threading.Event()

    def start(self) -> None:
        """Start the thread, after any fork. What is wrong with the target is logged and tried again, never raised."""
        assert self._thread is None, "a mirror starts once"
        self._thread = threading.Thread(target=self._work, name="lcm-mirror", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Say that the store has something new; returns at once. While the target fails it shortens no pause."""
        self._wake.set()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End the thread; returns False when the target hangs: the thread is left behind, to die with the process."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._thread is None or not self._thread.is_alive()

    def copy_due(self) -> float:
        """Copy all that is due, until the target fails; returns the seconds until the next look."""
        entry = None
        try:
            for entry in self._store.to_mirror():
                if self._stopping.is_set():
                    return 0.0
                if self._due.get(entry, -math.inf) <= self._clock():
                    self._copy(entry)
            entry = None
            self._copy_approvals()
        except TargetError as error:  # the next entry would fail as well
            pause = backoff(self._failures, self._chance())
            self._failures += 1
            self._postpone(entry, str(error))
            return pause
        return self._look_every_s

    def _copy(self, entry: Contribution | Revocation) -> None:
        record = f"{json.dumps(entry.as_record(), ensure_ascii=False, sort_keys=True, indent=1)}\n"
        data = record.encode("utf-8", "backslashreplace")  # half a surrogate pair becomes the escape that JSON knows
        if isinstance(entry, Contribution):
            try:
                image = self._store.read_image(entry)
            except StoreDamagedError as error:  # the other entries can be copied all the same
                self._postpone(entry, str(error))
                return
            except DataError:  # it was revoked just now, which is an entry of the next look
                return
            self._target.put(entry.image_file, image)
            self._target.put(f"{CONTRIBUTIONS}/{entry.id}.json", data)
        else:
            self._target.put(f"{REVOCATIONS}/{entry.id}.json", data)
            self._target.delete(f"{CONTRIBUTIONS}/{entry.id}.json")
            if not self._store.of_image(entry.image_sha256):
                self._target.delete(entry.image_file)
        self._store.set_mirrored(entry)
        self._attempts.pop(entry, None), self._due.pop(entry, None)
        self._recover()

    def _copy_approvals(self) -> None:
        approvals = id_ranges(self._store.approved())
        if approvals != self._approvals:
            self._target.put(APPROVED, f"{approvals}\n".encode())
            self._approvals = approvals
            self._recover()

    def _postpone(self, entry: Contribution | Revocation | None, text: str) -> None:
        """Note that an entry, or without one the approvals, failed; it is due again after a longer pause each time."""
        self._attempts[entry] = self._attempts.get(entry, 0) + 1
        pause = backoff(self._attempts[entry], self._chance())  # longer than the target's: others come first
        self._due[entry] = self._clock() + pause
        what = f"contribution {entry.id}" if entry else "approvals"
        self._complain(f"{what}: {text}; next attempt in {pause:.0f} s")

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

    def _work(self) -> None:
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
            text = str(error) if isinstance(error, LcmError) else type(error).__name__
            self._complain(f"{text}; next attempt in {self._look_every_s:.0f} s")
            return self._look_every_s


def backoff(attempts: int, chance: float) -> float:
    """Return the seconds until the next attempt; `chance`, 0 to 1, keeps many from coming back at once."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(attempts, 30)) * (1 + chance) / 2


def open_mirror(url: str, store: ContributionStore) -> Mirror | None:
    """Return the mirror of a store to LCM_STORE_URL, not started; None when that is empty.

    Raises ConfigError for a bad address, an unknown protocol and a driver that is not installed.
    """
    return Mirror(store, Target(Address.parse(url, "LCM_STORE_URL"))) if url else None


# The way back


@dataclass(frozen=True)
class Fetched:
    """What a store holds once it equals the copy, and what became of it this time."""

    contributions: int
    new: int
    revoked: int  # that were here before
    damaged: dict[str, str]  # names of objects that were left out -> why

    @property
    def is_damaged(self) -> bool:
        """Whether more is damaged than an accident explains; one always is explained."""
        return len(self.damaged) > max(1, TOLERATED * (self.contributions + len(self.damaged)))


def fetch_contributions(url: str, folder: str | Path | None = None) -> Fetched:
    """Make the store in `folder` (`contributions` in LCM_HOME) equal the copy at LCM_STORE_URL.

    Contributions keep their ids: by those a model knows what it has learned from. What is here already is not read
    again. What is damaged there is left out; if it is here, it stays. Raises ConfigError for no address or a bad one,
    and for a store that did not come from there; DataError where there is no copy; TargetError when it cannot be read,
    and what was fetched until then stays.
    """
    if not url:
        raise ConfigError("LCM_STORE_URL is not set; give it the address that the service copies contributions to")
    return fetch(Target(Address.parse(url, "LCM_STORE_URL")), Path(folder or home() / "contributions"))


def fetch(target: Target, folder: Path) -> Fetched:
    """Do the same from a target."""
    folder = folder.expanduser().resolve()
    target.address.refuse_folder(folder)
    if target.read_all([MARKER]) == [None]:
        raise DataError(
            f"{target.address.name} holds no copy of contributions ({MARKER} is not there); set LCM_STORE_URL to what "
            "the service has, and check that the service has stored something"
        )
    store, damaged = _open_copy(target, folder), {}
    there, revoked = (_ids(target, place) for place in (CONTRIBUTIONS, REVOCATIONS))
    known = {line.id for line in store.revocations()}
    lines = (line for page in _records(target, REVOCATIONS, revoked - known, damaged) for line in page)
    gone = sum(map(store.take_revocation, lines))
    here = {one.id for one in store.contributions()}
    for number in here - (there - revoked):
        store.revoke(number, GONE)
        gone += 1
    new = 0
    for page in _records(target, CONTRIBUTIONS, there - here - revoked, damaged):
        for first in range(0, len(page), IMAGES_AT_ONCE):
            new += _take(target, store, page[first : first + IMAGES_AT_ONCE], damaged)
    _take_approvals(target, store, damaged)
    return Fetched(sum(1 for _ in store.contributions()), new, gone, damaged)


def _open_copy(target: Target, folder: Path) -> ContributionStore:
    """Open the store that is to equal the copy; raises ConfigError where it holds something else."""
    origin = folder / ORIGIN
    with store_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        came_from = origin.read_text(encoding="utf-8").strip() if origin.exists() else ""
        is_empty = not (folder / DATABASE).exists() or ContributionStore(folder).state() == (0, 0)
        if came_from != target.address.name and not is_empty:
            whose = f"a copy of {came_from}" if came_from else "its own contributions"
            raise ConfigError(
                f"{folder} holds {whose}, not those of {target.address.name}; choose another folder with --store"
            )
        write_atomic(origin, f"{target.address.name}\n")
    return ContributionStore(folder)


def _ids(target: Target, folder: str) -> set[int]:
    """Return the ids of the records in one of the copy's folders; other names there are skipped."""
    return {int(found[1]) for name in target.names(folder) if (found := _RECORD.fullmatch(name))}


def _records(target: Target, folder: str, ids: set[int], damaged: dict[str, str]) -> Iterator[list]:
    """Yield the records of one of the copy's folders, some at a time; damaged ones are noted."""
    kind, in_order = Contribution if folder == CONTRIBUTIONS else Revocation, sorted(ids)
    for start in range(0, len(in_order), RECORDS_AT_ONCE):
        numbers, found = in_order[start : start + RECORDS_AT_ONCE], []
        names = [f"{folder}/{number}.json" for number in numbers]
        for number, name, data in zip(numbers, names, target.read_all(names), strict=True):
            try:
                found.append(_parse(kind, number, data))
            except DataError as error:
                damaged[name] = str(error)
        yield found


def _take(
    target: Target, store: ContributionStore, contributions: Sequence[Contribution], damaged: dict[str, str]
) -> int:
    """Read the images of some contributions and keep them; returns how many were kept."""
    names = sorted({one.image_file for one in contributions})
    images, kept = dict(zip(names, target.read_all(names), strict=True)), 0
    for one in contributions:
        try:
            image = images[one.image_file]
            if image is None:
                raise DataError("its image is not there")
            store.take(one, image)
            kept += 1
        except (BadImageError, DataError) as error:
            damaged[f"{CONTRIBUTIONS}/{one.id}.json"] = str(error)
    return kept


def _take_approvals(target: Target, store: ContributionStore, damaged: dict[str, str]) -> None:
    """Approve here what is approved there and nothing else; where that is missing or damaged, all stays."""
    (text,) = target.read_all([APPROVED])
    if text is None:
        return
    try:
        wanted = parse_id_ranges(text.decode("utf-8", "replace"))
    except ConfigError as error:
        damaged[APPROVED] = str(error)
        return
    wanted &= {one.id for one in store.contributions()}
    approved = store.approved()
    store.approve(wanted - approved)
    store.approve(approved - wanted, approved=False)


def _parse(kind: type[Entry], number: int, data: bytes | None) -> Entry:
    """Return a record; raises DataError for one of which number, texts or the place of its image are not as written."""
    try:
        record = json.loads(data or b"")
        where = record.pop("image_file")
        found = kind(**record)
        is_one = type(found.id) is int and found.id == number and _SHA256.fullmatch(found.image_sha256)
        if isinstance(found, Contribution):
            datetime.fromisoformat(found.received)
            is_one = is_one and isinstance(found.caption_sent, str) and len(found.caption_sent) <= MAX_SENT
        else:
            datetime.fromisoformat(found.revoked)
            clean_text(found.reason, "reason")
        if is_one and found.image_file == where:
            return found
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        pass
    raise DataError("it is not there or not whole")
