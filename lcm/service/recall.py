"""Corrections at once: an image that someone has captioned gets that caption, before any training.

An image is the sha256 of its bytes. Copies of it (saved anew, scaled) are found by signatures of what the captioner
sees, and share the newest caption of all. Only copies are helped, not similar images: see reports/memory.md.

All of it is read from the store: captions at the start, after each contribution before its reply, and every second for
what other processes contribute and revoke; signatures, which need the image to be encoded, in the time that requests
leave. Whatever fails here, contributions are stored and images are described, by the model alone.
"""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from lcm.captioning.description import Captioner, Description, SeeingCaptioner, SeenImage
from lcm.contributions.duplicates import Signatures
from lcm.contributions.store import ContributionStore
from lcm.data.text import ENGLISH, candidates, language_code, standardise
from lcm.errors import LcmError
from lcm.service.http import LOG, escape, stack_of
from lcm.service.model_loader import ModelLoader
from lcm.service.schemas import DescribeRequest, Wish

POLL_S = 1.0  # between two looks at the store
START_WAIT_S = 1.0  # for the first look; 100,000 contributions take longer and are learned while requests are answered


@dataclass(frozen=True)
class Correction:
    """A contributed caption."""

    number: int  # of its contribution: the higher, the newer
    caption: str
    language: str  # "en", "pt-br"


class Recall:
    """The corrections of a store, kept in step with it; safe to call from several threads."""

    def __init__(self, models: ModelLoader, store: ContributionStore):
        self._models, self._store = models, store
        self._by_image: dict[str, list[Correction]] = {}  # the oldest first
        self._state = (0, 0)  # of the store, when it was last read
        self._signatures: Signatures | None = None  # of the images, by the encoder in use
        self._unsigned: deque[str] = deque()  # images that may have no signature yet
        self._failure = ""
        self._lock = threading.RLock()  # for what changes any of these; who only looks needs none
        self._has_looked, self._stop = threading.Event(), threading.Event()

    def start(self) -> None:
        """Begin to learn what there is, in a thread of its own; wait a little for the captions."""
        threading.Thread(target=self._work, daemon=True, name="lcm-recall").start()
        self._has_looked.wait(START_WAIT_S)

    def stop(self) -> None:
        self._stop.set()

    def describe(self, captioner: Captioner, asked: DescribeRequest, language: str, wish: Wish) -> Description:
        """Describe an image as the captioner does in `language`, with the caption that was contributed for it.

        That is the newest in the language of the wish, or in `language`; else, unless the wish names one, the newest of
        all. Its content words are the tags then, unless there are labels or the tag scorer knows none of them. The
        newest English one comes first among the English captions. Raises what the captioner raises.
        """
        image, labels = asked.image, asked.labels
        seen = captioner.see(image) if isinstance(captioner, SeeingCaptioner) else None
        found = self._try(lambda: self._find(captioner, image, seen)) or []
        wanted = wish.choose(one.language for one in found) or language
        fitting = [one for one in found if language_code(one.language) == wanted] or (not wish.is_named and found)
        newest = fitting[-1] if fitting else None
        if newest:
            words = candidates([newest.caption], newest.language)
            unknown = set(captioner.unknown_labels(words)) if words else set()
            labels = labels or [word for word in words if word not in unknown] or None
            code = language_code(newest.language)
            language = code if code in captioner.languages else captioner.translated_from
        own = captioner.describe(image if seen is None else seen, asked.samples, labels, language)
        if english := next((one.caption for one in reversed(found) if language_code(one.language) == ENGLISH), ""):
            others = (other for other in own.english_captions if standardise(other) != standardise(english))
            own = replace(own, english_captions=(english, *others)[: 1 + asked.samples])
        if newest:
            given = {"caption": newest.caption, "language": newest.language, "contribution": newest.number}
            own = replace(own, confidence=None, **given)
        return own

    def learn(self, image: bytes) -> None:
        """Take in what was contributed just now, this image's signature too: the next request finds it."""
        self._try(self._catch_up)
        self._try(lambda: self._sign(hashlib.sha256(image).hexdigest(), image))

    def _find(self, captioner: Captioner, image: bytes, seen: SeenImage | None) -> list[Correction]:
        signatures = self._signatures
        is_its = seen and signatures and signatures.encoder == captioner.encoder
        images = {hashlib.sha256(image).hexdigest(), *(signatures.copies(seen) if is_its else [])}
        return sorted((one for each in images for one in self._by_image.get(each, [])), key=attrgetter("number"))

    def _catch_up(self) -> None:
        """Learn what was contributed and forget what was revoked since the last time."""
        with self._lock:
            last, revoked = self._store.state()
            if (last, revoked) == self._state:
                return
            known, after = self._by_image, self._state[0]
            if revoked != self._state[1]:
                known, after = {}, 0
            for one in self._store.contributions(after):
                known.setdefault(one.image_sha256, []).append(Correction(one.id, one.caption, one.language))
                if one.id > self._state[0]:
                    self._unsigned.append(one.image_sha256)
            if self._signatures:
                self._signatures.remove(set(self._by_image) - set(known))
            self._by_image, self._state = known, (last, revoked)

    def _work(self) -> None:
        while True:
            self._try(self._catch_up)
            self._has_looked.set()
            started = time.monotonic()
            has_signed = self._try(self._sign_next)
            # Half of the time is for requests.
            if self._stop.wait(time.monotonic() - started if has_signed else POLL_S):
                return

    def _sign_next(self) -> bool:
        _, signatures = self._index()
        while signatures and self._unsigned:
            image = self._unsigned.popleft()
            if image not in signatures and (its := self._store.of_image(image)):
                self._sign(image, self._store.read_image(its[0]))
                return True
        return False

    def _sign(self, image: str, data: bytes) -> None:
        """Make the signature of an image, unless it has one, or is contributed no more."""
        captioner, signatures = self._index()
        if signatures and image not in signatures:
            seen = captioner.see(data)
            with self._lock:
                if image in self._by_image:
                    signatures.add(image, seen)

    def _index(self) -> tuple[SeeingCaptioner, Signatures] | tuple[None, None]:
        """Return the captioner, if it tells what it sees, and signatures by its encoder; another one begins anew."""
        model = self._models.model
        if not (model and isinstance(model.captioner, SeeingCaptioner)):
            return None, None
        with self._lock:
            if self._signatures is None or self._signatures.encoder != model.captioner.encoder:
                self._signatures, self._unsigned = Signatures(model.captioner.encoder), deque(self._by_image)
            return model.captioner, self._signatures

    def _try(self, work: Callable[[], Any]) -> Any:
        """Return what `work` returns, None when it fails; a reason is told once."""
        try:
            return work()
        except Exception as error:  # a failing index must fail no request and stop no thread
            reason = str(error) if isinstance(error, LcmError) else stack_of(error)
            if reason != self._failure:
                LOG.error("contributed captions: %s", escape(reason))
            self._failure = reason
            return None
