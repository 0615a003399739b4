"""Versions: where trained models lie side by side, and which one is current.

Knows the folder `models` of the state folder, with one bundle a version, and the file `current` that names one of
them. Refuses to know who may change that: operations/publishing.py does.

`current` is a file that holds a version's name, for not every file system has links; a link to a version's folder,
made by hand, is understood too. Without it, the shipped bundle is current; as a version that is called `shipped`.
"""

from pathlib import Path

from lcm.captioning.captioners import SHIPPED_BUNDLE
from lcm.folders import home, resource

CURRENT = "current"
SHIPPED = "shipped"


def models_folder() -> Path:
    """Return the folder of the versions, which need not be there."""
    return home() / "models"


def version_folder(models: Path, version: str) -> Path:
    """Return the folder that a version has or would have; of a path only its last part counts."""
    return resource(SHIPPED_BUNDLE) if version == SHIPPED else models / (Path(version).name or "none")


def current_folder(models: Path) -> Path:
    """Return the folder of the current version, which may be gone; raises OSError when `current` cannot be read."""
    pointer = models / CURRENT
    if pointer.is_file():
        return version_folder(models, pointer.read_text(encoding="utf-8", errors="replace").strip())
    return pointer.resolve() if pointer.exists() or pointer.is_symlink() else resource(SHIPPED_BUNDLE)


def current_version(models: Path) -> str:
    """Return the name of the current version; the whole path where `current` is a link to somewhere else."""
    folder = current_folder(models)
    if folder == resource(SHIPPED_BUNDLE):
        return SHIPPED
    return folder.name if folder.parent in (models, models.resolve()) else str(folder)
