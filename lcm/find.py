"""An index of photos, which finds them again by words, in every language that the model reads, or by a picture.

Each model has its own: a SQLite file with paths, and captions for its full text search, and a file with a row for each
photo, its vector by the model's tag scorer and its outline, which tells copies. A photo is the sha256 of its bytes,
wherever its files lie. Both files grow on the disk after each few photos, rows first: they are nothing without paths.

Shapes: R rows, of photos that are gone too; D numbers in a row, those of a vector and those of an outline.
"""

import hashlib
import os
import sqlite3
from collections.abc import Container, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from lcm.captioning.bundle import MANIFEST, Manifest
from lcm.captioning.captioner import find_bundle, load_captioner
from lcm.captioning.description import Captioner
from lcm.captioning.taggers import load_tag_scorer
from lcm.contributions.duplicates import COARSE, outline_of, thumbnail
from lcm.contributions.store import DATABASE, ContributionStore
from lcm.data.files import is_image_name, shorten
from lcm.data.images import read_file
from lcm.data.text import is_content_word, words
from lcm.errors import BadImageError, ConfigError, DataError
from lcm.features.cache import map_in_order
from lcm.features.encoders import file_sha256
from lcm.paths import explained, home

# Words count by their English stems, which suit the French plural too: "dogs" finds "dog", and "forets" finds "forêt".
# A caption's rowid is its photo's row, or below 0 where people contributed it.
SCHEMA = """
CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, stamp TEXT, sha256 BLOB, row INTEGER);
CREATE INDEX IF NOT EXISTS files_row ON files (row);
CREATE VIRTUAL TABLE IF NOT EXISTS captions
USING fts5 (text, language UNINDEXED, row UNINDEXED, tokenize = 'porter unicode61 remove_diacritics 2')
"""
WRITE_FILE = "REPLACE INTO files VALUES (?, ?, ?, ?)"
WRITE_CAPTION = "REPLACE INTO captions (rowid, text, language, row) VALUES (?, ?, ?, ?)"
# The file that was indexed last, and the newest caption that people contributed, else the model's.
SHOWN = """
SELECT (SELECT path FROM files WHERE files.row = ?1 ORDER BY rowid DESC LIMIT 1), text, rowid < 0 FROM captions
WHERE rowid IN (SELECT rowid FROM captions WHERE rowid < 0 AND row = ?1 UNION ALL SELECT ?1) ORDER BY rowid LIMIT 1
"""
MATCHES = "SELECT row, -rank FROM captions WHERE captions MATCH ? AND language = ? AND rowid < ? ORDER BY rank LIMIT ?"
NEAREST = 1000  # photos that are ranked: the best by their vectors, and by their captions in each language
TEXT_WEIGHT = 0.05  # of the best match among captions, where a cosine counts 1: see docs/find.md
AT_ONCE = 1 << 12  # rows that are compared with as many others
AGAIN = "what is indexed stays: make room, or wait for another lcm index, and give the same command again"
MIN_COSINES = 1.68  # of vectors and outlines of photos that look alike: see docs/find.md


