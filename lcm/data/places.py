"""The image files of a data set: which one a name in a captions file means.

Knows that folders are moved and that two folders may hold one name. Refuses to open a file, and to look outside the
folder: an image is one of the files that were listed.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from lcm.data import splits
from lcm.data.caption_files import Place
from lcm.data.files import IMAGE_SUFFIXES, with_suffix


@dataclass(frozen=True)
class FoundImages:
    """The names of a data set that have a file, those that have none, and the files that have no name."""

    paths: dict[str, Path]  # image_id -> file, in the order of the captions file
    missing: tuple[str, ...]
    ambiguous: tuple[str, ...]
    without_captions: tuple[str, ...]


def find_images(folder: Path, files: Sequence[Path], names: dict[str, Place]) -> FoundImages:
    """Find the file of each name; a file that several names can only mean by their last parts is none of theirs."""
    images = with_suffix(files, IMAGE_SUFFIXES)
    by_last_part: dict[str, list[Path]] = defaultdict(list)
    for path in images:
        by_last_part[_composed(path.name)].append(path)
    places = {name: _places(folder, name, place, by_last_part) for name, place in names.items()}
    claims = Counter(found[0] for found in places.values() if found)
    paths = {
        name: found[0]
        for name, found in places.items()
        if found and (claims[found[0]] == 1 or _ends_with(found[0], name))
    }
    ambiguous = tuple(name for name in paths if len(places[name]) > 1)
    used = {*paths.values(), *(path for name in ambiguous for path in places[name])}
    return FoundImages(
        paths,
        missing=tuple(name for name in places if name not in paths),
        ambiguous=ambiguous,
        without_captions=tuple(str(path.relative_to(folder)) for path in images if path not in used),
    )


def _places(folder: Path, name: str, place: Place, by_last_part: dict[str, list[Path]]) -> list[Path]:
    """Return the files that a name can mean: at its place, else at the end of any path.

    Where no path ends with the whole name, its last part is enough: folders are often moved. Only a file in a folder of
    another split is another image.
    """
    places = by_last_part.get(_composed(PurePath(name).name), [])
    if place.path in places:
        return [place.path]
    if place.only:
        return [path for path in places if _composed(str(path)) == _composed(str(place.path))]
    ending = [path for path in places if _ends_with(path, name)]
    return ending or [path for path in places if not _in_other_split(path.relative_to(folder), PurePath(name))]


def _in_other_split(path: PurePath, name: PurePath) -> bool:
    """Whether the folders of a file and of a name say two splits, as in val/1.jpg and train/1.jpg."""
    found, wanted = splits.named_in_path(path.parent), splits.named_in_path(name.parent)
    return bool(found and wanted) and found != wanted


def _ends_with(path: PurePath, name: str) -> bool:
    return f"/{_composed(path.as_posix())}".endswith(f"/{_composed(PurePath(name).as_posix())}")


def _composed(name: str) -> str:
    """Return a name in NFC: macOS writes the é of a file name as two characters."""
    return unicodedata.normalize("NFC", name)
