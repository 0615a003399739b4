"""The store of contributions: one SQLite file with captions, the bytes of their images, approvals, and what a mirror
has still to copy. What `add` has returned is on the disk, whatever happens afterwards.

The journal is a rollback journal: Debian 12 ships SQLite 3.40, whose WAL can lose committed writes when several
processes checkpoint (fixed in 3.51.3). TRUNCATE and not DELETE: with synchronous=FULL only the former forces the end of
a transaction to disk; a deleted journal may be back after a power cut and undo what was already answered.

Each call opens its own connection, for 0.2 ms: none is carried into a fork or bound to a file that was replaced. A
connection that is closed without COMMIT rolls back.
"""

import errno
import hashlib
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from filelock import FileLock

from lcm.contributions.text import clean_caption, clean_language, clean_text
from lcm.data.images import FORMATS, image_format, read_image, scan
from lcm.data.text import language_code
from lcm.errors import ConfigError, DataError, StoreBusyError, StoreDamagedError, StoreError, StoreFullError
from lcm.paths import cache_dir, home, sync_folder

DATABASE = "contributions.sqlite"
APPLICATION_ID = 0x6C636D31  # "lcm1"; SQLite keeps it in bytes 68 to 71 of the file
SCHEMA_VERSION = 3
BUSY_TIMEOUT_S = 5.0
PRAGMAS = (
    "journal_mode = TRUNCATE",
    "synchronous = FULL",
    "secure_delete = ON",  # what was revoked is overwritten
    "temp_store = MEMORY",
    "trusted_schema = OFF",
    "cell_size_check = ON",
)
CHECKED_WHOLE_BYTES = 500_000_000  # of a file: read at each opening; of a larger one all but the images, in a second
PAGE = 1000  # rows read at once: a commit has to wait while others read
DECODED_SIDE = 32  # pixels; small, for the picture is only decoded to see that it is whole
SUFFIXES = {name: {"jpeg": ".jpg", "heif": ".heic", "raw": ".dng"}.get(name, f".{name}") for name in FORMATS}
SHARD = 3  # hexadecimal digits: 4,096 folders in exports and mirrors, each with under 10,000 of 40 million images

# Images have their own table, and what is known of them stands in each row too: lists then read no page of an image.
SCHEMA = """
CREATE TABLE images (image_sha256 TEXT PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE contributions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of arrival; AUTOINCREMENT gives none a second time
    image_sha256 TEXT NOT NULL,
    image_bytes INTEGER NOT NULL,
    image_format TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    caption TEXT NOT NULL,
    caption_sent TEXT NOT NULL,
    language TEXT NOT NULL,
    source TEXT NOT NULL,
    received TEXT NOT NULL,
    file_name TEXT NOT NULL,
    approved INTEGER NOT NULL DEFAULT 0,
    mirrored INTEGER NOT NULL DEFAULT 0,
    UNIQUE (image_sha256, caption)
);
CREATE INDEX contributions_to_mirror ON contributions (id) WHERE mirrored = 0;
CREATE INDEX contributions_approved ON contributions (id) WHERE approved = 1;
CREATE TABLE revocations (
    id INTEGER PRIMARY KEY,
    image_sha256 TEXT NOT NULL,
    image_format TEXT NOT NULL,
    revoked TEXT NOT NULL,
    reason TEXT NOT NULL,
    mirrored INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX revocations_to_mirror ON revocations (id) WHERE mirrored = 0;
CREATE TABLE corrections (  -- of languages; AUTOINCREMENT counts them
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    contribution INTEGER NOT NULL UNIQUE
);
"""
_SMALL_TABLES = ("sqlite_schema", "contributions", "revocations", "corrections")  # all but the images


class _WithImage:
    """What contributions and revocations have in common: an image."""

    id: int
    image_sha256: str
    image_format: str

    @property
    def image_file(self) -> str:
        """The image's path in exports and mirrors; nothing that a sender says is part of it."""
        return f"images/{self.image_sha256[:SHARD]}/{self.image_sha256}{SUFFIXES[self.image_format]}"

    def as_record(self) -> dict[str, Any]:
        record = asdict(self) | {"image_file": self.image_file}
        record.pop("known", None)
        return record


