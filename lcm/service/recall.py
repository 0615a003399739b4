"""Corrections at once: an image that someone has captioned gets that caption, before any training.

An image is the sha256 of its bytes. Copies of it (saved anew, scaled, cut) are found by signatures of what is seen,
then compared themselves, and share the newest caption of all. Only the same photo is helped: see reports/memory.md.

Captions are read from the store when they are asked for, so that what other processes contribute and revoke counts too.
Signatures, which need the image to be encoded, are made after each contribution before its reply, and of the others in
the time that requests leave. Whatever fails here, contributions are stored and images are described, by the model
alone.
"""

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from typing import Any

from lcm.captioning.description import Captioner, Description, SeenImage
from lcm.captioning.tagging import tag_candidates
from lcm.contributions.duplicates import Signatures, is_same
from lcm.contributions.store import Contribution, ContributionStore
from lcm.data.text import ENGLISH, language_code, standardise
from lcm.errors import LcmError
from lcm.service.http import LOG, escape, stack_of
from lcm.service.model_loader import ModelLoader
from lcm.service.schemas import DescribeRequest, Wish

POLL_S = 1.0  # between two looks at the store


class Recall:
    """The captions of a store's images and their copies; safe to call from several threads."""

    def __init__(self, models: ModelLoader, store: ContributionStore):
        self._models, self._store = models, store
        self._signatures: Signatures | None = None  # of the images, by the encoder in use
        self._lock = threading.Lock()  # for their change
        # Of the thread: the contributions whose images may have no signature in `_signed`, the id looked at last.
        self._unsigned, self._signed, self._last = store.contributions(), self._signatures, 0
        self._failure, self._stop = "", threading.Event()

    def start(self) -> None:
        """Begin to sign what there is, in a thread of its own."""
        threading.Thread(target=self._work, daemon=True, name="lcm-recall").start()

    def stop(self) -> None:
        self._stop.set()

    def describe(self, captioner: Captioner, asked: DescribeRequest, language: str, wish: Wish) -> Description:
        """Describe an image as the captioner does in `language`, with the caption that was contributed for it.

        That is the newest in the language of the wish, or in `language`; else, unless the wish names one, the newest of
        all. Its content words are the tags then, unless there are labels or the tag scorer knows none of them. The
        newest English one comes first among the English captions. Raises what the captioner raises.
        """
        image, labels = asked.image, asked.labels
        seen = captioner.see(image) if captioner.encoder else None
        found = self._try(lambda: self._find(captioner, image, seen)) or []
        wanted = wish.choose(one.language for one in found) or language
        fitting = [one for one in found if language_code(one.language) == wanted] or (not wish.is_named and found)
        newest = fitting[-1] if fitting else None
        if newest:
            texts = tag_candidates([newest.caption], None, newest.language, captioner.terms, newest.language)
            unknown = set(captioner.unknown_labels([*texts.values()])) if texts else set()
            labels = labels or {shown: text for shown, text in texts.items() if text not in unknown} or None
            code = language_code(newest.language)
            language = code if code in captioner.languages else captioner.translated_from
        own = captioner.describe(seen or image, asked.samples, labels, language, asked.scores, asked.min_score)
        if english := next((one.caption for one in reversed(found) if language_code(one.language) == ENGLISH), ""):
            others = (other for other in own.english_captions if standardise(other) != standardise(english))
            own = replace(own, english_captions=(english, *others)[: 1 + asked.samples])
        if newest:
            given = {"caption": newest.caption, "language": newest.language, "contribution": newest.id}
            own = replace(own, confidence=None, **given)
        return own

    def learn(self, image: bytes) -> None:
        """Take in what was contributed just now, this image's signature too: the next request finds its copies."""
        self._try(lambda: self._sign(hashlib.sha256(image).hexdigest(), image))

    def _find(self, captioner: Captioner, image: bytes, seen: SeenImage | None) -> list[Contribution]:
        signatures, own = self._signatures, hashlib.sha256(image).hexdigest()
        is_its = seen and signatures and signatures.encoder == captioner.encoder
        found = self._store.of_image(own)
        for each in signatures.copies(seen) if is_its else ():
            its = self._store.of_image(each) if each != own else []
            if its and is_same(image, self._store.read_image(its[0])):
                found += its
        return sorted(found, key=attrgetter("id"))

    def _work(self) -> None:
        while True:
            started = time.monotonic()
            has_signed = self._try(self._sign_next)
            if not has_signed:
                self._try(self._forget)
            # Half of the time is for requests.
            if self._stop.wait(time.monotonic() - started if has_signed else POLL_S):
                return

    def _sign_next(self) -> bool:
        """Make the signature of the next image without one; returns False where there is none just now."""
        _, signatures = self._index()
        if signatures is not self._signed:
            self._signed, self._last, self._unsigned = signatures, 0, self._store.contributions()
        for one in self._unsigned if signatures else ():
            self._last = one.id
            if one.image_sha256 not in signatures and self._store.get(one.id):
                self._sign(one.image_sha256, self._store.read_image(one))
                return True
        self._unsigned = self._store.contributions(self._last)
        return False

    def _forget(self) -> None:
        """Drop the signatures of images that were revoked."""
        for gone in self._store.revoked() if self._signatures else ():
            if gone.image_sha256 in self._signatures and not self._store.of_image(gone.image_sha256):
                self._signatures.remove(gone.image_sha256)

    def _sign(self, image: str, data: bytes) -> None:
        """Make the signature of an image, unless it has one."""
        captioner, signatures = self._index()
        if signatures is not None and image not in signatures:
            signatures.add(image, captioner.see(data))

    def _index(self) -> tuple[Captioner, Signatures] | tuple[None, None]:
        """Return the captioner, if it tells what it sees, and signatures by its encoder; another one begins anew."""
        model = self._models.model
        if not (model and model.captioner.encoder):
            return None, None
        with self._lock:
            if self._signatures is None or self._signatures.encoder != model.captioner.encoder:
                self._signatures = Signatures(model.captioner.encoder)
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
