"""The database of a store: one SQLite file, safe to share between threads and processes.

Knows connections and transactions, and whether the file is what was written. Refuses to know what the rows are for, and
what the errors of SQLite and of the disk mean; that is failures.py's.

The journal is a rollback journal: Debian 12 ships SQLite 3.40, whose WAL can lose committed writes when several
processes checkpoint (fixed in 3.51.3). TRUNCATE and not DELETE: with synchronous=FULL only the former forces the end
of a transaction to disk; a deleted journal may be back after a power cut and undo what was already answered.

Each call has a connection of its own, for 0.1 ms: none is carried into a fork, left behind by a thread or bound to a
file that was replaced. Nothing else may open the file in the same process: closing it would drop SQLite's locks.
"""

import os
import random
import secrets
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lcm.contributions.failures import busy, damaged, explained, is_busy
from lcm.contributions.files import (
    IMAGES,
    Reached,
    list_images,
    nothing,
    open_folder,
    read_mark,
    sync_folder,
    write_mark,
)
from lcm.contributions.records import COLUMNS, SCHEMA, SCHEMA_VERSION, checksum
from lcm.errors import StoreDamagedError, StoreError

DATABASE = "contributions.sqlite"
APPLICATION_ID = 0x6C636D31  # "lcm1"
BUSY_TIMEOUT_S = 5.0
PRAGMAS = (
    "synchronous = FULL",
    "secure_delete = ON",  # what was revoked is overwritten
    "temp_store = MEMORY",
    "trusted_schema = OFF",
    "cell_size_check = ON",
)
_IDENTITY = ("application_id", "user_version")


@dataclass(frozen=True)
class Session:
    """One connection and the folder it is in, for the time of a call."""

    connection: sqlite3.Connection
    folder: int  # descriptor of the store's folder
    file: os.stat_result  # of the database
    store_id: str


