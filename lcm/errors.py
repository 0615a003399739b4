"""The errors that users see: what was received, what is allowed, what to do next; and looking a name up in a table."""

import importlib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import ModuleType
from typing import TypeVar

Value = TypeVar("Value")


class LcmError(Exception):
    """Something the user can put right; its message is shown without a traceback."""


class ConfigError(LcmError):
    """A parameter, preset or name that lcm does not know or cannot use."""


class DataError(LcmError):
    """A data set that cannot be read, or has too little in it."""


class NothingToDo(LcmError):  # noqa: N818 - no error: the run ends well, and says why
    """A run that needs nothing to be done."""


class BadImageError(LcmError):
    """Bytes that are not an image lcm accepts."""


class BundleError(LcmError):
    """A bundle or an encoder that is missing, incomplete or altered."""


class PublishError(LcmError):
    """Versions of models that cannot be changed just now, or not so; nothing was changed."""


class StoreError(LcmError):
    """Contributions that cannot be kept or read just now; nothing was stored."""


class StoreBusyError(StoreError):
    """Another process holds the store; the same request may succeed a little later."""


class StoreFullError(StoreError):
    """There is no space left for a contribution."""


class StoreDamagedError(StoreError):
    """A store that is not what was written; it is never repaired by deleting."""


def closest(name: str, known: Iterable[str]) -> str:
    """Return what to say of an unknown name: the known name that is nearest, if one is near, and all of them."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    return "".join(f"did you mean {one!r}? " for one in near) + f"choose from {', '.join(names)}"


def choose(table: Mapping[str, Value], name: str, kind: str) -> Value:
    """Return `table[name]`; `kind` says in the message what the table holds ("encoder", "model").

    Raises ConfigError naming the value received and the choices.
    """
    if name not in table:
        raise ConfigError(f"unknown {kind} {name!r}; choose from {', '.join(table)}")
    return table[name]


def require(module: str, extra: str) -> ModuleType:
    """Import a heavy `module` where it is used; `extra` is the part of lcm that installs it.

    Raises ConfigError with the install command when the module is missing.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise ConfigError(f"{module} is not installed; install it with: pip install 'lcm[{extra}]'") from error
