"""Checkpoints: everything that training needs to go on after a kill as if nothing had happened.

Knows how variables and history are written so that a file is whole or not there. Refuses to know models:
a variable is an array in a list.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lcm.errors import DataError


def save_checkpoint(path: Path, arrays: Sequence[np.ndarray], record: dict) -> None:
    """Write arrays and a JSON-able record as one .npz file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    named = {f"{place:04}": array for place, array in enumerate(arrays)}
    with temporary.open("wb") as file:
        np.savez(file, record=np.array(json.dumps(record)), **named)
    temporary.replace(path)


def load_checkpoint(path: Path) -> tuple[list[np.ndarray], dict] | None:
    """Return what `save_checkpoint` wrote, or None where there is no file.

    Raises DataError for a damaged file.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = sorted(name for name in stored.files if name != "record")
            return [stored[name] for name in names], json.loads(str(stored["record"]))
    except Exception as error:  # numpy and zipfile have no common class for what they raise
        raise DataError(f"the checkpoint {path} is damaged ({error}); remove it to train from the start") from error