class PhotoIndex:
    """The index of the bundle that answers; it can be searched while photos are added."""

    def __init__(self) -> None:
        """Name its folder, in `index` of LCM_HOME; raises ConfigError where the bundle has no tag scorer."""
        self._bundle = find_bundle()
        manifest = Manifest.load(self._bundle)
        self._scorer = load_tag_scorer(None, self._bundle, manifest)
        if not self._scorer:
            raise ConfigError(f"{manifest.name} has no tagger, whose vectors find photos; promote a model that has one")
        self.folder = home() / "index" / file_sha256(self._bundle / MANIFEST)[:12]
        self._vectors, self._model = self.folder / "vectors.f16", manifest.name

    def update(self, given: Sequence[str], images: Sequence[str]) -> tuple[str, list[tuple[str, BadImageError]]]:
        """Take in new `images`, forget what is gone from the folders `given`; returns what changed, and failures."""
        captioner, failures, read = load_captioner(self._bundle, threads=1), [], set()
        given = tuple(os.path.join(os.path.abspath(path), "") for path in given)  # noqa: PTH100, PTH118
        images = [os.path.abspath(path) for path in images]  # noqa: PTH100
        with explained(self.folder, AGAIN), _opened(self.folder) as database, FileLock(self.folder / "lock", timeout=0):
            files = {os.fsdecode(path): its for path, *its in database.execute("SELECT * FROM files")}
            left = [path for path in images if path not in files or _stamp(path) != files[path][0]]
            rows = {sha256: row for _, sha256, row in files.values()}
            before = top = max(rows.values(), default=-1) + 1
            progress = tqdm(total=len(images), initial=len(images) - len(left), unit=" photos", desc="index")
            with progress, self._vectors.open("r+b" if rows else "wb") as vectors:
                for part in map_in_order(partial(_look, captioner, rows), left, captioner.part):
                    for path, stamp, sha256, vector, caption in part:
                        if isinstance(sha256, BadImageError):
                            failures.append((path, sha256))
                            continue
                        read.add(sha256)
                        row = rows.setdefault(sha256, top)
                        if row == top:
                            top += 1
                            vectors.seek(row * vector.nbytes)
                            vectors.write(vector.tobytes())
                            database.execute(WRITE_CAPTION, (row, caption, captioner.languages[0], row))
                        database.execute(WRITE_FILE, (os.fsencode(path), stamp, sha256, row))
                    vectors.flush()
                    os.fsync(vectors.fileno())
                    database.execute("PRAGMA user_version = 0")  # contributions are to be taken again
                    database.commit()
                    progress.update(len(part))
            gone = [path for path in files if not _stamp(path) and (path.startswith(given) or files[path][1] in read)]
            dropped = [(os.fsencode(path),) for path in (*gone, *dict(failures))]
            database.executemany("DELETE FROM files WHERE path = ?", dropped)
            database.execute("DELETE FROM captions WHERE row NOT IN (SELECT row FROM files)")
            database.commit()
            (there,) = database.execute("SELECT count(DISTINCT row) FROM files").fetchone()
        return f"photos in the index of {self._model}: {there}; new: {top - before}; files gone: {len(gone)}", failures

    def search(self, query: str, most: int = 20) -> tuple[list[dict[str, object]], str]:
        """Return the photos that fit words, or a picture by its path, the best first; and a note on words not known.

        Photos with a contributed caption that has all content words come first, then others by their cosine and, a
        little, by the words of their captions.
        """
        first, matches, note = {}, {}, ""
        with _opened(self.folder) as database:
            _take_contributions(database)
            database.execute("BEGIN")  # what is read is of one moment
            rows, vectors = self._rows(database)
            if is_image_name(query) or Path(query).is_file():
                vector = self._scorer.image_vector(load_captioner(self._bundle).see(query))
            else:
                shown = words(query) or [query]
                unknown = [word for word in dict.fromkeys(shown) if not self._scorer.text_vectors([word]).any()]
                (vector,) = self._scorer.text_vectors([" ".join(word for word in shown if word not in unknown)])
                if unknown:
                    note = f"{self._scorer.name} does not know {shorten(unknown)}: captions alone are searched for that"
                first, matches = _match(database, query, " AND ", 0), _match(database, query, " OR ", len(vectors))
            best = max(matches.values(), default=1.0)
            scores = dict.fromkeys(first, 0.0) | {row: TEXT_WEIGHT * match / best for row, match in matches.items()}
            if vector.any():
                cosines = np.einsum("rd,d->r", vectors[:, : len(vector)], vector, dtype=np.float32)
                nearest = rows[np.argsort(-cosines[rows])[:NEAREST]].tolist()
                scores = {row: scores.get(row, 0.0) + float(cosines[row]) for row in {*scores, *nearest}}
            ranked = sorted(scores, key=lambda row: (row in first, scores[row]), reverse=True)[:most]
            shown = ((*database.execute(SHOWN, (row,)).fetchone(), scores[row]) for row in ranked)
            return [
                {"photo": os.fsdecode(path), "caption": text, "contributed": bool(is_theirs), "score": round(score, 6)}
                for path, text, is_theirs, score in shown
            ], note

    def copies(self) -> list[list[str]]:
        """Return groups of files whose photos look alike, in a time that grows with the square of their number."""
        with _opened(self.folder) as database:
            _, vectors = self._rows(database)
            files = database.execute("SELECT row, path FROM files ORDER BY row, path").fetchall()
        first = np.arange(len(vectors))  # row -> the first that looks like it, in the end the first of its group
        for start in tqdm(range(0, len(vectors), AT_ONCE), desc="compare"):
            part = vectors[start : start + AT_ONCE].astype(np.float32)
            for before in range(0, start + 1, AT_ONCE):
                others = vectors[before : before + AT_ONCE].astype(np.float32)
                places, alike = np.nonzero(part @ others.T >= MIN_COSINES)
                np.minimum.at(first, start + places, before + alike)
        groups: dict[int, list[str]] = {}
        for row, path in files:
            first[row] = first[first[row]]
            groups.setdefault(first[row], []).append(os.fsdecode(path))
        return [group for group in groups.values() if len(group) > 1]

    def _rows(self, database: sqlite3.Connection) -> tuple[np.ndarray, np.ndarray]:
        """Return which rows are photos', and all of them, memory-mapped float16 [R, D]."""
        rows = np.array([row for (row,) in database.execute("SELECT DISTINCT row FROM files ORDER BY row")], np.int64)
        if not len(rows):
            raise DataError(f"nothing is indexed by {self._model}, the model that answers; give: lcm index PHOTOS")
        shape = rows[-1] + 1, self._scorer.text_vectors([""]).shape[1] + COARSE**2
        return rows, np.memmap(self._vectors, np.float16, "r", shape=shape)


