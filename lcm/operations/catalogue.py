"""The catalogue: each version that is published, with its state and how it came to be.

Knows how the folders, `current` and the history add up to a table. Refuses to change any of it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lcm.captioning.bundle import MANIFEST, Manifest, verify
from lcm.captioning.captioners import SHIPPED_BUNDLE
from lcm.captioning.versions import CURRENT, SHIPPED, current_version, models_folder, version_folder
from lcm.errors import ConfigError, LcmError
from lcm.folders import resource
from lcm.operations import history
from lcm.operations.history import Event

SHOWN_DIGITS = 12  # of the hash of bundle.json, as X-LCM-Model-Version has them


@dataclass(frozen=True)
class Version:
    """One version."""

    name: str
    folder: Path
    digest: str = ""  # first digits of the hash of its manifest, as X-LCM-Model-Version; empty: it has none
    is_current: bool = False
    is_before: bool = False  # what a rollback would go back to
    fault: str = ""  # what is wrong with it; empty: it is whole
    published: Event | None = None  # the latest time; None: it was put there by hand
    metrics: Mapping[str, Any] = field(default_factory=dict)  # of 03_evaluate

    def as_record(self) -> dict[str, Any]:
        """Return it as JSON, as `lcm models list --json` and the dashboard show it."""
        event = self.published
        return {
            "version": self.name,
            "digest": self.digest,
            "current": self.is_current,
            "before": self.is_before,
            "fault": self.fault,
            "published": event.when if event else None,
            "by": event.who if event else None,
            "reason": event.reason if event else None,
            "decision": dict(event.decision) if event else {},
            "metrics": dict(self.metrics),
        }


def all_versions(models: Path | None = None) -> list[Version]:
    """Return every version: the shipped one, those put there by hand, then the others as they were published.

    Every file is read, to find what is damaged.
    """
    models = models or models_folder()
    events = history.read_history(models)
    published: dict[str, Event] = {}  # in the order of the latest times
    for event in (one for one in events if one.action == history.PUBLISH):
        published.pop(event.version, None)
        published[event.version] = event
    current = current_version(models)
    before = next(
        (name for name in history.versions_before(events, current) if not fault_in(version_folder(models, name))), ""
    )
    order = list(published)
    names = sorted(_folders(models), key=lambda name: (order.index(name) if name in published else -1, name))
    if current not in (SHIPPED, *names):
        names.append(current)  # it is gone, or a link leads elsewhere
    return [
        _look_at(name, models, is_current=name == current, is_before=name == before, published=published.get(name))
        for name in (SHIPPED, *names)
    ]


def _folders(models: Path) -> list[str]:
    """Return the folders that may be versions; in a clone, the shipped bundle lies among them and is none of them."""
    if not models.is_dir():
        return []
    shipped = resource(SHIPPED_BUNDLE).resolve()
    folders = [path for path in models.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return [path.name for path in folders if path.name != CURRENT and path.resolve() != shipped]


def _look_at(name: str, models: Path, **known: Any) -> Version:
    folder = Path(name) if Path(name).is_absolute() else version_folder(models, name)
    digest, metrics = "", {}
    try:
        digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:SHOWN_DIGITS]
        metrics = Manifest.load(folder).metrics
    except (OSError, LcmError):
        pass  # fault_in says what is wrong
    return Version(name, folder, digest, fault=fault_in(folder), metrics=metrics, **known)


def fault_in(folder: Path) -> str:
    """Return what is wrong with a bundle's folder, empty when every file is what was exported."""
    try:
        verify(folder, Manifest.load(folder))
    except LcmError as error:
        return str(error)
    except OSError as error:
        return f"{folder} cannot be read ({error.strerror}); check who owns it"
    return ""


def known_version(models: Path, version: str) -> Path:
    """Return the folder of a version; raises ConfigError, with the choices, for one that is not there."""
    names = [SHIPPED, *_folders(models)]
    if version not in names:
        raise ConfigError(f"there is no version {version!r} in {models}; choose from {', '.join(names)}")
    return version_folder(models, version)
