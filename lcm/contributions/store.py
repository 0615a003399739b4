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
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from filelock import FileLock

from lcm.contributions.text import clean_language, clean_text
from lcm.data.images import FORMATS, image_format, read_image, scan
from lcm.data.text import language_code
from lcm.errors import ConfigError, DataError, StoreBusyError, StoreDamagedError, StoreError, StoreFullError
from lcm.paths import cache_dir, home, sync_folder

DATABASE = "contributions.sqlite"
APPLICATION_ID = 0x6C636D31  # "lcm1"; SQLite keeps it in bytes 68 to 71 of the file
SCHEMA_VERSION = 4
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
MIRROR_PAGE = 100  # contributions by their ids, in each file of records that a mirror has
DECODED_SIDE = 32  # pixels; small, for the picture is only decoded to see that it is whole
SUFFIXES = {name: {"jpeg": ".jpg", "heif": ".heic", "raw": ".dng"}.get(name, f".{name}") for name in FORMATS}
SHARD = 3  # hexadecimal digits: 4,096 folders in exports and mirrors, each with under 10,000 of 40 million images

# Images have their own table, and what is known of them stands in each row too: lists then read no page of an image.
SCHEMA = """
CREATE TABLE images (image_sha256 TEXT PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE contributions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of arrival; AUTOINCREMENT gives none a second time
    image_sha256 TEXT NOT NULL,
    image_format TEXT NOT NULL,
    image_bytes INTEGER NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    caption TEXT NOT NULL,
    caption_sent TEXT NOT NULL,
    language TEXT NOT NULL,
    source TEXT NOT NULL,
    received TEXT NOT NULL,
    file_name TEXT NOT NULL,
    approved INTEGER NOT NULL,
    revoked TEXT NOT NULL,
    reason TEXT NOT NULL,
    revision INTEGER NOT NULL DEFAULT 1,  -- grows with each change of the row
    mirrored INTEGER NOT NULL DEFAULT 0  -- the revision that a mirror has copied
);
CREATE UNIQUE INDEX contributions_pairs ON contributions (image_sha256, caption) WHERE revoked = '';
CREATE INDEX contributions_revoked ON contributions (id) WHERE revoked != '';
CREATE INDEX contributions_to_mirror ON contributions (id) WHERE mirrored < revision;
"""
_SMALL_TABLES = ("sqlite_schema", "contributions")  # all but the images


@dataclass(frozen=True)
class Contribution:
    """An image with a caption that someone sent; of one that was revoked only the lines without a default stay."""

    id: int  # its number in the order of arrival, never given again
    image_sha256: str  # of the image's bytes as sent, in hexadecimal
    image_format: str  # what the bytes are, whatever the sender called them: a key of SUFFIXES
    image_bytes: int = 0
    width: int = 0  # in pixels as stored, before EXIF turns the picture
    height: int = 0
    caption: str = ""  # as clean_text returns it
    caption_sent: str = ""
    language: str = ""  # "en", "pt-br"
    source: str = ""  # what sent it: "http", "http:NAME" of who contributed, "import"
    received: str = ""  # UTC, ISO 8601; for people: the clock may jump, the order is that of the ids
    file_name: str = ""  # what the sender called the image, for people; empty: nothing was said
    approved: bool = False  # a person lets it train
    revoked: str = ""  # UTC, ISO 8601; empty: it is not
    reason: str = ""  # of that
    known: bool = False  # of what add and revoke return: whether it was there, or revoked, before

    @property
    def model_language(self) -> str:
        """The language as models have it, without its region: "pt" of "pt-br"."""
        return language_code(self.language)

    @property
    def contributor(self) -> str:
        return self.source.partition(":")[2]

    @property
    def image_file(self) -> str:
        """The image's path in exports and mirrors; nothing that a sender says is part of it."""
        return f"images/{self.image_sha256[:SHARD]}/{self.image_sha256}{SUFFIXES[self.image_format]}"

    def as_record(self) -> dict[str, Any]:
        record = asdict(self) | {"image_file": self.image_file}
        record.pop("known")
        return record


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


