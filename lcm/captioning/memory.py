"""Contributed captions found again: an image that someone has captioned gets that caption, before any training.

Knows which captions each contributed image has, that copies of one image share the newest of all, and what a
description is made of then. Refuses to know the store, HTTP, and how copies are told.

Only copies are helped, not similar images: see reports/memory.md.
"""

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from lcm.captioning.description import Captioner, Description, SeeingCaptioner, SeenImage
from lcm.contributions.duplicates import Signatures
from lcm.data.text import content_words, standardise
from lcm.features.encoders import EncoderIdentity


@dataclass(frozen=True)
class Remembered:
    """A contributed caption."""

    number: int  # of its contribution: the higher, the newer
    caption: str
    is_english: bool


@dataclass(frozen=True)
class Recalled:
    """What is known of an image that was contributed."""

    newest: Remembered
    english: str | None  # the newest caption in English


class Memory:
    """Contributed captions by image, an image being the sha256 of its bytes; safe to call from several threads."""

    def __init__(self) -> None:
        self._by_image: dict[str, dict[int, Remembered]] = {}
        self._image_of: dict[int, str] = {}
        self._lock = threading.Lock()
        self._signatures: Signatures | None = None

    @property
    def signatures(self) -> Signatures | None:
        """Of the images, by the current encoder; None: only the same bytes are found again."""
        return self._signatures

    def use(self, signatures: Signatures, kept: Iterable[str] = ()) -> None:
        """Look for copies by these signatures from now on.

        `kept` are images whose signatures were in the file before the last contributions were learned: those that
        nobody contributes any more are forgotten.
        """
        with self._lock:
            signatures.remove(set(kept) - set(self._by_image))
            self._signatures = signatures

    def learn(self, image: str, remembered: Remembered) -> None:
        """Take in a contribution; its image's signature is added apart."""
        with self._lock:
            self._by_image.setdefault(image, {})[remembered.number] = remembered
            self._image_of[remembered.number] = image

    def forget(self, numbers: Iterable[int]) -> None:
        """Take contributions out, and the signature of an image that has none any more."""
        with self._lock:
            gone = []
            for number in numbers:
                image = self._image_of.pop(number, None)
                if image is not None:
                    del self._by_image[image][number]
                    if not self._by_image[image]:
                        del self._by_image[image]
                        gone.append(image)
            if gone and self._signatures:
                self._signatures.remove(gone)

    def unsigned(self) -> list[str]:
        """Return the images that have no signature yet, in the order of arrival; none while none are used."""
        with self._lock:
            return self._signatures.missing(self._by_image) if self._signatures else []

    def sign(self, image: str, seen: SeenImage, encoder: EncoderIdentity) -> None:
        """Keep the signature of a contributed image.

        It gets none when it was revoked meanwhile, or when `encoder`, which has seen it, is no longer the signatures'.
        """
        with self._lock:
            if image in self._by_image and self._signatures and self._signatures.encoder == encoder:
                self._signatures.add(image, seen)

    def recall(
        self, image: str, seen: SeenImage | None = None, encoder: EncoderIdentity | None = None
    ) -> Recalled | None:
        """Return what was contributed for an image or for what it is a copy of, None for nothing.

        `encoder` is the one that has seen it.
        """
        signatures = self._signatures
        copies = signatures.copies(seen) if seen and signatures and signatures.encoder == encoder else []
        with self._lock:
            found = [one for each in {image, *copies} for one in self._by_image.get(each, {}).values()]
        if not found:
            return None
        english = [one for one in found if one.is_english]
        newest = max(found, key=_number)
        return Recalled(newest, max(english, key=_number).caption if english else None)


def _number(remembered: Remembered) -> int:
    return remembered.number


Recall = Callable[[str, SeenImage | None, EncoderIdentity | None], Recalled | None]  # as Memory.recall


def describe(
    captioner: Captioner, recall: Recall, image: bytes, samples: int, labels: Sequence[str] | None
) -> Description:
    """Describe an image as the captioner does, with the caption that was contributed for it, if there is one.

    Its content words are the tags then, unless there are `labels` or the tag scorer knows none of them; it comes first
    among the English captions, if it is English. Raises what the captioner and `recall` raise.
    """
    seen = captioner.see(image) if isinstance(captioner, SeeingCaptioner) else None
    recalled = recall(hashlib.sha256(image).hexdigest(), seen, captioner.encoder if seen else None)
    source = image if seen is None else seen
    if recalled is None:
        return captioner.describe(source, samples, labels)
    words = labels or _known_words(captioner, recalled.english) or None
    said = captioner.describe(source, samples, words)
    newest = recalled.newest
    captions = _first(recalled.english, said.english_captions)[: 1 + samples] if recalled.english else None
    return replace(
        said,
        caption=newest.caption,
        english_captions=captions or said.english_captions,
        confidence=None,
        contribution=newest.number,
    )


def _known_words(captioner: Captioner, caption: str | None) -> list[str]:
    """Return the content words of a caption that the captioner's tag scorer knows."""
    words = content_words(caption) if caption else []
    unknown = set(captioner.unknown_labels(words)) if words else set()
    return [word for word in words if word not in unknown]


def _first(caption: str, others: Sequence[str]) -> tuple[str, ...]:
    """Return a caption and the others, without those that say the same in the same words."""
    words = standardise(caption)
    return (caption, *(other for other in others if standardise(other) != words))
