"""Folders elsewhere, such as s3://bucket/folder: how fsspec opens them, and the copy of a data set from there.

An address and what a driver says may hold credentials, so neither is ever shown: an address without its login, an error
as its class and a hint.
"""

import errno
import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Self

from filelock import FileLock
from tqdm import tqdm

from lcm.errors import ConfigError, DataError, require
from lcm.paths import cache_dir, write_atomic

CLOUDS = ("az", "abfs", "s3", "gs")  # their drivers (adlfs, s3fs, gcsfs) take credentials from the environment
CHOICES = ", ".join(f"{protocol}://" for protocol in (*CLOUDS, "file", "memory"))
_URL = re.compile(r"([a-z][a-z0-9+.-]{0,19})://([^\s?#]*)")
_TALKATIVE = ("adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "s3fs", "urllib3")
_HINTS = {
    PermissionError: "check the credentials and what they allow",
    FileNotFoundError: "is the bucket, container or folder there?",
    ConnectionError: "check the network and the address",
    TimeoutError: "check the network and the address",
}


@dataclass(frozen=True)
class Address:
    """A good address. What is bad there, such as a missing bucket, only an attempt tells."""

    protocol: str
    name: str  # as people may see it: no credentials
    setting: str  # what it was given in, for messages, such as LCM_STORE_URL
    _url: str = field(repr=False)

    @classmethod
    def parse(cls, url: str, setting: str) -> Self:
        """Read an address, without a connection. The messages of errors do not repeat it: it may hold credentials.

        Raises ConfigError for a bad address, an unknown protocol and a driver that is not installed.
        """
        match = _URL.fullmatch(url)
        if not match or "::" in url:
            raise ConfigError(f"{setting} must be one address, as in s3://bucket/folder; choose from {CHOICES}")
        protocol, place = match.groups()
        try:
            require("fsspec", "serve").get_filesystem_class(protocol)
        except ValueError:
            raise ConfigError(f"{setting}: unknown protocol {protocol}://; choose from {CHOICES}") from None
        except ImportError as error:  # its text is fsspec's own and names the package
            raise ConfigError(f"{setting}: {protocol}:// cannot be used yet: {error}") from None
        if protocol == "file" and not place.startswith("/"):
            raise ConfigError(f"{setting}: after file:// comes an absolute path, as in file:///mnt/disk/lcm")
        if protocol != "memory" and not place.strip("/"):
            raise ConfigError(f"{setting}: after {protocol}:// comes the name of a bucket, a container or a folder")
        return cls(protocol, without_login(url), setting, url)

    @property
    def is_disk(self) -> bool:
        """Whether the target is a folder of this machine."""
        return self.protocol in ("file", "local")

    def connect(self) -> tuple[Any, str]:
        """Return the driver's file system and the folder in it.

        Raises what the driver raises, and ConfigError for credentials where the driver takes them from the environment.
        """
        for name in _TALKATIVE:  # they log whole tracebacks and addresses; what matters is raised too
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if self.protocol in CLOUDS and self.name != self._url:
            raise ConfigError(
                f"{self.setting} may not hold credentials; set the environment variables of the driver of "
                f"{self.protocol}://"
            )
        return require("fsspec", "serve").url_to_fs(self._url, skip_instance_cache=True)

    def refuse_folder(self, folder: Path) -> None:
        """Raise ConfigError when this folder and the address's hold one another: copies would hit the originals."""
        if self.is_disk:
            root, folder = Path(self.connect()[1]).resolve(), folder.resolve()
            if root.is_relative_to(folder) or folder.is_relative_to(root):
                raise ConfigError(f"{self.setting} is {self.name}, and {folder} is there too: name another folder")


def without_login(url: str) -> str:
    """Return an address as people may see it: without who logs in there, and without a query, such as a signature.

    What stands before "@" is no login in az://container@account, and on a disk.
    """
    protocol, _, place = url.partition("?")[0].partition("://")
    login, _, rest = place.rpartition("@")
    has_login = ":" in login or protocol not in (*CLOUDS, "file", "memory")
    return f"{protocol}://{rest if has_login else place}"


def explain(error: BaseException) -> str:
    """Return what went wrong at an address and what to do, in one line that never repeats the driver's own text.

    It names the classes of the error and its causes, such as "PermissionError from ClientError", what the system says
    of its number, and a hint.
    """
    chain, cause = [], error
    while cause and len(chain) < 4:
        chain.append(type(cause).__name__)
        cause = cause.__cause__
    system = os.strerror(error.errno) if isinstance(error, OSError) and error.errno in errno.errorcode else ""
    hint = next((hint for kind, hint in _HINTS.items() if isinstance(error, kind)), "")
    details = "; ".join(filter(None, (system, hint)))
    return " from ".join(chain) + (f" ({details})" if details else "")


Version = tuple[int | None, str]  # of a file: its size in bytes, if that is known, and what changes with its content
WHOLE = "whole"  # the last line of the index of a copy that no update was broken off in


class Copy:
    """The files of a data set and, beside them, the index of what was fetched: a JSON list a line for each file.

    The caller holds the lock. A hidden file is one that has not arrived whole.
    """

    def __init__(self, folder: Path):
        """Read the index of the copy in `folder`, if there is one; a line that a kill cut off is skipped."""
        self.folder, self._index = folder, folder.with_suffix(".index")
        lines = self._index.read_text(encoding="utf-8").splitlines() if self._index.exists() else []
        self._was_finished = lines[-1:] == [WHOLE]
        self.versions: dict[str, Version] = {}
        for line in lines:
            with suppress(ValueError):
                name, size, stamp = json.loads(line)
                self.versions[name] = (size, stamp)

    def has(self, name: str, version: Version) -> bool:
        """Return whether the copy holds a file in this version."""
        path = self.folder / name
        known = self.versions.get(name) == version
        return known and path.is_file() and version[0] in (None, path.stat().st_size)

    def is_whole(self) -> bool:
        """Return whether the copy is what an address held at one time, with every file."""
        return self._was_finished and all(self.has(*one) for one in self.versions.items())

    def begin(self, versions: dict[str, Version]) -> None:
        """Remove all files but those of `versions`; until `finish` the copy is not whole."""
        self._was_finished = False
        with self._index.open("a", encoding="utf-8") as lines:
            lines.write("\n\n")  # the first ends a line that was cut off
        for folder, _, names in os.walk(self.folder, topdown=False):
            for path in (Path(folder, name) for name in names):
                if path.relative_to(self.folder).as_posix() not in versions:
                    path.unlink()
            with suppress(OSError):  # it is not empty
                Path(folder).rmdir()
        self.folder.mkdir(exist_ok=True)

    def add(self, name: str, version: Version, fetched: Path) -> None:
        """Put a file that has arrived into the copy and note it, so that it is not fetched again."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fetched.replace(path)
        with self._index.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps([name, *version]) + "\n")

    def finish(self, versions: dict[str, Version]) -> None:
        """Note that the copy holds these files and no others."""
        lines = [json.dumps([name, *version]) for name, version in versions.items()]
        write_atomic(self._index, "\n".join([*lines, WHOLE]) + "\n")


AT_ONCE = 64  # files asked for at once, where the driver can; as many are fetched again after a failure
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
    """Make the copy equal what is at the address; where that cannot be read, a whole copy stays as it is."""
    try:
        with _telling():
            fs, root = address.connect()
            root = root.rstrip("/")
            versions = _versions(fs, root, address)
        missing = {name: one for name, one in versions.items() if not copy.has(name, one)}
        copy.begin(versions)
        _fetch_all(fs, root, copy, missing)
        copy.finish(versions)
    except _UnreachableError as error:
        if not copy.is_whole():
            raise DataError(
                f"{address.name} cannot be read: {error}; check the address, the credentials and the network, then run "
                "this again: files that were fetched are kept"
            ) from None
        print(f"lcm: {address.name} cannot be read ({error}); its copy in {copy.folder} is used", file=sys.stderr)


@contextmanager
def _telling() -> Iterator[None]:
    """Turn a driver's errors, of whatever kind, into one kind; a full disk is not the driver's."""
    try:
        yield
    except (ConfigError, DataError, _UnreachableError):
        raise
    except Exception as error:
        if getattr(error, "errno", None) in _DISK_FULL:
            raise
        raise _UnreachableError(explain(error)) from None


def _versions(fs: Any, root: str, address: Address) -> dict[str, Version]:
    """Return the version of every file that is not hidden, by its name in the folder.

    Raises DataError for a name that would lie outside the copy, or could not lie in it.
    """
    if fs.isfile(root):
        raise _UnreachableError("it is a file; give the folder that it is in")
    versions, folders = {}, set()
    for path, info in _list(fs, root):
        name = path.removeprefix(f"{root}/")
        _check_name(name, address)
        folders.update(map(str, PurePosixPath(name).parents))
        if not any(part.startswith(".") for part in name.split("/")) and (info := _look(fs, path, info)):
            stamps = (info[key] for key in STAMPS if info.get(key))
            versions[name] = (info.get("size"), str(next(stamps, "")))
    if not versions:  # a disk that is not mounted looks like that too
        raise _UnreachableError("it holds no files")
    for name in sorted(folders & set(versions)):
        if versions.pop(name)[0]:  # an empty one marks a folder
            raise DataError(f"{address.name} holds {ascii(name)[:300]} as a file and as a folder; rename one of them")
    return versions


def _list(fs: Any, root: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield path and details of all files. fsspec's `find` would take a folder that cannot be listed for empty."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        for info in fs.ls(folder, detail=True):
            path = info["name"]
            if info["type"] == "directory":
                waiting += [path.rstrip("/")] if path.startswith(f"{folder}/") else []
            elif path.rstrip("/") != folder and not path.endswith("/"):  # those are marks of folders
                yield path, info


def _check_name(name: str, address: Address) -> None:
    """Raise DataError unless a file of this name lies in the folder that it is put into."""
    try:
        parts = [os.fsencode(part) for part in name.split("/")]
    except UnicodeEncodeError:
        parts = [b""]
    if "\0" in name or not all(len(part) <= MAX_NAME_BYTES and part not in (b"", b".", b"..") for part in parts):
        raise DataError(f"{address.name} holds a file that cannot be kept as {ascii(name)[:300]}; rename or remove it")


def _look(fs: Any, path: str, info: dict[str, Any]) -> dict[str, Any] | None:
    """Return what is known of a file; None for a pipe, and for a link to a folder or to nowhere."""
    if info.get("type") != "file" or info.get("size") is None:
        with suppress(FileNotFoundError):
            info = fs.info(path)
    return info if info.get("type") == "file" else None


def _fetch_all(fs: Any, root: str, copy: Copy, versions: dict[str, Version]) -> None:
    """Put these files into the copy, with a progress bar."""
    names = list(versions)
    with tqdm(total=len(names), unit=" files", desc="fetch", mininterval=1, disable=not names) as progress:
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            parts = [copy.folder / f".{number}.part" for number in range(len(some))]
            with _telling():
                fs.get([f"{root}/{name}" for name in some], list(map(str, parts)))
            for name, part in zip(some, parts, strict=True):
                if versions[name][0] not in (None, part.stat().st_size):
                    raise _UnreachableError(f"{name} did not arrive whole")
                copy.add(name, versions[name], part)
            progress.update(len(some))