class ContributionStore:
    """Contributions in a folder, for any number of threads and processes.

    Every method may raise StoreError, StoreBusyError, StoreFullError or StoreDamagedError. Nothing was changed then,
    and the same call works once the cause is gone.
    """

    def __init__(self, folder: str | Path | None = None):
        """Open the store in `folder` (`contributions` in LCM_HOME), made if it is not there."""
        self.folder = Path(folder or home() / "contributions").expanduser().resolve()
        self.path = self.folder / DATABASE
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
            known = _select(connection, "image_sha256 = ? AND caption = ? AND revoked = ''", *pair)
            return replace(known[0], known=True) if known else _put(connection, draft, image)

    def get(self, number: int) -> Contribution | None:
        return next(iter(self._find("id = ? AND revoked = ''", number)), None)

    def of_image(self, image_sha256: str) -> list[Contribution]:
        return self._find("image_sha256 = ? AND revoked = '' ORDER BY id", image_sha256)

    def contributions(self, after: int = 0) -> Iterator[Contribution]:
        """Yield those beyond id `after` in the order of arrival; what comes or goes meanwhile may be among them."""
        while page := self._find(f"revoked = '' AND id > ? ORDER BY id LIMIT {PAGE}", after):
            yield from page
            after = page[-1].id

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
        for gone in self.revoked():
            if gone.image_sha256 not in found:
                _uncache(gone)
        return [ContributedImage(self._cache(each[0]), tuple(each)) for each in found.values()]

    # Revocations, approvals, languages

    def revoke(self, number: int, reason: str) -> Contribution:
        """Take a contribution away for good, its image too if no other uses it; returns the line that stays."""
        with self._writing() as connection:
            for one in _select(connection, "id = ?", number):
                if one.revoked:
                    return replace(one, known=True)
                texts = {"revoked": _now(), "reason": clean_text(reason, "reason")}
                return _put(connection, Contribution(one.id, one.image_sha256, one.image_format, **texts))
        raise _no_contribution(number)

    def revoked(self) -> list[Contribution]:
        return self._find("revoked != '' ORDER BY id")

    def approve(self, numbers: Iterable[int], approved: bool = True) -> None:
        """Let contributions train, as a person says, or not any more; raises DataError where one is not there."""
        self._change(numbers, approved=approved)

    def set_language(self, numbers: Iterable[int], language: str) -> None:
        """Correct the language of contributions; raises DataError, and corrects nothing, when one is not there."""
        self._change(numbers, language=clean_language(language))

    def _change(self, numbers: Iterable[int], **values: str | bool) -> None:
        with self._writing() as connection:
            for number in numbers:
                found = _select(connection, "id = ? AND revoked = ''", number)
                if not found:
                    raise _no_contribution(number)
                _put(connection, replace(found[0], **values))

    # Copies: a mirror, a store fetched from one, a backup

    def to_mirror(self) -> Iterator[tuple[list[Contribution], dict[int, int]]]:
        """Yield pages with something that a mirror has not copied, those with a revocation first.

        A page is all that there is of MIRROR_PAGE ids, and the revision of each that is due.
        """
        with self._connection() as connection:
            query = f"SELECT id / {MIRROR_PAGE} FROM contributions WHERE mirrored < revision"
            pages = connection.execute(f"{query} GROUP BY 1 ORDER BY max(revoked) = '', 1").fetchall()
        for (page,) in pages:
            with self._connection() as connection:
                ids = page * MIRROR_PAGE, (page + 1) * MIRROR_PAGE
                query = "SELECT id, revision FROM contributions WHERE mirrored < revision AND id >= ? AND id < ?"
                due = dict(connection.execute(query, ids).fetchall())  # before the rows, which may change between
                its = _select(connection, "id >= ? AND id < ? ORDER BY id", *ids)
            yield its, due

    def set_mirrored(self, revisions: Mapping[int, int]) -> None:
        """Note which revision of contributions a mirror has copied; what was changed meanwhile is due again."""
        with self._writing() as connection:
            query = "UPDATE contributions SET mirrored = ? WHERE id = ?"
            connection.executemany(query, [(revision, number) for number, revision in revisions.items()])

    def take(self, one: Contribution, image: bytes = b"") -> None:
        """Keep what another store has, under its id: one that is new here, with its image, or one as it is by now.

        Raises BadImageError or DataError for what is not whole.
        """
        if not one.revoked:
            image = image or self.read_image(one)
            own = self._draft(image, one.caption, one.language, one.source, one.file_name)
            kept = {name: getattr(one, name) for name in ("id", "caption_sent", "received", "approved")}
            if replace(own, **kept) != one:
                raise DataError("its record is not what the image and the caption give")
        with self._writing() as connection:
            try:
                _put(connection, one, image)
            except sqlite3.IntegrityError as error:
                raise DataError("its image and caption are those of another contribution") from error

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
                return copy.execute("SELECT count(*) FROM contributions WHERE revoked = ''").fetchone()[0]
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

    def _find(self, condition: str, *values: int | str) -> list[Contribution]:
        with self._connection() as connection:
            return _select(connection, condition, *values)

    def _draft(self, image: bytes, caption: str, language: str, source: str, file_name: str) -> Contribution:
        """Return what is to be kept, without its id; decodes the whole image."""
        texts = clean_text(caption), caption, clean_language(language), clean_text(source, "source")
        file_name = re.split(r"[/\\]", file_name)[-1]
        file_name = clean_text(file_name, "file name") if file_name else ""
        read_image(image, DECODED_SIDE)
        kind = image_format(image)
        known = hashlib.sha256(image).hexdigest(), kind, len(image), *scan(image, kind).sides
        return Contribution(0, *known, *texts, _now(), file_name)

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


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")


