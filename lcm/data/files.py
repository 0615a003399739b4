"""Files of a data set: which ones a folder holds, and the lines of those that are text.

Knows hidden files, links and encodings. Refuses to know what a line or an image says.
"""

import codecs
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

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
