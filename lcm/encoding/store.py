"""The feature cache on disk: a file of rows and a file that names them, both only appended to.

Knows how to add rows so that a kill costs some of the newest and never breaks the rest. Refuses to know
images and encoders: a row is numbers under a key.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lcm.errors import DataError

KEY_BYTES = 65  # a line of the keys file: a sha256 in hexadecimal and a line feed
ROWS_BETWEEN_SYNCS = 512  # what a kill can cost


class FeatureStore:
    """Rows of one shape under keys. Rows are forced to disk before the keys that name them.

    One process may write at a time (the caller holds a lock from `recover` to the last `sync`); any may read.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: type):
        """Open or make the store in `folder`; `shape` is that of one row."""
        folder.mkdir(parents=True, exist_ok=True)
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._rows_path, self._keys_path = folder / "rows.bin", folder / "keys.txt"
        self._row_bytes = int(np.prod(shape)) * self.dtype.itemsize
        self._unsynced: list[str] = []
        self._index = self._read_index()

    def __contains__(self, key: str) -> bool:
        return key in self._index

    def _read_index(self) -> dict[str, int]:
        keys = self._keys_path.read_text().split("\n")[:-1] if self._keys_path.exists() else []
        whole_rows = self._rows_path.stat().st_size // self._row_bytes if self._rows_path.exists() else 0
        return {key: row for row, key in enumerate(keys[:whole_rows])}

    def recover(self) -> None:
        """Take in what other processes wrote and cut off what a kill left half written."""
        self._index = self._read_index()
        for path, unit in ((self._rows_path, self._row_bytes), (self._keys_path, KEY_BYTES)):
            path.touch()
            os.truncate(path, len(self._index) * unit)

    def append(self, keys: Sequence[str], rows: np.ndarray) -> None:
        """Add rows [len(keys), *shape]; keys that are there already are passed over."""
        with self._rows_path.open("ab") as file:
            for key, row in zip(keys, rows, strict=True):
                assert row.shape == self.shape, "a row of another shape would shift all later ones"
                if key not in self._index:
                    file.write(np.ascontiguousarray(row, self.dtype).tobytes())
                    self._index[key] = len(self._index)
                    self._unsynced.append(key)
        if len(self._unsynced) >= ROWS_BETWEEN_SYNCS:
            self.sync()

    def sync(self) -> None:
        """Force the appended rows to disk, then their keys."""
        with self._rows_path.open("ab") as file:
            os.fsync(file.fileno())
        with self._keys_path.open("a") as file:
            file.writelines(f"{key}\n" for key in self._unsynced)
            file.flush()
            os.fsync(file.fileno())
        self._unsynced.clear()

    def rows(self, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return all rows, memory-mapped [R, *shape], and where each key's row is among them [len(keys)].

        Raises DataError when a key has no row.
        """
        missing = [key for key in keys if key not in self._index]
        if missing:
            raise DataError(f"the feature cache lacks {len(missing)} of {len(keys)} images; run 01_prepare again")
        places = np.array([self._index[key] for key in keys], dtype=np.int64)
        if not self._index:
            return np.zeros((0, *self.shape), self.dtype), places
        shape = (len(self._index), *self.shape)
        return np.memmap(self._rows_path, self.dtype, mode="r", shape=shape), places
