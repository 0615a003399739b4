"""Image files: which ones the paths of a command mean.

Knows folders, sub-folders, hidden files and links. Refuses to know pixels: whether a file is an image shows when it is
read.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from lcm.data.files import IMAGE_SUFFIXES, is_image_name

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
        for image, identity in _walk(path, recursive, listing.problems) if _is_folder(given) else [(path, None)]:
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


def _walk(top: str, recursive: bool, problems: list[Problem]) -> Iterator[tuple[str, str | None]]:
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
