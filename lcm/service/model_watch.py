"""The model that answers: found, loaded and tried out, however late it arrives, and replaced by a newer one.

Knows which folder holds it, when that is worth another try, and that what is loaded stays in memory whatever becomes of
its folder. Refuses to know requests.

A thread looks at the folder every POLL_S: where `current` leads, and what its files' numbers, sizes and times are. Once
that has changed and then stood still for one more look, so that nobody is writing, the bundle there is loaded beside
the one that answers, its hashes are checked, and it must pass the self-test. Only then does it take the other's place,
by one assignment. If anything is off, or the files changed meanwhile, the old one stays; the log says why in one line,
and GET /healthz that what is current does not work.

Where no model answers yet, after a start, the newest earlier version that works takes the place of a current one that
does not, until that is repaired or another one is made current.

Not contained is a graph that crashes the interpreter or never ends: `lcm models publish` tries each bundle out in its
own process first, so that such a one is hardly current unless it was put there by hand.

A request takes the `Model` once and keeps it until its answer is sent, so an answer comes from one version, and the old
one is freed, its sessions with it, after the last request that holds it. There is one serving process; when it is
started anew, it has what is current then.
"""

import hashlib
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lcm.captioning.bundle import MANIFEST
from lcm.captioning.captioner import current_folder, current_version, load_tested, version_folder
from lcm.captioning.description import Captioner
from lcm.captioning.taggers import TAG_SCORERS
from lcm.errors import BundleError, ConfigError, LcmError
from lcm.registry import read_history, versions_before
from lcm.service.heap import trim
from lcm.service.refusals import NotReadyError
from lcm.service.request_log import escape, stack_of
from lcm.service.settings import Settings

POLL_S = 0.5  # between two looks at the folder; a newer model is in use some two seconds after it was made current
RETRY_S = 60.0  # until a folder that did not change is tried again: what failed may have been something else
TRIES = 5  # of a folder that did not change while another model answers (as TensorFlow Serving, a minute apart)
START_WAIT_S = 5.0  # for the first try; a model loads in one, and an encoder that is made first takes longer
VERSION_DIGITS = 12
LOG = logging.getLogger("lcm.service")
Seen = tuple[tuple, ...]  # what a folder looked like


@dataclass(frozen=True)
class Model:
    """A captioner that is ready."""

    captioner: Captioner
    version: str  # first VERSION_DIGITS digits of the hash of its bundle's manifest; empty: it has none
    source: str = "bundle"  # which kind of captioner answers


def find_bundle(settings: Settings) -> Path:
    """Return the folder that holds the model: LCM_BUNDLE, else that of the current version."""
    if settings.bundle:
        return Path(settings.bundle).expanduser().resolve()
    return current_folder(settings.home / "models")


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
    """Load the model in a folder and let it pass the self-test; raises LcmError when it does not."""
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest() if (folder / MANIFEST).is_file() else ""
    return Model(load_tested(folder, settings.tagger or None, settings.threads), digest[:VERSION_DIGITS])


class ModelWatch:
    """The model, or none yet; looks for it, and for a newer one, in a thread of its own."""

    def __init__(
        self, load: Callable[[Path], Model], folder: Callable[[], Path], earlier: Callable[[], Iterable[Path]] = tuple
    ):
        """Take how to load a model, where it is going to be, and where earlier ones are, the best first.

        Nothing is done before `start`.
        """
        self._load, self._folder, self._earlier = load, folder, earlier
        self._model: Model | None = None
        self._loaded: Seen = ()  # what the folder looked like that the model is from
        self._glimpsed: Seen = ()  # at the latest look
        self._refused: Seen = ()  # at the latest try that failed
        self._tries, self._again = 0, 0.0  # of what was refused: how many, and when the next one is due
        self._failure = ""  # of the latest try
        self._old: weakref.ref[Model] | None = None  # that was replaced, and may still be in use
        self._tried, self._stop = threading.Event(), threading.Event()

    @classmethod
    def of(cls, captioner: Captioner) -> "ModelWatch":
        """Return one that has its model already, and looks for no other."""
        watch = cls(lambda _: watch.require(), Path)
        watch._model = Model(captioner, "", "given")
        LOG.info("model %s is ready", escape(captioner.name))
        return watch

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
        model = self._model
        if model is None:
            raise NotReadyError("no model is loaded")
        return model

    def start(self) -> None:
        """Begin to look, in the process that serves (threads do not survive a fork); wait a little for the result."""
        threading.Thread(target=self._watch, daemon=True, name="lcm-model").start()
        self.wait(START_WAIT_S)

    def wait(self, limit_s: float) -> None:
        """Wait until a model has been tried, or is there, but not for longer than that."""
        if not self._model:
            self._tried.wait(limit_s)

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
            trim()
        folder, seen = self._look_at_folder()
        glimpsed, self._glimpsed = self._glimpsed, seen
        if self._model and seen == self._loaded:  # also after another one was there that did not work
            self._failure, self._refused = "", ()
        elif self._model and seen != glimpsed:
            return  # somebody may still be writing
        elif seen != self._refused or self._is_due():
            self._try(folder, seen)

    def _is_due(self) -> bool:
        """Whether what was refused may be tried again: forever while there is no model, else a few times."""
        return time.monotonic() >= self._again and not (self._model and self._tries >= TRIES)

    def _try(self, folder: Path, seen: Seen) -> None:
        """Load and swap; where that does not work, say so in the log, unless that was said the last time.

        An earlier model takes the place of none.
        """
        try:
            model = self._load(folder)
            if self._look_at_folder() != (folder, seen):
                raise BundleError(f"{folder} changed while it was loaded; it is tried again once it stands still")
        except Exception as error:  # the watch goes on whatever the loading of a damaged model raises
            reason = str(error) if isinstance(error, LcmError | OSError) else stack_of(error)
            before = self._model
            kept = f"{before.captioner.name} stays" if before else self._fall_back()
            if reason != self._failure or self._model is not before:
                LOG.error("%s: %s", escape(kept), escape(reason))
            self._tries = self._tries + 1 if seen == self._refused else 1
            self._failure, self._refused, self._again = reason, seen, time.monotonic() + RETRY_S
        else:
            self._old = weakref.ref(self._model) if self._model else None
            self._model, self._loaded, self._failure, self._refused = model, seen, "", ()
            LOG.info("model %s is ready", escape(model.captioner.name))

    def _fall_back(self) -> str:
        """Load the best earlier model that works; returns what has become of that."""
        with suppress(OSError):  # the history, or `current`, cannot be read
            for folder in self._earlier():
                with suppress(Exception):  # as in _try; `lcm models list` says what is damaged
                    self._model = self._load(folder)
                    return f"{self._model.captioner.name}, an earlier version, answers"
        return "no model"

    def _look_at_folder(self) -> tuple[Path, Seen]:
        """Return the folder, and what tells that it has changed: each file's name, number, size and times."""
        folder = Path()
        try:
            folder = self._folder()
            files = ((path.name, path.stat()) for path in sorted(folder.iterdir()))
            times = ((name, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns) for name, at in files)
            return folder, ((str(folder),), *times)
        except OSError:  # it is not there, or vanished meanwhile
            return folder, ((str(folder),),)
