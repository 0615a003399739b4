"""Records: what is kept of a contribution, of a revoked one and of what a mirror has still to do.

Knows each table's columns, how a row becomes an object and how a row that is not what was written is told. Refuses to
know connections, transactions and files.
"""

import json
import zlib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

SUFFIXES = {"jpeg": ".jpg", "png": ".png", "gif": ".gif", "webp": ".webp"}  # by the keys of headers.FORMATS
SHARD = 3  # hexadecimal digits: 4,096 folders, none of which holds 10,000 images before there are 40 million

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE store (store_id TEXT NOT NULL);
CREATE TABLE contributions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of arrival; AUTOINCREMENT gives none a second time
    image_sha256 TEXT NOT NULL,
    image_bytes INTEGER NOT NULL,
    image_format TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    caption TEXT NOT NULL,
    caption_sent TEXT,  -- as a JSON string, in which a NUL is none; NULL: the same as caption
    language TEXT NOT NULL,
    source TEXT NOT NULL,
    received TEXT NOT NULL,
    usable INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    UNIQUE (image_sha256, caption)
);
CREATE TABLE revocations (
    number INTEGER PRIMARY KEY,
    image_sha256 TEXT NOT NULL,
    image_format TEXT NOT NULL,
    revoked TEXT NOT NULL,
    reason TEXT NOT NULL
);
CREATE TABLE outbox (
    entry_id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    number INTEGER NOT NULL UNIQUE,
    due REAL NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    settled INTEGER NOT NULL DEFAULT 0  -- a settled entry stays, for it says that the mirror has the contribution
);
CREATE INDEX outbox_unsettled ON outbox (entry_id) WHERE settled = 0;
"""
COLUMNS = (
    *("number", "image_sha256", "image_bytes", "image_format", "width", "height", "caption", "caption_sent"),
    *("language", "source", "received", "usable"),
)
REVOCATION_COLUMNS = ("number", "image_sha256", "image_format", "revoked", "reason")


def image_file(image_sha256: str, image_format: str) -> str:
    """Return where an image lies in the store's folder; nothing that a sender says is part of it."""
    return f"images/{image_sha256[:SHARD]}/{image_sha256}{SUFFIXES[image_format]}"


@dataclass(frozen=True)
class Contribution:
    """An image with a caption that someone sent."""

    id: int  # its number in the order of arrival, never given again
    image_sha256: str  # of the image's bytes as sent, in hexadecimal
    image_bytes: int
    image_format: str  # what the bytes are, whatever the sender called them: a key of headers.FORMATS
    width: int  # in pixels as stored, before EXIF turns the picture
    height: int
    caption: str  # as clean_caption returns it
    caption_sent: str
    language: str  # "en", "pt-br"
    source: str  # what sent it: "http", "http:NAME" of who contributed, "import"
    received: str  # UTC, ISO 8601; for people: the clock may jump, the order is that of the ids
    usable: bool  # whether it can train already
    known: bool = False  # of what add returns: whether it was there before

    @property
    def number(self) -> int:
        """Its place in the order of arrival, which is its id."""
        return self.id

    @property
    def image_file(self) -> str:
        """Its image's path in the store's folder."""
        return image_file(self.image_sha256, self.image_format)

    def as_record(self) -> dict[str, Any]:
        """Return everything that is kept, for JSON."""
        record = asdict(self) | {"image_file": self.image_file}
        del record["known"]
        return record

    def as_row(self) -> tuple:
        """Return the values of COLUMNS."""
        values = asdict(self)
        sent = None if self.caption_sent == self.caption else json.dumps(self.caption_sent)
        middle = (values[name] for name in COLUMNS[1:7])
        return (self.id, *middle, sent, self.language, self.source, self.received, int(self.usable))

    @classmethod
    def from_row(cls, row: Sequence) -> Self:
        """Build from the values of COLUMNS."""
        *first, caption, sent, language, source, received, usable = row
        sent = caption if sent is None else json.loads(sent)
        return cls(*first, caption, sent, language, source, received, bool(usable))


def checksum(store_id: str, row: Sequence) -> int:
    """Return the checksum of a row's COLUMNS: SQLite keeps none, and a flipped bit in a caption breaks no page.

    The store's id is part of it, so that the rows of another store are none of this one's.
    """
    return zlib.crc32("\n".join(map(str, (store_id, *row))).encode())


@dataclass(frozen=True)
class Revocation:
    """What stays of a contribution that was revoked."""

    id: int
    image_sha256: str
    image_format: str
    revoked: str  # UTC, ISO 8601
    reason: str

    @property
    def image_file(self) -> str:
        """Where its image lay, or still lies when another contribution uses it."""
        return image_file(self.image_sha256, self.image_format)


@dataclass(frozen=True)
class ContributedImage:
    """An image with all its contributions that can train, the earliest first; at least one."""

    path: Path
    contributions: tuple[Contribution, ...]

    @property
    def image_sha256(self) -> str:
        """The hash of the image's bytes."""
        return self.contributions[0].image_sha256

    @property
    def captions(self) -> tuple[str, ...]:
        """The captions, in the order of arrival."""
        return tuple(one.caption for one in self.contributions)

    @property
    def first_id(self) -> int:
        """The number of the first contribution."""
        return self.contributions[0].id

    def without(self, numbers: Collection[int]) -> Self | None:
        """Return the image without some of its contributions, None where none is left."""
        left = tuple(one for one in self.contributions if one.id not in numbers)
        return replace(self, contributions=left) if left else None


@dataclass(frozen=True)
class OutboxEntry:
    """Something that a mirror has still to do; a contribution never has more than one."""

    entry_id: int  # rises with the order in which things are to be done
    kind: Literal["put", "delete"]
    contribution_id: int
    image_sha256: str
    image_path: Path | None  # None: no contribution uses the image any more, so its copy has to go too
    record: dict[str, Any]  # put: Contribution.as_record; delete: the Revocation and image_file
    attempts: int  # how often it was postponed
