"""The model that answers: loaded and tried out, however late it arrives, and replaced by a newer one under load.

A thread looks at the model's folder every POLL_S. Once its files have changed and then stood still for one more look,
so that nobody is writing, the bundle there is loaded beside the one that answers; its hashes are checked and it must
pass the smoke test. Only then does it take the other's place, by one assignment. If anything is wrong, or the files
changed meanwhile, the old one stays, whatever becomes of its folder; the log says why in one line. Where no model
answers yet, the newest earlier version that works takes the place of a current one that does not.

A request takes the `Model` once, so that an answer comes from one version; the old one is freed after the last request
that holds it. A graph that crashes the interpreter is not contained: `lcm models publish` tries each bundle out in its
own process first.
"""

import ctypes
import hashlib
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from lcm.captioning.bundle import MANIFEST
from lcm.captioning.captioner import current_version, find_bundle, load_tested, version_folder
from lcm.captioning.description import Captioner
from lcm.captioning.taggers import TAG_SCORERS
from lcm.errors import BundleError, ConfigError, LcmError
from lcm.registry import read_history, versions_before
from lcm.service.http import LOG, escape, stack_of
from lcm.service.schemas import NotReadyError
from lcm.service.settings import Settings

POLL_S = 0.5  # between two looks at the folder; a newer model is in use some two seconds after it was made current
RETRY_S = 60.0  # until a folder that did not change is tried again: what failed may have been something else
TRIES = 5  # of a folder that did not change while another model answers (as TensorFlow Serving, a minute apart)
START_WAIT_S = 5.0  # for the first try; a model loads in one
VERSION_DIGITS = 12
State = tuple[Path, tuple[tuple, ...]]  # a folder, and each file's name, number, size and times


@dataclass(frozen=True)
class Model:
    """A captioner that is ready."""

    captioner: Captioner
    version: str  # first VERSION_DIGITS digits of the hash of its bundle's manifest; empty: it has none
    source: str = "bundle"  # which kind of captioner answers


def earlier_bundles(settings: Settings) -> list[Path]:
    """Return the folders of the versions that a rollback would go back to, the nearest first; none with LCM_BUNDLE."""
    if settings.bundle:
        return []
    models = settings.home / "models"
    return [version_folder(models, one) for one in versions_before(read_history(models), current_version(models))]


def check_tagger(name: str) -> None:
    """Raise ConfigError for a name that no tag scorer has; whether a checkpoint can be loaded shows when it is."""
    if name not in ("", *TAG_SCORERS) and "/" not in name and not Path(name).is_dir():
        raise ConfigError(
            f"LCM_TAGGER is '{escape(name[:60])}'; choose from {', '.join(TAG_SCORERS)}, or give the name (owner/name) "
            "or the folder of a CLIP checkpoint"
        )


def load_model(settings: Settings, folder: Path) -> Model:
    """Load the model in a folder and let it pass the smoke test; raises LcmError when it does not."""
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest() if (folder / MANIFEST).is_file() else ""
    return Model(load_tested(folder, settings.tagger or None, settings.threads), digest[:VERSION_DIGITS])


