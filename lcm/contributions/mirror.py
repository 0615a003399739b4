"""The mirror: a copy of all contributions on any fsspec target, made by a thread of the service, and the way back.

The copy holds contributions/<id>.json, the images that these name, revocations/<id>.json with the line that stays of
what was revoked, approved.txt, and languages.txt with the languages that were corrected. An image is written before the
record that names it; a line about a revocation is written before anything goes, so that a machine that trains from the
copy can keep its place free.

Messages hold no credentials, for they repeat nothing that a driver says: `explain` names the error and what to do.
"""

import asyncio
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from lcm.contributions.store import DATABASE, SUFFIXES, Contribution, ContributionStore, Revocation, store_errors
from lcm.contributions.text import id_ranges, language_lines, parse_id_ranges, parse_language_lines
from lcm.data.remote import Address, explain
from lcm.errors import BadImageError, ConfigError, DataError, LcmError, StoreDamagedError
from lcm.paths import home, write_atomic

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0  # after a failure; pauses double from the one to the other
LOOK_EVERY_S = 5.0  # for what other processes have changed, which cannot wake this one
LOCK_NAME = "mirror.lock"  # in the store's folder

MARKER, MARKER_TEXT = "README.txt", b"Contributions to an lcm service, copied by the service; do not edit.\n"
CONTRIBUTIONS, REVOCATIONS = "contributions", "revocations"
APPROVED, LANGUAGES = "approved.txt", "languages.txt"  # 3,7-9; and a language a line: fr 3,7-9

ORIGIN = "copy_of"  # file in the store's folder: the address that all in it came from
AT_ONCE = 16  # records, and then their images, that are fetched beside one another
TOLERATED = 0.01  # of the contributions; more damaged ones are no accident
GONE = "no longer in the copy"  # the reason of what the copy lacks, where it has no line about it
_RECORD = re.compile(r"([1-9][0-9]{0,17})\.json")
_SHA256 = re.compile("[0-9a-f]{64}")
_log = logging.getLogger(__name__)
Entry = Contribution | Revocation
Record = TypeVar("Record", Contribution, Revocation)


class TargetError(LcmError):
    """The target did not do what it was asked; the message holds no credentials."""


class Target:
    """The folder behind an address. Each method may raise TargetError, and may be called again."""

    def __init__(self, address: Address, connect: Callable[[], tuple[Any, str]] | None = None):
        """Open nothing yet; `connect` (for tests) returns a file system and the folder in it."""
        self.address = address
        self._connect = connect or address.connect
        self._fs, self._root = None, ""
        self._found = False  # whether the target was there once

    def put(self, name: str, data: bytes, overwrite: bool = True) -> None:
        """Make the object `name` hold the data; without `overwrite`, one of the same size stays."""
        with self._opened():
            self._confirm()
            if overwrite or self._size(name) != len(data):
                self._write(name, data)
                if self._size(name) != len(data):
                    raise TargetError(f"{self.address.name}: {name} did not arrive whole")

    def delete(self, name: str) -> None:
        with self._opened():
            self._confirm()
            with suppress(FileNotFoundError):
                self._fs.rm_file(self._path(name))

    def read_all(self, names: Sequence[str]) -> list[bytes | None]:
        """Return what some objects hold, None of those that are not there; at once where the driver can."""
        with self._opened(), ThreadPoolExecutor(AT_ONCE if self._fs.async_impl else 1) as pool:
            return list(pool.map(self._read, names))

    def ids(self, folder: str) -> set[int]:
        """Return the ids of the records in a folder, none where it is missing; other names there are skipped."""
        with self._opened():
            self._fs.invalidate_cache()
            try:  # not `find`, which skips a folder that cannot be listed as if it held nothing
                found = self._fs.ls(self._path(folder), detail=False)
            except FileNotFoundError:
                return set()
            names = (path.rpartition("/")[2] for path in found)
            return {int(match[1]) for name in names if (match := _RECORD.fullmatch(name))}

    @contextmanager
    def _opened(self) -> Iterator[None]:
        """Connect, and turn whatever the driver raises into a TargetError."""
        try:
            if self._fs is None:
                self._fs, self._root = self._connect()
            yield
        except LcmError:
            raise
        except (Exception, asyncio.CancelledError) as error:
            if self._fs is not None and not self._fs.async_impl:
                self._fs = None  # a connection that broke stays broken; asynchronous drivers make their own anew
            raise TargetError(f"{self.address.name}: {explain(error)}") from None

    def _confirm(self) -> None:
        """Make sure that the target is there: a disk that is mounted no more must not be filled below its place."""
        if not self._found:
            if not self._is_object_store:
                self._fs.makedirs(self._root or "/", exist_ok=True)
            self._write(MARKER, MARKER_TEXT)
            self._found = True
        elif not self._is_object_store and not self._fs.exists(self._path(MARKER)):
            raise FileNotFoundError(MARKER)

    @property
    def _is_object_store(self) -> bool:
        """Whether there are no folders: in fsspec such stores are asynchronous; making one there may make a bucket."""
        return self._fs.async_impl or self.address.protocol == "memory"

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _size(self, name: str) -> int | None:
        self._fs.invalidate_cache()
        try:
            return self._fs.info(self._path(name))["size"]
        except FileNotFoundError:
            return None

    def _read(self, name: str) -> bytes | None:
        try:
            return self._fs.cat_file(self._path(name))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):  # what drivers raise for no such object
            return None

    def _write(self, name: str, data: bytes) -> None:
        path = self._path(name)
        if not self._is_object_store:
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        if self.address.is_disk:
            write_atomic(Path(path), data)
        else:
            self._fs.pipe_file(path, data)


