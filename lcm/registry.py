"""Versions of the model side by side, of which one is current at any moment: publish, promote, roll back, prune, list.

Each operation runs under one lock, ends in one rename and is then added to the history, a file of JSON lines. A process
that is killed leaves a whole version or a hidden folder, which the next one removes; `current` never names half a
version. A service sees by itself that `current` has changed.
"""

import getpass
import json
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
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
from lcm.config import SAMPLE
from lcm.errors import BundleError, ConfigError, LcmError, PublishError
from lcm.features.encoders import file_sha256
from lcm.paths import RunDir, packaged_file, write_atomic

HISTORY, LOCK = "history.jsonl", ".lock"
LOCK_WAIT_S = 120.0  # a publish copies some megabytes and tries the model out: seconds
HIDDEN = ".lcm-"  # what folders that come or go begin with; only the holder of the lock has any
KEEP = 5  # versions that prune leaves
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a version: a folder's name on any system
RESERVED = (CURRENT, SHIPPED, HISTORY)
SHOWN_DIGITS = 12  # of the hash of bundle.json, as X-LCM-Model-Version has them
PUBLISH, PROMOTE, ROLL_BACK, PRUNE = "publish", "promote", "rollback", "prune"
DEGENERATE, WORSE = REFUSED = ("degenerate", "worse")  # verdicts (03_evaluate) of what a person publishes by force only
NOT_MEASURED = "not measured"  # one of those of what is published all the same


def _user() -> str:
    name = "unknown"
    with suppress(OSError, KeyError):  # a container's user may have no name
        name = getpass.getuser()
    return f"{name}@{socket.gethostname()}"


@dataclass(frozen=True)
class Event:
    """One change, a line of the history."""

    action: str  # one of the four above
    version: str  # what was published, removed or made current
    previous: str  # what was current until then, also where the history does not tell of that
    reason: str = ""  # in a person's or the gate's words
    decision: Mapping[str, Any] = field(default_factory=dict)  # the gate's numbers, where it was asked
    who: str = field(default_factory=_user)
    when: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))  # UTC


@dataclass(frozen=True)
class Change:
    """What was done."""

    version: str  # that was published or is current now
    previous: str  # what was current before; the same as `version` when nothing changed
    known: bool = False  # the same bundle is there already
    unmeasured: bool = False  # nobody knows whether what was published is better than what there was
    skipped: tuple[str, ...] = ()  # damaged versions that a rollback did not go back to, each with what is wrong


@dataclass(frozen=True)
class Version:
    """One version, as `lcm models list --json` prints it."""

    version: str  # its name
    digest: str = ""  # of its manifest, as X-LCM-Model-Version; empty: it has none
    current: bool = False
    before: bool = False  # what a rollback would go back to
    fault: str = ""  # what is wrong with it; empty: it is whole
    published: str | None = None  # when, the latest time; None: it was put there by hand
    by: str | None = None
    reason: str | None = None
    decision: Mapping[str, Any] = field(default_factory=dict)  # the gate's, where it was asked
    metrics: Mapping[str, Any] = field(default_factory=dict)  # of 03_evaluate


def publish(
    folder: str | Path,
    reason: str,
    decision: Mapping[str, Any] | None = None,
    *,
    make_current: bool = False,
    instead_of: str | None = None,
    force: bool = False,
) -> Change:
    """Copy a bundle to the versions, under its name, and make it current if that is asked.

    `folder` is the bundle's, or that of the run that made it. `reason` and `decision` (the gate's numbers, JSON) go
    into the history. `instead_of` is the version that the decision was made against. A name that another bundle has
    already gets the first digits of its manifest's hash. Raises BundleError for a bundle that is damaged or fails its
    smoke test, PublishError when it cannot be published, or, without a decision or `force`, should not.
    """
    folder, models = Path(folder).expanduser().resolve(), models_folder()
    if (RunDir(folder).bundle / MANIFEST).is_file():
        folder = RunDir(folder).bundle
    if not (decision or force):
        _check_verdict(folder, Manifest.load(folder))
    with _locked(models):
        current = current_version(models)
        if instead_of not in (None, current):
            raise PublishError(
                f"{folder} was judged against {instead_of} and {current} is current by now; nothing was published: "
                "let the gate judge it again"
            )
        incoming = _hidden(models)
        try:
            manifest, digest = _copy_bundle(folder, incoming), short_digest(incoming)
            version, target = manifest.name, models / manifest.name
            if target.exists() and short_digest(target) != digest:
                version, target = f"{version}-{digest}", models / f"{version}-{digest}"
            load_tested(incoming)
            is_whole = target.exists() and not _fault_in(target)
            if not is_whole:
                if target.exists():  # damaged
                    target.rename(_hidden(models))
                incoming.rename(target)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        event = Event(PUBLISH, version, current, reason, decision or {})
        known = is_whole and any((one.action, one.version) == (PUBLISH, version) for one in read_history(models))
        if not known:
            add_event(models, event)
        if make_current and version != current:
            _point_to(models, replace(event, action=PROMOTE))
    return Change(version, current, known, manifest.metrics.get("verdict", NOT_MEASURED) == NOT_MEASURED)


