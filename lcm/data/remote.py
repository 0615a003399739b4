"""Folders elsewhere, such as s3://bucket/folder: how fsspec opens them, and the copy of a data set from there.

An address and what a driver says may hold credentials, so neither is ever shown: an address without its login, an error
as its class and a hint.
"""

import errno
import hashlib
import logging
import os
import re
import sys
from contextlib import suppress
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


AT_ONCE = 64  # files asked for at once, where the driver can; as many are fetched again after a failure
# What drivers call a mark that changes with the content, the best first.
STAMPS = ("ETag", "etag", "md5Hash", "LastModified", "Last-Modified", "last_modified", "updated", "mtime", "created")

Version = tuple[int | None, int]  # of a file: its size in bytes, if that is known, and the time its copy is given


def fetch(url: str, setting: str = "data_dir") -> Path:
    """Return a folder with the files at an address, fetched as far as they are new or changed; hidden ones are not.

    When the place cannot be listed, a whole copy of an earlier time is used, which stderr then says. `setting` is what
    the address was given in, for messages. Raises ConfigError for an address that cannot be used and a driver that is
    not installed, DataError when there is neither the place nor a copy.
    """
    address = Address.parse(url, setting)
    folder = cache_dir() / "datasets" / hashlib.sha256(url.encode()).hexdigest()[:16]
    address.refuse_folder(folder.parent)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            _update(folder, address)
    except OSError as error:
        raise DataError(
            f"{address.name} cannot be kept in {folder.parent} ({error.strerror or error}); free some space there, or "
            "set LCM_CACHE to another folder"
        ) from error
    return folder


def _update(folder: Path, address: Address) -> None:
    """Make the copy equal what is at the address; where that cannot be listed, a whole copy stays as it is.

    A file that has arrived gets a time of change that stands for its version. An empty file beside the copy says that
    it is what the address held at one time.
    """
    whole = folder.with_suffix(".whole")
    try:
        fs, root = address.connect()
        root = root.rstrip("/")
        there = _list(fs, root, address)
    except (ConfigError, DataError):
        raise
    except Exception as error:  # drivers raise errors of any kind
        if not whole.exists():
            raise _unreadable(address, explain(error)) from None
        print(f"lcm: {address.name} cannot be read ({explain(error)}); its copy in {folder} is used", file=sys.stderr)
        return
    here = [path for path in folder.rglob("*") if path.is_file()]
    gone = [path for path in here if path.relative_to(folder).as_posix() not in there]
    missing = [
        name
        for name, (size, time) in there.items()
        if not _is_whole(folder / name, size) or (folder / name).stat().st_mtime != time
    ]
    if missing or gone:
        whole.unlink(missing_ok=True)
    for path in gone:
        path.unlink()
    with tqdm(total=len(missing), unit=" files", desc="fetch", disable=not missing) as progress:
        for start in range(0, len(missing), AT_ONCE):
            names = missing[start : start + AT_ONCE]
            for name in names:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                fs.get([f"{root}/{name}" for name in names], [str(folder / name) for name in names])
            except Exception as error:
                if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise _unreadable(address, explain(error)) from None
            for name in names:
                size, time = there[name]
                if not _is_whole(folder / name, size):
                    raise _unreadable(address, f"{name} did not arrive whole")
                os.utime(folder / name, (time, time))
            progress.update(len(names))
    whole.touch()


def _is_whole(path: Path, size: int | None) -> bool:
    return path.is_file() and size in (None, path.stat().st_size)


def _unreadable(address: Address, reason: str) -> DataError:
    return DataError(
        f"{address.name} cannot be read: {reason}; check the address, the credentials and the network, then run this "
        "again: files that were fetched are kept"
    )


def _list(fs: Any, root: str, address: Address) -> dict[str, Version]:
    """Return the version of every file that is not hidden, by its name in the folder.

    Raises FileNotFoundError for an empty folder, as a disk that is not mounted seems to be, and DataError for a name
    that would lie outside the copy.
    """
    files: dict[str, Version] = {}
    waiting = [root]
    while waiting:  # fsspec's `find` would take a folder that cannot be listed for empty
        folder = waiting.pop()
        for info in fs.ls(folder, detail=True):
            path = info["name"]
            name = path.removeprefix(f"{root}/")
            if info["type"] == "directory":
                waiting += [path.rstrip("/")] if path.startswith(f"{folder}/") else []
            elif path.rstrip("/") == folder or path.endswith("/") or re.search(r"(^|/)\.", name):
                continue  # the mark of a folder, or hidden
            elif "" in name.split("/"):
                raise DataError(f"{address.name} holds {ascii(name)[:300]}, which cannot be kept; rename or remove it")
            elif version := _version(fs, info):
                files[name] = version
    for name in list(files):  # an object store may mark a folder by a file of its name
        for parent in map(str, PurePosixPath(name).parents):
            files.pop(parent, None)
    if not files:
        raise FileNotFoundError(errno.ENOENT, "no files", address.name)
    return files


def _version(fs: Any, info: dict[str, Any]) -> Version | None:
    """Return the version of a file; None for a pipe, and for a link to a folder or to nowhere."""
    if info["type"] != "file" or info.get("size") is None:
        with suppress(FileNotFoundError):
            info = fs.info(info["name"])
    stamp = next((str(info[key]) for key in STAMPS if info.get(key)), "")
    time = int.from_bytes(hashlib.sha256(stamp.encode()).digest()[:3], "big")  # in the half year after 1970
    return (info.get("size"), time) if info["type"] == "file" else None
