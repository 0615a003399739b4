"""Messages of drivers, made fit for a log: one line, and nothing that opens a store.

Knows what credentials look like, and where this process was given some: in an address, in environment variables.
Refuses to know what failed.

Addresses of folders elsewhere, such as s3://bucket/folder, and who drives there.

Knows which addresses are good, which pip package drives which protocol, how a driver is called, and that an address and
what a driver says may hold credentials. Refuses to know what is done at such a place.

The copy of a data set that lies elsewhere, in the cache.

Knows that a kill, a broken connection or another process must leave the copy whole: as it was, or as it is to be.
Refuses to know where its files come from.

Of each copy the cache holds, under one name:

    0123…        the copy
    0123….json   what belongs to it: name -> version; written once all of that is here, in the copy or beside it
    0123….new    files that were fetched and are not in the copy yet, each named by the hash of its name and version
    0123….lock   held while one process fetches

Data sets elsewhere: the files at an address are fetched into the cache, and later only those that changed.

Knows what a driver tells of files, which names are safe here, and what to do when the place cannot be reached. Refuses
to know captions and images; address.py knows credentials, cached.py how a copy lies in the cache.
"""

import errno
import hashlib
import importlib.util
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
from urllib.parse import unquote

from filelock import FileLock
from tqdm import tqdm

from lcm.errors import ConfigError, DataError, require
from lcm.paths import cache_dir

HIDDEN = "***"
MAX_CHARS = 240  # of a message; drivers repeat whole replies of a server
_READ_CHARS = 4000  # of which a message is made
_SECRET_NAME = r"key|secret|token|passw|pwd|credential|signature|\bsig\b|authorization|connection_string"
_OPAQUE, _KINDS = r"[\w+/=-]", (r"\d", "[A-Z]", "[a-z]")  # base64: long, with all kinds of characters
_NAMED = re.compile(_SECRET_NAME, re.IGNORECASE)
_OPAQUE_RUN = rf"(?<!{_OPAQUE})" + "".join(f"(?={_OPAQUE}*{kind})" for kind in _KINDS) + f"{_OPAQUE}{{24,}}"
_PATTERNS = (  # in this order: the wider ones last, when what is known by its place is gone
    (re.compile(r"(?<=://)[^\s\"']*@"), f"{HIDDEN}@"),  # who logs in, in an address; passwords may hold "/" and "@"
    (re.compile(r"[^\s/\"'@(<=]+:[^\s/\"'@]*@"), f"{HIDDEN}@"),  # user:password@ where the protocol was cut off
    (re.compile(r"\?[^\s\"'>)]*=[^\s\"'>)]*"), f"?{HIDDEN}"),  # the query of an address: a signature, mostly
    (re.compile(r"(?i)\b(bearer|basic|sharedkey|aws4-hmac-sha256)\s+[^\s\"',]+"), rf"\1 {HIDDEN}"),
    (re.compile(rf"(?i)((?:{_SECRET_NAME})[\w-]*[\"']?\s*[:=]\s*)[\"']?[^\s\"',;&<>]+"), rf"\1{HIDDEN}"),
    (re.compile(r"\b(AKIA|ASIA|GOOG)[0-9A-Z]{12,}"), HIDDEN),  # ids of access keys at AWS and Google
    (re.compile(r"\beyJ[\w-]{8,}(\.[\w-]+)*"), HIDDEN),  # JSON Web Tokens
    (re.compile(_OPAQUE_RUN), HIDDEN),
    (re.compile(r"\b[0-9a-fA-F]{32,}\b"), HIDDEN),  # hexadecimal tokens; an image's hash looks the same and goes too
)


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """Return the text as one line without credentials: neither the `secrets` nor what looks like one."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = text[:_READ_CHARS]
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= MAX_CHARS else f"{line[:MAX_CHARS]} …"


def known_secrets(url: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the secrets that this process was given: those in a store's address, and those that variables name so."""
    found = set(_secrets_in_url(url))
    for name, value in environment.items():
        if _NAMED.search(name):
            found.update(_parts(value))
    return tuple({form for secret in found for form in (secret, unquote(secret))})


def _secrets_in_url(url: str) -> Iterator[str]:
    login, _, _ = url.partition("://")[2].rpartition("@")
    user, _, password = login.partition(":")
    if len(password) >= 3:
        yield password
    if password and len(user) >= 6:  # the id of a key, where the password is the key
        yield user
    yield from (value for pair in url.partition("?")[2].split("&") if len(value := pair.partition("=")[2]) >= 3)


def _parts(value: str) -> Iterator[str]:
    """Yield a variable's value and, of a connection string, the values that are secret; short ones hide nothing."""
    pieces = [value.strip()]
    for pair in value.split(";"):
        name, _, piece = pair.partition("=")
        pieces += [piece] if _NAMED.search(name) else []
    yield from (piece for piece in pieces if len(piece) >= 6)