COLUMNS = [field.name for field in fields(Contribution) if field.name != "known"]  # of the table, in their order
_UPSERT = (
    f"INSERT INTO contributions ({', '.join(COLUMNS)}) VALUES ({', '.join(f':{name}' for name in COLUMNS)}) "
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = :{name}' for name in COLUMNS)}, revision = revision + 1"
)


def _select(connection: sqlite3.Connection, condition: str, *values: int | str) -> list[Contribution]:
    rows = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM contributions WHERE {condition}", values)
    found = (dict(zip(COLUMNS, row, strict=True)) for row in rows)
    return [Contribution(**one | {"approved": bool(one["approved"])}) for one in found]


def _put(connection: sqlite3.Connection, one: Contribution, image: bytes = b"") -> Contribution:
    """Write a contribution in the place of what has its id, and return it; without an id it gets the next one.

    An image goes with the last contribution that has it.
    """
    if image:
        connection.execute("INSERT OR IGNORE INTO images VALUES (?, ?)", (one.image_sha256, image))
    done = connection.execute(_UPSERT, asdict(one) | {"id": one.id or None})
    if one.revoked and not _select(connection, "image_sha256 = ? AND revoked = ''", one.image_sha256):
        connection.execute("DELETE FROM images WHERE image_sha256 = ?", (one.image_sha256,))
        _uncache(one)
    return replace(one, id=one.id or done.lastrowid)


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


def _cached_file(image: Contribution) -> Path:
    return cache_dir() / "contributions" / image.image_file.removeprefix("images/")


def _uncache(gone: Contribution) -> None:
    with suppress(OSError):  # the next training tries again
        _cached_file(gone).unlink(missing_ok=True)


# What the errors of the disk and of SQLite mean. The messages name folders: they are for logs and terminals.


@contextmanager
def store_errors(folder: Path) -> Iterator[None]:
    """Turn what SQLite and the disk raise, while `folder` is used, into the errors that lcm shows."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise _explained(error, folder) from error


def _explained(error: OSError | sqlite3.Error, folder: Path) -> StoreError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the higher bits say more than is needed
    number, reason = getattr(error, "errno", 0), getattr(error, "strerror", "") or str(error)
    if code == sqlite3.SQLITE_BUSY:
        return _busy(folder)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _damaged(folder, reason)
    if code == sqlite3.SQLITE_FULL or number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreFullError(f"no space is left for {folder} ({reason})")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM) or number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StoreError(f"{folder} cannot be written ({reason}); check who owns it")
    return StoreError(f"{folder} cannot be used ({reason})")


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
