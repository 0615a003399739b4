"""Settings of the service, from environment variables.

Knows every LCM_* variable with its default, meaning and limits, and that an unknown one stops the start. Refuses to
know what the settings are used for.
"""

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Self, get_type_hints

from lcm.errors import ConfigError
from lcm.paths import home

PREFIX = "LCM_"
# Read by lcm.config, by training, by the dashboard and by the tests: no reason to stop the service.
NOT_OF_THE_SERVICE = {"LCM_CACHE", "LCM_DATASET_URL", "LCM_FLICKR8K", "LCM_KILL_ROUNDS", "LCM_SERVICE", "LCM_SWAPS"}
SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_TOKEN = re.compile(r"[!-~]+")  # what fits into an Authorization header as it is
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?")


def setting(default: Any, meaning: str, least: float | None = None, most: float | None = None, secret: bool = False):
    """Return a dataclass field: its meaning is shown in the README, its limits are checked, a secret never shown."""
    return field(default=default, metadata=_about(meaning, least, most), repr=not secret)


def _about(meaning: str, least: float | None = None, most: float | None = None) -> dict[str, Any]:
    return {"meaning": meaning, "least": least, "most": most}


@dataclass(frozen=True)
class Settings:
    """All settings of the service; a field `name` is the variable LCM_NAME."""

    host: str = setting("127.0.0.1", "address to listen on; one beyond loopback needs LCM_TOKEN or LCM_ALLOW_OPEN")
    port: int = setting(8000, "port to listen on; 0 takes any free one", 0, 65535)
    token: str = setting("", "who posts to /caption must send it: `Authorization: Bearer …`", secret=True)
    token_for_learning: bool = setting(False, "whether /learning-model asks for the token too")
    allow_open: bool = setting(False, "whether to listen beyond loopback without a token")
    origins: tuple[str, ...] = setting((), "web origins whose pages may call the service (CORS), parted by commas")
    home: Path = field(default_factory=home, metadata=_about("state folder: contributions, models and cache"))
    bundle: str = setting("", "folder of the captioner; none: `models/current` in LCM_HOME, else the shipped one")
    tagger: str = setting(
        "", "tag scorer: `dual_encoder`, `clip`, `none`, or a CLIP checkpoint; none: the bundle's own"
    )
    store_url: str = setting(
        "", "where contributions are copied to: `az://…`, `s3://…`, `gs://…`, `file://…`", secret=True
    )
    memory: bool = setting(True, "whether a contributed image, sent again, gets its contributed caption at once")
    max_body_mb: int = setting(32, "largest request body, in MB of 1,048,576 bytes", 1, 1024)
    max_image_mb: int = setting(20, "largest image file, decoded from base64, in the same MB", 1, 1024)
    predictions: int = setting(2, "images described at once", 1, 64)
    queue: int = setting(16, "images that wait for that; beyond, the answer is 429", 0, 1024)
    time_limit_s: float = setting(30.0, "longest time for an answer, in seconds; beyond, it is 503 or 504", 0.01, 3600)
    threads: int = setting(1, "cores that encoding one image uses; 0: all", 0, 1024)
    http_threads: int = setting(
        48, "requests handled at once; the cheap ones need some beside those that wait", 4, 1024
    )

    def __post_init__(self) -> None:
        for one in fields(self):
            _check_limits(one.name, getattr(self, one.name), one.metadata["least"], one.metadata["most"])
        if self.token and not _TOKEN.fullmatch(self.token):
            raise ConfigError("LCM_TOKEN may hold only visible ASCII characters, and no space; choose another one")
        if self.token_for_learning and not self.token:
            raise ConfigError("LCM_TOKEN_FOR_LEARNING is true and there is no token to ask for; set LCM_TOKEN too")
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                raise ConfigError(
                    f"LCM_ORIGINS holds '{_escaped(origin)}'; an origin is http(s)://host or http(s)://host:port, in "
                    "lower case"
                )
        occupied = 2 * (self.predictions + self.queue)  # by both routes, at their busiest
        if self.http_threads <= occupied:
            raise ConfigError(
                f"LCM_HTTP_THREADS is {self.http_threads}; it must be above {occupied}, twice LCM_PREDICTIONS and "
                "LCM_QUEUE together, so that GET / and /healthz are answered at any time"
            )
        if not (self.token or self.allow_open or _is_loopback(self.host)):
            raise ConfigError(
                f"LCM_HOST is '{_escaped(self.host)}', which others can reach, and there is no token: set LCM_TOKEN, "
                "or LCM_ALLOW_OPEN=true when whoever reaches the service may post captions"
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read every LCM_* variable; an empty one counts as not set.

        Raises ConfigError for an unknown variable and for a bad value.
        """
        known = {PREFIX + one.name.upper(): one for one in fields(cls)}
        given = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
        for name in sorted(set(given) - set(known) - NOT_OF_THE_SERVICE):
            raise ConfigError(f"unknown setting {_escaped(name)}; {_hint(name, [*known, 'LCM_CACHE'])}")
        kinds = get_type_hints(cls)
        values = {
            one.name: _parse(name, given[name].strip(), kinds[one.name])
            for name, one in known.items()
            if given.get(name, "").strip()
        }
        return cls(**values)

    @property
    def max_body(self) -> int:
        """Bytes of the largest request body."""
        return self.max_body_mb << 20

    @property
    def max_image(self) -> int:
        """Bytes of the largest image file."""
        return self.max_image_mb << 20


def settings_table() -> list[tuple[str, str, str]]:
    """Return (variable, default, meaning) of every setting, as the README shows them."""
    return [(PREFIX + one.name.upper(), _shown(one), one.metadata["meaning"]) for one in fields(Settings)]


def _shown(one: Any) -> str:
    """Return a field's default in words."""
    if one.default is MISSING:
        return "`data/` of the clone, else the user's data folder"
    if one.default in ("", ()):
        return "none"
    return f"{one.default:g}" if isinstance(one.default, float) else str(one.default).lower()


def _hint(unknown: str, known: list[str]) -> str:
    """Return which variable may have been meant, else which ones there are."""
    close = difflib.get_close_matches(unknown.removeprefix(PREFIX), [name.removeprefix(PREFIX) for name in known], 1)
    return f"did you mean {PREFIX}{close[0]}?" if close else f"choose from {', '.join(known)}"


def _escaped(text: str) -> str:
    """Return text of others for a message of one line."""
    return text[:60].encode("unicode_escape").decode("ascii") + "…" * (len(text) > 60)


def _parse(name: str, text: str, kind: type) -> Any:
    """Return a variable's value; raises ConfigError when it is not of the field's kind."""
    if kind is bool:
        if text.lower() not in SWITCH:
            raise ConfigError(f"{name} is '{_escaped(text)}'; it must be true or false")
        return SWITCH[text.lower()]
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            meant = "a whole number" if kind is int else "a number"
            raise ConfigError(f"{name} is '{_escaped(text)}'; it must be {meant}") from None
    if kind is Path:
        return Path(text).expanduser().resolve()
    return text if kind is str else tuple(filter(None, (part.strip().rstrip("/") for part in text.split(","))))


def _check_limits(name: str, value: Any, least: float | None, most: float | None) -> None:
    """Raise ConfigError for a number outside its limits; NaN is outside of any."""
    if least is not None and not least <= value <= most:
        raise ConfigError(f"{PREFIX}{name.upper()} is {value}; it must be {least:g} to {most:g}")


def _is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the address; of names, only localhost is known to be so."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