def _check_verdict(folder: Path, manifest: Manifest) -> None:
    metrics = manifest.metrics
    if manifest.training_data.get("source") == SAMPLE:
        raise PublishError(
            f"{folder} is not published, for it knows generated scenes alone; lcm run --params adapt -p data_dir "
            "photos teaches the shipped model yours. --force publishes it all the same"
        )
    if metrics.get("verdict") in REFUSED:
        raise PublishError(
            f"{folder} is not published, for 03_evaluate found it {metrics['verdict']}; --force publishes it all the "
            f"same.\n{metrics.get('verdict_text', '')}"
        )


def promote(version: str, reason: str = "") -> Change:
    """Make a version current; raises ConfigError for one that is not there, BundleError for a damaged one."""
    models = models_folder()
    with _locked(models):
        current, names = current_version(models), [SHIPPED, *_folders(models)]
        if version not in names:
            raise ConfigError(f"there is no version {version!r} in {models}; choose from {', '.join(names)}")
        if fault := _fault_in(version_folder(models, version)):
            raise BundleError(f"{version} was not promoted, {current} stays current: {fault}")
        if version != current:
            _point_to(models, Event(PROMOTE, version, current, reason))
    return Change(version, current)


def rollback(reason: str = "") -> Change:
    """Make the version current that was so before, whatever has become of the current one.

    Damaged versions and those that are gone are skipped. Raises PublishError when there is none before.
    """
    models, skipped = models_folder(), []
    with _locked(models):
        current = current_version(models)
        for version in versions_before(read_history(models), current):
            if fault := _fault_in(version_folder(models, version)):
                skipped.append(f"{version}: {fault}")
                continue
            _point_to(models, Event(ROLL_BACK, version, current, reason))
            return Change(version, current, skipped=tuple(skipped))
    raise PublishError(f"{current} is current and none was so before; choose one with: lcm models promote VERSION")


def prune(keep: int = KEEP) -> tuple[str, ...]:
    """Remove published versions but the `keep` newest that are whole; returns what was removed.

    The current one, the one that a rollback goes back to and what was never published here always stay.
    """
    models = models_folder()
    with _locked(models):
        found = [one for one in all_versions() if one.published and one.version != SHIPPED]
        newest = [one.version for one in reversed(found) if not one.fault][:keep]
        removed = [one.version for one in found if not (one.current or one.before or one.version in newest)]
        for version in removed:
            (models / version).rename(hidden := _hidden(models))
            add_event(models, Event(PRUNE, version, current_version(models)))
            shutil.rmtree(hidden, ignore_errors=True)
    return tuple(removed)


def all_versions() -> list[Version]:
    """Return every version, all files read: the shipped one, those put there by hand, then as they were published."""
    models = models_folder()
    events, current = read_history(models), current_version(models)
    published = {one.version: (place, one) for place, one in enumerate(events) if one.action == PUBLISH}  # the latest
    names = sorted(_folders(models), key=lambda name: (published[name][0] if name in published else -1, name))
    if current not in (SHIPPED, *names):
        names.append(current)  # it is gone
    folders = {name: version_folder(models, name) for name in [SHIPPED, *names]}
    faults = {name: _fault_in(folder) for name, folder in folders.items()}
    before = next((name for name in versions_before(events, current) if faults.get(name) == ""), "")
    versions = []
    for name, folder in folders.items():
        one = Version(name, short_digest(folder), name == current, name == before, faults[name])
        if name in published:
            event = published[name][1]
            one = replace(one, published=event.when, by=event.who, reason=event.reason, decision=event.decision)
        versions.append(one if one.fault else replace(one, metrics=Manifest.load(folder).metrics))
    return versions


