"""Learning at once: the memory of contributed captions, kept in step with the store.

Knows when the memory is filled: at the start, after each contribution before its reply, and every second for what other
processes contribute and revoke. Refuses to know how copies are found and HTTP. Whatever fails here, contributions are
kept and images are described, by the model alone.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcm.captioning.description import Captioner, Description, SeeingCaptioner, SeenImage
from lcm.captioning.memory import Memory, Recalled, Remembered, describe
from lcm.contributions.duplicates import Signatures
from lcm.contributions.text import is_english
from lcm.errors import BadImageError, LcmError
from lcm.features.encoders import EncoderIdentity
from lcm.service.model_watch import ModelWatch
from lcm.service.request_log import escape, stack_of
from lcm.service.settings import Settings

if TYPE_CHECKING:
    from lcm.contributions.reader import StoreReader

POLL_S = 1.0  # between two looks at the store
START_WAIT_S = 1.0  # for the first look; 100,000 contributions take longer and are learned while requests are answered
SIGNATURES = Path("memory") / "signatures.sqlite"  # in LCM_HOME
LOG = logging.getLogger("lcm.service")


def open_learner(settings: Settings, watch: ModelWatch, store: object) -> "Learner | None":
    """Return what learns from a store, at work; None when it is switched off, or the store cannot be read."""
    from lcm.contributions.reader import StoreReader

    if not (settings.memory and isinstance(store, StoreReader)):
        return None
    learner = Learner(settings.home / SIGNATURES, watch, store)
    learner.start()
    return learner


class Learner:
    """The memory of a store's captions; safe to call from several threads."""

    def __init__(self, path: Path, watch: ModelWatch, store: "StoreReader"):
        """Take where signatures are kept, what says which captioner answers, and the store; nothing is read yet."""
        self._path, self._watch, self._store = path, watch, store
        self._memory = Memory()
        self._state = (0, 0)  # of the store, when it was last read
        self._passed_over: set[str] = set()  # images whose files cannot be read
        self._failure = ""
        self._reading = threading.Lock()
        self._looked, self._stop = threading.Event(), threading.Event()

    def start(self) -> None:
        """Begin to learn what there is, in a thread of its own; wait a little for the captions."""
        threading.Thread(target=self._work, daemon=True, name="lcm-learning").start()
        self._looked.wait(START_WAIT_S)

    def stop(self) -> None:
        """Learn no more."""
        self._stop.set()

    def describe(self, captioner: Captioner, image: bytes, samples: int, labels: Sequence[str] | None) -> Description:
        """Describe an image, with its contributed caption where there is one."""
        return describe(captioner, self._recall, image, samples, labels)

    def learn(self, image: bytes) -> None:
        """Take in what was contributed just now, this image's signature too: the next request finds it."""
        self._try(lambda: self._learn(image))

    def _recall(self, image: str, seen: SeenImage | None, encoder: EncoderIdentity | None) -> Recalled | None:
        return self._try(lambda: self._memory.recall(image, seen, encoder))

    def _learn(self, image: bytes) -> None:
        self._catch_up()
        digest, captioner, signatures = hashlib.sha256(image).hexdigest(), self._captioner(), self._memory.signatures
        if captioner and signatures and signatures.encoder == captioner.encoder and digest not in signatures:
            self._memory.sign(digest, captioner.see(image), captioner.encoder)

    def _captioner(self) -> SeeingCaptioner | None:
        """Return the captioner that answers, if it can tell what it sees."""
        model = self._watch.model
        return model.captioner if model and isinstance(model.captioner, SeeingCaptioner) else None

    def _catch_up(self) -> None:
        """Learn what was contributed and forget what was revoked since the last time."""
        with self._reading:
            last, revoked = self._store.state()
            if (last, revoked) == self._state:
                return
            for one in self._store.contributions(after=self._state[0]):
                self._memory.learn(one.image_sha256, Remembered(one.id, one.caption, is_english(one.language)))
            if revoked != self._state[1]:
                self._memory.forget(line.id for line in self._store.revocations())
            self._state = last, revoked

    def _work(self) -> None:
        while True:
            self._try(self._look)
            self._looked.set()
            has_more = self._try(self._sign)
            if self._stop.wait(0 if has_more else POLL_S):
                return

    def _look(self) -> None:
        """Catch up, with the signatures of the encoder that is in use by now."""
        captioner, signatures = self._captioner(), self._memory.signatures
        if captioner is None or (signatures and signatures.encoder == captioner.encoder):
            self._catch_up()
            return
        signatures = Signatures(self._path, captioner.encoder)
        if not signatures.is_kept:
            LOG.warning("the signatures of contributed images cannot be kept; each start makes them anew")
        kept = signatures.kept()  # before the contributions, so that each one's contribution can be seen
        self._catch_up()
        self._memory.use(signatures, kept)

    def _sign(self) -> bool:
        """Make the signatures that are missing, half of the time; returns whether there are more after POLL_S."""
        captioner, signatures = self._captioner(), self._memory.signatures
        if not (captioner and signatures and signatures.encoder == captioner.encoder):
            return False
        end = time.monotonic() + POLL_S
        for image in self._memory.unsigned():
            if image in self._passed_over or signatures.adopt(image):
                continue
            started = time.monotonic()
            if started > end:
                return True
            self._sign_one(captioner, image)
            if self._stop.wait(time.monotonic() - started):  # the other half is for requests
                break
        return False

    def _sign_one(self, captioner: SeeingCaptioner, image: str) -> None:
        try:
            first = next(iter(self._store.of_image(image)), None)
            data = self._store.read_image(first) if first else None
            if data is not None:
                self._memory.sign(image, captioner.see(data), captioner.encoder)
                return
        except BadImageError:
            pass
        self._passed_over.add(image)

    def _try(self, work: Callable[[], Any]) -> Any:
        """Return what `work` returns, None when it fails; a reason is told once."""
        try:
            return work()
        except Exception as error:  # a memory that fails must fail no request and stop no thread
            reason = str(error) if isinstance(error, LcmError) else stack_of(error)
            if reason != self._failure:
                LOG.error("contributed captions: %s", escape(reason))
            self._failure = reason
            return None