DRIVERS = {"az": "adlfs", "abfs": "adlfs", "s3": "s3fs", "gs": "gcsfs", "file": "", "memory": ""}  # their pip packages
CHOICES = ", ".join(f"{protocol}://" for protocol in DRIVERS)
_URL = re.compile(r"([a-z][a-z0-9+.-]{0,19})://([^\s?#]*)")
_TALKATIVE = ("adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "s3fs", "urllib3")
_HINTS = {
    PermissionError: "check the credentials and what they allow",
    FileNotFoundError: "is the bucket, container or folder there?",
}


@dataclass(frozen=True)
class Address:
    """A good address. What is bad there, such as a missing bucket, only an attempt tells."""

    protocol: str
    name: str  # as people may see it: no credentials
    setting: str  # what it was given in, for messages, such as LCM_STORE_URL
    _url: str = field(repr=False)
    _secrets: tuple[str, ...] = field(repr=False)

    @classmethod
    def parse(cls, url: str, setting: str) -> Self:
        """Read an address, without a connection. The messages of errors do not repeat it: it may hold credentials.

        Raises ConfigError for a bad address, an unknown protocol and a driver that is not installed.
        """
        match = _URL.fullmatch(url)
        if not match or "::" in url:
            raise ConfigError(f"{setting} must be one address, as in s3://bucket/folder; choose from {CHOICES}")
        protocol, place = match.groups()
        _check_driver(protocol, setting)
        if protocol == "file" and not place.startswith("/"):
            raise ConfigError(f"{setting}: after file:// comes an absolute path, as in file:///mnt/disk/lcm")
        if protocol != "memory" and not place.strip("/"):
            raise ConfigError(f"{setting}: after {protocol}:// comes the name of a bucket, a container or a folder")
        return cls(protocol, without_login(url), setting, url, known_secrets(url, os.environ))

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
        package = DRIVERS.get(self.protocol)
        if package and self.name != self._url:
            raise ConfigError(f"{self.setting} may not hold credentials; set the environment variables of {package}")
        return require("fsspec.core", "serve").url_to_fs(self._url, skip_instance_cache=True)

    def refuse_folder(self, folder: Path) -> None:
        """Raise ConfigError when this folder and the address's hold one another: copies would hit the originals."""
        if self.is_disk:
            root, folder = Path(self.connect()[1]).resolve(), folder.resolve()
            if root.is_relative_to(folder) or folder.is_relative_to(root):
                raise ConfigError(f"{self.setting} is {self.name}, and {folder} is there too: name another folder")

    def redact(self, text: str) -> str:
        """Return the text as one line without credentials."""
        return redact(text, self._secrets)

    def explain(self, error: BaseException) -> str:
        """Return what a driver's error says, as one line without credentials, and what to do about it."""
        text = ": ".join(filter(None, (type(error).__name__, self.redact(str(error)))))
        hints = [hint for kind, hint in _HINTS.items() if isinstance(error, kind)]
        return f"{text} ({hints[0]})" if hints else text


def without_login(url: str) -> str:
    """Return an address as people may see it: without who logs in there, and without a query, such as a signature.

    What stands before "@" is no login in az://container@account, and on a disk.
    """
    protocol, _, place = url.partition("?")[0].partition("://")
    login, _, rest = place.rpartition("@")
    return f"{protocol}://{rest if ':' in login or protocol not in DRIVERS else place}"


def call(fs: Any, method: str, *args: Any, limit_s: float, **options: Any) -> Any:
    """Call a driver; a coroutine is cancelled after the time limit, anything else cannot be. Raises what it raises."""
    if not fs.async_impl:
        return getattr(fs, method)(*args, **options)
    from fsspec.asyn import sync

    return sync(fs.loop, getattr(fs, f"_{method}"), *args, timeout=limit_s, **options)


def _check_driver(protocol: str, setting: str) -> None:
    """Raise ConfigError unless the protocol's driver is installed; those that are slow to import are not imported."""
    package = DRIVERS.get(protocol)
    if package and importlib.util.find_spec(package) is None:
        raise ConfigError(f"{setting}: {protocol}:// needs {package}; install it with: pip install {package}")
    registry = require("fsspec.registry", "serve")
    if protocol not in DRIVERS:
        try:
            registry.get_filesystem_class(protocol)
        except ValueError:
            raise ConfigError(f"{setting}: unknown protocol {protocol}://; choose from {CHOICES}") from None
        except ImportError as error:  # its text names the package
            raise ConfigError(f"{setting}: {protocol}:// cannot be used yet: {error}") from None


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
        if self._versions.get(name) != version:
            return False
        path = self.folder / name
        return path.is_file() and version[0] in (None, path.stat().st_size)

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