def short_digest(folder: Path) -> str:
    """Return the first digits of the hash of a bundle's manifest, which tell versions apart; empty without one."""
    return file_sha256(folder / MANIFEST)[:SHOWN_DIGITS] if (folder / MANIFEST).is_file() else ""


def read_history(models: Path) -> list[Event]:
    """Return all events, the oldest first."""
    events, path = [], models / HISTORY
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else ():
        with suppress(ValueError, TypeError):  # the last, empty one, and what a person has damaged
            events.append(Event(**json.loads(line)))
    return events


def add_event(models: Path, event: Event) -> None:
    """Add an event to the history, whole; the caller holds the lock."""
    known = (models / HISTORY).read_bytes() if (models / HISTORY).exists() else b""
    line = json.dumps(asdict(event), ensure_ascii=False, allow_nan=False, default=str) + "\n"
    write_atomic(models / HISTORY, known + line.encode("utf-8", "backslashreplace"))


def versions_before(events: Sequence[Event], current: str) -> list[str]:
    """Return the versions that a rollback goes back to, the nearest first.

    Each rollback goes one further back, for what it leaves is forgotten; the shipped bundle is the last of all.
    """
    trail = [SHIPPED]  # what was made current, one upon the other
    for event in events:
        if event.action == ROLL_BACK and event.version in trail:
            while trail[-1] != event.version:
                trail.pop()
        elif event.action in (PROMOTE, ROLL_BACK):
            trail += [event.previous, event.version]
    return [version for version in dict.fromkeys(reversed(trail)) if version != current]


@contextmanager
def _locked(models: Path) -> Iterator[None]:
    """Hold the lock, once what a kill left is cleared away; turns what the disk raises into PublishError."""
    try:
        models.mkdir(parents=True, exist_ok=True)
        with FileLock(models / LOCK, timeout=LOCK_WAIT_S):
            for path in models.iterdir():
                if path.name.startswith(HIDDEN):
                    shutil.rmtree(path, ignore_errors=True)
            yield
    except Timeout as error:
        raise PublishError(
            f"another lcm has been working in {models} for {LOCK_WAIT_S:g} s; try again once it is done"
        ) from error
    except OSError as error:
        raise PublishError(
            f"{error.filename or models} cannot be used ({error.strerror}); check its owner and the space that is left"
        ) from error


def _hidden(models: Path) -> Path:
    return models / f"{HIDDEN}{secrets.token_hex(8)}"


def _copy_bundle(folder: Path, incoming: Path) -> Manifest:
    """Copy what a bundle's manifest names, and nothing else, to a new folder; returns the manifest."""
    manifest = Manifest.load(folder)
    if not NAME.fullmatch(manifest.name) or manifest.name in RESERVED:
        raise BundleError(
            f"{folder} has the name {manifest.name!r}, which no version can have; use up to 100 letters, digits, '.', "
            f"'_' and '-', and none of {', '.join(RESERVED)}"
        )
    verify(folder, manifest)
    incoming.mkdir()
    for name in [*manifest.files, MANIFEST]:
        shutil.copyfile(folder / name, incoming / name)
    return manifest


def _point_to(models: Path, event: Event) -> None:
    """Make an event's version current, in one step, and write that down."""
    write_atomic(models / CURRENT, f"{event.version}\n")
    add_event(models, event)


def _folders(models: Path) -> list[str]:
    """Return the folders that may be versions; in a clone, the shipped bundle lies among them and is none of them."""
    if not models.is_dir():
        return []
    shipped = packaged_file(SHIPPED_BUNDLE).resolve()
    folders = [path for path in models.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return [path.name for path in folders if path.name != CURRENT and path.resolve() != shipped]


def _fault_in(folder: Path) -> str:
    """Return what is wrong with a bundle's folder, empty when every file is what was exported."""
    try:
        verify(folder, Manifest.load(folder))
    except LcmError as error:
        return str(error)
    except OSError as error:
        return f"{folder} cannot be read ({error.strerror}); check who owns it"
    return ""
