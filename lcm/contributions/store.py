"""The store of contributions: what was answered for is there, whatever happens afterwards.

Knows what belongs together: an image, its row and its outbox entry come and go as one. Refuses to know HTTP and models,
and how a row or a file gets to the disk.

An image is written, and removed, only while the database's write lock is held. So whoever holds that lock knows an
image without a row, and a half-written one, for what a kill left behind: no other process can be just writing it,
however slow it is. A row is committed after its image has its name, and removed before it: no row lacks its image.
"""

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import astuple, replace
from datetime import UTC, datetime
from pathlib import Path

from lcm.contributions import outbox as entries
from lcm.contributions.database import Session
from lcm.contributions.files import (
    Reached,
    is_half_written,
    list_images,
    nothing,
    read_image_file,
    remove_image,
    write_image,
)
from lcm.contributions.reader import SELECT, StoreReader
from lcm.contributions.records import (
    COLUMNS,
    REVOCATION_COLUMNS,
    Contribution,
    OutboxEntry,
    Revocation,
    checksum,
    image_file,
)
from lcm.contributions.text import clean_caption, clean_language, clean_text, is_english
from lcm.data.images import image_format, read_image, scan
from lcm.errors import DataError, StoreBusyError
from lcm.paths import home

MAX_STRAYS = 100  # images without a row that are swept; a kill leaves one, and kills add up only until the next start
DECODED_SIDE = 32  # pixels; small, for the picture is only decoded to see that it is whole
_INSERT = f"INSERT INTO contributions VALUES ({', '.join('?' * (len(COLUMNS) + 1))})"