@contextmanager
def _opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open the SQLite file of an index, made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(folder / "index.sqlite", timeout=10)) as database:
            database.executescript(SCHEMA)
            yield database
    except (sqlite3.Error, FileNotFoundError, ValueError) as error:  # ValueError: there are too few vectors
        raise DataError(f"{folder} cannot be used ({error}); try again, or remove it and index anew") from error


def _look(captioner: Captioner, known: Container[bytes], paths: Sequence[str]) -> list[tuple]:
    """Return each path with stamp, sha256 or BadImageError, and of a new photo its vector and caption."""
    looks, new = [], {}
    for path in paths:
        stamp = _stamp(path)  # before it is read: what is written meanwhile is read the next time
        try:
            data = read_file(Path(path))
            sha256 = hashlib.sha256(data).digest()
            if sha256 not in known:
                new[sha256] = captioner.see(data)
        except BadImageError as error:
            sha256 = error
        looks.append((path, stamp, sha256))
    both = [(captioner.tag_scorer.image_vector(one), outline_of(thumbnail(one.pixels))) for one in new.values()]
    vectors = [np.concatenate(its).astype(np.float16) for its in both]
    written = captioner.write([*new.values()], 0, captioner.languages[0]) if new else ()
    said = {key: (vector, texts[0]) for key, vector, (texts, _) in zip(new, vectors, written, strict=True)}
    return [(*look, *said.get(look[-1], (None, ""))) for look in looks]


def _take_contributions(database: sqlite3.Connection) -> None:
    """Let the captions of people be those that the store has now; user_version tells when that last changed."""
    path = home() / "contributions" / DATABASE
    state = path.stat().st_mtime_ns // 10**6 % 2**31 if path.exists() else 1
    if database.execute("PRAGMA user_version").fetchone() != (state,):
        rows = {sha256.hex(): row for sha256, row in database.execute("SELECT sha256, row FROM files")}
        given = [one for one in ContributionStore().contributions() if one.image_sha256 in rows] if state > 1 else []
        with database:
            database.execute("DELETE FROM captions WHERE rowid < 0")
            its = ((-one.id, one.caption, one.model_language, rows[one.image_sha256]) for one in given)
            database.executemany(WRITE_CAPTION, its)
            database.execute(f"PRAGMA user_version = {state}")


def _match(database: sqlite3.Connection, query: str, joined: str, below: int) -> dict[int, float]:
    """Return rows that have the content words in a caption, all or any, with BM25; of captions of rowids below some.

    Each language has its own content words, and they are looked for in its captions alone.
    """
    found: dict[int, float] = {}
    for (language,) in database.execute("SELECT DISTINCT language FROM captions").fetchall():
        content = [f'"{word}"' for word in words(query, language) if is_content_word(word, language)]
        wanted = joined.join(content), language, below, NEAREST
        for row, score in database.execute(MATCHES, wanted) if content else ():
            found[row] = max(score, found.get(row, 0.0))
    return found


def _stamp(path: str) -> str:
    """Return size and time of the last change of a file, empty where it is not there, or cannot be looked at."""
    with suppress(OSError):
        return "{0.st_size} {0.st_mtime_ns}".format(Path(path).stat())
    return ""
