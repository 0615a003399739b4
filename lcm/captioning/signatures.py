"""Signatures of contributed images: what each is found by again, in memory and on disk.

Knows how a copy is looked for: the features of the captioner's encoder, which change little with a picture's edges and
size, name a few candidates, and their thumbnails decide. Refuses to know captions, and which images are contributed.

Features are kept as WIDTH sums of all their numbers with random signs, which keep angles (Achlioptas,
"Database-friendly random projections", PODS 2001): 51 MB for 100,000 images. Thumbnails stay on disk, 7 kB each, in a
file of this module alone, which may be removed at any time: all of it can be made anew.

Shapes: R images, D numbers in pooled features.
"""

import threading
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lcm.captioning.copies import SIDE, compare, thumbnail
from lcm.captioning.description import SeenImage
from lcm.features.convert import PREPROCESSING
from lcm.features.encoders import EncoderIdentity

if TYPE_CHECKING:
    import sqlite3

WIDTH = 128
VERSION = 1  # counts up when the same image would get another signature
CANDIDATES = (
    16  # whose thumbnails are compared: of 250 photos halved in size, among 6,000, none had a worse place than 8
)
MIN_COSINE = 0.4  # of candidates; copies have 0.58 at least, and a picture without features has 0
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS signatures (encoder TEXT NOT NULL, image TEXT NOT NULL, direction BLOB NOT NULL, "
    "thumbnail BLOB NOT NULL, PRIMARY KEY (encoder, image))"
)
PRAGMAS = ("busy_timeout = 1000", "journal_mode = TRUNCATE", "synchronous = NORMAL", "secure_delete = ON")


