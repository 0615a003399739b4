"""Copying: the images of contributions into another folder, such that the copy is never worse than before.

Knows how a folder of copies is made, brought up to date and rid of what no longer belongs in it. Refuses to know what
lies beside the images.
"""

import hashlib
import os
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from lcm.contributions.failures import explained
from lcm.contributions.files import (
    IMAGES,
    list_images,
    open_folder,
    read_image_file,
    remove_image,
    sync_folder,
    write_image,
)
from lcm.contributions.reader import StoreReader
from lcm.contributions.records import Contribution
from lcm.errors import ConfigError


@dataclass(frozen=True)
class Copied:
    """The images that are in the copy."""

    images: int
    left_out: tuple[int, ...]  # ids of contributions whose image is missing or is not what was sent


def prepare_folder(folder: str | Path, store: Path, files: Collection[str]) -> Path:
    """Return a folder to copy to, made if need be; raises ConfigError for one with anything but `files` and images."""
    target = Path(folder).expanduser().resolve()
    if target.is_relative_to(store) or store.is_relative_to(target):
        raise ConfigError(f"{target} is the store's own folder, inside it or around it; choose another one")
    with explained(target):
        target.mkdir(parents=True, exist_ok=True)
        (target / IMAGES).mkdir(exist_ok=True)
        others = sorted({path.name for path in target.iterdir()} - {*files, IMAGES})
    others = [name for name in others if not (name.startswith(".") and ".tmp" in name)]  # left by a kill
    if others:
        raise ConfigError(f"{target} holds other files ({', '.join(others[:3])}); choose an empty folder, or a new one")
    return target


def copy_images(store: StoreReader, contributions: Iterable[Contribution], target: Path) -> Copied:
    """Copy each image that the target lacks; what is there already is compared by its hash, too."""
    images: dict[str, bool] = {}  # whether it is in the copy
    left_out = []
    with explained(target), open_folder(target) as folder:
        for one in contributions:
            if one.image_file not in images:
                images[one.image_file] = _copy(store, one, folder)
            if not images[one.image_file]:
                left_out.append(one.id)
    return Copied(sum(images.values()), tuple(left_out))


def _copy(store: StoreReader, contribution: Contribution, folder: int) -> bool:
    if _is_image(read_image_file(folder, contribution.image_file), contribution):
        return True
    data = store.read_image(contribution)
    if not _is_image(data, contribution):
        return False
    write_image(folder, contribution.image_file, data)
    return True


def _is_image(data: bytes | None, contribution: Contribution) -> bool:
    return data is not None and hashlib.sha256(data).hexdigest() == contribution.image_sha256


def remove_other_images(target: Path, contributions: Iterable[Contribution]) -> None:
    """Remove the images of what was revoked since an earlier copy, and half-written ones."""
    with explained(target), open_folder(target) as folder:
        for path in set(list_images(folder)) - {one.image_file for one in contributions}:
            remove_image(folder, path)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file beside the images, whole or not at all; one that holds the same is left as it is."""
    with explained(path.parent):
        if path.exists() and path.read_bytes() == data:
            return
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