@dataclass(frozen=True)
class Contribution(_WithImage):
    """An image with a caption that someone sent."""

    id: int  # its number in the order of arrival, never given again
    image_sha256: str  # of the image's bytes as sent, in hexadecimal
    image_bytes: int
    image_format: str  # what the bytes are, whatever the sender called them: a key of images.FORMATS
    width: int  # in pixels as stored, before EXIF turns the picture
    height: int
    caption: str  # as clean_caption returns it
    caption_sent: str
    language: str  # "en", "pt-br"
    source: str  # what sent it: "http", "http:NAME" of who contributed, "import"
    received: str  # UTC, ISO 8601; for people: the clock may jump, the order is that of the ids
    file_name: str = ""  # what the sender called the image, for people; empty: nothing was said
    known: bool = False  # of what add returns: whether it was there before

    table: ClassVar[str] = "contributions"

    @property
    def model_language(self) -> str:
        """The language as models have it, without its region: "pt" of "pt-br"."""
        return language_code(self.language)

    @property
    def contributor(self) -> str:
        return self.source.partition(":")[2]


@dataclass(frozen=True)
class Revocation(_WithImage):
    """What stays of a contribution that was revoked."""

    id: int
    image_sha256: str
    image_format: str
    revoked: str  # UTC, ISO 8601
    reason: str
    known: bool = False  # of what revoke returns: whether it was revoked before

    table: ClassVar[str] = "revocations"


@dataclass(frozen=True)
class ContributedImage:
    """An image with its contributions, the earliest first; at least one."""

    path: Path
    contributions: tuple[Contribution, ...]

    @property
    def image_sha256(self) -> str:
        return self.contributions[0].image_sha256

    @property
    def image_id(self) -> str:
        """What a data set calls the image: LabelledImage.is_contributed tells by it."""
        return f"contributions/{self.image_sha256}"

    @property
    def captions(self) -> dict[str, tuple[str, ...]]:
        """The captions by language, as models have it, in the order of arrival."""
        found: dict[str, tuple[str, ...]] = {}
        for one in self.contributions:
            found[one.model_language] = (*found.get(one.model_language, ()), one.caption)
        return found

    def without(self, ids: Collection[int]) -> Self | None:
        """Return the image without some of its contributions, None where no other is left."""
        left = tuple(one for one in self.contributions if one.id not in ids)
        return replace(self, contributions=left) if left else None


Entry = TypeVar("Entry", Contribution, Revocation)


