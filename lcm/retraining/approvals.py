"""Approvals: contributions that a person has looked at and lets pass, noted beside them.

Knows one small file in the store's folder. Refuses to know why a contribution was kept out: guards do. A backup or a
mirror of the store does not hold the file; a retraining elsewhere is told with `approved`.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout

from lcm.errors import StoreBusyError, StoreError
from lcm.retraining.numbers import as_text, from_text

APPROVED = "approved.txt"
LOCK_WAIT_S = 5.0  # writing a line takes milliseconds


def read_approved(store: Path) -> set[int]:
    """Return the numbers that are approved; raises ConfigError when the file holds something else."""
    try:
        return from_text((store / APPROVED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return set()


def approve(store: Path, numbers: Iterable[int], *, approved: bool = True) -> set[int]:
    """Note numbers as approved, or not any more; returns all that are then. Raises StoreError when it cannot be."""
    path, temporary = store / APPROVED, store / f".{APPROVED}.{os.getpid()}"
    try:
        with FileLock(store / f".{APPROVED}.lock", timeout=LOCK_WAIT_S):
            known = read_approved(store)
            known = known | set(numbers) if approved else known - set(numbers)
            temporary.write_text(as_text(known) + "\n", encoding="utf-8")
            temporary.replace(path)
            return known
    except Timeout as error:
        raise StoreBusyError("another process is noting approvals; try again") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}); check its owner and the space left") from error
