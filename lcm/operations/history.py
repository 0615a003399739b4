"""The history of versions: who made which model current when, and why.

Knows a file of JSON lines that is only ever added to, and what it tells: which version was current before. Refuses to
know bundles.
"""

import getpass
import json
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lcm.captioning.versions import SHIPPED

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
