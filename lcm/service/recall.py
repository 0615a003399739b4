"""Corrections at once: an image that someone has captioned gets that caption, before any training.

An image is the sha256 of its bytes. Copies of it (saved anew, scaled) are found by signatures of what the captioner
sees, and share the newest caption of all. Only copies are helped, not similar images: see reports/memory.md.

The index is filled at the start, after each contribution before its reply, and every second for what other processes
contribute and revoke. Whatever fails here, contributions are stored and images are described, by the model alone.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol

from lcm.captioning.description import Captioner, Description, SeeingCaptioner, SeenImage
from lcm.contributions.duplicates import Signatures
from lcm.contributions.text import is_english
from lcm.data.text import content_words, standardise
from lcm.errors import BadImageError, DataError, LcmError, StoreDamagedError
from lcm.features.encoders import EncoderIdentity
from lcm.service.http import LOG, escape, stack_of
from lcm.service.model_loader import ModelLoader

POLL_S = 1.0  # between two looks at the store
START_WAIT_S = 1.0  # for the first look; 100,000 contributions take longer and are learned while requests are answered
SIGNATURES = Path("memory") / "signatures.sqlite"  # in LCM_HOME


@dataclass(frozen=True)
class Correction:
    """A contributed caption."""

    number: int  # of its contribution: the higher, the newer
    caption: str
    is_english: bool


@dataclass(frozen=True)
class Recalled:
    """What is known of an image that was contributed."""

    newest: Correction
    english: str | None  # the newest caption in English


class CorrectionIndex:
    """Contributed captions by image; safe to call from several threads."""

    def __init__(self) -> None:
        self._by_image: dict[str, dict[int, Correction]] = {}
        self._image_of: dict[int, str] = {}
        self._lock = threading.Lock()
        self._signatures: Signatures | None = None

    def signatures_of(self, encoder: EncoderIdentity | None) -> Signatures | None:
        """Return the signatures in use if they are of this encoder; None: only the same bytes are found again."""
        signatures = self._signatures
        return signatures if signatures and signatures.encoder == encoder else None

    def use(self, signatures: Signatures, on_file: Iterable[str] = ()) -> None:
        """Look for copies by these signatures from now on.

        `on_file` are images whose signatures were in the file before the last contributions were learned: those that
        nobody contributes any more are forgotten.
        """
        with self._lock:
            signatures.remove(set(on_file) - set(self._by_image))
            self._signatures = signatures

    def add(self, image: str, correction: Correction) -> None:
        """Take in a contribution; its image's signature is added apart."""
        with self._lock:
            self._by_image.setdefault(image, {})[correction.number] = correction
            self._image_of[correction.number] = image

    def keep(self, numbers: set[int], last: int) -> None:
        """Forget contributions up to number `last` that are not among these, and images left without one."""
        with self._lock:
            gone = []
            for number in [one for one in self._image_of if one <= last and one not in numbers]:
                image = self._image_of.pop(number)
                del self._by_image[image][number]
                if not self._by_image[image]:
                    del self._by_image[image]
                    gone.append(image)
            if gone and self._signatures:
                self._signatures.remove(gone)

    def unsigned(self) -> list[str]:
        """Return the images that have no signature yet, in the order of arrival; empty while none are used."""
        with self._lock:
            return self._signatures.missing(self._by_image) if self._signatures else []

    def sign(self, image: str, seen: SeenImage, encoder: EncoderIdentity) -> None:
        """Store the signature of a contributed image.

        It gets none when it was revoked meanwhile, or when `encoder`, which has seen it, is no longer the signatures'.
        """
        with self._lock:
            signatures = self.signatures_of(encoder)
            if signatures and image in self._by_image:
                signatures.add(image, seen)

    def find(
        self, image: str, seen: SeenImage | None = None, encoder: EncoderIdentity | None = None
    ) -> Recalled | None:
        """Return what was contributed for an image or for what it is a copy of, None for nothing.

        `encoder` is the one that has seen it.
        """
        signatures = self.signatures_of(encoder)
        copies = signatures.copies(seen) if seen and signatures else []
        with self._lock:
            found = [one for each in {image, *copies} for one in self._by_image.get(each, {}).values()]
        found.sort(key=attrgetter("number"))
        english = [one.caption for one in found if one.is_english]
        return Recalled(found[-1], english[-1] if english else None) if found else None


Find = Callable[[str, SeenImage | None, EncoderIdentity | None], Recalled | None]  # as CorrectionIndex.find


