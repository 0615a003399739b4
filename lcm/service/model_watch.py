"""The model that answers: found, loaded and tried out, however late it arrives.

Knows which folder holds it, when it is worth another try, and that what is loaded stays in memory whatever becomes of
its folder. Refuses to know requests. A newer version is not looked for: publishing will do that.
"""

import hashlib
import io
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lcm.captioning.bundle import MANIFEST
from lcm.captioning.captioners import SHIPPED_BUNDLE, load_captioner
from lcm.captioning.describing import Captioner
from lcm.captioning.scorers import TAG_SCORERS
from lcm.config import resource
from lcm.errors import ConfigError, LcmError
from lcm.service.answers import as_body
from lcm.service.refusals import NotReadyError
from lcm.service.request_log import escape, stack_of
from lcm.service.settings import Settings

POLL_S = 2.0  # between two looks at the folder
RETRY_S = 60.0  # until a folder that did not change is tried again: what failed may have been something else
START_WAIT_S = 5.0  # for the first try; a model loads in one, and an encoder that is made first takes longer
LOG = logging.getLogger("lcm.service")


@dataclass(frozen=True)
class Model:
    """A captioner that is ready."""

    captioner: Captioner
    version: str  # first digits of the hash of its bundle's manifest; empty: it has none
    source: str = "bundle"  # which kind of captioner answers


def find_bundle(settings: Settings) -> Path:
    """Return the folder that holds the model: LCM_BUNDLE, else what models/current points to, else the shipped one.

    `current` is a link to a folder beside it, or a file with that folder's name.
    """
    if settings.bundle:
        return Path(settings.bundle).expanduser().resolve()
    current = settings.home / "models" / "current"
    if current.is_file():
        return current.with_name(Path(current.read_text(encoding="utf-8").strip()).name or "none")
    return current.resolve() if current.exists() or current.is_symlink() else resource(SHIPPED_BUNDLE)


def check_tagger(name: str) -> None:
    """Raise ConfigError for a name that no tag scorer has; whether a checkpoint can be loaded shows when it is."""
    if name not in ("", *TAG_SCORERS) and "/" not in name and not Path(name).is_dir():
        raise ConfigError(
            f"LCM_TAGGER is '{escape(name[:60])}'; choose from {', '.join(TAG_SCORERS)}, or give the name (owner/name) "
            "or the folder of a CLIP checkpoint"
        )


def load_model(settings: Settings) -> Model:
    """Load the model and let it describe one picture, so that it is warm and known to work.

    Raises LcmError when it cannot be loaded or gives no description.
    """
    folder = find_bundle(settings)
    captioner = load_captioner(folder, settings.tagger or None, settings.threads)
    try_out(captioner)
    return Model(captioner, hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:12])


def try_out(captioner: Captioner) -> None:
    """Describe a small picture; raises what goes wrong."""
    from PIL import Image

    file = io.BytesIO()
    Image.linear_gradient("L").save(file, "PNG")
    as_body(captioner.describe(file.getvalue()))


class ModelWatch:
    """The model, or none yet; looks for it in a thread of its own until it is there."""

    def __init__(self, load: Callable[[], Model], folder: Callable[[], Path]):
        """Take how to load a model and where it is going to be; nothing is done before `start`."""
        self._load, self._folder = load, folder
        self._model: Model | None = None
        self._failure = ""  # of the latest try
        self._tried, self._stop = threading.Event(), threading.Event()

    @classmethod
    def of(cls, captioner: Captioner) -> "ModelWatch":
        """Return one that has its model already."""
        watch = cls(lambda: Model(captioner, "", "given"), Path)
        watch.look()
        return watch

    @property
    def model(self) -> Model | None:
        """The model, when it is ready."""
        return self._model

    def require(self) -> Model:
        """Return the model; raises NotReadyError while there is none."""
        if self._model is None:
            raise NotReadyError("no model is loaded")
        return self._model

    def start(self) -> None:
        """Begin to look, in the process that serves (threads do not survive a fork); wait a little for the result."""
        threading.Thread(target=self._watch, daemon=True, name="lcm-model").start()
        self._tried.wait(START_WAIT_S)

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def look(self) -> bool:
        """Try once to load the model; says why in the log when that does not work, and returns whether it did."""
        try:
            self._model = self._load()
        except Exception as error:  # the watch goes on whatever the loading of a damaged model raises
            reason = str(error) if isinstance(error, LcmError | OSError) else stack_of(error)
            if reason != self._failure:
                LOG.error("no model: %s", escape(reason))
            self._failure = reason
        else:
            LOG.info("model %s is ready", escape(self._model.captioner.name))
        self._tried.set()
        return self._model is not None

    def _watch(self) -> None:
        """Try, then try again when the folder has changed, or after RETRY_S, until there is a model."""
        while True:
            seen, again = self._fingerprint(), time.monotonic() + RETRY_S
            if self.look():
                return
            while self._fingerprint() == seen and time.monotonic() < again:
                if self._stop.wait(POLL_S):
                    return

    def _fingerprint(self) -> list[tuple]:
        """Return what tells that the folder has changed: its place, and each file's name, number, size and time."""
        try:
            folder = self._folder()
            files = ((path.name, path.stat()) for path in sorted(folder.iterdir()))
            return [(str(folder),), *((name, at.st_ino, at.st_size, at.st_mtime_ns) for name, at in files)]
        except (OSError, UnicodeDecodeError):  # it is not there, or vanished meanwhile
            return []
