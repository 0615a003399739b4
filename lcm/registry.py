"""The history of versions: who made which model current when, and why.

Knows a file of JSON lines that is only ever added to, and what it tells: which version was current before. Refuses to
know bundles.

Publishing: versions of models side by side, of which one is current at any moment.

Knows how a bundle becomes a version, how another version becomes current, how one goes back and what is cleared away.
Refuses to know whether a model is good, and who serves it: the gate's decision is only written down, and the service
sees by itself that `current` has changed.

Whatever is done is done under one lock, ends in one rename, and is then added to the history. A process that is killed
leaves a whole version or a hidden folder, which the next one removes; `current` never names half a version.

The catalogue: each version that is published, with its state and how it came to be.

Knows how the folders, `current` and the history add up to a table. Refuses to change any of it.
"""

import getpass
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lcm.captioning.bundle import MANIFEST, Manifest, verify
from lcm.captioning.captioner import (
    CURRENT,
    SHIPPED,
    SHIPPED_BUNDLE,
    current_version,
    load_tested,
    models_folder,
    version_folder,
)
from lcm.errors import BundleError, ConfigError, LcmError, PublishError
from lcm.features.encoders import file_sha256
from lcm.paths import packaged_file, sync_folder, write_atomic

HISTORY = "history.jsonl"
PUBLISH, PROMOTE, ROLL_BACK, PRUNE = "publish", "promote", "rollback", "prune"
FOUND = "found"  # current was changed by hand, or by one that was killed before it could write this down


@dataclass(frozen=True)
class Event:
    """One change, a line of the file."""

    action: str  # one of the five above
    version: str  # what was published, removed or made current
    previous: str  # what was current until then
    reason: str = ""  # in a person's or the gate's words
    decision: Mapping[str, Any] = field(default_factory=dict)  # the gate's numbers, where it was asked
    who: str = field(default_factory=lambda: whoever())
    when: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))  # UTC


def whoever() -> str:
    """Return user and host, as far as they are known."""
    name = "unknown"
    with suppress(OSError, KeyError):
        name = getpass.getuser()
    return f"{name}@{socket.gethostname()}"


def read_history(models: Path) -> list[Event]:
    """Return all events, the oldest first; a line that was cut off by a crash is passed over."""
    try:
        lines = (models / HISTORY).read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return []
    events = []
    for line in filter(None, lines):
        with suppress(ValueError, TypeError):
            events.append(Event(**json.loads(line)))
    return events


def add_event(models: Path, event: Event) -> None:
    """Add an event; it is on the disk when this returns. Whoever calls holds the lock."""
    line = json.dumps(asdict(event), ensure_ascii=False, allow_nan=False, default=str)
    with (models / HISTORY).open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else "\n" + line  # what a crash cut off stays a line of its own
        file.write(line.encode("utf-8", "backslashreplace") + b"\n")
        file.flush()
        os.fsync(file.fileno())


def versions_before(events: Sequence[Event], current: str) -> list[str]:
    """Return the versions that a rollback goes back to, the nearest first.

    Each rollback goes one further back, for what it leaves is forgotten; the shipped bundle is the last of all.
    """
    trail = [SHIPPED]  # what was made current, one upon the other
    for event in events:
        if event.action == ROLL_BACK and event.version in trail:
            while trail[-1] != event.version:
                trail.pop()
        elif event.action in (PROMOTE, ROLL_BACK, FOUND) and trail[-1] != event.version:
            trail.append(event.version)
    if trail[-1] == current:
        trail.pop()
    return [version for version in dict.fromkeys(reversed(trail)) if version != current]


LOCK = ".lock"
LOCK_WAIT_S = 120.0  # a publish copies some megabytes and tries the model out: seconds
HIDDEN = (".incoming-", ".removed-")  # folders that the one who holds the lock works in
KEEP = 5  # versions that prune leaves
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a version: a folder's name on any system
RESERVED = (CURRENT, SHIPPED, HISTORY)


@dataclass(frozen=True)
class Change:
    """What was done."""

    version: str  # that was published or is current now
    previous: str  # what was current before; the same as `version` when nothing changed
    known: bool = False  # the same bundle was published before
    passed_over: tuple[str, ...] = ()  # damaged versions that a rollback went past, each with what is wrong


def publish(
    folder: str | Path,
    reason: str,
    decision: Mapping[str, Any] | None = None,
    *,
    make_current: bool = False,
    instead_of: str | None = None,
    models: Path | None = None,
) -> Change:
    """Copy a bundle to the versions, under its name, and make it current if that is asked.

    `reason` and `decision` (the gate's numbers, JSON) go into the history. `instead_of` is the version that the
    decision was made against: when another one is current by now, nothing is done. A name that another bundle has
    already gets the first digits of its manifest's hash. Raises BundleError for a bundle that is damaged or fails its
    self-test, PublishError when it cannot be published.
    """
    folder, models = Path(folder).expanduser().resolve(), models or models_folder()
    with _alone(models):
        current = current_version(models)
        if instead_of not in (None, current):
            raise PublishError(
                f"{folder} was judged against {instead_of} and {current} is current by now; nothing was published: "
                "let the gate judge it again"
            )
        incoming = models / f"{HIDDEN[0]}{secrets.token_hex(8)}"
        try:
            manifest = _copy_bundle(folder, incoming)
            load_tested(incoming)
            version, is_there = _place_for(manifest.name, incoming, models)
            if not is_there:
                _put(incoming, models / version)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        add_event(models, Event(PUBLISH, version, current, reason, decision or {}))
        if make_current and version != current:
            _point_to(models, version, Event(PROMOTE, version, current, reason, decision or {}))
    return Change(version, current, is_there)


