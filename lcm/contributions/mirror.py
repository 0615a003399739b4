"""The mirror: a copy of all contributions on any fsspec target, made by a thread of the service, and the way back.

The copy holds the images, and contributions/<page>.jsonl with a record a line of all that the store has of some ids,
what was revoked too. An image is written before the page that names it; the page that says that it was revoked is
written before it goes.

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
from typing import Any

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from lcm.contributions.store import MIRROR_PAGE, SUFFIXES, Contribution, ContributionStore
from lcm.data.remote import Address, explain
from lcm.errors import BadImageError, ConfigError, DataError, LcmError, StoreDamagedError
from lcm.paths import home, write_atomic

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0  # after a failure; pauses double from the one to the other
LOOK_EVERY_S = 5.0  # for what other processes have changed, which cannot wake this one
LOCK_NAME = "mirror.lock"  # in the store's folder

MARKER, MARKER_TEXT = "README.txt", b"Contributions to an lcm service, copied by the service; do not edit.\n"
PAGES = "contributions"  # the folder of records

AT_ONCE = 16  # objects that are fetched beside one another
_RECORD, _SHA256 = TypeAdapter(Contribution), re.compile("[0-9a-f]{64}")
TOLERATED = 0.01  # of the contributions; more damaged ones are no accident
_log = logging.getLogger(__name__)


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

    def pages(self) -> list[str]:
        """Return the names of the pages."""
        with self._opened():
            self._fs.invalidate_cache()
            try:  # not `find`, which skips a folder that cannot be listed as if it held nothing
                names = (path.rpartition("/")[2] for path in self._fs.ls(self._path(PAGES), detail=False))
            except FileNotFoundError:
                return []
            return [f"{PAGES}/{name}" for name in sorted(names) if re.fullmatch(r"\d+\.jsonl", name)]

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
        self._failures = 0  # in a row
        self._unreadable: set[int] = set()  # ids of images in the store that are; not tried again before the next start
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
        """Copy all that is due; returns the seconds until the next look. The second failure ends the attempt."""
        failed: list[str] = []
        try:
            for page, due in self._store.to_mirror():
                self._copy(page, due, failed)
                if self._stopping.is_set():
                    return 0.0
                if len(failed) > 1:
                    break
        except Exception as error:  # whatever it is (the store is busy, the target is down), the thread must outlive it
            failed.append(f"contributions: {error if isinstance(error, LcmError) else explain(error)}")
        if failed:
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures, 30))
            self._failures += 1
            _log.warning("mirroring %s; next attempt in %.0f s", failed[0], pause)
            return pause
        if self._failures:
            _log.info("%s answers again", self._target.address.name)
            self._failures = 0
        return LOOK_EVERY_S

    def _copy(self, page: list[Contribution], due: dict[int, int], failed: list[str]) -> None:
        """Copy what is due of a page: its images, then the page, and then the end of images that are not used."""
        there = [one for one in page if one.revoked or one.id not in due or self._copy_image(one, failed)]
        copied = {one.id: due[one.id] for one in there if one.id in due}
        if not copied or len(failed) > 1:
            return
        name = f"{PAGES}/{page[0].id // MIRROR_PAGE:07}.jsonl"
        try:
            self._target.put(name, "".join(json.dumps(one.as_record()) + "\n" for one in there).encode())
            for one in there:
                if one.revoked and one.id in due and not self._store.of_image(one.image_sha256):
                    self._target.delete(one.image_file)
            self._store.set_mirrored(copied)
        except TargetError as error:
            failed.append(str(error))

    def _copy_image(self, one: Contribution, failed: list[str]) -> bool:
        """Copy an image that is not there; returns whether it is there then."""
        if len(failed) > 1 or self._stopping.is_set() or one.id in self._unreadable:
            return False
        try:
            self._target.put(one.image_file, self._store.read_image(one), overwrite=False)
            return True
        except StoreDamagedError as error:
            self._unreadable.add(one.id)
            _log.warning("contribution %d is not mirrored: %s", one.id, error)
        except DataError:  # it was revoked just now, which is due at the next look
            pass
        except TargetError as error:
            failed.append(f"contribution {one.id}: {error}")
        return False

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
    damaged: dict[str, str]  # what was left out, a line of a page or a contribution -> why

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

    Contributions keep their ids: by those a model knows what it has learned from. Images that are here already are not
    read again. What is damaged there is left out; if it is here, it stays. Raises ConfigError for a store that holds
    something else, DataError where there is no copy, TargetError when it cannot be read; what was fetched stays.
    """
    folder = Path(folder or home() / "contributions").expanduser().resolve()
    target.address.refuse_folder(folder)
    if target.read_all([MARKER]) == [None]:
        raise DataError(
            f"{target.address.name} holds no copy of contributions ({MARKER} is not there); set LCM_STORE_URL to what "
            "the service has, and check that the service has stored something"
        )
    store, damaged = ContributionStore(folder), {}
    here, pages = {one.id: one for one in (*store.contributions(), *store.revoked())}, target.pages()
    there = [one for page in zip(pages, target.read_all(pages), strict=True) for one in _read_page(*page, damaged)]
    for one in there:
        its = here.get(one.id, one)
        if its.image_sha256 != one.image_sha256 or (its.caption != one.caption and not (its.revoked or one.revoked)):
            raise ConfigError(
                f"contribution {one.id} is another one in {folder} than in {target.address.name}; choose another "
                "folder with --store"
            )
    changed = [one for one in there if here.get(one.id) != one and not (one.id in here and here[one.id].revoked)]
    for start in range(0, len(changed), AT_ONCE):
        some = changed[start : start + AT_ONCE]
        wanted = {one.image_file for one in some if not (one.revoked or one.id in here)}
        images = dict(zip(wanted, target.read_all([*wanted]), strict=True))
        for one in some:
            try:
                if not (one.revoked or one.id in here or images[one.image_file]):
                    raise DataError("its image is not there")
                store.take(one, images.get(one.image_file) or b"")
            except (BadImageError, DataError) as error:
                damaged[f"contribution {one.id}"] = str(error)
    left = {one.id for one in store.contributions()}
    known = {number for number, one in here.items() if not one.revoked}
    return Fetched(len(left), len(left - known), len(known - left), damaged)


def _read_page(page: str, data: bytes | None, damaged: dict[str, str]) -> list[Contribution]:
    """Return the records of a page; damaged ones are noted."""
    found: list[Contribution] = []
    for number, line in enumerate((data or b"").splitlines() or [b""], 1):
        try:
            one = _RECORD.validate_json(line, strict=True)
            datetime.fromisoformat(one.revoked or one.received)
            if (
                one.id <= (found[-1].id if found else 0)
                or one.known
                or not _SHA256.fullmatch(one.image_sha256)
                or one.image_format not in SUFFIXES
            ):
                raise ValueError
            found.append(one)
        except ValueError:
            damaged[f"line {number} of {page}"] = "it is not what was written"
    return found
