"""Failures: what the errors of the disk and of SQLite mean for a store of contributions.

Knows which of them are for the sender to try again, which are for whoever runs the service, and what to do next.
Refuses to know what was being done. The messages name folders: they are for logs and terminals, not for senders.
"""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lcm.errors import StoreBusyError, StoreDamagedError, StoreError, StoreFullError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn what SQLite and the disk raise, while `folder` is used, into the errors that lcm shows."""
    try:
        yield
    except OSError as error:
        raise _explain_os(error, folder) from error
    except sqlite3.Error as error:
        raise _explain_sqlite(error, folder) from error


def _explain_sqlite(error: sqlite3.Error, folder: Path) -> Exception:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None or code & 0xFF == sqlite3.SQLITE_CONSTRAINT:
        return error  # only a mistake of ours can cause it
    match code & 0xFF:  # the higher bits say more than is needed
        case sqlite3.SQLITE_FULL:
            return StoreFullError(f"no space is left for {folder} ({error})")
        case sqlite3.SQLITE_BUSY:
            return busy(folder)
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return damaged(folder, str(error))
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return StoreError(f"{folder} cannot be written; check who owns it")
    return StoreError(f"{folder} cannot be used ({error})")


def _explain_os(error: OSError, folder: Path) -> StoreError:
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return StoreFullError(f"no space is left for {folder} ({reason})")
    if error.errno in _READ_ONLY:
        return StoreError(f"{folder} cannot be written ({reason}); check who owns it")
    return StoreError(f"{folder} cannot be used ({reason})")


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection holds the lock that was wanted."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def busy(folder: Path) -> StoreBusyError:
    """Return the error for a lock that others held for too long."""
    return StoreBusyError(
        f"others hold the contribution store {folder}, and nothing was stored; try again a little later"
    )


def damaged(folder: Path, found: str) -> StoreDamagedError:
    """Return the error for a store that is not what was written; `found` says how."""
    return StoreDamagedError(
        f"the contribution store {folder} is damaged ({found}); nothing in it was deleted: restore a backup with "
        "`lcm contributions restore BACKUP --replace`, which keeps the damaged files aside"
    )
