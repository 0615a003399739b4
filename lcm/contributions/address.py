"""LCM_STORE_URL: where a target is and who drives it there.

Knows which addresses are good, which pip package drives which protocol, and that an address and what a driver says may
hold credentials. Refuses to know what is done at the target.
"""

import importlib.util
import logging
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from lcm.contributions.redaction import known_secrets, redact
from lcm.errors import ConfigError, LcmError, require

DRIVERS = {"az": "adlfs", "abfs": "adlfs", "s3": "s3fs", "gs": "gcsfs", "file": "", "memory": ""}  # their pip packages
CHOICES = ", ".join(f"{protocol}://" for protocol in DRIVERS)
_URL = re.compile(r"([a-z][a-z0-9+.-]{0,19})://([^\s?#]*)")
_TALKATIVE = ("adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "s3fs", "urllib3")


class TargetError(LcmError):
    """The target did not do what it was asked; the message holds no credentials."""


@dataclass(frozen=True)
class Address:
    """A good address. What is bad there, such as a missing bucket, only an attempt tells."""

    protocol: str
    name: str  # as people may see it: no credentials
    _url: str = field(repr=False)
    _secrets: tuple[str, ...] = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read an address, without a connection. The messages of errors do not repeat it: it may hold credentials.

        Raises ConfigError for a bad address, an unknown protocol and a driver that is not installed.
        """
        match = _URL.fullmatch(url)
        if not match or "::" in url:
            raise ConfigError(f"LCM_STORE_URL must be one address, as in s3://bucket/folder; choose from {CHOICES}")
        protocol, place = match.groups()
        _check_driver(protocol)
        if protocol == "file" and not place.startswith("/"):
            raise ConfigError("LCM_STORE_URL: after file:// comes an absolute path, as in file:///mnt/disk/lcm")
        if protocol != "memory" and not place.strip("/"):
            raise ConfigError(f"LCM_STORE_URL: after {protocol}:// comes the name of a bucket, a container or a folder")
        login, _, rest = place.rpartition("@")
        shown = rest if ":" in login else place  # az://container@account holds no password
        return cls(protocol, f"{protocol}://{shown}", url, known_secrets(url, os.environ))

    @property
    def is_disk(self) -> bool:
        """Whether the target is a folder of this machine."""
        return self.protocol in ("file", "local")

    def connect(self) -> tuple[Any, str]:
        """Return the driver's file system and the folder in it. Raises what the driver raises, and TargetError."""
        for name in _TALKATIVE:  # they log whole tracebacks and addresses; what matters is raised too
            logging.getLogger(name).setLevel(logging.CRITICAL)
        package = DRIVERS.get(self.protocol)
        if package and self.name != self._url:
            raise TargetError(f"LCM_STORE_URL may not hold credentials; set the environment variables of {package}")
        return require("fsspec.core", "serve").url_to_fs(self._url, skip_instance_cache=True)

    def refuse_folder(self, folder: Path) -> None:
        """Raise ConfigError when the target and this folder hold one another: copies would hit the originals."""
        if self.is_disk:
            root, folder = Path(self.connect()[1]).resolve(), folder.resolve()
            if root.is_relative_to(folder) or folder.is_relative_to(root):
                raise ConfigError(f"LCM_STORE_URL is {self.name}, and the originals are there: name another folder")

    def redact(self, text: str) -> str:
        """Return the text as one line without credentials."""
        return redact(text, self._secrets)


def _check_driver(protocol: str) -> None:
    """Raise ConfigError unless the protocol's driver is installed; those that are slow to import are not imported."""
    package = DRIVERS.get(protocol)
    if package and importlib.util.find_spec(package) is None:
        raise ConfigError(f"LCM_STORE_URL: {protocol}:// needs {package}; install it with: pip install {package}")
    registry = require("fsspec.registry", "serve")
    if protocol not in DRIVERS:
        try:
            registry.get_filesystem_class(protocol)
        except ValueError:
            raise ConfigError(f"LCM_STORE_URL: unknown protocol {protocol}://; choose from {CHOICES}") from None
        except ImportError as error:  # its text names the package
            raise ConfigError(f"LCM_STORE_URL: {protocol}:// cannot be used yet: {error}") from None
