"""What waits: contributions that the current model has not learned from, and those that a person should look at first.

Knows how store, current model, the latest retraining's suspects and the approvals add up to one list. Refuses to know
how it is shown, and trains nothing.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lcm.contributions.approvals import read_approved
from lcm.contributions.reader import StoreReader
from lcm.contributions.records import Contribution
from lcm.errors import LcmError
from lcm.operations.retraining import SUSPECTS
from lcm.operations.starting import current_start

KEPT_OUT = "an earlier retraining kept it out, and nobody has approved it since"


@dataclass(frozen=True)
class Pending:
    """A contribution that no model has learned from."""

    contribution: Contribution
    reason: str = ""  # why a person should look at it; empty: nothing is odd
    approved: bool = False  # a person let it pass

    @property
    def is_suspect(self) -> bool:
        """Whether it is kept out until somebody approves it."""
        return bool(self.reason) and not self.approved


def read_waiting(store: StoreReader, runs: Path) -> list[Pending]:
    """Return what waits for the next retraining: suspects first, then the newest.

    `runs` is the folder of the runs. Raises StoreError when the store cannot be read.
    """
    seen, quarantined = _known()
    approved, reasons = read_approved(store.folder), latest_suspects(runs)
    found = []
    for one in store.contributions():
        reason = reasons.get(one.id, KEPT_OUT if one.id in quarantined else "")
        if one.usable and (one.id not in seen or one.id in quarantined):
            found.append(Pending(one, reason, one.id in approved))
    return sorted(found, key=lambda one: (not one.is_suspect, -one.contribution.id))


def _known() -> tuple[set[int], set[int]]:
    """Return the numbers that the current model has seen, and those that it kept out; none when it is damaged."""
    with suppress(LcmError, OSError):
        current = current_start()
        return current.seen, current.quarantined
    return set(), set()


def latest_suspects(runs: Path) -> Mapping[int, str]:
    """Return number -> reason as the newest run that looked at contributions has left them."""
    files = list(runs.glob(f"*/{SUSPECTS}")) if runs.is_dir() else []
    if not files:
        return {}
    found = {}
    with suppress(OSError):
        for line in max(files, key=_age).read_text(encoding="utf-8").split("\n"):
            with suppress(ValueError, KeyError, TypeError):  # a line that a run is just writing
                record = json.loads(line)
                found[int(record["id"])] = str(record["reason"])
    return found


def _age(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0