def describe(captioner: Captioner, find: Find, image: bytes, samples: int, labels: Sequence[str] | None) -> Description:
    """Describe an image as the captioner does, with the caption that was contributed for it, if there is one.

    Its content words are the tags then, unless there are `labels` or the tag scorer knows none of them; it comes first
    among the English captions, if it is English. Raises what the captioner and `find` raise.
    """
    seen = captioner.see(image) if isinstance(captioner, SeeingCaptioner) else None
    recalled = find(hashlib.sha256(image).hexdigest(), seen, captioner.encoder if seen else None)
    source = image if seen is None else seen
    if recalled is None:
        return captioner.describe(source, samples, labels)
    english = recalled.english
    words = content_words(english) if english else []
    unknown = set(captioner.unknown_labels(words)) if words else set()
    own = captioner.describe(source, samples, labels or [word for word in words if word not in unknown] or None)
    captions = own.english_captions
    if english:
        others = (other for other in captions if standardise(other) != standardise(english))
        captions = (english, *others)[: 1 + samples]
    return replace(
        own,
        caption=recalled.newest.caption,
        english_captions=captions,
        confidence=None,
        contribution=recalled.newest.number,
    )


class StoreReader(Protocol):
    """What is read of a store of contributions."""

    def state(self) -> tuple[int, int]:
        """Return the highest number that was given and how many were revoked."""
        ...

    def contributions(self, after: int = 0) -> Iterator[Any]:
        """Yield the contributions beyond number `after` in the order of arrival."""
        ...

    def of_image(self, image_sha256: str) -> list[Any]:
        """Return the contributions of one image."""
        ...

    def read_image(self, contribution: Any) -> bytes | None:
        """Return the bytes of a contribution's image."""
        ...


class Recall:
    """The corrections of a store, kept in step with it; safe to call from several threads."""

    def __init__(self, home: Path, models: ModelLoader, store: StoreReader):
        """Take where signatures are stored, what says which captioner answers, and the store; nothing is read yet."""
        self._path, self._models, self._store = home / SIGNATURES, models, store
        self._index = CorrectionIndex()
        self._state = (0, 0)  # of the store, when it was last read
        self._unreadable: set[str] = set()  # images that cannot be signed
        self._failure = ""
        self._reading = threading.Lock()
        self._looked, self._stop = threading.Event(), threading.Event()

    def start(self) -> None:
        """Begin to learn what there is, in a thread of its own; wait a little for the captions."""
        threading.Thread(target=self._work, daemon=True, name="lcm-recall").start()
        self._looked.wait(START_WAIT_S)

    def stop(self) -> None:
        """Learn no more."""
        self._stop.set()

    def describe(self, captioner: Captioner, image: bytes, samples: int, labels: Sequence[str] | None) -> Description:
        """Describe an image, with its contributed caption where there is one."""

        def find(*asked: Any) -> Recalled | None:
            return self._try(lambda: self._index.find(*asked))

        return describe(captioner, find, image, samples, labels)

    def learn(self, image: bytes) -> None:
        """Take in what was contributed just now, this image's signature too: the next request finds it."""
        self._try(lambda: self._learn(image))

    def _learn(self, image: bytes) -> None:
        self._catch_up()
        captioner, digest = self._captioner(), hashlib.sha256(image).hexdigest()
        signatures = self._index.signatures_of(captioner.encoder) if captioner else None
        if captioner and signatures and digest not in signatures:
            self._index.sign(digest, captioner.see(image), captioner.encoder)

    def _captioner(self) -> SeeingCaptioner | None:
        """Return the captioner that answers, if it can tell what it sees."""
        model = self._models.model
        return model.captioner if model and isinstance(model.captioner, SeeingCaptioner) else None

    def _catch_up(self) -> None:
        """Learn what was contributed and forget what was revoked since the last time."""
        with self._reading:
            last, revoked = self._store.state()
            if (last, revoked) == self._state:
                return
            if revoked != self._state[1]:
                self._index.keep({one.id for one in self._store.contributions()}, self._state[0])
            for one in self._store.contributions(after=self._state[0]):
                self._index.add(one.image_sha256, Correction(one.id, one.caption, is_english(one.language)))
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
        captioner = self._captioner()
        if captioner is None or self._index.signatures_of(captioner.encoder):
            self._catch_up()
            return
        signatures = Signatures(self._path, captioner.encoder)
        if not signatures.is_kept:
            LOG.warning("the signatures of contributed images cannot be stored; each start makes them anew")
        on_file = signatures.kept()  # before the contributions, so that each one's contribution can be seen
        self._catch_up()
        self._index.use(signatures, on_file)

    def _sign(self) -> bool:
        """Make the signatures that are missing, half of the time; returns whether there are more after POLL_S."""
        captioner = self._captioner()
        signatures = self._index.signatures_of(captioner.encoder) if captioner else None
        if not (captioner and signatures):
            return False
        end = time.monotonic() + POLL_S
        for image in self._index.unsigned():
            if image in self._unreadable or signatures.adopt(image):
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
            if first := next(iter(self._store.of_image(image)), None):
                self._index.sign(image, captioner.see(self._store.read_image(first)), captioner.encoder)
                return
        except (BadImageError, DataError, StoreDamagedError):
            pass
        self._unreadable.add(image)

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
