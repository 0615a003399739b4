"""Files: which ones a folder holds, which images the paths of a command mean, and the text of a text file."""

import codecs
import os
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
    found = [path for path in map(Path, _walk(str(folder), True, [])) if path.is_file()]
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
    images: dict[str, str] = {}  # by the file that it is
    problems: list[Problem] = []
    for given in map(os.fspath, paths):
        path = PurePath(given).as_posix() if given else given
        # Unlike Path.is_dir, os.path.isdir takes any name, such as one that is too long: reading it says why.
        for image in _images_in(path, recursive, problems) if os.path.isdir(given) else [path]:  # noqa: PTH112
            images.setdefault(os.path.realpath(image), image)
    return Listing(list(images.values()), problems)


def _images_in(folder: str, recursive: bool, problems: list[Problem]) -> list[str]:
    before = len(problems)
    found = [PurePath(path).as_posix() for path in _walk(folder, recursive, problems) if is_image_name(path)]
    if not found and len(problems) == before:
        deeper = "" if recursive else "; its sub-folders are searched with --recursive"
        reason = f"the folder holds no image, nothing that ends in {', '.join(IMAGE_SUFFIXES)}{deeper}"
        problems.append((folder, reason))
    return found


def _walk(folder: str, recursive: bool, problems: list[Problem]) -> Iterator[str]:
    """Yield the files of a folder by name, and when `recursive` those of its sub-folders after them.

    Folders that are links are not entered, for they might lead round in a circle, and hidden files are left out: macOS
    puts a `._name` beside each that it packs.
    """

    def note(error: OSError) -> None:
        problems.append((error.filename, f"the folder cannot be read ({error.strerror}); check its permissions"))

    for place, folders, names in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield os.path.join(place, name)  # noqa: PTH118 - a folder may hold a million