class ModelLoader:
    """The model, or none yet; looks for it, and for a newer one, in a thread of its own."""

    def __init__(
        self,
        load: Callable[[Path], Model],
        find: Callable[[], Path],
        earlier: Callable[[], Iterable[Path]] = tuple,
        model: Model | None = None,
    ):
        """Take how to load a model, where it is going to be, and where earlier ones are, the best first.

        With a `model` no other one is looked for. Nothing is done before `start`.
        """
        self._load, self._find, self._earlier = load, find, earlier
        self._is_fixed, self._model = model is not None, model
        self._loaded: State | None = None  # of the folder that the model is from
        self._seen: State | None = None  # at the latest look
        self._refused: State | None = None  # at the latest try that failed
        self._tries, self._retry_at = 0, 0.0  # of what was refused
        self._failure = ""  # of the latest try
        self._old: weakref.ref[Model] | None = None  # that was replaced, and may still be in use
        self._tried, self._stop = threading.Event(), threading.Event()

    @classmethod
    def of(cls, captioner: Captioner) -> Self:
        """Return one that has its model already."""
        return cls(_load_nothing, Path, model=Model(captioner, "", "given"))

    @classmethod
    def of_settings(cls, settings: Settings) -> Self:
        """Return one that loads what the settings name."""
        find = partial(find_bundle, settings.bundle or None, settings.home / "models")
        return cls(partial(load_model, settings), find, partial(earlier_bundles, settings))

    @property
    def model(self) -> Model | None:
        """The model, when it is ready."""
        return self._model

    @property
    def problem(self) -> str:
        """Why the model is not the one that is current now, in general; empty: it is."""
        is_other = self._model and self._failure
        return "another model is current and cannot be loaded; the log of the service says why" if is_other else ""

    def require(self) -> Model:
        """Return the model; raises NotReadyError while there is none."""
        if model := self._model:
            return model
        raise NotReadyError("no model is loaded")

    def start(self) -> None:
        """Begin to look; wait a little for the first try."""
        if not self._is_fixed:
            threading.Thread(target=self._watch, daemon=True, name="lcm-model").start()
            self._tried.wait(START_WAIT_S)

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._tried.set()
            self._stop.wait(POLL_S)

    def look(self) -> None:
        """Look at the folder once, and load the model in it if it is another one that is worth a try."""
        if self._old and self._old() is None:
            self._old = None
            _trim()
        state = self._state()
        before, self._seen = self._seen, state
        if self._model and state == self._loaded:  # also after another one was there that did not work
            self._failure, self._refused = "", None
        elif self._model and state != before:
            return  # somebody may still be writing
        elif state != self._refused or self._is_due():
            self._try(state)

    def _is_due(self) -> bool:
        """Whether what was refused may be tried again: forever while there is no model, else a few times."""
        return time.monotonic() >= self._retry_at and not (self._model and self._tries >= TRIES)

    def _try(self, state: State) -> None:
        """Load and swap; where that does not work, say so in the log, unless that was said the last time."""
        folder, _ = state
        try:
            model = self._load(folder)
            if self._state() != state:
                raise BundleError(f"{folder} changed while it was loaded; it is tried again once it stands still")
        except Exception as error:  # whatever the loading of a damaged model raises, the watch continues
            reason = str(error) if isinstance(error, LcmError | OSError) else stack_of(error)
            before = self._model
            kept = f"{before.captioner.name} stays" if before else self._fall_back()
            if reason != self._failure or self._model is not before:
                LOG.error("%s: %s", escape(kept), escape(reason))
            self._tries = self._tries + 1 if state == self._refused else 1
            self._failure, self._refused, self._retry_at = reason, state, time.monotonic() + RETRY_S
        else:
            self._old = weakref.ref(self._model) if self._model else None
            self._model, self._loaded, self._failure, self._refused = model, state, "", None
            LOG.info("model %s is ready", escape(model.captioner.name))

    def _fall_back(self) -> str:
        """Load the best earlier model that works; returns what has become of that."""
        with suppress(OSError):  # the history, or `current`, cannot be read
            for folder in self._earlier():
                with suppress(Exception):  # as in _try; `lcm models list` says what is damaged
                    self._model = self._load(folder)
                    return f"{self._model.captioner.name}, an earlier version, answers"
        return "no model"

    def _state(self) -> State:
        """Return the folder, and what tells that it has changed."""
        folder = Path()
        try:
            folder = self._find()
            files = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
        except OSError:  # it is not there, or vanished meanwhile
            return folder, ()
        return folder, tuple((name, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns) for name, at in files)


def _trim() -> None:
    """Give the memory of a model that is gone back to the system: glibc keeps it (30 MB after 26 swaps, measured)."""
    with suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _load_nothing(folder: Path) -> Model:
    raise BundleError(f"no model is loaded from {folder}: the one that was given stays")
