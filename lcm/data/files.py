"""Files: which ones a folder holds, which images the paths of a command mean, and the text of a text file."""

import codecs
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

# What cameras, Windows, browsers and Pillow call the formats of lcm.data.images; an MPO's first picture is a JPEG.
RAW_SUFFIXES = (".cr2", ".cr3", ".nef", ".nrw", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".mpo", ".png", ".apng", ".gif", ".webp", ".tif")
IMAGE_SUFFIXES += (".tiff", ".bmp", ".dib", ".avif", ".avifs", ".heic", ".heics", ".heif", ".heifs", ".hif")
IMAGE_SUFFIXES += RAW_SUFFIXES
NAMES_SHOWN = 5  # of a list of file names in a message


def is_image_name(name: str) -> bool:
    """Whether a name ends like that of an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def find_files(folder: Path) -> list[Path]:
    """Return the files anywhere in a folder, the shortest path first; folders that cannot be read are left out."""
    found = [path for path in map(Path, _walk(str(folder), True, [], [])) if path.is_file()]
    return sorted(found, key=lambda path: (len(path.parts), path.parts))


def with_suffix(paths: Iterable[Path], suffixes: tuple[str, ...]) -> list[Path]:
    """Return the paths that end with one of the suffixes, in whatever case they are written."""
    return [path for path in paths if path.suffix.lower() in suffixes]


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, with BOM or without, or in UTF-16 with BOM, else in Windows-1252."""
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def split_lines(text: str) -> list[str]:
    """Return the lines that are not blank."""
    # Not str.splitlines: it would also cut captions at U+2028, U+0085 and other rare separators.
    return [line for line in text.replace("\r", "\n").split("\n") if line and not line.isspace()]


# Where a spreadsheet may begin a cell, it runs what begins like this; the last four are the wide forms of the first.
# Apostrophes before it count, so that one more can be told from them.
_CELL, _FORMULA = '(?:^|[,;])[\\s"]*', "(?='*[=+@\uff1d\uff0b\uff0d\uff20-])"


def to_cell(text: str) -> str:
    """Return a text with an apostrophe before what a spreadsheet would run, even one that parts cells at "," or ";"."""
    return re.sub(f"({_CELL}){_FORMULA}", r"\1'", text)


def from_cell(cell: str) -> str:
    """Return what to_cell was given."""
    return re.sub(f"({_CELL})'{_FORMULA}", r"\1", cell)


def shorten(names: Sequence[str]) -> str:
    """Return the first names and how many more there are, for a message that any terminal can print."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    # A file name need not be text: Python reads its other bytes as surrogates, which print() refuses.
    return ", ".join(names[:NAMES_SHOWN]).encode("utf-8", "backslashreplace").decode() + more


Problem = tuple[str, str]  # a path, and why it gives no image
# Files that lie beside images and are none: captions, lists, what lcm wrote, sidecars, what Windows hides.
BESIDE_IMAGES = (".csv", ".db", ".html", ".ini", ".json", ".jsonl", ".md", ".parquet", ".token", ".tsv", ".txt", ".xmp")


@dataclass(frozen=True)
class Listing:
    """The images that some paths mean, and whatever else of them may be one: nothing is skipped in silence."""

    images: list[str]  # paths, with "/" on every system
    problems: list[Problem]
    other_files: list[str]  # of the folders; hidden ones and those BESIDE_IMAGES are not counted
    sub_folders: list[str]  # that were not entered, and hold images or other files, or cannot be read


def list_images(paths: Iterable[str | Path], recursive: bool = False) -> Listing:
    """Return the files given and the image files of the folders given, in that order, each file once.

    A file given by name is taken whatever it is called; reading it says where there is none. Of a folder are taken the
    files whose names end like an image's, sorted by name, and when `recursive` those of its sub-folders after them. A
    linked file counts as the file it leads to.
    """
    images: dict[str, str] = {}  # by the file that it is
    others: dict[str, str] = {}
    problems: list[Problem] = []
    closed: list[str] = []
    for given in map(os.fspath, paths):
        path, before, found = PurePath(given).as_posix(), len(problems), False
        # Unlike Path.is_dir, os.path.isdir takes any name, such as one that is too long: reading it says why.
        is_folder = os.path.isdir(given)  # noqa: PTH112
        for file in _walk(path, recursive, problems, closed) if is_folder else [path]:
            if is_image_name(file) or not is_folder:
                images.setdefault(os.path.realpath(file), file)
                found = True
            elif not file.lower().endswith(BESIDE_IMAGES):
                others.setdefault(os.path.realpath(file), file)
        if not found and len(problems) == before:
            problems.append((path, f"the folder holds no image, nothing that ends in {', '.join(IMAGE_SUFFIXES)}"))
    other_files = [file for real, file in others.items() if real not in images]
    known = images.keys() | others.keys()
    folders = {os.path.realpath(folder): folder for folder in closed}.values()
    return Listing([*images.values()], problems, other_files, [each for each in folders if _holds_more(each, known)])


def _holds_more(folder: str, known: Collection[str]) -> bool:
    """Whether a folder, or one inside it, holds what may be an image and is not known, or cannot be read."""
    unreadable: list[Problem] = []
    files = (file for file in _walk(folder, True, unreadable, []) if not file.lower().endswith(BESIDE_IMAGES))
    return any(os.path.realpath(file) not in known for file in files) or bool(unreadable)


def _walk(folder: str, recursive: bool, problems: list[Problem], closed: list[str]) -> Iterator[str]:
    """Yield the files of a folder by name, and when `recursive` those of its sub-folders after them.

    Folders that are links are not entered, for they might lead round in a circle: they are added to `closed`, as are
    all sub-folders unless `recursive`. Hidden files are left out: macOS puts a `._name` beside each that it packs.
    """

    def note(error: OSError) -> None:
        problems.append((error.filename, f"the folder cannot be read ({error.strerror}); check its permissions"))

    for place, folders, names in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = [os.path.join(place, name) for name in folders]  # noqa: PTH118 - a folder may hold a million
        closed += [PurePath(path).as_posix() for path in inside if not recursive or os.path.islink(path)]  # noqa: PTH114
        if not recursive:
            folders.clear()
        for name in sorted(names):
            if not name.startswith("."):
                yield PurePath(place, name).as_posix()
