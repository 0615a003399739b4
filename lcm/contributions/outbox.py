"""The outbox: what a mirror has still to do, kept in the same database and the same transactions as what it is about.

Knows when an entry is made, replaced, due and done. Refuses to know where a mirror is and how it copies.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from lcm.contributions.records import COLUMNS, REVOCATION_COLUMNS, Contribution, OutboxEntry, Revocation

_MISSING = "FROM contributions WHERE number NOT IN (SELECT number FROM outbox)"


def has_missing(connection: sqlite3.Connection) -> bool:
    """Whether there are contributions that a mirror was never told of."""
    return connection.execute(f"SELECT 1 {_MISSING} LIMIT 1").fetchone() is not None


def put_missing(connection: sqlite3.Connection) -> None:
    """Enter the contributions that a mirror was never told of, such as one that was added just now."""
    connection.execute(f"INSERT INTO outbox (kind, number) SELECT 'put', number {_MISSING} ORDER BY number")


def put(connection: sqlite3.Connection, number: int) -> None:
    """Enter a new contribution."""
    connection.execute("INSERT INTO outbox (kind, number) VALUES ('put', ?)", (number,))


def delete(connection: sqlite3.Connection, number: int) -> None:
    """Enter that a contribution was revoked, if a mirror was ever told of it.

    It replaces the put, under a new id: a mirror that is just copying settles the old one to no effect.
    """
    told = connection.execute("DELETE FROM outbox WHERE number = ?", (number,)).rowcount
    if told:
        connection.execute("INSERT INTO outbox (kind, number) VALUES ('delete', ?)", (number,))


def settle(connection: sqlite3.Connection, entry_id: int) -> None:
    """Note that an entry was done; one that is gone is passed over."""
    connection.execute("UPDATE outbox SET settled = 1 WHERE entry_id = ?", (entry_id,))


def postpone(connection: sqlite3.Connection, entry_id: int, until: float) -> None:
    """Note that an entry failed, and when it is due again; one that is gone is passed over."""
    connection.execute("UPDATE outbox SET due = ?, attempts = attempts + 1 WHERE entry_id = ?", (until, entry_id))


def pending(connection: sqlite3.Connection, folder: Path, limit: int, now: float) -> list[OutboxEntry]:
    """Return the entries that are due, the oldest first, as things stand now."""
    columns = ", ".join([*(f"c.{name}" for name in COLUMNS), *(f"r.{name}" for name in REVOCATION_COLUMNS)])
    rows = connection.execute(
        f"""SELECT o.entry_id, o.attempts, o.kind,
                   EXISTS (SELECT 1 FROM contributions u WHERE u.image_sha256 = r.image_sha256), {columns}
            FROM outbox o LEFT JOIN contributions c USING (number) LEFT JOIN revocations r USING (number)
            WHERE o.settled = 0 AND o.due <= ? ORDER BY o.entry_id LIMIT ?""",
        (now, limit),
    )
    return list(_entries(rows, folder))


def _entries(rows: sqlite3.Cursor, folder: Path) -> Iterator[OutboxEntry]:
    for entry_id, attempts, kind, in_use, *columns in rows:
        if kind == "put":
            yield as_put(Contribution.from_row(columns[: len(COLUMNS)]), folder, entry_id, attempts)
            continue
        gone = Revocation(*columns[len(COLUMNS) :])
        path = folder / gone.image_file if in_use else None
        record = asdict(gone) | {"image_file": gone.image_file}
        yield OutboxEntry(entry_id, "delete", gone.id, gone.image_sha256, path, record, attempts)


def as_put(contribution: Contribution, folder: Path, entry_id: int = 0, attempts: int = 0) -> OutboxEntry:
    """Return the entry that copies a contribution; without an id when there is none in the outbox."""
    path, record = folder / contribution.image_file, contribution.as_record()
    return OutboxEntry(entry_id, "put", contribution.id, contribution.image_sha256, path, record, attempts)
