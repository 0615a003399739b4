"""Settings of the service, from LCM_* environment variables.

An unknown LCM_ variable stops the start, so that a misspelt one is not silently ignored.
"""

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from lcm.contributions.text import clean_language
from lcm.data.text import ENGLISH
from lcm.errors import ConfigError, DataError, closest
from lcm.paths import home

PREFIX = "LCM_"
# Read by other parts of lcm, by the dashboard and by the tests: no reason to stop the service.
NOT_OF_THE_SERVICE = {"LCM_CACHE", "LCM_DATASET_URL", "LCM_FLICKR8K", "LCM_KILL_ROUNDS", "LCM_SERVICE", "LCM_SWAPS"}
_TOKEN = re.compile(r"[!-~]*")  # what fits into an Authorization header as it is
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?")
_KINDS = {bool: "true or false", int: "a whole number", float: "a number"}


def setting(default: Any, meaning: str, least: float | None = None, most: float | None = None, secret: bool = False):
    """Return a field: its meaning goes into the documents, its limits are checked, a secret is never shown."""
    return Field(default, description=meaning, ge=least, le=most, repr=not secret, allow_inf_nan=None)


class Settings(BaseSettings):
    """All settings; a field `name` is the variable LCM_NAME. Raises ConfigError for a value that cannot be used."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, str_strip_whitespace=True, frozen=True, extra="forbid"
    )

    host: str = setting("127.0.0.1", "address to listen on; one beyond loopback needs LCM_TOKEN or LCM_ALLOW_OPEN")
    port: int = setting(8000, "port to listen on; 0 takes any free one", 0, 65535)
    token: str = setting("", "who posts to /caption must send it: `Authorization: Bearer …`", secret=True)
    token_for_learning: bool = setting(False, "whether /learning-model asks for the token too")
    allow_open: bool = setting(False, "whether to listen beyond loopback without a token")
    origins: Annotated[tuple[str, ...], NoDecode] = setting(
        (), "web origins whose pages may call the service (CORS), separated by commas"
    )
    home: Path = Field(default_factory=home, description="state folder: contributions, models and cache")
    bundle: str = setting("", "captioner's folder or address; none: `models/current` in LCM_HOME, else the shipped one")
    tagger: str = setting(
        "", "tag scorer: `dual_encoder`, `text_tower`, `clip`, `none`, or a CLIP or SigLIP 2; none: the bundle's own"
    )
    language: str = setting(ENGLISH, "language of answers and contributions where a request says none, as `fr`")
    translator: str = setting("", "Marian checkpoints, separated by commas, for languages that the captioner lacks")
    vocabulary: str = setting("", "CSV of the terms that tags are mapped to")
    store_url: str = setting(
        "", "where contributions are copied to: `az://…`, `s3://…`, `gs://…`, `file://…`", secret=True
    )
    memory: bool = setting(True, "whether a contributed image, sent again, gets its contributed caption at once")
    max_body_mb: int = setting(32, "largest request body, in MB of 1,048,576 bytes", 1, 1024)
    max_image_mb: int = setting(20, "largest image file, decoded from base64, in the same MB", 1, 1024)
    predictions: int = setting(2, "images described at once", 1, 64)
    queue: int = setting(16, "images that wait for that; beyond, the answer is 429", 0, 1024)
    time_limit_s: float = setting(30.0, "longest time for an answer, in seconds; beyond, it is 503 or 504", 0.01, 3600)
    provider: str = setting("", "ONNX Runtime's: `cpu`, `cuda`, `coreml`, `directml`; none: `cuda` if it is offered")
    threads: int = setting(1, "cores that encoding one image uses; 0: all", 0, 1024)

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise ConfigError(_sentence(error)) from None

    @classmethod
    def from_environment(cls) -> Self:
        """Read every LCM_* variable, an empty one as not set; raises ConfigError for unknown ones and bad values."""
        known = {*map(variable, cls.model_fields), *NOT_OF_THE_SERVICE}
        for name in sorted(os.environ):
            if name.startswith(PREFIX) and name not in known:
                raise ConfigError(f"unknown setting {name[:60]!a}; {closest(name, known)}")
        return cls()

    @field_validator("token")
    @classmethod
    def _check_token(cls, token: str) -> str:
        if not _TOKEN.fullmatch(token):
            raise ValueError("LCM_TOKEN may hold only visible ASCII characters, and no space; choose another one")
        return token

    @field_validator("origins", mode="before")
    @classmethod
    def _split_origins(cls, value: Any) -> Any:
        parts = value.split(",") if isinstance(value, str) else value
        origins = tuple(filter(None, (part.strip().rstrip("/") for part in parts)))
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"LCM_ORIGINS holds {origin[:60]!a}; an origin is http(s)://host or http(s)://host:port, in lower "
                    "case"
                )
        return origins

    @field_validator("home")
    @classmethod
    def _resolve(cls, folder: Path) -> Path:
        return folder.expanduser().resolve()

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        try:
            clean_language(self.language)
        except DataError as error:
            raise ValueError(f"LCM_LANGUAGE cannot be used: {error}") from None
        if self.token_for_learning and not self.token:
            raise ValueError("LCM_TOKEN_FOR_LEARNING is true and there is no token to ask for; set LCM_TOKEN too")
        if not (self.token or self.allow_open or _is_loopback(self.host)):
            raise ValueError(
                f"LCM_HOST is {self.host[:60]!a}, which others can reach, and there is no token: set LCM_TOKEN, "
                "or LCM_ALLOW_OPEN=true when everybody who reaches the service may post captions"
            )
        return self


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def settings_table() -> list[tuple[str, str, str]]:
    """Return (variable, default, meaning) of every setting, as the documents show them."""
    return [(variable(name), _default_of(one), one.description) for name, one in Settings.model_fields.items()]


def _default_of(field: FieldInfo) -> str:
    if field.default_factory:
        return "`data/` of the clone, else the user's data folder"
    if field.default in ("", ()):
        return "none"
    return f"{field.default:g}" if isinstance(field.default, float) else str(field.default).lower()


def _sentence(error: ValidationError) -> str:
    """Return the first fault in the words of lcm; only numbers and switches are shown, never a secret."""
    fault = error.errors(include_url=False)[0]
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    name = str(fault["loc"][0])
    if name not in Settings.model_fields:
        return f"unknown setting {name!r}; {closest(name, Settings.model_fields)}"
    field = Settings.model_fields[name]
    limits = [f"{getattr(one, side):g}" for side in ("ge", "le") for one in field.metadata if hasattr(one, side)]
    within = f" from {' to '.join(limits)}" if limits else ""
    kind = _KINDS.get(field.annotation, "text")
    return f"{variable(name)} is {str(fault['input'])[:60]!a}; it must be {kind}{within}"


def _is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the address; of names, only localhost is known to be so."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
