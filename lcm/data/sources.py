"""Where a data set comes from: the generated sample, or a folder of the user's.

Knows what `data_dir` can be. Refuses to know how either is made or read.
"""

from pathlib import Path

from lcm.config import SAMPLE, home
from lcm.data.captions import Dataset, read_dataset
from lcm.data.samples import generate


def load_dataset(data_dir: str, captions_file: str = "") -> Dataset:
    """Return the data set of a folder, or the generated one for "sample", which is drawn on first use.

    Raises DataError when the folder holds no data set.
    """
    folder = generate(home() / "raw" / SAMPLE) if data_dir == SAMPLE else Path(data_dir)
    return read_dataset(folder, captions_file)


def source_name(data_dir: str) -> str:
    """Return what a bundle says of where its data came from: the folder's own name, never its path."""
    return Path(data_dir).resolve().name
