"""Backups: a copy that can be made while others write, and the way back.

Knows how a database and its images are copied so that they fit together, and that the way back deletes nothing.
Refuses to know when backups are made and where they are kept.

A backup is a folder with `images/`, `backup.sqlite` and, once something was approved, `approved.txt`. No store has a
`backup.sqlite`, so neither is taken for the other.
"""

import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lcm.contributions.approvals import APPROVED, approved_file
from lcm.contributions.copying import copy_images, prepare_folder, remove_other_images, replace_file
from lcm.contributions.database import DATABASE, Database
from lcm.contributions.failures import damaged, explained
from lcm.contributions.files import IMAGES, sync_folder, write_mark
from lcm.contributions.reader import StoreReader
from lcm.contributions.records import Revocation
from lcm.contributions.store import ContributionStore
from lcm.data.files import shorten
from lcm.errors import ConfigError, StoreBusyError, StoreError
from lcm.paths import home

BACKUP = "backup.sqlite"
SNAPSHOT = f".{BACKUP}.tmp"
ROUNDS = 10  # each is needed only if something was revoked during the one before
SKIPPED_NUMBERS = 1_000_000  # at a restore: those that were given after the backup must not be given again


@dataclass(frozen=True)
class Backup:
    """What a backup holds."""

    contributions: int
    images: int
    left_out: tuple[int, ...]  # ids of contributions whose image is missing or altered: in the store, and so in here
    aside: Path | None = None  # at a restore: where the store that was there lies now
    revoked_again: tuple[int, ...] = ()  # at a restore: ids that were revoked after the backup, and stay so


def back_up(store: StoreReader, folder: str | Path) -> Backup:
    """Copy a store to a folder while others go on writing; an earlier backup there is brought up to date.

    Raises ConfigError for a folder with other files, StoreError when it cannot be written.
    """
    target = prepare_folder(folder, store.folder, {BACKUP, APPROVED})
    for _ in range(ROUNDS):
        _copy_database(store, target / SNAPSHOT)
        contributions = list(StoreReader(target, SNAPSHOT).contributions())
        copied = copy_images(store, contributions, target)
        if all(store.get(number) for number in copied.left_out):  # else it was revoked since, and its image is gone
            break
    else:
        raise StoreBusyError(f"contributions were revoked all the while that {target} was written; try again later")
    with explained(target):
        (target / SNAPSHOT).replace(target / BACKUP)
        sync_folder(target)
    remove_other_images(target, contributions)
    _copy_approvals(store.folder, target)
    return Backup(len(contributions), copied.images, copied.left_out)


def _copy_database(store: StoreReader, path: Path) -> None:
    with explained(path.parent), store.database.reading() as session:
        for left in (path, path.with_name(f"{path.name}-journal")):
            left.unlink(missing_ok=True)
        copy = sqlite3.connect(path, isolation_level=None)
        try:
            copy.execute("PRAGMA synchronous = FULL")
            session.connection.execute("BEGIN")
            session.connection.execute("SELECT 1 FROM store").fetchone()  # waits here, and not for ever, for a lock
            session.connection.backup(copy)
        finally:
            copy.close()


def _copy_approvals(source: Path, target: Path) -> None:
    """Make the approvals there those that are here: none too, where an earlier backup holds some."""
    approvals = approved_file(source)
    if approvals != approved_file(target):
        replace_file(target / APPROVED, approvals)


def restore(backup: str | Path, folder: str | Path | None = None, replace: bool = False) -> Backup:
    """Put a backup where there is no store, or with `replace` in the place of one, whose files are put aside.

    Stop the service first: what it stores meanwhile lands in the store that is put aside. What was revoked there after
    the backup is revoked again. Raises ConfigError for a folder that is no backup and for a store that is in the way,
    StoreDamagedError when the backup is not sound.
    """
    source = Path(backup).expanduser().resolve()
    target = Path(folder or home() / "contributions").expanduser().resolve()
    if not (source / BACKUP).is_file():
        raise ConfigError(f"{source} is no backup: it has no {BACKUP}; give the folder that a backup was written to")
    reader = StoreReader(source, BACKUP)
    reader.database.verify()
    checked = reader.check()
    if not checked.sound:
        numbers = [str(number) for number in sorted(checked.missing + checked.altered)]
        raise damaged(source, f"the images of contributions {shorten(numbers)} are missing or altered")
    revocations = _revocations(target)
    with explained(target):
        aside = _make_room(target, replace)
        (target / IMAGES).mkdir(mode=0o700)
    copied = copy_images(reader, reader.contributions(), target)
    _copy_approvals(source, target)
    _place_database(source / BACKUP, target)
    store = ContributionStore(target)
    back = [gone for gone in revocations if (one := store.get(gone.id)) and one.image_sha256 == gone.image_sha256]
    for gone in back:
        store.revoke(gone.id, gone.reason)
    numbers = tuple(gone.id for gone in back)
    return Backup(checked.contributions - len(back), copied.images, copied.left_out, aside, numbers)


def _revocations(folder: Path) -> list[Revocation]:
    """Return what was revoked in the store that is there; nothing where there is none, or none that can be read."""
    with suppress(StoreError):
        return StoreReader(folder).revocations()
    return []


def _make_room(target: Path, replace: bool) -> Path | None:
    """Leave no store in the folder: put aside, in a sub-folder, all that one consists of; returns the sub-folder."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    there = sorted(path for path in target.iterdir() if not path.name.startswith("replaced-"))
    if there and not replace:
        raise ConfigError(f"{target} is not empty; say --replace to put what is there aside, or choose another folder")
    aside = next(path for path in (target / f"replaced-{number}" for number in range(1, 10**6)) if not path.exists())
    if there:
        aside.mkdir(mode=0o700)
    for path in there:
        path.rename(aside / path.name)
    sync_folder(target)
    return aside if there else None


def _place_database(backup: Path, target: Path) -> None:
    """Give the copied database its name as the last step: a restore that was cut short is no store."""
    with explained(target):
        replace_file(target / SNAPSHOT, backup.read_bytes())
        with Database(target, SNAPSHOT).writing() as session:
            write_mark(session.folder, session.store_id)
            skip = "UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'contributions'"
            session.connection.execute(skip, (SKIPPED_NUMBERS,))
        (target / f"{SNAPSHOT}-journal").unlink(missing_ok=True)
        (target / SNAPSHOT).replace(target / DATABASE)
        sync_folder(target)
