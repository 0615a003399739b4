"""Image files: written whole or not at all, under names made from their content.

Knows how a file gets to the disk for good, and that nothing is written through a link. Refuses to know captions and
rows; whoever calls holds the database's write lock, so that one writes at a time.

Everything is done through descriptors of folders (POSIX): when the store's folder is moved away or replaced by a link
while an image is being written, the image stays in the folder it was meant for.
"""

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lcm.contributions.records import SHARD

IMAGES = "images"
MARK = "store_id"  # file beside the images: the id of the store that they belong to
_OURS = re.compile(r"\.?([0-9a-f]{64})\.(?:jpg|png|gif|webp)(?:\.[0-9a-f]{16}\.tmp)?")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
POINTS = ("temp_written", "temp_synced", "renamed", "before_commit", "after_commit")  # of adding a contribution
Reached = Callable[[str], None]  # told each of the POINTS as it is reached; for tests


@contextmanager
def open_folder(path: str | Path, inside: int | None = None) -> Iterator[int]:
    """Yield a descriptor of a folder, which is no link; `inside` is the descriptor of the one that it lies in."""
    descriptor = os.open(path, _FOLDER, dir_fd=inside)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _open_parent(folder: int, image_file: str, make: bool = False) -> Iterator[tuple[int, str]]:
    """Yield a descriptor of the folder that an image lies in, and the image's name there."""
    _, shard, name = image_file.split("/")
    with open_folder(IMAGES, folder) as images:
        if make:
            with suppress(FileExistsError):
                os.mkdir(shard, mode=0o700, dir_fd=images)
            os.fsync(images)  # whoever made the folder may have been killed before; a synced one costs nothing
        with open_folder(shard, images) as parent:
            yield parent, name


def nothing(_point: str) -> None:
    """Do nothing at a point that was reached."""


def write_image(folder: int, image_file: str, data: bytes, reached: Reached = nothing) -> None:
    """Write an image so that a power cut leaves either all of it under its name or nothing.

    The bytes are on the disk before they get the name, and the name is on the disk when this returns.
    """
    with _open_parent(folder, image_file, make=True) as (parent, name):
        _write(parent, name, data, reached)


def write_mark(folder: int, store_id: str) -> None:
    """Note beside the images which store they belong to."""
    with open_folder(IMAGES, folder) as images:
        _write(images, MARK, store_id.encode(), nothing)


def _write(parent: int, name: str, data: bytes, reached: Reached) -> None:
    temporary = f".{name}.{secrets.token_hex(8)}.tmp"
    try:
        _write_new(parent, temporary, data, reached)
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=parent)
        raise
    reached("renamed")
    os.fsync(parent)


def _write_new(parent: int, name: str, data: bytes, reached: Reached) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, mode=0o600, dir_fd=parent), "wb") as file:
        file.write(data)
        file.flush()
        reached("temp_written")
        os.fsync(file.fileno())
        reached("temp_synced")


def read_image_file(folder: int, image_file: str) -> bytes | None:
    """Return the bytes of an image, None when there is no such file."""
    with suppress(FileNotFoundError), _open_parent(folder, image_file) as (parent, name):
        return _read(parent, name)
    return None


def read_mark(folder: int) -> str:
    """Return the id of the store that the images belong to; empty when there is none."""
    with suppress(FileNotFoundError), open_folder(IMAGES, folder) as images:
        return _read(images, MARK).decode(errors="replace")
    return ""


def _read(parent: int, name: str) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, dir_fd=parent), "rb") as file:
        return file.read()


def remove_image(folder: int, image_file: str) -> None:
    """Remove an image for good; one that is not there is none to remove."""
    with suppress(FileNotFoundError), _open_parent(folder, image_file) as (parent, name):
        os.unlink(name, dir_fd=parent)
        os.fsync(parent)


def list_images(folder: int) -> Iterator[str]:
    """Yield the path of each image and each half-written one; files that lcm did not put there are passed over."""
    with open_folder(IMAGES, folder) as images:
        for shard in _names(images):
            with suppress(NotADirectoryError, FileNotFoundError), open_folder(shard, images) as parent:
                for name in _names(parent):
                    ours = _OURS.fullmatch(name)
                    if ours and ours[1][:SHARD] == shard:
                        yield f"{IMAGES}/{shard}/{name}"


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries)


def is_half_written(image_file: str) -> bool:
    """Whether the name is one that an image has before it is whole."""
    return image_file.endswith(".tmp")


def sync_folder(path: Path) -> None:
    """Force to disk what a folder's files are called."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
