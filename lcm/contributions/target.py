"""A folder somewhere else that objects are put into and read from: a bucket, a container, another disk.

Knows how fsspec's drivers write: how an object becomes visible whole, what tells a missing object from a missing
bucket, and that a driver may hang. Refuses to know what the objects are and when to try again.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

from lcm.data.remote import Address, explain
from lcm.errors import ConfigError, LcmError

LIMIT_S = 300.0  # for one operation: the largest image through 1 Mbit/s takes 170 s
READ_BACK_BYTES = 65_536  # an object up to this size is compared by content after it was sent, a larger one by size
MARKER, MARKER_TEXT = "README.txt", b"Contributions to an lcm service, copied by the service; do not edit.\n"
PART = ".part"  # ends the name of an object that is not whole yet
_NOT_THERE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)  # what drivers raise for no such object


class TargetError(LcmError):
    """The target did not do what it was asked; the message holds no credentials."""


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
        self._thread: threading.Thread | None = None

    @property
    def hangs(self) -> bool:
        """Whether an operation that was given up on still runs."""
        return self._thread is not None and self._thread.is_alive()

    def put(self, name: str, data: bytes) -> None:
        """Make the object `name` hold the data; it is never seen in part, and sent only if it is not there already."""
        self._limited(self._put, name, data)

    def delete(self, name: str) -> None:
        """Remove the object `name`, if it is there."""
        self._limited(self._delete, name)

    def sizes(self) -> dict[str, int]:
        """Return the size of every object, by name."""
        return self._limited(self._sizes)

    def read(self, name: str) -> bytes:
        """Return what the object `name` holds."""
        return self._limited(lambda: self._call("cat_file", self._path(name)))

    def read_all(self, names: Sequence[str]) -> list[bytes | None]:
        """Return what some objects hold, None of those that are not there; at once where the driver can."""
        return self._limited(self._read_all, names)

    def names(self, folder: str) -> list[str]:
        """Return the names of the objects right inside a folder, without it; none where there is no such folder."""
        return self._limited(self._names, folder)

    # Jobs: each runs in a thread of its own

    def _put(self, name: str, data: bytes) -> None:
        path = self._path(name, find=True)
        if self._holds(path, data):
            return
        self._write(path, data)
        if not self._holds(path, data):
            raise TargetError(f"{name} did not arrive whole")

    def _delete(self, name: str) -> None:
        path = self._path(name, find=True)
        self._remove(path)
        if not self._is_object_store:
            self._remove(path + PART)

    def _sizes(self) -> dict[str, int]:
        root = self._path("")
        self._fs.invalidate_cache()
        found = self._call("find", root.rstrip("/"), detail=True)
        return {path[len(root) :] if path.startswith(root) else path: info["size"] for path, info in found.items()}

    def _read_all(self, names: Sequence[str]) -> list[bytes | None]:
        paths = [self._path(name) for name in names]
        if self._fs.async_impl:
            from fsspec.asyn import sync

            return sync(self._fs.loop, _read_beside, self._fs, paths, timeout=self.limit_s)
        return [self._read_or_none(path) for path in paths]

    def _read_or_none(self, path: str) -> bytes | None:
        try:
            return self._call("cat_file", path)
        except _NOT_THERE:
            return None

    def _names(self, folder: str) -> list[str]:
        path = self._path(folder)
        self._fs.invalidate_cache()
        try:  # not `find`, which passes over a folder that cannot be listed as if it held nothing
            found = self._call("ls", path, detail=True)
        except FileNotFoundError:
            return []
        return sorted(one["name"].rpartition("/")[2] for one in found if one["type"] == "file")

    # What jobs are made of

    def _path(self, name: str, find: bool = False) -> str:
        """Return the driver's name of an object; `find` makes sure, once, that the target is there for writing."""
        if self._fs is None:
            self._fs, self._root = self._connect()
        if find and not self._found:
            if not self._is_object_store:
                self._call("makedirs", self._root or "/", exist_ok=True)
            self._write(f"{self._root}/{MARKER}", MARKER_TEXT)
            self._found = True
        return f"{self._root}/{name}"

    @property
    def _is_object_store(self) -> bool:
        """Whether one call writes a whole object. In fsspec such stores are asynchronous; making a folder in one may
        make a bucket, and moving is copying.
        """
        return self._fs.async_impl or self.address.protocol == "memory"

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        return getattr(self._fs, method)(*args, **options)

    def _holds(self, path: str, data: bytes) -> bool:
        """Return whether the object is there with this content, or at least, where reading costs, with this size."""
        self._fs.invalidate_cache()
        try:
            if self._call("info", path)["size"] != len(data):
                return False
            cheap = len(data) <= READ_BACK_BYTES or self.address.is_disk or self.address.protocol == "memory"
            return not cheap or self._call("cat_file", path) == data
        except FileNotFoundError:
            return False

    def _write(self, path: str, data: bytes) -> None:
        if self._is_object_store:
            self._call("pipe_file", path, data)
            return
        self._confirm()  # making the folders below would hide that the disk is not mounted any more
        folder, part = path.rpartition("/")[0], path + PART
        self._call("makedirs", folder, exist_ok=True)
        with self._fs.open(part, "wb") as file:
            file.write(data)
            if self.address.is_disk:
                file.flush()
                os.fsync(file.fileno())
        self._call("mv", part, path)
        self._sync(folder)

    def _remove(self, path: str) -> None:
        try:
            self._call("rm_file", path)
        except FileNotFoundError:
            self._confirm()
        else:
            self._sync(path.rpartition("/")[0])

    def _confirm(self) -> None:
        """Raise FileNotFoundError unless the target is there: in a bucket that is not, nothing was ever removed."""
        if self._is_object_store:
            self._call("pipe_file", f"{self._root}/{MARKER}", MARKER_TEXT)
        elif not self._call("isdir", self._root or "/"):
            raise FileNotFoundError(f"{self.address.name} is gone")

    def _sync(self, folder: str) -> None:
        """Force a folder's names to disk, where the target is one; its parent's too, for it may be new."""
        if self.address.is_disk and hasattr(os, "O_DIRECTORY"):
            for path in (folder, str(Path(folder).parent)):
                descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def _limited(self, job: Callable[..., Any], *args: Any) -> Any:
        """Do a job in a thread of its own and wait for it up to the limit; its errors become TargetErrors.

        A job that was given up on may still write when the network comes back. So none starts before it has ended.
        """
        if self.hangs:
            raise TargetError("an earlier operation has not come back yet")
        outcome: Future = Future()
        self._thread = threading.Thread(target=_run, args=(outcome, job, args), name="lcm-mirror-target", daemon=True)
        self._thread.start()
        if not wait([outcome], self.limit_s).done:
            raise TargetError(f"no answer within {self.limit_s:g} s")
        self._thread.join()
        error = outcome.exception()
        if error is None:
            return outcome.result()
        if self._fs is not None and not self._fs.async_impl:
            self._fs = None  # a broken connection stays broken; asynchronous drivers make their own anew
        is_ours = isinstance(error, TargetError | ConfigError)
        raise TargetError(str(error) if is_ours else explain(error)) from None


async def _read_beside(fs: Any, paths: Sequence[str]) -> list[bytes | None]:
    """Read objects beside one another; one that is not there is None, any other error is raised."""
    found = await asyncio.gather(*(fs._cat_file(path) for path in paths), return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, _NOT_THERE):
            raise one
    return [None if isinstance(one, _NOT_THERE) else one for one in found]


def _run(outcome: Future, job: Callable[..., Any], args: tuple) -> None:
    try:
        outcome.set_result(job(*args))
    except BaseException as error:  # asyncio's CancelledError among them; whoever waits raises it again
        outcome.set_exception(error)
