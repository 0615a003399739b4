"""Contributions as a folder of images with a captions file, out of the store and into it.

An export holds `images/` and `captions.tsv` with the columns image, language and caption, which lcm.data.dataset reads
as a data set; UTF-8, one line a pair, cells in quotes. What a spreadsheet would run (= + - @ where a cell begins, or
after a comma or semicolon in it) gets an apostrophe in front; so does one that has apostrophes before such a character.
Taking one away again gives back the caption.
"""

import csv
import hashlib
import html
import io
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lcm.contributions.store import Contribution, ContributionStore, store_errors
from lcm.data.dataset import find_caption_files, find_images, read_caption_files
from lcm.data.files import find_files, from_cell, to_cell
from lcm.data.formats import FORMATS, CaptionFile
from lcm.data.images import read_file
from lcm.errors import BadImageError, ConfigError, DataError, StoreDamagedError
from lcm.paths import write_atomic

CAPTIONS, IMAGES = "captions.tsv", "images"
_OURS = re.compile(r"\.?[0-9a-f]{64}\.(jpg|png|gif|webp)(\.[0-9a-f]+\.tmp)?")


@dataclass(frozen=True)
class Export:
    """What an export holds."""

    images: int
    captions: int
    left_out: tuple[int, ...]  # ids of contributions whose image is missing or altered


@dataclass(frozen=True)
class Refusal:
    """A row that became no contribution."""

    row: int  # of its captions file, counted from 1, without header
    image: str  # as the file names it; empty where it cannot be told
    reason: str


@dataclass(frozen=True)
class Import:
    """What became of the rows of captions files."""

    added: int
    known: int  # pairs that were there before
    refused: tuple[Refusal, ...]


def export_contributions(store: ContributionStore, folder: str | Path) -> Export:
    """Write all to a folder, the same contributions as the same bytes; what was revoked since leaves it."""
    target = _prepare(folder, store)
    contributions = list(store.contributions())
    with store_errors(target):
        by_image = {one.image_file: one for one in contributions}
        is_there = {name: _put_image(store, one, target) for name, one in by_image.items()}
        left_out = tuple(one.id for one in contributions if not is_there[one.image_file])
        exported = [one for one in contributions if is_there[one.image_file]]
        write_atomic(target / CAPTIONS, _table(exported))
        for path in target.glob(f"{IMAGES}/*/*"):
            if _OURS.fullmatch(path.name) and path.relative_to(target).as_posix() not in is_there:
                path.unlink()
    return Export(sum(is_there.values()), len(exported), left_out)


def _prepare(folder: str | Path, store: ContributionStore) -> Path:
    """Return a folder to export to, made if it is not there; raises ConfigError for one with anything else in it."""
    target = Path(folder).expanduser().resolve()
    if target.is_relative_to(store.folder) or store.folder.is_relative_to(target):
        raise ConfigError(f"{target} is the store's own folder, inside it or around it; choose another one")
    with store_errors(target):
        target.mkdir(parents=True, exist_ok=True)
        others = {path.name for path in target.iterdir() if path.suffix != ".tmp"} - {CAPTIONS, IMAGES}  # of a kill
        if others:
            shown = ", ".join(sorted(others)[:3])
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


def _table(rows: list[Contribution]) -> str:
    text = io.StringIO()
    table = csv.writer(text, csv.excel_tab, quoting=csv.QUOTE_ALL, lineterminator="\n")
    table.writerow(("image", "language", "caption"))
    for row in rows:
        is_plain = html.unescape(row.caption) == row.caption  # captions files are read with entities resolved
        caption = to_cell(row.caption if is_plain else row.caption.replace("&", "&amp;"))
        table.writerow((row.image_file, row.language, caption))
    return text.getvalue()


def import_contributions(store: ContributionStore, captions: str | Path, folder: str | Path | None = None) -> Import:
    """Add the pairs of a captions file, or of a folder with captions files, in any format that a data set may have.

    Images are looked for in `folder`, else where the captions are, as those of a data set. What is refused is reported
    with its reason and stops nothing; a StoreError does, and the same import afterwards adds the rest. Raises DataError
    for captions files that cannot be read.
    """
    path = Path(captions).expanduser().absolute()
    place = path if path.is_dir() else path.parent
    root = Path(folder or place).expanduser()
    added: list[Contribution] = []
    refused: list[Refusal] = []
    try:
        files = find_caption_files(path, find_files(path), "") if path.is_dir() else [CaptionFile(path)]
        labels = read_caption_files(place, files)
        found, _ = find_images(root, find_files(root), labels)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give a captions file, or a folder") from error
    images = {name: path for path, names in found.items() for name in names}
    for file in files:
        relative = PurePosixPath(file.path.relative_to(place).as_posix())
        for number, row in enumerate(file.read(), 1):
            try:
                if not row:
                    raise DataError(f"the row cannot be read; the file is {FORMATS[file.format].description}")
                path = images.get(FORMATS[file.format].image_id(relative, row.name))
                if path is None:
                    raise DataError("there is no such image in the folder")
                language = row.language or labels.languages[file.path]
                caption = from_cell(row.caption)
                added.append(store.add(read_file(path), caption, language, source="import", file_name=row.name))
            except (BadImageError, DataError) as error:
                refused.append(Refusal(number, row.name if row else "", str(error)))
    known = sum(one.known for one in added)
    return Import(len(added) - known, known, tuple(refused))