class ContributionStore:
    """Contributions in a folder, for any number of threads and processes.

    Every method may raise StoreError, StoreBusyError, StoreFullError or StoreDamagedError. Nothing was changed then,
    and the same call works once the cause is gone.
    """

    def __init__(self, folder: str | Path | None = None, *, clock: Callable[[], float] = time.time):
        """Open the store in `folder` (`contributions` in LCM_HOME), made if it is not there."""
        self.folder = Path(folder or home() / "contributions").expanduser().resolve()
        self.path = self.folder / DATABASE
        self._clock = clock
        self._turn = threading.Lock()  # threads queue here: SQLite only lets them try again
        with store_errors(self.folder):
            if not self.path.exists():
                self._create()
        self._check()

    # Contributions

    def add(
        self, image: bytes, caption: str, language: str = "en", source: str = "http", file_name: str = ""
    ) -> Contribution:
        """Keep an image with a caption; returns when both are on the disk. The same pair again is `known`.

        Of `file_name` the folders are not kept. Raises BadImageError or DataError for what cannot be kept.
        """
        draft = self._draft(image, caption, language, source, file_name)
        with self._writing() as connection:
            pair = draft.image_sha256, draft.caption
            known = _select(connection, Contribution, "image_sha256 = ? AND caption = ?", *pair)
            return replace(known[0], known=True) if known else _insert_both(connection, draft, image)

    def get(self, number: int) -> Contribution | None:
        return next(iter(self._find(Contribution, "id = ?", number)), None)

    def of_image(self, image_sha256: str) -> list[Contribution]:
        return self._find(Contribution, "image_sha256 = ? ORDER BY id", image_sha256)

    def contributions(self, after: int = 0) -> Iterator[Contribution]:
        """Yield those beyond id `after` in the order of arrival; what comes or goes meanwhile may be among them."""
        return self._pages("TRUE", after)

    def state(self) -> tuple[int, int]:
        """Return the highest id that was given, and how many were revoked or corrected: each change makes one grow."""
        with self._connection() as connection:
            given = dict(connection.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
            (revoked,) = connection.execute("SELECT count(*) FROM revocations").fetchone()
        return given.get("contributions", 0), revoked + given.get("corrections", 0)

    def read_image(self, contribution: Contribution) -> bytes:
        """Return the bytes as they were sent; raises DataError for what was revoked, StoreDamagedError for others."""
        with self._connection() as connection:
            query = "SELECT data FROM images WHERE image_sha256 = ?"
            (data,) = connection.execute(query, (contribution.image_sha256,)).fetchone() or (b"",)
        if hashlib.sha256(data).hexdigest() != contribution.image_sha256:
            if self.get(contribution.id) is None:
                raise _no_contribution(contribution.id)
            raise _damaged(self.folder, f"the image of contribution {contribution.id} is not what was sent")
        return data

    def training_images(self) -> list[ContributedImage]:
        """Return the images in the order of arrival of their first caption.

        Training reads files: each image is written once to the cache, and goes from there when it is revoked. One that
        cannot be read has no file there, which training counts among the unreadable.
        """
        found: dict[str, list[Contribution]] = {}
        for contribution in self.contributions():
            found.setdefault(contribution.image_sha256, []).append(contribution)
        for gone in self.revocations():
            if gone.image_sha256 not in found:
                _uncache(gone)
        return [ContributedImage(self._cache(each[0]), tuple(each)) for each in found.values()]

    # Revocations, approvals, languages

    def revoke(self, number: int, reason: str) -> Revocation:
        """Take a contribution away for good, its image too if no other uses it; returns the line that stays."""
        with self._writing() as connection:
            for gone in _select(connection, Revocation, "id = ?", number):
                return replace(gone, known=True)
            for found in _select(connection, Contribution, "id = ?", number):
                texts = self._now(), clean_text(reason, "reason")
                gone = Revocation(number, found.image_sha256, found.image_format, *texts)
                _remove(connection, gone)
                return gone
        raise _no_contribution(number)

    def revocations(self) -> list[Revocation]:
        return self._find(Revocation, "TRUE ORDER BY id")

    def approve(self, numbers: Iterable[int], approved: bool = True) -> None:
        """Let contributions train, as a person says, or not any more; raises DataError where one is not there."""
        with self._writing() as connection:
            for number in numbers:
                _change(connection, number, "approved", int(approved))

    def approved(self) -> set[int]:
        with self._connection() as connection:
            return {number for (number,) in connection.execute("SELECT id FROM contributions WHERE approved = 1")}

    def set_language(self, numbers: Iterable[int], language: str) -> None:
        """Correct the language of contributions; raises DataError, and corrects nothing, when one is not there."""
        code = clean_language(language)
        with self._writing() as connection:
            for number in numbers:
                _change(connection, number, "language", code)
                connection.execute("INSERT OR REPLACE INTO corrections (contribution) VALUES (?)", (number,))

    def corrected(self) -> dict[str, set[int]]:
        """Return the ids of the contributions whose language was corrected, by the language that they have now."""
        found: dict[str, set[int]] = {}
        for one in self._find(Contribution, "id IN (SELECT contribution FROM corrections) ORDER BY id"):
            found.setdefault(one.language, set()).add(one.id)
        return found

    # Copies: a mirror, a store fetched from one, a backup

    def to_mirror(self) -> Iterator[Revocation | Contribution]:
        """Yield what a mirror has not copied yet, the oldest first; what was revoked comes before all else."""
        yield from self._find(Revocation, "mirrored = 0 ORDER BY id")
        yield from self._pages("mirrored = 0")

    def set_mirrored(self, entry: Revocation | Contribution) -> None:
        """Note that a mirror has copied this; of a contribution that was revoked meanwhile, the revocation is due."""
        with self._writing() as connection:
            connection.execute(f"UPDATE {entry.table} SET mirrored = 1 WHERE id = ?", (entry.id,))

    def take(self, contribution: Contribution, image: bytes) -> None:
        """Keep what another store has, under its id; raises BadImageError or DataError for what is not whole."""
        one = contribution
        own = self._draft(image, one.caption, one.language, one.source, one.file_name)
        if replace(own, id=one.id, caption_sent=one.caption_sent, received=one.received) != one:
            raise DataError("its record is not what the image and the caption give")
        with self._writing() as connection:
            try:
                if _select(connection, Revocation, "id = ?", one.id):
                    raise sqlite3.IntegrityError
                _insert_both(connection, one, image)
            except sqlite3.IntegrityError as error:
                raise DataError("its number, or image and caption, are those of another contribution") from error

    def take_revocation(self, gone: Revocation) -> bool:
        """Revoke what another store has revoked, or keep its line alone; returns whether it was a contribution here."""
        with self._writing() as connection:
            return _remove(connection, gone)

    def backup(self, file: str | Path, replace_it: bool = False) -> int:
        """Copy the store to one file, which may be put in its place; returns how many contributions it holds."""
        target = Path(file).expanduser().resolve()
        if target.is_relative_to(self.folder):
            raise ConfigError(f"{target} is in the store's own folder; choose another one")
        if target.exists() and not replace_it:
            raise ConfigError(f"{target} is there already; choose another file, or give --replace")
        try:
            with store_errors(target.parent), _new_database(target) as copy:
                with self._connection() as source:
                    source.backup(copy)
                return copy.execute("SELECT count(*) FROM contributions").fetchone()[0]
        except StoreFullError as error:  # which names the store's folder
            raise StoreFullError(f"no space is left for {target}") from error

    # The file

    def _create(self) -> None:
        """Make the file; an empty one is always a damaged one."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(self.folder / f".{DATABASE}.lock"):
            if self.path.exists():  # another process has just made it
                return
            with _new_database(self.path) as connection:
                numbers = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}"
                connection.executescript(f"BEGIN; {SCHEMA} {numbers}; COMMIT")
        sync_folder(self.folder.parent)

    def _check(self) -> None:
        """Raise StoreDamagedError unless the file is what was written, StoreError when it cannot be written."""
        with self._connection() as connection:
            application, version = (
                connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
            )
            if application != APPLICATION_ID:
                raise _damaged(self.folder, "its file is empty, or another program's")
            if version != SCHEMA_VERSION:
                raise StoreError(
                    f"the contribution store {self.folder} was made by another version of lcm (its tables are version "
                    f"{version}; this one knows {SCHEMA_VERSION}); export it with that lcm, and import it with this one"
                )
            is_small = self.path.stat().st_size <= CHECKED_WHOLE_BYTES
            for what in (1,) if is_small else _SMALL_TABLES:  # a number is the most errors, a name one table alone
                found = connection.execute(f"PRAGMA integrity_check({what})").fetchone()[0]
                if found != "ok":
                    raise _damaged(self.folder, " ".join(found.split()))
        for path in (self.folder, self.path):
            if not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
                raise StoreError(f"{path} cannot be written; check who owns it")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection; each statement sees what was committed before it."""
        with store_errors(self.folder):
            uri = f"{self.path.as_uri()}?mode=rw"  # a file that was removed must not come back as an empty one
            with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as connection:
                for pragma in PRAGMAS:
                    connection.execute(f"PRAGMA {pragma}").fetchone()
                yield connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection in a transaction of its own; StoreBusyError where others leave no gap."""
        if not self._turn.acquire(timeout=BUSY_TIMEOUT_S):
            raise _busy(self.folder)
        try:
            with self._connection() as connection:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
        finally:
            self._turn.release()

    def _find(self, kind: type[Entry], condition: str, *values: int | str) -> list[Entry]:
        with self._connection() as connection:
            return _select(connection, kind, condition, *values)

    def _pages(self, condition: str, after: int = 0) -> Iterator[Contribution]:
        while page := self._find(Contribution, f"{condition} AND id > ? ORDER BY id LIMIT {PAGE}", after):
            yield from page
            after = page[-1].id

    def _draft(self, image: bytes, caption: str, language: str, source: str, file_name: str) -> Contribution:
        """Return what is to be kept, without its id; decodes the whole image."""
        texts = clean_caption(caption), caption, clean_language(language), clean_text(source, "source")
        file_name = re.split(r"[/\\]", file_name)[-1]
        file_name = clean_text(file_name, "file name") if file_name else ""
        read_image(image, DECODED_SIDE)
        kind = image_format(image)
        known = hashlib.sha256(image).hexdigest(), len(image), kind, *scan(image, kind).sides
        return Contribution(0, *known, *texts, self._now(), file_name)

    def _cache(self, contribution: Contribution) -> Path:
        """Return the file of an image in the cache, written if it is not there; none when the image cannot be read."""
        path = _cached_file(contribution)
        with store_errors(path.parent), suppress(DataError, StoreDamagedError):
            if not (path.is_file() and path.stat().st_size == contribution.image_bytes):
                data = self.read_image(contribution)
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
                temporary.write_bytes(data)  # not synced: what a power cut spoils has another size, and is made anew
                temporary.replace(path)
        return path

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="seconds")


def columns(kind: type[Contribution | Revocation]) -> str:
    """Return the columns of a table, as SQL names them, in the order of the fields."""
    return ", ".join(field.name for field in fields(kind) if field.name != "known")


def _select(connection: sqlite3.Connection, kind: type[Entry], condition: str, *values: int | str) -> list[Entry]:
    query = f"SELECT {columns(kind)} FROM {kind.table} WHERE {condition}"
    return [kind(*row) for row in connection.execute(query, values)]


def _insert(connection: sqlite3.Connection, entry: Contribution | Revocation) -> int:
    """Add a row and return its id; without an id it gets the next one, above all that were ever given."""
    names = columns(type(entry))
    marks = ", ".join(f":{name}" for name in names.split(", "))
    values = asdict(entry) | {"id": entry.id or None}
    return connection.execute(f"INSERT INTO {entry.table} ({names}) VALUES ({marks})", values).lastrowid


def _insert_both(connection: sqlite3.Connection, contribution: Contribution, image: bytes) -> Contribution:
    connection.execute("INSERT OR IGNORE INTO images VALUES (?, ?)", (contribution.image_sha256, image))
    return replace(contribution, id=_insert(connection, contribution))


def _change(connection: sqlite3.Connection, number: int, column: str, value: int | str) -> None:
    if not connection.execute(f"UPDATE contributions SET {column} = ? WHERE id = ?", (value, number)).rowcount:
        raise _no_contribution(number)


def _remove(connection: sqlite3.Connection, gone: Revocation) -> bool:
    """Put a line in the place of a contribution; returns whether there was one."""
    was_there = connection.execute("DELETE FROM contributions WHERE id = ?", (gone.id,)).rowcount > 0
    if not _select(connection, Revocation, "id = ?", gone.id):
        _insert(connection, gone)
    unused = "NOT EXISTS (SELECT 1 FROM contributions c WHERE c.image_sha256 = images.image_sha256)"
    if connection.execute(f"DELETE FROM images WHERE image_sha256 = ? AND {unused}", (gone.image_sha256,)).rowcount:
        _uncache(gone)
    return was_there


@contextmanager
def _new_database(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection to a file that only its owner may read, and that is at `path` once it is whole."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(sqlite3.connect(temporary)) as connection:
            yield connection
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _cached_file(image: Contribution | Revocation) -> Path:
    return cache_dir() / "contributions" / image.image_file.removeprefix("images/")


def _uncache(gone: Revocation) -> None:
    with suppress(OSError):  # the next training tries again
        _cached_file(gone).unlink(missing_ok=True)


# What the errors of the disk and of SQLite mean. The messages name folders: they are for logs and terminals.


@contextmanager
def store_errors(folder: Path) -> Iterator[None]:
    """Turn what SQLite and the disk raise, while `folder` is used, into the errors that lcm shows."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreFullError(f"no space is left for {folder} ({reason})") from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StoreError(f"{folder} cannot be written ({reason}); check who owns it") from error
        raise StoreError(f"{folder} cannot be used ({reason})") from error
    except sqlite3.Error as error:
        match getattr(error, "sqlite_errorcode", 0) & 0xFF:  # the higher bits say more than is needed
            case sqlite3.SQLITE_FULL:
                raise StoreFullError(f"no space is left for {folder} ({error})") from error
            case sqlite3.SQLITE_BUSY:
                raise _busy(folder) from error
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                raise _damaged(folder, str(error)) from error
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
                raise StoreError(f"{folder} cannot be written; check who owns it") from error
        raise StoreError(f"{folder} cannot be used ({error})") from error


def _busy(folder: Path) -> StoreBusyError:
    return StoreBusyError(
        f"others hold the contribution store {folder}, and nothing was stored; try again a little later"
    )


def _damaged(folder: Path, found: str) -> StoreDamagedError:
    return StoreDamagedError(
        f"the contribution store {folder} is damaged ({found}); nothing in it was deleted. Stop the service, put "
        f"{DATABASE} and {DATABASE}-journal aside, and copy a backup there under the name {DATABASE}"
    )


def _no_contribution(number: int) -> DataError:
    return DataError(f"there is no contribution {number}; `lcm contributions list` shows those there are")
