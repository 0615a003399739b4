"""Folders elsewhere, such as s3://bucket/folder: how fsspec opens them, and the copy of a data set from there.

An address and what a driver says may hold credentials, so neither is ever shown: an address without its login, an error
as its class and a hint. Of each copy the cache holds, under one name:

    0123…        the copy
    0123….json   what belongs to it, name -> version; written once all of that is here, in the copy or beside it
    0123….new    files that were fetched and are not in the copy yet, each named by the hash of its name and version
    0123….lock   held while one process fetches

so that a kill, a broken connection or another process leaves the copy whole: as it was, or as it is to be.
"""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Self

from filelock import FileLock
from tqdm import tqdm

from lcm.errors import ConfigError, DataError, require
from lcm.paths import cache_dir

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


class Copy:
    """The files of a data set; used by who holds the lock. Names are paths in it, which the caller has checked."""

    def __init__(self, folder: Path):
        """Read what belongs to the copy in `folder`, if there is one."""
        self.folder, self.new, self._index = folder, folder.with_suffix(".new"), folder.with_suffix(".json")
        self._versions: dict[str, Version] = {}
        with suppress(FileNotFoundError, AttributeError, TypeError, ValueError):  # the others: somebody has edited it
            record = json.loads(self._index.read_text(encoding="utf-8"))
            self._versions = {name: (size, stamp) for name, (size, stamp) in record.items()}

    def staged(self, name: str, version: Version) -> Path:
        """Return where a file lies until it is put into the copy."""
        return self.new / hashlib.sha256(json.dumps([name, *version]).encode()).hexdigest()

    def has(self, name: str, version: Version) -> bool:
        """Return whether the copy holds a file in this version."""
        path = self.folder / name
        known = self._versions.get(name) == version
        return known and path.is_file() and version[0] in (None, path.stat().st_size)

    def is_whole(self) -> bool:
        """Return whether there is a copy, with every file that belongs to it."""
        return bool(self._versions) and all(self.has(*one) for one in self._versions.items())

    def adopt(self, versions: dict[str, Version]) -> None:
        """Make the copy hold these files, all of which are in it or beside it, and no others."""
        part = self._index.with_suffix(".json.part")
        part.write_text(json.dumps(versions, indent=0), encoding="utf-8")
        part.replace(self._index)
        self._versions = versions
        self.install()
        shutil.rmtree(self.new, ignore_errors=True)

    def install(self) -> None:
        """Remove what does not belong to the copy, and put what lies beside it in its place; may be done again."""
        if not self._versions:
            return
        for folder, _, names in os.walk(self.folder, topdown=False):
            for path in (Path(folder, name) for name in names):
                if path.relative_to(self.folder).as_posix() not in self._versions:
                    path.unlink()
            with suppress(OSError):  # it is not empty
                Path(folder).rmdir()
        for name, version in self._versions.items():
            if (staged := self.staged(name, version)).exists():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                staged.replace(self.folder / name)


WORKERS = 16  # files fetched at once, where the driver can: a photo takes longer to ask for than to send
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
        with _telling():
            fs, root = address.connect()
            root = root.rstrip("/")
            versions = _versions(fs, root, address)
        _fetch_all(fs, root, copy, {name: one for name, one in versions.items() if not copy.has(name, one)})
    except _UnreachableError as error:
        if not copy.is_whole():
            raise DataError(
                f"{address.name} cannot be read: {error}; check the address, the credentials and the network, then run "
                "this again: files that were fetched are kept"
            ) from None
        print(f"lcm: {address.name} cannot be read ({error}); its copy in {copy.folder} is used", file=sys.stderr)
        return
    copy.adopt(versions)


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


def _fetch_all(fs: Any, root: str, copy: Copy, versions: Mapping[str, Version]) -> None:
    """Put these files beside the copy, with a progress bar; those that are there from a run that was killed stay."""
    missing = {name: one for name, one in versions.items() if not copy.staged(name, one).exists()}
    if not missing:
        return
    copy.new.mkdir(exist_ok=True)
    with (
        ThreadPoolExecutor(WORKERS if fs.async_impl else 1) as pool,  # other drivers need not bear several threads
        tqdm(total=len(missing), unit=" files", desc="fetch", mininterval=1) as progress,
    ):
        jobs = [pool.submit(_fetch, fs, f"{root}/{name}", one, copy.staged(name, one)) for name, one in missing.items()]
        try:
            for job in as_completed(jobs):
                job.result()
                progress.update()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _fetch(fs: Any, remote: str, version: Version, path: Path) -> None:
    """Write a file to `path`; it is never there in part."""
    part = path.with_name(f"{path.name}.part")
    with _telling():
        fs.get_file(remote, str(part))
    if version[0] not in (None, part.stat().st_size):
        raise _UnreachableError(f"{PurePosixPath(remote).name} did not arrive whole")
    part.replace(path)