class Mirror:
    """A thread that copies a store to a target. Of all processes with one store, one mirror works at a time."""

    def __init__(self, store: ContributionStore, target: Target):
        """Start nothing yet; raises ConfigError when the target lies in the store's folder, or around it."""
        target.address.refuse_folder(store.folder)
        self._store, self._target = store, target
        self._notes = {LANGUAGES: ""}  # approvals and languages as they were copied last; none are corrected at first
        self._failures = 0  # in a row
        self._unreadable: set[Entry] = set()  # in the store; not tried again before the next start
        self._thread = threading.Thread(target=self._work, name="lcm-mirror", daemon=True)
        self._stopping, self._wake = threading.Event(), threading.Event()

    def start(self) -> None:
        """Start the thread, after any fork. What is wrong with the target is logged and tried again, never raised."""
        self._thread.start()

    def wake(self) -> None:
        """Say that the store has something new; returns at once. While the target fails it shortens no pause."""
        self._wake.set()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End the thread; returns False when the target hangs: the thread is left behind, to die with the process."""
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def copy_due(self) -> float:
        """Copy all that is due; returns the seconds until the next look. Two failures in a row end the attempt."""
        failed, in_a_row = "", 0
        try:
            for entry in self._store.to_mirror():
                if self._stopping.is_set():
                    return 0.0
                try:
                    self._copy(entry)
                    in_a_row = 0
                except TargetError as error:
                    failed = failed or f"contribution {entry.id}: {error}"
                    in_a_row += 1
                    if in_a_row == 2:
                        break
            else:
                self._copy_notes()
        except Exception as error:  # whatever it is (the store is busy, the target is down), the thread must outlive it
            failed = failed or f"contributions: {error if isinstance(error, LcmError) else explain(error)}"
        if failed:
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures, 30))
            self._failures += 1
            _log.warning("mirroring %s; next attempt in %.0f s", failed, pause)
            return pause
        if self._failures:
            _log.info("%s answers again", self._target.address.name)
            self._failures = 0
        return LOOK_EVERY_S

    def _copy(self, entry: Entry) -> None:
        record = f"{json.dumps(entry.as_record(), ensure_ascii=False, sort_keys=True, indent=1)}\n"
        data = record.encode("utf-8", "backslashreplace")  # half a surrogate pair becomes the escape that JSON knows
        if entry in self._unreadable:
            return
        if isinstance(entry, Contribution):
            try:
                image = self._store.read_image(entry)
            except StoreDamagedError as error:
                self._unreadable.add(entry)
                _log.warning("contribution %d is not mirrored: %s", entry.id, error)
                return
            except DataError:  # it was revoked just now, which is an entry of the next look
                return
            self._target.put(entry.image_file, image, overwrite=False)
            self._target.put(f"{CONTRIBUTIONS}/{entry.id}.json", data)
        else:
            self._target.put(f"{REVOCATIONS}/{entry.id}.json", data)
            self._target.delete(f"{CONTRIBUTIONS}/{entry.id}.json")
            if not self._store.of_image(entry.image_sha256):
                self._target.delete(entry.image_file)
        self._store.set_mirrored(entry)

    def _copy_notes(self) -> None:
        languages = language_lines(self._store.corrected())
        for name, text in {APPROVED: id_ranges(self._store.approved()), LANGUAGES: languages}.items():
            if text != self._notes.get(name):
                self._target.put(name, text.encode())
                self._notes[name] = text

    def _work(self) -> None:
        lock = FileLock(self._store.folder / LOCK_NAME, blocking=False)
        while not self._stopping.is_set():
            self._wake.clear()
            pause = LOOK_EVERY_S
            try:
                with lock:
                    pause = self.copy_due()
            except Timeout:  # it is another process's turn
                pass
            except OSError as error:
                _log.warning("mirroring: %s: %s", self._store.folder, explain(error))
            (self._stopping if self._failures else self._wake).wait(pause)


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


def open_target(url: str) -> Target:
    """Return the target at LCM_STORE_URL; raises ConfigError for none, and for one that cannot be used."""
    if not url:
        raise ConfigError("LCM_STORE_URL is not set; give it the address that the service copies contributions to")
    return Target(Address.parse(url, "LCM_STORE_URL"))


def fetch(target: Target, folder: str | Path | None = None) -> Fetched:
    """Make the store in `folder` (`contributions` in LCM_HOME) equal the copy at a target.

    Contributions keep their ids: by those a model knows what it has learned from. What is here already is not read
    again. What is damaged there is left out; if it is here, it stays. Raises ConfigError for a store that did not come
    from there; DataError where there is no copy; TargetError when it cannot be read, and what was fetched until then
    stays.
    """
    folder = Path(folder or home() / "contributions").expanduser().resolve()
    target.address.refuse_folder(folder)
    if target.read_all([MARKER]) == [None]:
        raise DataError(
            f"{target.address.name} holds no copy of contributions ({MARKER} is not there); set LCM_STORE_URL to what "
            "the service has, and check that the service has stored something"
        )
    store, damaged = _open_copy(target, folder), {}
    there, revoked = target.ids(CONTRIBUTIONS), target.ids(REVOCATIONS)
    gone = new = 0
    for page in _records(target, Revocation, revoked - {line.id for line in store.revocations()}, damaged):
        gone += sum(map(store.take_revocation, page))
    here = {one.id for one in store.contributions()}
    for number in here - (there - revoked):
        store.revoke(number, GONE)
        gone += 1
    for page in _records(target, Contribution, there - here - revoked, damaged):
        images = target.read_all([one.image_file for one in page])
        for one, image in zip(page, images, strict=True):
            try:
                if image is None:
                    raise DataError("its image is not there")
                store.take(one, image)
                new += 1
            except (BadImageError, DataError) as error:
                damaged[f"{CONTRIBUTIONS}/{one.id}.json"] = str(error)
    _take_notes(target, store, damaged)
    return Fetched(sum(1 for _ in store.contributions()), new, gone, damaged)


def _open_copy(target: Target, folder: Path) -> ContributionStore:
    """Open the store that is to equal the copy; raises ConfigError where it holds something else."""
    origin, name = folder / ORIGIN, target.address.name
    with store_errors(folder):
        came_from = origin.read_text(encoding="utf-8").strip() if origin.exists() else "another place"
        if came_from != name:
            if (folder / DATABASE).exists() and ContributionStore(folder).state() != (0, 0):
                raise ConfigError(
                    f"{folder} holds contributions of {came_from}, not those of {name}; choose another folder with "
                    "--store"
                )
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(origin, f"{name}\n")
    return ContributionStore(folder)


def _records(target: Target, kind: type[Record], ids: set[int], damaged: dict[str, str]) -> Iterator[list[Record]]:
    """Yield the records of these ids, some at a time; damaged ones are noted."""
    in_order, folder = sorted(ids), CONTRIBUTIONS if kind is Contribution else REVOCATIONS
    for start in range(0, len(in_order), AT_ONCE):
        page, found = in_order[start : start + AT_ONCE], []
        names = [f"{folder}/{number}.json" for number in page]
        for number, name, data in zip(page, names, target.read_all(names), strict=True):
            try:
                one = TypeAdapter(kind).validate_json(data or b"", strict=True)
                datetime.fromisoformat(one.received if isinstance(one, Contribution) else one.revoked)
                if one.id != number or not _SHA256.fullmatch(one.image_sha256) or one.image_format not in SUFFIXES:
                    raise ValueError
                found.append(one)
            except ValueError:
                damaged[name] = "it is not there or not whole"
        yield found


def _take_notes(target: Target, store: ContributionStore, damaged: dict[str, str]) -> None:
    """Approve and correct here what is so there; where what says it is missing or damaged, all stays."""
    here = {one.id: one.language for one in store.contributions()}
    for name, data in zip((APPROVED, LANGUAGES), target.read_all([APPROVED, LANGUAGES]), strict=True):
        if data is None:
            continue
        text = data.decode("utf-8", "replace")
        try:
            if name == APPROVED:
                approved, wanted = store.approved(), parse_id_ranges(text) & here.keys()
                store.approve(wanted - approved)
                store.approve(approved - wanted, approved=False)
            else:
                for number, language in parse_language_lines(text).items():
                    if here.get(number, language) != language:
                        store.set_language([number], language)
        except (ConfigError, DataError) as error:
            damaged[name] = str(error)