class Database:
    """The database in a store's folder. Every method raises StoreError or one of its family, and then changed nothing.

    May be shared by threads; after a fork each process goes on with its copy.
    """

    def __init__(self, folder: Path, name: str = DATABASE):
        self.folder, self._name = folder, name
        self._turn = threading.Lock()  # threads queue here: between processes SQLite only lets them try again

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session; each statement sees what was committed before it."""
        with self.in_folder() as folder, self._connect(folder) as connection:
            yield self._identify(connection, folder)

    @contextmanager
    def in_folder(self) -> Iterator[int]:
        """Yield a descriptor of the store's folder."""
        with explained(self.folder), self._open() as folder:
            yield folder

    @contextmanager
    def writing(self, reached: Reached = nothing) -> Iterator[Session]:
        """Yield a session in a transaction that no other thread or process has, committed unless an error leaves it.

        Raises StoreBusyError when the others leave no gap for BUSY_TIMEOUT_S.
        """
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        if not self._turn.acquire(timeout=BUSY_TIMEOUT_S):
            raise busy(self.folder)
        try:
            with self.reading() as session:
                _begin(session.connection, deadline)
                try:
                    yield session
                    reached("before_commit")
                    self._check_place(session.folder, session.file)
                    session.connection.execute("COMMIT")
                    self._check_place(session.folder, session.file)  # else it is in a store that was moved away
                except BaseException:
                    with suppress(sqlite3.Error):  # SQLite may have rolled back already; a second error hides the first
                        session.connection.execute("ROLLBACK")
                    raise
                reached("after_commit")
        finally:
            self._turn.release()

    def create(self) -> None:
        """Make the folder and the database where neither is; a store that is there is left as it is.

        Raises StoreDamagedError where there are images but no database: a new one would make orphans of them.
        """
        with explained(self.folder):
            missing = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in missing:
                sync_folder(path.parent)
            with self._open() as folder:
                # Looked for first: an image that another process added just now has a database by now.
                has_images = bool(_stat(folder, IMAGES)) and any(list_images(folder))
                if self._has_database(folder):
                    return
                if has_images:
                    raise self.damaged("there are images, but the database is empty or missing")
                with suppress(FileExistsError):
                    os.mkdir(IMAGES, mode=0o700, dir_fd=folder)
                with self._connect(folder, mode="rwc") as connection:
                    _create_tables(connection, folder)
                os.fsync(folder)

    def _has_database(self, folder: int) -> bool:
        found = _stat(folder, self._name)
        if found and found.st_size:
            with self._connect(folder) as connection:  # undoes a creation that was cut short: no pages are left
                return connection.execute("PRAGMA page_count").fetchone()[0] > 0
        return False

    def verify(self) -> None:
        """Raise StoreDamagedError unless pages, indexes and rows are as they were written.

        The images are left out, there may be many gigabytes of them.
        """
        with self.reading() as session:
            if self._name == DATABASE and read_mark(session.folder) != session.store_id:
                raise self.damaged("its images are missing, or those of another store")
            found = session.connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if found != "ok":
                raise self.damaged(found.replace("\n", " "))
            for *row, written in session.connection.execute(
                f"SELECT {', '.join(COLUMNS)}, checksum FROM contributions"
            ):
                if checksum(session.store_id, row) != written:
                    raise self.damaged(f"contribution {row[0]} is not what was written")

    def check_writable(self) -> None:
        """Raise StoreError at once where every later `writing` would."""
        for name in ("", self._name, IMAGES):
            if not os.access(self.folder / name, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
                raise StoreError(f"{self.folder / name} cannot be written; check who owns it")

    @contextmanager
    def _open(self) -> Iterator[int]:
        with open_folder(self.folder) as folder:
            self._check_place(folder)
            yield folder

    def _check_place(self, folder: int, database: os.stat_result | None = None) -> None:
        """Raise StoreError unless the descriptor is that of the folder itself, and the database the one in it."""
        is_same = os.path.samestat(os.fstat(folder), self.folder.lstat())
        is_same = is_same and os.path.realpath(self.folder) == str(self.folder)  # resolved when the store was opened
        if is_same and database:
            is_same = os.path.samestat(database, os.stat(self._name, dir_fd=folder))
        if not is_same:
            raise StoreError(f"the contribution store {self.folder} was moved or replaced by a link; put it back")

    @contextmanager
    def _connect(self, folder: int, mode: str = "rw") -> Iterator[sqlite3.Connection]:
        path = self.folder / self._name
        found = _stat(folder, self._name)
        if found and not stat.S_ISREG(found.st_mode):
            raise StoreError(f"{path} is a link or no file at all; put the database there")
        uri = f"{path.as_uri()}?mode={mode}"  # rw: a database that was removed must not come back as an empty one
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            self._check_place(folder, path.stat())  # SQLite went by the path
            if connection.execute("PRAGMA journal_mode = TRUNCATE").fetchone()[0] != "truncate":
                raise StoreError(f"the contribution store {self.folder} is in another journal mode; close it there")
            for pragma in PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            yield connection
        finally:
            connection.close()

    def _identify(self, connection: sqlite3.Connection, folder: int) -> Session:
        """Return the session, once it is clear that the file is a store that this version can read."""
        application, version = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _IDENTITY)
        if application != APPLICATION_ID:
            raise self.damaged("its database is empty, or none of lcm's")
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"the contribution store {self.folder} was made by a newer lcm (version {version} of its tables; this "
                f"one knows {SCHEMA_VERSION}); update lcm"
            )
        (store_id,) = connection.execute("SELECT store_id FROM store").fetchone()
        return Session(connection, folder, os.stat(self._name, dir_fd=folder), store_id)

    def damaged(self, found: str) -> StoreDamagedError:
        """Return the error for what was found to be damaged in the store."""
        return damaged(self.folder, found)


def _stat(folder: int, name: str) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    return None


def _begin(connection: sqlite3.Connection, deadline: float) -> None:
    """Take the write lock, trying often: SQLite's own waiting comes to sleep 100 ms, while others take every gap.

    With 48 writers in four processes the slowest of a hundred took 0.7 s this way, and 3 s SQLite's.
    """
    connection.execute("PRAGMA busy_timeout = 0")
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            break
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.001, 0.005))
    connection.execute(f"PRAGMA busy_timeout = {1000 * BUSY_TIMEOUT_S:.0f}")  # COMMIT waits for those who read


def _create_tables(connection: sqlite3.Connection, folder: int) -> None:
    """Make all tables in one transaction, unless another process just did, and mark the images as this store's."""
    connection.execute("BEGIN IMMEDIATE")
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        for statement in filter(str.strip, SCHEMA.split(";\n")):
            connection.execute(statement)
        store_id = secrets.token_hex(16)
        write_mark(folder, store_id)
        connection.execute("INSERT INTO store VALUES (?)", (store_id,))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")
