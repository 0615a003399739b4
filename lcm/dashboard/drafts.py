"""Drafts: photos of the page "Review" with their captions and what a person has decided, in one small SQLite file.

A photo is known by its bytes, so one that was decided is not asked again, whatever it is called and wherever it lies by
now. Photos of a folder stay in it; a photo that was dropped on the page is inside, until it is sent.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from lcm.data.files import shorten
from lcm.data.images import read_file
from lcm.errors import BadImageError, DataError
from lcm.paths import home

DROPPED = "dropped"  # the batch of photos that came without a folder
OPEN, APPROVED, REJECTED, SENT = STATES = ("open", "approved", "rejected", "sent")
UNDECIDED = f"state = '{OPEN}' AND NOT by_person"
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS drafts (
    id INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,  -- of the photo's bytes
    path BLOB NOT NULL,  -- of its file; empty: it was dropped
    photo BLOB NOT NULL,  -- empty: it lies at its path, or was sent
    batch TEXT NOT NULL,  -- the folder that was opened, or DROPPED
    name TEXT NOT NULL,  -- for people
    state TEXT NOT NULL DEFAULT '{OPEN}' CHECK (state IN {STATES}),
    caption TEXT NOT NULL DEFAULT '',
    language TEXT NOT NULL DEFAULT '',  -- of the caption
    by_person INTEGER NOT NULL DEFAULT 0,  -- whether a person wrote it, on this page or before
    asked TEXT NOT NULL DEFAULT '',  -- the language in which the service was asked; empty: it was not
    confidence REAL,  -- of the model in its own caption
    tags TEXT NOT NULL DEFAULT '[]',
    model TEXT NOT NULL DEFAULT '',
    trouble TEXT NOT NULL DEFAULT ''  -- why it could not be captioned or sent
);
CREATE INDEX IF NOT EXISTS drafts_batches ON drafts (batch, state);
"""
ADD = """INSERT INTO drafts (sha256, path, photo, batch, name) VALUES (?, ?, ?, ?, ?) ON CONFLICT (sha256)
DO UPDATE SET path = excluded.path, photo = excluded.photo, batch = excluded.batch, name = excluded.name"""
Draft = dict[str, Any]  # the columns of the table but the photo; tags are a list


class Drafts:
    """The drafts of this machine, for any number of threads and processes; every method may raise DataError."""

    def __init__(self):
        self._path = home() / "review.sqlite"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch(0o600)
        with self._connection() as connection:
            connection.executescript(SCHEMA)

    def open_folder(self, folder: str, files: Sequence[str]) -> list[str]:
        """Make a batch of the files of a folder; returns what there is to say of those that cannot be read."""
        rows, problems = [], []
        for file in map(Path, files):
            try:
                digest = hashlib.sha256(read_file(file)).hexdigest()
                rows.append((digest, os.fsencode(file), b"", folder, shorten([file.name])))
            except BadImageError as error:
                problems.append(f"{shorten([file.name])}: {error}")
        with self._connection() as connection:
            connection.executemany(ADD, rows)
        return problems

    def drop(self, name: str, photo: bytes) -> Draft:
        """Keep a photo without a folder; of one that is known, what was decided stays."""
        digest = hashlib.sha256(photo).hexdigest()
        with self._connection() as connection:
            connection.execute(ADD, (digest, b"", photo, DROPPED, name))
        return self._find("sha256 = ?", digest)[0]

    def get(self, number: int) -> Draft:
        return self._find("id = ?", number)[0]

    def of(self, batch: str, states: Sequence[str] = STATES) -> list[Draft]:
        return [one for one in self._find("batch = ? ORDER BY id", batch) if one["state"] in states]

    def waiting(self) -> dict[str, int]:
        """Return how many photos of each batch are to be decided or sent, the newest batch first."""
        query = "SELECT batch, count(*) FROM drafts WHERE state IN (?, ?) GROUP BY batch ORDER BY max(id) DESC"
        with self._connection() as connection:
            return dict(connection.execute(query, (OPEN, APPROVED)).fetchall())

    def change(self, number: int, condition: str = "1", **values: Any) -> Draft:
        """Set columns of a draft, where a condition holds; a photo that was dropped goes once it is sent."""
        values |= {"photo": b""} if values.get("state") == SENT else {}
        columns = ", ".join(f"{name} = ?" for name in values)
        with self._connection() as connection:
            connection.execute(f"UPDATE drafts SET {columns} WHERE id = ? AND {condition}", (*values.values(), number))
        return self.get(number)

    def read_photo(self, one: Draft) -> bytes:
        """Return the bytes of a draft's photo; raises BadImageError or DataError where they are no longer there."""
        with self._connection() as connection:
            (kept,) = connection.execute("SELECT photo FROM drafts WHERE id = ?", (one["id"],)).fetchone()
        photo = read_file(Path(one["path"])) if one["path"] else kept
        if hashlib.sha256(photo).hexdigest() != one["sha256"]:
            why = "the file was changed: open the folder again" if one["path"] else "it was sent: drop it again"
            raise DataError(f"the photo is not here any more; {why}")
        return photo

    def _find(self, condition: str, *values: int | str) -> list[Draft]:
        columns = "id, sha256, path, batch, name, state, caption, language, by_person, asked, confidence, tags, model"
        with self._connection() as connection:
            rows = connection.execute(f"SELECT {columns}, trouble FROM drafts WHERE {condition}", values)
            return [dict(row) | {"path": os.fsdecode(row["path"]), "tags": json.loads(row["tags"])} for row in rows]

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection, in a transaction of its own."""
        try:
            with closing(sqlite3.connect(self._path)) as connection, connection:
                connection.row_factory = sqlite3.Row
                yield connection
        except sqlite3.Error as error:
            what = f"the drafts in {self._path} cannot be used ({error})"
            raise DataError(f"{what}; free space there, or move the file away to begin anew") from error
