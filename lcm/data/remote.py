"""Data sets elsewhere: the files at an address are fetched into the cache, and later only those that changed.

Knows what a driver tells of files, which names are safe here, and what to do when the place cannot be reached. Refuses
to know captions and images; address.py knows credentials, cached.py how a copy lies in the cache.
"""

import errno
import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock
from tqdm import tqdm

from lcm.data.address import Address, call
from lcm.data.cached import Copy, Version
from lcm.errors import ConfigError, DataError
from lcm.folders import cache_dir

WORKERS = 16  # files fetched at once, where the driver can: a photo takes longer to ask for than to send
LIMIT_S = 600.0  # for one file, or the list of all, where the driver can be stopped
MAX_NAME_BYTES = 255  # of a file or folder, on Linux and macOS
# What drivers call a mark that changes with the content, the best first.
STAMPS = ("ETag", "etag", "md5Hash", "LastModified", "Last-Modified", "last_modified", "updated", "mtime", "created")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class _UnreachableError(Exception):
    """The place did not give what it was asked for; the message holds no credentials."""


def fetch(url: str, setting: str = "data_dir") -> Path:
    """Return a folder with the files at an address, fetched as far as they are new or changed; hidden ones are not.

    When the place cannot be reached, a whole copy of an earlier time is used, which stderr then says. `setting` is what
    the address was given in, for messages. Raises ConfigError for an address that cannot be used and a driver that is
    not installed, DataError when there is neither the place nor a copy.
    """
    address = Address.parse(url, setting)
    folder = cache_dir() / "datasets" / hashlib.sha256(url.encode()).hexdigest()[:16]
    address.refuse_folder(folder.parent)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            _update(Copy(folder), address)
    except OSError as error:
        raise DataError(
            f"{address.name} cannot be kept in {folder.parent} ({error.strerror or error}); free some space there, or "
            "set LCM_CACHE to another folder"
        ) from error
    return folder


def _update(copy: Copy, address: Address) -> None:
    """Make the copy equal what is at the address, or leave it as it is."""
    copy.install()
    try:
        place = _Place(address)
        versions = place.versions()
        _fetch_all(place, copy, {name: one for name, one in versions.items() if not copy.has(name, one)})
    except _UnreachableError as error:
        if not copy.is_whole():
            raise DataError(
                f"{address.name} cannot be read: {error}; check the address, the credentials and the network, then run "
                "this again: files that were fetched are kept"
            ) from None
        print(f"lcm: {address.name} cannot be read ({error}); its copy in {copy.folder} is used", file=sys.stderr)
        return
    copy.adopt(versions)


def _fetch_all(place: "_Place", copy: Copy, versions: Mapping[str, Version]) -> None:
    """Put these files beside the copy, with a progress bar; those that are there from a run that was killed stay."""
    missing = {name: one for name, one in versions.items() if not copy.staged(name, one).exists()}
    if not missing:
        return
    copy.new.mkdir(exist_ok=True)
    with (
        ThreadPoolExecutor(WORKERS if place.takes_several else 1) as pool,
        tqdm(total=len(missing), unit=" files", desc="fetch", mininterval=1) as progress,
    ):
        jobs = [pool.submit(place.fetch, name, one, copy.staged(name, one)) for name, one in missing.items()]
        try:
            for job in as_completed(jobs):
                job.result()
                progress.update()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _Place:
    """The folder at an address. What goes wrong there raises _UnreachableError."""

    def __init__(self, address: Address):
        self._address = address
        with self._telling():
            self._fs, root = address.connect()
        self._root = root.rstrip("/")

    @property
    def takes_several(self) -> bool:
        """Whether the driver may be called from several threads."""
        return self._fs.async_impl

    def versions(self) -> dict[str, Version]:
        """Return the version of every file that is not hidden, by its name in the folder.

        Raises DataError for a name that would lie outside the copy, or could not lie in it.
        """
        with self._telling():
            found = self._find()
        if list(found) == [self._root]:
            raise _UnreachableError("it is a file; give the folder that it is in")
        found.pop(self._root, None)  # how some mark a folder
        versions = {}
        for path, info in found.items():
            name = path.removeprefix(f"{self._root}/")
            if name.endswith("/"):  # how others do
                continue
            _check_name(name, self._address)
            if not any(part.startswith(".") for part in name.split("/")) and (info := self._look(path, info)):
                stamps = (info[key] for key in STAMPS if info.get(key))
                versions[name] = (info.get("size"), str(next(stamps, "")))
        if not versions:  # a disk that is not mounted looks like that too
            raise _UnreachableError("it holds no files")
        return _without_folders(versions, self._address)

    def fetch(self, name: str, version: Version, path: Path) -> None:
        """Write a file to `path`; it is never there in part."""
        part = path.with_name(f"{path.name}.part")
        with self._telling():
            self._call("get_file", f"{self._root}/{name}", str(part))
        if version[0] not in (None, part.stat().st_size):
            raise _UnreachableError(f"{name} did not arrive whole")
        part.replace(path)

    def _look(self, path: str, info: dict[str, Any]) -> dict[str, Any] | None:
        """Return what is known of a file; None when it is none, as a pipe or a link to a folder."""
        if info.get("type") != "file" or info.get("size") is None:
            with self._telling(), suppress(FileNotFoundError):  # of a link that leads nowhere
                info = self._call("info", path)
        return info if info.get("type") == "file" else None

    def _find(self) -> dict[str, dict[str, Any]]:
        """Return what the driver says of all files, by path.

        A driver's own `find` asks for one list. That of fsspec goes from folder to folder and passes over one that
        cannot be listed, as if its files were gone; so here is another.
        """
        from fsspec.asyn import AsyncFileSystem
        from fsspec.spec import AbstractFileSystem

        find = self._fs._find if self._fs.async_impl else self._fs.find
        if getattr(find, "__func__", None) not in (AbstractFileSystem.find, AsyncFileSystem._find):
            return self._call("find", self._root, detail=True)
        found, waiting = {}, [self._root]
        while waiting:
            folder = waiting.pop()
            for info in self._call("ls", folder, detail=True):
                path = info["name"].rstrip("/")
                if info["type"] != "directory":
                    found[path] = info
                elif path.startswith(f"{folder}/"):
                    waiting.append(path)
        return found

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        return call(self._fs, method, *args, limit_s=LIMIT_S, **options)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Turn a driver's errors, of whatever kind, into one kind; a full disk is not the driver's."""
        try:
            yield
        except ConfigError:
            raise
        except Exception as error:
            if getattr(error, "errno", None) in _DISK_FULL:
                raise
            raise _UnreachableError(self._address.explain(error)) from None


def _check_name(name: str, address: Address) -> None:
    """Raise DataError unless a file of this name lies in the folder that it is put into."""
    try:
        parts = [os.fsencode(part) for part in name.split("/")]
    except UnicodeEncodeError:
        parts = [b""]
    if "\0" in name or not all(len(part) <= MAX_NAME_BYTES and part not in (b"", b".", b"..") for part in parts):
        raise DataError(f"{address.name} holds a file that cannot be kept as {ascii(name)[:300]}; rename or remove it")


def _without_folders(versions: Mapping[str, Version], address: Address) -> dict[str, Version]:
    """Leave out empty objects that mark folders; raises DataError for a file that is also a folder."""
    folders = {str(folder) for name in versions for folder in PurePosixPath(name).parents}
    for name in sorted(folders & set(versions)):
        if versions[name][0]:
            raise DataError(f"{address.name} holds {ascii(name)[:300]} as a file and as a folder; rename one of them")
    return {name: version for name, version in versions.items() if name not in folders}