class ContributionStore(StoreReader):
    """Contributions in a folder, for any number of threads and processes.

    Every method may raise StoreError, StoreBusyError, StoreFullError or StoreDamagedError. Nothing was stored then, and
    the same call works once the cause is gone.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        outbox: bool = False,
        reached: Reached = nothing,
        clock: Callable[[], float] = time.time,
    ):
        """Open the store in `folder` (`contributions` in LCM_HOME), make it if it is not there, sweep after kills.

        With `outbox` a mirror is told of each contribution, those of earlier times too. `reached` is called at each
        of the POINTS of `add` where a kill has its own effect; `clock` gives seconds since 1970.
        """
        super().__init__(Path(folder or home() / "contributions").expanduser().resolve())
        self._outbox, self._reached, self._clock = outbox, reached, clock
        self.database.create()
        self.database.verify()
        self.database.check_writable()
        self._sweep()
        if outbox:
            self._tell_mirror()

    def add(self, image: bytes, caption: str, language: str = "en", source: str = "http") -> Contribution:
        """Keep an image with a caption; once this has returned, no crash and no power cut takes it away.

        The same image with the same caption (as clean_caption returns it) is kept once; `known` says that it was
        there. Raises BadImageError for the image, DataError for one of the texts.
        """
        draft = self._draft(image, caption, language, source)
        touched = False
        try:
            with self.database.writing(self._reached) as session:
                query = f"{SELECT} WHERE image_sha256 = ? AND caption = ?"
                known = session.connection.execute(query, (draft.image_sha256, draft.caption)).fetchone()
                is_there = _is_used(session, draft.image_file)
                if not (is_there and read_image_file(session.folder, draft.image_file) == image):
                    touched = True
                    write_image(session.folder, draft.image_file, image, self._reached)
                return replace(Contribution.from_row(known), known=True) if known else self._insert(session, draft)
        except BaseException:
            if touched:
                with suppress(Exception):  # it would hide the error that matters; the next start sweeps
                    self._remove_unused(draft.image_file)
            raise

    def revoke(self, number: int, reason: str) -> Revocation:
        """Take a contribution away for good, its image too unless another one uses it; a line about it stays.

        Doing it again returns the same line. Raises DataError when there never was a contribution `number`.
        """
        with self.database.writing() as session:
            gone = self._find_revocation(session, number) or self._delete(session, number, reason)
        self._remove_unused(gone.image_file)  # after a kill in between, the next start does it
        return gone

    # For a copy of another store, which keeps its numbers

    def take(self, contribution: Contribution, image: bytes) -> None:
        """Keep what another store has, under its number there, if it passes the door that `add` is.

        Raises BadImageError or DataError where it does not, where record and image do not belong together, and where
        the number or the pair is another one's here.
        """
        texts = contribution.caption, contribution.language, contribution.source
        sent = {"caption_sent": contribution.caption_sent, "received": contribution.received}
        own = replace(self._draft(image, *texts), id=contribution.id, **sent)
        if own != contribution:
            raise DataError("its record is not what the image and the caption give")
        with self.database.writing() as session:
            query = "SELECT 1 FROM contributions WHERE number = ? OR (image_sha256 = ? AND caption = ?)"
            values = (own.id, own.image_sha256, own.caption)
            if session.connection.execute(query, values).fetchone() or self._find_revocation(session, own.id):
                raise DataError("its number, or image and caption, are those of another contribution")
            write_image(session.folder, own.image_file, image)
            self._write_row(session, own)

    def take_revocation(self, gone: Revocation) -> bool:
        """Revoke what another store has revoked, or keep its line alone; returns whether it was a contribution here."""
        with self.database.writing() as session:
            query = "DELETE FROM contributions WHERE number = ?"
            was_there = session.connection.execute(query, (gone.id,)).rowcount > 0
            session.connection.execute("INSERT OR IGNORE INTO revocations VALUES (?, ?, ?, ?, ?)", astuple(gone))
        self._remove_unused(gone.image_file)
        return was_there

    # For a mirror

    def pending(self, limit: int, now: float) -> list[OutboxEntry]:
        """Return what a mirror has to do, if it is due by `now`, the oldest first."""
        with self.database.reading() as session:
            return entries.pending(session.connection, self.folder, limit, now)

    def settle(self, entry_id: int) -> None:
        """Note that an entry was done; one that is gone is passed over."""
        with self.database.writing() as session:
            entries.settle(session.connection, entry_id)

    def postpone(self, entry_id: int, until: float) -> None:
        """Note that an entry failed, and when it is due again; one that is gone is passed over."""
        with self.database.writing() as session:
            entries.postpone(session.connection, entry_id, until)

    def _tell_mirror(self) -> None:
        with self.database.reading() as session:
            missing = entries.has_missing(session.connection)
        if missing:
            with self.database.writing() as session:
                entries.put_missing(session.connection)

    # Steps

    def _draft(self, image: bytes, caption: str, language: str, source: str) -> Contribution:
        """Return what is to be kept, without its number; decodes the whole image."""
        texts = clean_caption(caption), caption, clean_language(language), clean_text(source, "source")
        read_image(image, DECODED_SIDE)
        name = image_format(image)
        width, height = scan(image, name).sides
        digest = hashlib.sha256(image).hexdigest()
        usable = is_english(texts[2])
        return Contribution(0, digest, len(image), name, width, height, *texts, self._now(), usable)

    def _insert(self, session: Session, draft: Contribution) -> Contribution:
        """Add the row of a draft under the next number, which is above all that were ever given."""
        query = "SELECT seq FROM sqlite_sequence WHERE name = 'contributions'"
        (last,) = session.connection.execute(query).fetchone() or (0,)
        contribution = replace(draft, id=last + 1)
        self._write_row(session, contribution)
        if self._outbox:
            entries.put(session.connection, contribution.id)
        return contribution

    def _write_row(self, session: Session, contribution: Contribution) -> None:
        row = contribution.as_row()
        session.connection.execute(_INSERT, (*row, checksum(session.store_id, row)))

    def _find_revocation(self, session: Session, number: int) -> Revocation | None:
        query = f"SELECT {', '.join(REVOCATION_COLUMNS)} FROM revocations WHERE number = ?"
        row = session.connection.execute(query, (number,)).fetchone()
        return Revocation(*row) if row else None

    def _delete(self, session: Session, number: int, reason: str) -> Revocation:
        row = session.connection.execute(f"{SELECT} WHERE number = ?", (number,)).fetchone()
        if row is None:
            raise DataError(f"there is no contribution {number}; `lcm contributions list` shows those there are")
        found = Contribution.from_row(row)
        values = (number, found.image_sha256, found.image_format, self._now(), clean_text(reason, "reason"))
        session.connection.execute("DELETE FROM contributions WHERE number = ?", (number,))
        session.connection.execute("INSERT INTO revocations VALUES (?, ?, ?, ?, ?)", values)
        entries.delete(session.connection, number)
        return Revocation(*values)

    def _remove_unused(self, path: str) -> None:
        with self.database.writing() as session:
            if not _is_used(session, path):
                remove_image(session.folder, path)

    def _sweep(self) -> None:
        """Remove what kills left behind. Other processes may be at work: what they write has a row under the lock."""
        with self.database.reading() as session:
            paths = list(list_images(session.folder))  # before the rows, so that each one's row can be seen
            rows = session.connection.execute("SELECT image_sha256, image_format FROM contributions")
            strays = set(paths) - {image_file(*row) for row in rows}
        if len(strays) > MAX_STRAYS:
            raise self.database.damaged(f"{len(strays):,} images belong to no contribution: an old database?")
        if strays:
            with suppress(StoreBusyError), self.database.writing() as session:  # busy: a later start sweeps
                for path in strays:
                    if is_half_written(path) or not _is_used(session, path):
                        remove_image(session.folder, path)

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="seconds")


def _is_used(session: Session, path: str) -> bool:
    """Whether a contribution has the image with this path in the store's folder."""
    digest = path.rpartition("/")[2].partition(".")[0]
    query = "SELECT DISTINCT image_sha256, image_format FROM contributions WHERE image_sha256 = ?"
    return any(image_file(*row) == path for row in session.connection.execute(query, (digest,)))
