"""Addresses of folders elsewhere, such as s3://bucket/folder, and who drives there.

Knows which addresses are good, which pip package drives which protocol, how a driver is called, and that an address and
what a driver says may hold credentials. Refuses to know what is done at such a place.
"""

import importlib.util
import logging
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from lcm.data.redaction import known_secrets, redact
from lcm.errors import ConfigError, require

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
