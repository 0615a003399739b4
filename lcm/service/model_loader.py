"""The model that answers: loaded and tried out, however late it arrives, and replaced by a newer one under load.

A thread looks at the model's folder every POLL_S. Once its files have changed and then stood still for one more look,
so that nobody is writing, the bundle there is loaded beside the one that answers; its hashes are checked and it must
pass the smoke test. Only then does it take the other's place, by one assignment. If anything is wrong, or the files
changed meanwhile, the old one stays, whatever becomes of its folder; the log says why in one line, as an error only
where what stands there cannot be loaded, and the folder is tried again when its files change. Where no model answers
yet, the newest earlier version that works takes the place of a current one that does not.

A request takes the `Model` once, so that an answer comes from one version; the old one is freed after the last request
that holds it. A graph that crashes the interpreter is not contained: `lcm models publish` tries each bundle out in its
own process first.
"""

import ctypes
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lcm.captioning.captioner import current_version, find_bundle, load_tested, version_folder
from lcm.captioning.description import Captioner
from lcm.captioning.taggers import TAG_SCORERS
from lcm.captioning.terms import Terms
from lcm.errors import BundleError, ConfigError, LcmError
from lcm.registry import read_history, short_digest, versions_before
from lcm.service.http import LOG, escape, stack_of
from lcm.service.schemas import RefusedError
from lcm.service.settings import Settings

POLL_S = 0.5  # between two looks at the folder; a newer model is in use some two seconds after it was made current
RETRY_S = 60.0  # while no model answers, until a folder that did not change is tried again
START_WAIT_S = 5.0  # for the first try; a model loads in one
CHANGED = "another model was taken back, or changed, while it was loaded; what is current now is looked at next"
State = tuple[tuple, ...]  # path, number, size and times of each file of a bundle


@dataclass(frozen=True)
class Model:
    """A captioner that is ready."""

    captioner: Captioner
    version: str = ""  # first digits of the hash of its bundle's manifest; empty: it was given


class ModelLoader:
    """The model, or none yet; looks for it, and for a newer one, in a thread of its own."""

    def __init__(self, settings: Settings, captioner: Captioner | None = None):
        """Take what the settings name, or a captioner that stays; raises ConfigError for a tagger that is none."""
        name = settings.tagger
        if name not in ("", *TAG_SCORERS) and "/" not in name and not Path(name).is_dir():
            raise ConfigError(
                f"LCM_TAGGER is '{escape(name[:60])}'; choose from {', '.join(TAG_SCORERS)}, or give the name "
                "(owner/name) or the folder of a CLIP checkpoint"
            )
        self._settings, self._models, self._is_fixed = settings, settings.home / "models", captioner is not None
        self._terms = Terms(settings.vocabulary) if settings.vocabulary else None
        if captioner:
            captioner.translator_names, captioner.terms = settings.translator, self._terms
        self.model = Model(captioner) if captioner else None
        self._loaded: State | None = None  # of the folder that the model is from
        self._seen: State | None = None  # at the latest look
        self._refused: State | None = None  # at the latest try, which failed
        self._failure, self._failed_at = "", 0.0  # of that try
        self._old: weakref.ref[Model] | None = None  # that was replaced, and may still be in use
        self._tried, self._stop = threading.Event(), threading.Event()

    @property
    def problem(self) -> str:
        """Why the model is not the one that is current now, in general; empty: it is."""
        is_other = self.model and self._failure
        return "another model is current and cannot be loaded; the log of the service says why" if is_other else ""

    def require(self) -> Model:
        if model := self.model:
            return model
        raise RefusedError(503, "no model is loaded yet, so images cannot be described; try again a little later", 5)

    def start(self) -> None:
        """Begin to look; wait a little for the first try."""
        if not self._is_fixed:
            threading.Thread(target=self._watch, daemon=True, name="lcm-model").start()
            self._tried.wait(START_WAIT_S)

    def stop(self) -> None:
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
        if self.model and state == self._loaded:  # also after another one was there that did not work
            self._failure, self._refused = "", None
        elif self.model and state != before:
            return  # somebody may still be writing
        elif state != self._refused or (not self.model and time.monotonic() > self._failed_at + RETRY_S):
            self._try(state)

    def _try(self, state: State) -> None:
        """Load and swap; where that does not work, say so in the log, unless that was said the last time."""
        try:
            model = self._load(self._find())
            if self._state() != state:
                raise BundleError(CHANGED)
        except Exception as error:  # whatever the loading of a damaged model raises, the watch continues
            if self.model and self._state() != state:  # taken back, or still being written: nothing is at fault
                LOG.info("%s stays: %s", escape(self.model.captioner.name), CHANGED)
                return
            reason = str(error) if isinstance(error, LcmError | OSError) else stack_of(error)
            kept = f"{self.model.captioner.name} stays" if self.model else self._fall_back()
            if self.model or reason != self._failure:
                LOG.error("%s: %s", escape(kept), escape(reason))
            self._failure, self._refused, self._failed_at = reason, state, time.monotonic()
        else:
            self._old = weakref.ref(self.model) if self.model else None
            self.model, self._loaded, self._failure, self._refused = model, state, "", None
            where = f" on {model.captioner.runs_on}" if model.captioner.runs_on else ""
            LOG.info("model %s is ready%s", escape(model.captioner.name), where)

    def _load(self, folder: Path) -> Model:
        captioner = load_tested(folder, self._settings.tagger or None, self._settings.threads)
        captioner.translator_names, captioner.terms = self._settings.translator, self._terms
        return Model(captioner, short_digest(folder))

    def _fall_back(self) -> str:
        """Load the nearest version that a rollback would go back to and that works; returns what became of that."""
        with suppress(OSError):  # the history, or `current`, cannot be read
            earlier = versions_before(read_history(self._models), current_version(self._models))
            for version in [] if self._settings.bundle else earlier:
                with suppress(Exception):  # as in _try; `lcm models list` says what is damaged
                    self.model = self._load(version_folder(self._models, version))
                    return f"{self.model.captioner.name}, an earlier version, answers"
        return "no model"

    def _find(self) -> Path:
        return find_bundle(self._settings.bundle or None, self._models)

    def _state(self) -> State:
        """Return what tells that the bundle is another one; empty where it is not there."""
        with suppress(OSError, LcmError):
            files = [(path, path.stat()) for path in sorted(self._find().iterdir())]
            return tuple((path, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns) for path, at in files)
        return ()


def _trim() -> None:
    """Give the memory of a model that is gone back to the system: glibc keeps it (over 24 MB after 24 swaps)."""
    with suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
