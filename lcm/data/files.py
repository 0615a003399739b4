"""Files of a data set: which ones a folder holds, and the lines of those that are text.

Knows hidden files, links and encodings. Refuses to know what a line or an image says.

Image files: which ones the paths of a command mean.

Knows folders, sub-folders, hidden files and links. Refuses to know pixels: whether a file is an image shows when it is
read.
"""

import codecs
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp")
NAMES_SHOWN = 5  # of a list of file names in a message


def is_image_name(name: str) -> bool:
    """Whether a name ends like that of an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def find_files(folder: Path) -> list[Path]:
    """Return the files anywhere in a folder, the shortest path first.

    Hidden ones are left out: macOS puts a `._name` of its own beside each file that it packs. A linked file is one of
    them; folders that are links are not entered: they might lead round in a circle.
    """
    paths = map(Path, _walk(folder))
    return sorted(paths, key=lambda path: (len(path.parts), path.parts))


def _walk(folder: str | Path) -> Iterator[str]:
    """Yield the files of a folder that is walked through once; the folder's own list tells files without a look."""
    with suppress(PermissionError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)
            elif Path(entry.path).is_file() if entry.is_symlink() else entry.is_file():
                yield entry.path


def with_suffix(paths: Iterable[Path], suffixes: tuple[str, ...]) -> list[Path]:
    """Return the paths that end with one of the suffixes, in whatever case they are written."""
    return [path for path in paths if path.suffix.lower() in suffixes]


def read_lines(path: Path) -> list[str]:
    """Return the non-empty lines of a text file: UTF-16 if it has a BOM, else UTF-8 with or without.

    A line that is not UTF-8 is taken for Windows-1252; the others are not.
    """
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.decode("utf-16", errors="replace").encode()
    # Not str.splitlines: it would also cut captions at U+2028, U+0085 and other rare separators.
    lines = data.removeprefix(codecs.BOM_UTF8).replace(b"\r", b"\n").split(b"\n")
    return [text for text in map(decode_line, lines) if text.strip()]


def decode_line(line: bytes) -> str:
    """Return a line as text: UTF-8, else Windows-1252."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("cp1252", errors="replace")


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
    image's, sorted by name, and when `recursive` those of its sub-folders after its own; nothing hidden, and no
    sub-folder that is a link: it might lead round in a circle. A linked file counts as the file it leads to.
    """
    listing, seen = Listing([], []), set()
    for given in map(os.fspath, paths):
        path = PurePath(given).as_posix() if given else given
        for image, identity in (
            _walk_listing(path, recursive, listing.problems) if _is_folder(given) else [(path, None)]
        ):
            identity = identity or os.path.realpath(image)
            if identity not in seen:
                seen.add(identity)
                listing.images.append(image)
    return listing


def _is_folder(path: str) -> bool:
    """Return whether `path` is a folder; a path that cannot be looked at is none, and reading it will say why."""
    with suppress(OSError, ValueError):
        return bool(path) and Path(path).is_dir()
    return False


def _walk_listing(top: str, recursive: bool, problems: list[Problem]) -> Iterator[tuple[str, str | None]]:
    """Yield the path of each image of a folder and, unless it is a link, its path without links."""
    found, reasons, below = 0, len(problems), 0
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            images, folders = _read_folder(folder)
        except OSError as error:
            problems.append((folder, f"the folder cannot be read ({error.strerror}); check its permissions"))
            continue
        found, below = found + len(images), below + len(folders)
        home, real_home = "" if folder == "." else f"{folder.rstrip('/')}/", os.path.realpath(folder)
        for name, is_link in images:
            yield f"{home}{name}", None if is_link else f"{real_home}/{name}"
        if recursive:
            waiting += [f"{home}{name}" for name in reversed(folders)]
    if not found and len(problems) == reasons:
        deeper = f"; its {below} sub-folders are searched with --recursive" if below and not recursive else ""
        problems.append((top, f"the folder holds no image, nothing that ends in {', '.join(IMAGE_SUFFIXES)}{deeper}"))


def _read_folder(folder: str) -> tuple[list[tuple[str, bool]], list[str]]:
    """Return a folder's image files by name, each with whether it is a link, and its sub-folders by name."""
    images, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif is_image_name(entry.name) and not (entry.is_symlink() and _is_folder(entry.path)):
                images.append((entry.name, entry.is_symlink()))
    return sorted(images), sorted(folders)
