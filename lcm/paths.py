"""Where things lie: what lcm ships, its state, what can be made again, and the files of one run.

Files that another process may read are written with `write_atomic`: whole or not at all, also when power fails.
"""

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain, takewhile
from pathlib import Path
from typing import BinaryIO, Self

from lcm.errors import ConfigError, DataError

try:
    import fcntl
except ImportError:  # Windows has other locks; there, two that write to one file or folder are not kept apart
    fcntl = None

AGAIN = "put that right and give the same command again, or choose another --out"
PACKAGE_DIR = Path(__file__).resolve().parent
FULL = re.compile(rf"\[Errno ({errno.ENOSPC}|{errno.EDQUOT})\]|\d+ requested and \d+ written")  # the last is numpy's


def packaged_file(relative: str) -> Path:
    """Return a file or folder that lcm ships: in a wheel it lies inside the package, in a clone beside it."""
    in_wheel = PACKAGE_DIR / "shipped" / relative
    return in_wheel if in_wheel.exists() else PACKAGE_DIR.parent / relative


def in_clone(path: str | Path) -> Path:
    """Return a path, from the clone's root where this runs in it: a notebook may run in notebooks/, or in the root."""
    return PACKAGE_DIR.parent / path if Path.cwd().is_relative_to(PACKAGE_DIR.parent) else Path(path)


def home() -> Path:
    """Return the state folder: LCM_HOME, else `data/` of the clone, else the user's data folder."""
    if os.environ.get("LCM_HOME"):
        return Path(os.environ["LCM_HOME"]).expanduser().resolve()
    clone = PACKAGE_DIR.parent
    if (clone / "pyproject.toml").exists():
        return clone / "data"
    import platformdirs

    return Path(platformdirs.user_data_dir("lcm"))


def cache_dir() -> Path:
    """Return the folder of what can be made again, encoders and features: LCM_CACHE, else `cache` in home()."""
    if os.environ.get("LCM_CACHE"):
        return Path(os.environ["LCM_CACHE"]).expanduser().resolve()
    return home() / "cache"


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a new file for writing; at the end it is synced and takes the place of `path`.

    An error or a kill on the way leaves what was there.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file, or leave what was there; text as UTF-8."""
    with open_atomic(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def lock(file: BinaryIO, said: str) -> None:
    """Lock an open file until it is closed; raises ConfigError where another has it, and does what is `said`."""
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigError(f"another {said}; wait for its end, or choose another --out") from None


@contextmanager
def explained(place: object, said: str) -> Iterator[None]:
    """Turn an OSError into a DataError that says what cannot be written; `said` is what stays, and what to do next."""
    try:
        yield
    except OSError as error:
        full = FULL.search(str(error))
        what = f"no space left in {place}" if full else f"cannot write {place} ({error.strerror or error})"
        raise DataError(f"{what}; {said}") from error


def sync_folder(path: Path) -> None:
    """Force to disk what a folder's files are called."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


GATE = "gate.json"  # the gate's decision (06_publish)
DATA = ("dataset.jsonl", "encoded_images.json", "vocabulary.txt", "embedding.npy")
RUN_FOLDER = "RUN_FOLDER"  # stands for it in a verdict's text, so that equal models are equal bundles in any folder
OUTPUTS = {  # notebook -> what it writes into a run's folder, beside its page and its keys of metrics.json
    "01_prepare": (*DATA, "figures/caption_lengths.png"),
    "02_train": ("bundle", "figures/learning_curves.png", "figures/reinforce_curves.png"),
    "03_evaluate": ("bundle", "results.jsonl", "figures/reliability.png"),  # the bundle, with what was measured
    "04_compare": ("comparison.json", "comparison.jsonl", "figures/comparison.png"),
    "06_publish": (GATE,),
}


def newest_first(files: Iterable[Path]) -> list[Path]:
    """Return files in the order of their last change, the latest first; one that is not there is left out."""
    return sorted((path for path in files if path.exists()), key=lambda path: path.stat().st_mtime, reverse=True)


class RunDir:
    """The files of one run: how the notebooks hand work to each other."""

    def __init__(self, path: Path):
        """Name the files in `path`; `at` makes the folder too."""
        self.path = path
        self.dataset = path / "dataset.jsonl"  # images with split and captions, one JSON object a line (01_prepare)
        self.encoded_images = path / "encoded_images.json"  # where each image's features lie in the cache (01_prepare)
        self.vocabulary = path / "vocabulary.txt"  # the words, one a line (01_prepare)
        self.embedding = path / "embedding.npy"  # word vectors, [V, 50] float32 (01_prepare)
        self.checkpoint = path / "checkpoint"  # where training resumes (02_train)
        self.bundle = path / "bundle"  # the exported captioner (02_train)
        self.results = path / "results.jsonl"  # each held-out image with caption and scores, one a line (03_evaluate)
        self.metrics = path / "metrics.json"  # flat object of numbers and strings; every notebook adds its own keys
        self.figures = path / "figures"  # folder of the plots

    @classmethod
    def at(cls, path: str | Path) -> Self:
        """Return the run folder at `path`, as in_clone takes it, made if it is not there."""
        folder = cls(in_clone(path).resolve())
        folder.figures.mkdir(parents=True, exist_ok=True)
        return folder

    def read_metrics(self) -> dict[str, float | str | None]:
        """Return what the notebooks have added to metrics.json so far."""
        return json.loads(self.metrics.read_text(encoding="utf-8")) if self.metrics.exists() else {}

    def add_metrics(self, **values: float | str | None) -> None:
        """Add to metrics.json, atomically: the contract between notebooks, gate, CI and dashboard."""
        known = self.read_metrics() | values
        write_atomic(self.metrics, json.dumps(known, indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    @contextmanager
    def made_anew(self, notebook: str) -> Iterator[Self]:
        """Give a folder for what a notebook writes; at the end it replaces what that and later ones have written.

        An error on the way leaves all as it was. metrics.json keeps what notebooks before have added: the keys of each
        follow one that is its name, and says when it was.
        """
        later = [name for name in OUTPUTS if name >= notebook]
        kept = dict(takewhile(lambda one: one[0] not in later, self.read_metrics().items()))
        shutil.rmtree(self.path / ".new", ignore_errors=True)  # what a kill has left
        new = self.at(self.path / ".new")
        try:
            new.add_metrics(**kept, **{notebook: datetime.now(UTC).isoformat(timespec="seconds")})
            yield new
            old = [f"{name}.{kind}" for name in later[1:] for kind in ("ipynb", "html")]
            for path in (self.path / name for name in chain(old, *map(OUTPUTS.get, later))):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            for name in filter(lambda name: (new.path / name).exists(), (new.metrics.name, *OUTPUTS[notebook])):
                (new.path / name).replace(self.path / name)
        finally:
            shutil.rmtree(new.path, ignore_errors=True)