class Signatures:
    """The signatures of one encoder's images, by the sha256 of their bytes; safe to call from several threads.

    Several processes may share the file. Every method may raise sqlite3.Error, and then changed nothing on disk.
    """

    def __init__(self, path: Path | None, encoder: EncoderIdentity):
        """Open the file, make it anew where it is damaged; without a path, or where none can be written, it is lost."""
        self.encoder = encoder
        self._key = f"{encoder.name}-{encoder.source_sha256[:12]}-p{PREPROCESSING}-v{VERSION}"
        self._lock = threading.Lock()
        self._connection, self.is_kept = _open(path)
        self._images: list[str] = []  # of the rows, which never move while others look; empty: there is none any more
        self._free: list[int] = []  # rows without an image
        self._rows: dict[str, int] = {}  # image -> row
        self._directions = np.empty((0, WIDTH), np.float32)  # of length 1; room for more than there are
        self._load()

    @property
    def count(self) -> int:
        """How many images have a signature; no `__len__`: being empty is not being none."""
        return len(self._rows)

    def missing(self, images: Iterable[str]) -> list[str]:
        """Return those of some images that have no signature."""
        return [image for image in images if image not in self._rows]

    def __contains__(self, image: str) -> bool:
        return image in self._rows

    def add(self, image: str, seen: SeenImage) -> None:
        """Keep an image's signature."""
        direction = direction_of(seen.features["pooled"])
        values = (self._key, image, direction.astype(np.float16).tobytes(), thumbnail(seen.pixels).tobytes())
        with self._lock:
            self._connection.execute("INSERT OR REPLACE INTO signatures VALUES (?, ?, ?, ?)", values)
            self._put(image, direction)

    def adopt(self, image: str) -> bool:
        """Take in the signature that another process has kept; returns whether there is one."""
        query = "SELECT direction FROM signatures WHERE encoder = ? AND image = ?"
        with self._lock:
            found = self._connection.execute(query, (self._key, image)).fetchone()
            if found:
                self._put(image, np.frombuffer(found[0], np.float16))
        return found is not None

    def remove(self, images: Iterable[str]) -> None:
        """Forget images for good, those of other encoders too; what is not there is passed over."""
        images = list(images)
        with self._lock:
            for image in images:
                row = self._rows.pop(image, None)
                if row is not None:
                    self._directions[row], self._images[row] = 0, ""
                    self._free.append(row)
            self._connection.executemany("DELETE FROM signatures WHERE image = ?", ((image,) for image in images))

    def kept(self) -> set[str]:
        """Return the images that the file holds, of any encoder."""
        with self._lock:
            return {image for (image,) in self._connection.execute("SELECT image FROM signatures")}

    def copies(self, seen: SeenImage) -> list[str]:
        """Return the images that the one seen is a copy of."""
        with self._lock:
            directions = self._directions[: len(self._images)]
        cosines = directions @ direction_of(seen.features["pooled"])  # [R]; without the lock: it takes longest
        best = np.argpartition(-cosines, CANDIDATES)[:CANDIDATES] if len(cosines) > CANDIDATES else range(len(cosines))
        rows = [row for row in best if cosines[row] >= MIN_COSINE]
        found = self._thumbnails(rows) if rows else {}
        if not found:
            return []
        fit = compare(thumbnail(seen.pixels), np.stack(list(found.values())))
        return [image for image, is_copy in zip(found, fit.is_copy, strict=True) if is_copy]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _thumbnails(self, rows: list[int]) -> dict[str, np.ndarray]:
        """Return image -> thumbnail; a row that changed meanwhile gives none, or that of another image."""
        marks = ", ".join("?" * len(rows))
        query = f"SELECT image, thumbnail FROM signatures WHERE encoder = ? AND image IN ({marks})"
        with self._lock:
            images = [self._images[row] for row in rows]
            found = self._connection.execute(query, (self._key, *images)).fetchall()
        return {image: np.frombuffer(data, np.uint8).reshape(SIDE, SIDE, 3) for image, data in found}

    def _load(self) -> None:
        query = "SELECT image, direction FROM signatures WHERE encoder = ?"
        with self._lock:
            for image, direction in self._connection.execute(query, (self._key,)):
                self._put(image, np.frombuffer(direction, np.float16))

    def _put(self, image: str, direction: np.ndarray) -> None:
        row = self._rows.get(image)
        if row is None:
            row = self._rows[image] = self._free.pop() if self._free else self._new_row()
            self._images[row] = image
        self._directions[row] = direction

    def _new_row(self) -> int:
        row = len(self._images)
        if row == len(self._directions):
            room = np.zeros((max(256, row), WIDTH), np.float32)
            self._directions = np.concatenate([self._directions, room])
        self._images.append("")
        return row


@cache
def _signs(width: int) -> np.ndarray:
    """Return the signs [D, WIDTH]; of RandomState, whose numbers stay what they are in all versions of NumPy."""
    return np.random.RandomState(0).randint(0, 2, (width, WIDTH)).astype(np.float32) * 2 - 1


def direction_of(features: np.ndarray) -> np.ndarray:
    """Return pooled features [D] as they are compared: [WIDTH] float32, of length 1, or 0 where there are none."""
    sums = np.asarray(features, np.float32) @ _signs(len(features))
    length = np.linalg.norm(sums)
    return sums / length if length > 0 and np.isfinite(length) else np.zeros_like(sums)


def _open(path: Path | None) -> "tuple[sqlite3.Connection, bool]":
    """Return a connection to the file, and whether it is one that stays."""
    import sqlite3

    for _ in range(2 if path else 0):
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return _connect(str(path)), True
        except (OSError, sqlite3.OperationalError):  # the folder cannot be written
            break
        except sqlite3.DatabaseError:  # no database, or a damaged one
            with suppress(OSError):
                path.unlink()
    return _connect(""), False  # a file that SQLite makes for itself and removes


def _connect(name: str) -> "sqlite3.Connection":
    import sqlite3

    connection = sqlite3.connect(name, isolation_level=None, check_same_thread=False)
    try:
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(SCHEMA)
        connection.execute("SELECT count(*) FROM signatures WHERE encoder = ''").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection
