"""Where a data set comes from: the generated sample, a folder of the user's, or an address.

Knows what `data_dir` can be. Refuses to know how any of them is made, fetched or read.
"""

import os
import sys
from pathlib import Path, PurePosixPath

from lcm.config import BASE, SAMPLE
from lcm.data.address import without_login
from lcm.data.captions import Dataset, read_dataset
from lcm.data.remote import fetch
from lcm.data.samples import generate
from lcm.errors import ConfigError, DataError
from lcm.folders import home

VARIABLE = "LCM_DATASET_URL"  # what "base" stands for: a folder or an address


def resolve(data_dir: str) -> str:
    """Return the folder, the address or the "sample" that `data_dir` means: that of LCM_DATASET_URL for "base"."""
    return data_dir if data_dir != BASE else os.environ.get(VARIABLE, "").strip() or SAMPLE


def load_dataset(data_dir: str, captions_file: str = "") -> Dataset:
    """Return the data set of a folder, of an address, whose files are fetched into the cache, or of "sample".

    The sample is drawn on first use; where it stands in for the base data set, stderr says so. Raises DataError when
    there is no data set, ConfigError for an address that cannot be used.
    """
    place = resolve(data_dir)
    if "://" in place:
        return _load_remote(place, VARIABLE if data_dir == BASE else "data_dir", captions_file)
    if place != SAMPLE:
        return read_dataset(Path(place), captions_file)
    if data_dir == BASE:
        print(
            f"lcm: {VARIABLE} is not set, so the generated sample stands in for the base data set; a model that is "
            "trained on it is never published",
            file=sys.stderr,
        )
    return read_dataset(generate(home() / "raw" / SAMPLE), captions_file)


def _load_remote(url: str, setting: str, captions_file: str) -> Dataset:
    if setting != VARIABLE and without_login(url) != url:
        raise ConfigError(
            f"{setting} may not hold credentials, for the notebooks of a run show it; set {VARIABLE} to the address, "
            f"and {setting} to {BASE!r}"
        )
    folder = fetch(url, setting)
    try:
        return read_dataset(folder, captions_file)
    except DataError as error:
        raise DataError(f"{without_login(url)}: {error}") from error


def source_name(data_dir: str) -> str:
    """Return what a bundle says of where its data came from: the folder's own name, never its path or credentials."""
    place = resolve(data_dir)
    if "://" not in place:
        return Path(place).expanduser().resolve().name
    shown = without_login(place)
    return PurePosixPath(shown.partition("://")[2]).name or shown.partition("://")[0]


def as_metrics(data_dir: str) -> dict[str, str | int]:
    """Return what metrics.json says of where the data came from."""
    return {"data_source": source_name(data_dir), "generated_data": int(resolve(data_dir) == SAMPLE)}
