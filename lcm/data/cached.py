"""The copy of a data set that lies elsewhere, in the cache.

Knows that a kill, a broken connection or another process must leave the copy whole: as it was, or as it is to be.
Refuses to know where its files come from.

Of each copy the cache holds, under one name:

    0123…        the copy
    0123….json   what belongs to it: name -> version; written once all of that is here, in the copy or beside it
    0123….new    files that were fetched and are not in the copy yet, each named by the hash of its name and version
    0123….lock   held while one process fetches
"""

import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

Version = tuple[int | None, str]  # of a file: its size in bytes, if that is known, and what changes with its content


class Copy:
    """The files of a data set; used by who holds the lock. Names are paths in it, which the caller has checked."""

    def __init__(self, folder: Path):
        """Read what belongs to the copy in `folder`, if there is one."""
        self.folder, self.new, self._index = folder, folder.with_suffix(".new"), folder.with_suffix(".json")
        self._versions: dict[str, Version] = {}
        with suppress(FileNotFoundError, AttributeError, TypeError, ValueError):  # the others: somebody has edited it
            record = json.loads(self._index.read_text(encoding="utf-8"))
            self._versions = {name: (size, stamp) for name, (size, stamp) in record.items()}

    def staged(self, name: str, version: Version) -> Path:
        """Return where a file lies until it is put into the copy."""
        return self.new / hashlib.sha256(json.dumps([name, *version]).encode()).hexdigest()

    def has(self, name: str, version: Version) -> bool:
        """Return whether the copy holds a file in this version."""
        if self._versions.get(name) != version:
            return False
        path = self.folder / name
        return path.is_file() and version[0] in (None, path.stat().st_size)

    def is_whole(self) -> bool:
        """Return whether there is a copy, with every file that belongs to it."""
        return bool(self._versions) and all(self.has(*one) for one in self._versions.items())

    def adopt(self, versions: dict[str, Version]) -> None:
        """Make the copy hold these files, all of which are in it or beside it, and no others."""
        part = self._index.with_suffix(".json.part")
        part.write_text(json.dumps(versions, indent=0), encoding="utf-8")
        part.replace(self._index)
        self._versions = versions
        self.install()
        shutil.rmtree(self.new, ignore_errors=True)

    def install(self) -> None:
        """Remove what does not belong to the copy, and put what lies beside it in its place; may be done again."""
        if not self._versions:
            return
        for folder, _, names in os.walk(self.folder, topdown=False):
            for path in (Path(folder, name) for name in names):
                if path.relative_to(self.folder).as_posix() not in self._versions:
                    path.unlink()
            with suppress(OSError):  # it is not empty
                Path(folder).rmdir()
        for name, version in self._versions.items():
            if (staged := self.staged(name, version)).exists():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                staged.replace(self.folder / name)
