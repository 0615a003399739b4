r"""Names: which image files they mean, as captions files and split lists write them.

A name may lack folders that the file lies in, have folders that it was moved out of, have another suffix or none, be in
any case, and be written on Windows ("\") or on macOS (in NFD).
"""

import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from lcm.data.files import is_image_name


class Meaning(NamedTuple):
    """The files that a name means, in their order."""

    files: Sequence[Path] = ()
    is_whole: bool = False  # no folder of the name was left out
    is_exact: bool = False  # nor was it taken in another case or with another suffix


class Names:
    """Finds files of a folder by the names that people write of them, in a time that does not grow with the files."""

    def __init__(self, folder: Path, files: Iterable[Path]):
        self._at: dict[str, Path] = {}
        self._exact: dict[str, list[Path]] = defaultdict(list)  # of a/B.JPG: a/B.JPG, B.JPG
        self._typed: dict[str, list[Path]] = defaultdict(list)  # a/b, b
        for file in files:
            path = _spelled(file.relative_to(folder))
            self._at.setdefault(path, file)
            for end in _ends(path):
                self._exact[end].append(file)
                self._typed[_typed(end)].append(file)

    def at(self, path: str) -> Meaning | None:
        """Return what a path in the folder means, None where there is no file."""
        file = self._at.get(_spelled(path))
        return Meaning([file], True, True) if file else None

    def find(self, name: str) -> Meaning:
        """Return the file at a path, else those whose paths end with it, or with it less some of its first folders."""
        if meaning := self.at(name):
            return meaning
        for place, end in enumerate(_ends(_spelled(name))):
            if files := self._exact.get(end):
                return Meaning(files, not place, not place)
            if files := self._typed.get(_typed(end)):
                return Meaning(files, not place)
        return Meaning()


def _spelled(path: PurePath | str) -> str:
    return posixpath.normpath(unicodedata.normalize("NFC", str(path).replace("\\", "/")))


def _ends(path: str) -> list[str]:
    """Return a/b.jpg and b.jpg of a/b.jpg."""
    parts = path.split("/")
    return ["/".join(parts[at:]) for at in range(len(parts))]


def _typed(path: str) -> str:
    return (posixpath.splitext(path)[0] if is_image_name(path) else path).casefold()
