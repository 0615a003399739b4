"""Approvals: contributions that a person has looked at and lets pass, noted beside them.

Knows one small file in the store's folder, which backups and copies elsewhere hold too. Refuses to know why a
contribution was kept out: guards do.
"""

from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout

from lcm.contributions.copying import replace_file
from lcm.contributions.failures import explained
from lcm.contributions.numbers import as_text, from_text
from lcm.errors import ConfigError, StoreBusyError

APPROVED = "approved.txt"
LOCK_WAIT_S = 5.0  # writing a line takes milliseconds


def read_approved(store: Path) -> set[int]:
    """Return the numbers that are approved; raises ConfigError when the file holds something else."""
    try:
        return from_text(approved_file(store).decode("utf-8", "replace"))
    except ConfigError as error:
        raise ConfigError(f"{store / APPROVED}: {error}; or remove the file and approve again") from error


def approved_file(store: Path) -> bytes:
    """Return what the file holds; nothing where there is none. Raises StoreError when it cannot be read."""
    with explained(store):
        path = store / APPROVED
        return path.read_bytes() if path.exists() else b""


def approve(store: Path, numbers: Iterable[int], *, approved: bool = True) -> set[int]:
    """Note numbers as approved, or not any more; returns all that are approved then.

    Raises StoreError when they cannot be noted, ConfigError when the file holds something else: it stays as it is.
    """
    with explained(store):
        try:
            with FileLock(store / f".{APPROVED}.lock", timeout=LOCK_WAIT_S):
                known = read_approved(store)
                known = known | set(numbers) if approved else known - set(numbers)
                replace_file(store / APPROVED, f"{as_text(known)}\n".encode())
                return known
        except Timeout as error:
            raise StoreBusyError("another process is noting approvals; try again") from error