def promote(version: str, reason: str = "", models: Path | None = None) -> Change:
    """Make a version current; raises ConfigError for one that is not there, BundleError for a damaged one."""
    models = models or models_folder()
    with _alone(models):
        folder, current = known_version(models, version), current_version(models)
        if fault := fault_in(folder):
            raise BundleError(f"{version} was not promoted, {current} stays current: {fault}")
        if version != current:
            _point_to(models, version, Event(PROMOTE, version, current, reason))
    return Change(version, current)


def rollback(reason: str = "", models: Path | None = None) -> Change:
    """Make the version current that was so before, whatever has become of the current one.

    Damaged versions and those that are gone are passed over. Raises PublishError when there is none before.
    """
    models = models or models_folder()
    passed_over = []
    with _alone(models):
        current = current_version(models)
        for version in versions_before(read_history(models), current):
            if fault := fault_in(version_folder(models, version)):
                passed_over.append(f"{version}: {fault}")
                continue
            _point_to(models, version, Event(ROLL_BACK, version, current, reason))
            return Change(version, current, passed_over=tuple(passed_over))
    raise PublishError(f"{current} is current and none was so before; choose one with: lcm models promote VERSION")


def prune(keep: int = KEEP, reason: str = "", models: Path | None = None) -> tuple[str, ...]:
    """Remove published versions but the `keep` newest that are whole; returns what was removed.

    The current one, the one that a rollback goes back to and what was never published here always stay. Raises
    ConfigError for keep below 0.
    """
    if keep < 0:
        raise ConfigError(f"keep is {keep}; it must be 0 or more")
    models = models or models_folder()
    with _alone(models):
        found = [one for one in all_versions(models) if one.published and one.name != SHIPPED]
        newest = [one.name for one in reversed(found) if not one.fault][:keep]
        removed = [one for one in found if not (one.is_current or one.is_before or one.name in newest)]
        for one in removed:
            hidden = models / f"{HIDDEN[1]}{secrets.token_hex(8)}"
            one.folder.rename(hidden)
            add_event(models, Event(PRUNE, one.name, current_version(models), reason))
            shutil.rmtree(hidden, ignore_errors=True)
    return tuple(one.name for one in removed)


@contextmanager
def _alone(models: Path) -> Iterator[None]:
    """Hold the lock, once what a kill left is cleared away; turns what the disk raises into PublishError."""
    try:
        models.mkdir(parents=True, exist_ok=True)
        with FileLock(models / LOCK, timeout=LOCK_WAIT_S):
            for path in models.iterdir():
                if path.name.startswith(HIDDEN):
                    shutil.rmtree(path, ignore_errors=True)
            _write_down_what_was_found(models)
            yield
    except Timeout as error:
        raise PublishError(
            f"another lcm has been working in {models} for {LOCK_WAIT_S:g} s; try again once it is done"
        ) from error
    except OSError as error:
        raise PublishError(
            f"{error.filename or models} cannot be used ({error.strerror}); check its owner and the space that is left"
        ) from error


def _write_down_what_was_found(models: Path) -> None:
    current = current_version(models)
    changes = [one for one in read_history(models) if one.action not in (PUBLISH, PRUNE)]
    latest = changes[-1].version if changes else SHIPPED
    if current != latest:
        add_event(models, Event(FOUND, current, latest, "no line of the history tells of this change"))


def _copy_bundle(folder: Path, incoming: Path) -> Manifest:
    """Copy what a bundle's manifest names, and nothing else, to a new folder, on the disk for good.

    Returns the copy's manifest, for the bundle may be exported anew meanwhile. Loading the copy verifies it.
    """
    incoming.mkdir()
    manifest = Manifest.load(folder)
    if not NAME.fullmatch(manifest.name) or manifest.name in RESERVED:
        raise BundleError(
            f"{folder} has the name {manifest.name!r}, which no version can have; use up to 100 letters, digits, '.', "
            f"'_' and '-', and none of {', '.join(RESERVED)}"
        )
    for name in [*manifest.files, MANIFEST]:
        source = folder / Path(name).name
        if not source.is_file():
            raise BundleError(f"the bundle {folder} lacks {name}; copy it again or export it again")
        _copy_file(source, incoming / source.name)
    sync_folder(incoming)
    return Manifest.load(incoming)


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as original, target.open("xb") as copy:
        shutil.copyfileobj(original, copy, 1 << 20)
        copy.flush()
        os.fsync(copy.fileno())


def _place_for(name: str, incoming: Path, models: Path) -> tuple[str, bool]:
    """Return the version that a bundle becomes, and whether it is there already, whole."""
    digest = file_sha256(incoming / MANIFEST)
    for version in (name, f"{name}-{digest[:SHOWN_DIGITS]}"):
        there = models / version / MANIFEST
        if not (models / version).exists():
            return version, False
        if there.is_file() and file_sha256(there) == digest:
            return version, not fault_in(models / version)
    return version, False  # a damaged manifest stands in its place


def _put(incoming: Path, target: Path) -> None:
    """Give a whole version its name; a damaged one that has it goes."""
    if target.exists():
        target.rename(target.with_name(f"{HIDDEN[1]}{secrets.token_hex(8)}"))
    incoming.rename(target)
    sync_folder(target.parent)


def _point_to(models: Path, version: str, event: Event) -> None:
    """Make a version current, in one step, and write that down."""
    write_atomic(models / CURRENT, f"{version}\n")
    add_event(models, event)


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
    events = read_history(models)
    published: dict[str, Event] = {}  # in the order of the latest times
    for event in (one for one in events if one.action == PUBLISH):
        published.pop(event.version, None)
        published[event.version] = event
    current = current_version(models)
    before = next((name for name in versions_before(events, current) if not fault_in(version_folder(models, name))), "")
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
    shipped = packaged_file(SHIPPED_BUNDLE).resolve()
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
