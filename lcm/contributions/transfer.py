"""Contributions as a folder of images with a captions file, out of the store and into it.

An export holds `images/`, `captions.tsv` with the columns image and caption, which lcm.data.dataset reads as a data
set, and `captions_waiting.tsv` with image, language and caption of what cannot train yet; UTF-8, one line a pair.
A caption that a spreadsheet would run or misread (it begins with = + - @ or a quotation mark) gets an apostrophe in
front; so does one that has apostrophes before such a character. Taking one away again gives back the caption.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lcm.contributions.store import Contribution, ContributionStore, store_errors
from lcm.contributions.text import ENGLISH
from lcm.data.files import read_lines
from lcm.data.images import MAX_BYTES
from lcm.errors import BadImageError, ConfigError, DataError, StoreDamagedError
from lcm.paths import write_atomic

TRAINING, WAITING = "captions.tsv", "captions_waiting.tsv"
COLUMNS = {TRAINING: ("image", "caption"), WAITING: ("image", "language", "caption")}
IMAGES = "images"
_OURS = re.compile(r"\.?[0-9a-f]{64}\.(jpg|png|gif|webp)(\.[0-9a-f]+\.tmp)?")
_MISREAD = re.compile("'*[=+\\-@\"\t\uff1d\uff0b\uff0d\uff20]")  # the last four are the wide forms of the first


@dataclass(frozen=True)
class Export:
    """What an export holds."""

    images: int
    captions: int  # that can train
    waiting: int  # that cannot yet
    left_out: tuple[int, ...]  # ids of contributions whose image is missing or altered


@dataclass(frozen=True)
class Refusal:
    """A line that became no contribution."""

    line: int  # counted from 1, without empty lines
    image: str  # as the file names it
    reason: str


@dataclass(frozen=True)
class Import:
    """What became of the lines of a captions file."""

    added: int
    known: int  # pairs that were there before
    refused: tuple[Refusal, ...]


def to_cell(caption: str) -> str:
    """Return a caption as a cell that no spreadsheet takes for a formula."""
    return f"'{caption}" if _MISREAD.match(caption) else caption


def from_cell(cell: str) -> str:
    """Return what to_cell was given."""
    return cell[1:] if cell.startswith("'") and _MISREAD.match(cell) else cell


def export_contributions(store: ContributionStore, folder: str | Path) -> Export:
    """Write all contributions to a folder; the same contributions always give the same bytes.

    An earlier export there is brought up to date; images of what was revoked since are removed. Raises ConfigError for
    a folder with other files, StoreError when it cannot be written.
    """
    target = _prepare(folder, store)
    contributions = list(store.contributions())
    with store_errors(target):
        by_image = {one.image_file: one for one in contributions}
        is_there = {name: _put_image(store, one, target) for name, one in by_image.items()}
        left_out = tuple(one.id for one in contributions if not is_there[one.image_file])
        exported = [one for one in contributions if is_there[one.image_file]]
        rows = {name: [one for one in exported if one.usable == (name == TRAINING)] for name in COLUMNS}
        for name, columns in COLUMNS.items():
            write_atomic(target / name, "".join(_lines(columns, rows[name])))
        for path in target.glob(f"{IMAGES}/*/*"):
            if _OURS.fullmatch(path.name) and path.relative_to(target).as_posix() not in is_there:
                path.unlink()
    return Export(sum(is_there.values()), len(rows[TRAINING]), len(rows[WAITING]), left_out)


def _prepare(folder: str | Path, store: ContributionStore) -> Path:
    """Return a folder to export to, made if it is not there; raises ConfigError for one with anything else in it."""
    target = Path(folder).expanduser().resolve()
    if target.is_relative_to(store.folder) or store.folder.is_relative_to(target):
        raise ConfigError(f"{target} is the store's own folder, inside it or around it; choose another one")
    with store_errors(target):
        target.mkdir(parents=True, exist_ok=True)
        others = sorted({path.name for path in target.iterdir()} - {*COLUMNS, IMAGES})
        others = [name for name in others if not (name.startswith(".") and name.endswith(".tmp"))]  # left by a kill
        if others:
            shown = ", ".join(others[:3])
            raise ConfigError(f"{target} holds other files ({shown}); choose an empty folder, or a new one")
        (target / IMAGES).mkdir(exist_ok=True)
    return target


def _put_image(store: ContributionStore, contribution: Contribution, target: Path) -> bool:
    """Write an image that the export lacks; returns False when the store cannot give it."""
    path = target / contribution.image_file
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == contribution.image_sha256:
        return True
    try:
        data = store.read_image(contribution)
    except (DataError, StoreDamagedError):
        return False
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, data)
    return True


def _lines(columns: tuple[str, ...], rows: list[Contribution]) -> Iterator[str]:
    yield "\t".join(columns) + "\n"
    for row in rows:
        cells = {"image": row.image_file, "language": row.language, "caption": to_cell(row.caption)}
        yield "\t".join(cells[column] for column in columns) + "\n"


def import_contributions(
    store: ContributionStore, captions_file: str | Path, folder: str | Path | None = None
) -> Import:
    """Add the pairs of a captions file: lines of image TAB caption, or with a header that may name a language, too.

    Images are looked for in `folder`, else beside the captions file, never outside. What is refused is reported with
    its reason and stops nothing; a StoreError does, and the same import afterwards adds the rest. Raises DataError for
    a captions file that cannot be read.
    """
    path = Path(captions_file).expanduser()
    root = Path(folder or path.parent).expanduser().resolve()
    columns, lines = _read_table(path)
    added, known, refused = 0, 0, []
    for number, line in lines:
        cells = line.split("\t")
        try:
            if len(cells) != len(columns):
                raise DataError(f"the line has {len(cells)} columns; it needs {len(columns)}: {', '.join(columns)}")
            pair = dict(zip(columns, cells, strict=True))
            image = _read_image(root, pair["image"].strip())
            caption, language = from_cell(pair["caption"].strip()), pair.get("language", ENGLISH)
            contribution = store.add(image, caption, language, source="import", file_name=pair["image"].strip())
        except (BadImageError, DataError) as error:
            refused.append(Refusal(number, cells[0], str(error)))
        else:
            known += contribution.known
            added += not contribution.known
    return Import(added, known, tuple(refused))


def _read_table(path: Path) -> tuple[tuple[str, ...], list[tuple[int, str]]]:
    """Return a captions file's columns and its other lines, each with its number."""
    try:
        lines = list(enumerate(read_lines(path), 1))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give lines of image TAB caption") from error
    first = tuple(cell.strip().lower() for cell in lines[0][1].split("\t")) if lines else ()
    is_header = {*COLUMNS[TRAINING]} <= {*first} <= {*COLUMNS[WAITING]}
    return (first, lines[1:]) if is_header else (COLUMNS[TRAINING], lines)


def _read_image(root: Path, name: str) -> bytes:
    """Return the bytes of an image inside a folder; the messages name no folder of ours."""
    try:
        path = (root / name).resolve()
        if not (path.is_relative_to(root) and path.is_file()):
            raise DataError("there is no such image in the folder")
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"the file has over {MAX_BYTES:,} bytes, the most accepted; make it smaller")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: the name holds a NUL
        raise DataError("the image cannot be read; check its name and its permissions") from error
