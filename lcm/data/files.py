"""Files: which ones a folder holds, which images the paths of a command mean, and the text of a text file."""

import codecs
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp")
NAMES_SHOWN = 5  # of a list of file names in a message


def is_image_name(name: str) -> bool:
    """Whether a name ends like that of an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def find_files(folder: Path) -> list[Path]:
    """Return the files anywhere in a folder, the shortest path first; folders that cannot be read are left out."""
    found = [Path(entry.path) for entry in _walk(str(folder), True, []) if _is_file(entry)]
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


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not blank."""
    return split_lines(read_text(path))


def shorten(names: Sequence[str]) -> str:
    """Return the first names and how many more there are, for a message that any terminal can print."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    # A file name need not be text: Python reads its other bytes as surrogates, which print() refuses.
    return ", ".join(names[:NAMES_SHOWN]).encode("utf-8", "backslashreplace").decode() + more


Problem = tuple[str, str]  # a path, and why it gives no image


@dataclass(frozen=True)
class Listing:
    """The files that some paths mean."""

    images: list[str]  # paths, with "/" on every system
    problems: list[Problem]


def list_images(paths: Iterable[str | Path], recursive: bool = False) -> Listing:
    """Return the files given and the image files of the folders given, in that order, each file once.

    A file given by name is taken whatever it is called. Of a folder are taken the files whose names end like an
    image's, sorted by name, and when `recursive` those of its sub-folders after them. A linked file counts as the file
    it leads to.
    """
    listing, seen = Listing([], []), set()
    for given in map(os.fspath, paths):
        path = PurePath(given).as_posix() if given else given
        for image in _images_in(path, recursive, listing.problems) if _is_folder(given) else [path]:
            identity = os.path.realpath(image)
            if identity not in seen:
                seen.add(image if image == identity else identity)  # one string in memory, of a million images
                listing.images.append(image)
    return listing


def _images_in(top: str, recursive: bool, problems: list[Problem]) -> Iterator[str]:
    """Yield the path of each image of a folder, as the folder was given."""
    before, found = len(problems), False
    for entry in _walk(top, recursive, problems):
        if is_image_name(entry.name):
            found = True
            yield PurePath(entry.path).as_posix()
    if not found and len(problems) == before:
        below = 0 if recursive else sum(entry.is_dir(follow_symlinks=False) for entry in _visible(top))
        deeper = f"; its {below} sub-folders are searched with --recursive" if below else ""
        problems.append((top, f"the folder holds no image, nothing that ends in {', '.join(IMAGE_SUFFIXES)}{deeper}"))


def _walk(folder: str, recursive: bool, problems: list[Problem]) -> Iterator[os.DirEntry[str]]:
    """Yield the files of a folder by name, and when `recursive` those of its sub-folders after them.

    Folders that are links are not entered: they might lead round in a circle. A link that leads nowhere is yielded.
    """
    try:
        entries = _visible(folder)
    except OSError as error:
        problems.append((folder, f"the folder cannot be read ({error.strerror}); check its permissions"))
        return
    folders = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    files = deque(entry for entry in entries if not (_is_folder(entry.path) if entry.is_symlink() else entry.is_dir()))
    entries.clear()
    while files:  # let go of one by one: a folder may hold a million
        yield files.popleft()
    for path in folders if recursive else ():
        yield from _walk(path, recursive, problems)


def _visible(folder: str) -> list[os.DirEntry[str]]:
    """Return what a folder holds, by name; without hidden files: macOS puts a `._name` beside each that it packs."""
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _is_file(entry: os.DirEntry[str]) -> bool:
    return Path(entry.path).is_file() if entry.is_symlink() else entry.is_file()  # the entry knows without a look


def _is_folder(path: str) -> bool:
    """Return whether `path` is a folder; one that cannot be looked at is not, and reading it will say why."""
    try:
        return bool(path) and Path(path).is_dir()
    except (OSError, ValueError):
        return False
