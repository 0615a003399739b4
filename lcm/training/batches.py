"""Batches: captions of like length together, so that little of a batch is padding.

Knows how captions and feature rows become arrays, in an order that depends on seed and epoch alone. Refuses
to know models and losses.

Shapes: B captions in a batch, T positions, F numbers (or N x F) in an image's features.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lcm.data.vocabulary import PAD, RESERVED, UNKNOWN, Vocabulary
from lcm.encoding.prepared import LabelledFeatures

MAX_CAPTION_WORDS = 50  # of a training caption; what is longer is cut, and then has no END to learn
LENGTH_STEP = 2  # lengths are rounded up to a multiple of it
FINGERPRINT_IMAGES = 16  # about so many, evenly spaced: enough to tell encoders apart
MIN_BUCKET_SHARE = 0.03  # of the captions; a rarer length joins the next longer one: each costs a compiled graph


@dataclass(frozen=True)
class Batch:
    """Captions of one bucket with the features of their images."""

    features: np.ndarray  # [B, F]
    inputs: np.ndarray  # [B, T] int32: START and the words
    targets: np.ndarray  # [B, T] int32: the words and END; PAD where the caption is over

    @property
    def positions(self) -> int:
        """Number of words to learn, END included."""
        return int(np.count_nonzero(self.targets != PAD))


class CaptionBatches:
    """All captions of some images, in batches by length; without images, no batches."""

    def __init__(
        self,
        labelled: LabelledFeatures,
        vocabulary: Vocabulary,
        batch_size: int,
        word_dropout: float = 0.0,
    ):
        """Encode the captions of all the images; `batch_size` counts captions.

        `word_dropout` is the share of words that inputs (never targets) hide as UNKNOWN, other ones each epoch
        (Bowman et al., "Generating Sentences from a Continuous Space", 2016): the image has to tell what the words
        before do not.
        """
        encoded = [
            (place, vocabulary.encode(caption))
            for place, image in enumerate(labelled.images)
            for caption in image.captions
        ]
        self.wordless_captions = sum(len(ids) == 2 for _, ids in encoded)  # only punctuation: START and END
        encoded = [(place, ids) for place, ids in encoded if len(ids) > 2]
        self.images = len(labelled)
        self.cut_captions = sum(len(ids) > MAX_CAPTION_WORDS + 2 for _, ids in encoded)
        self._labelled, self._batch_size, self._word_dropout = labelled, batch_size, word_dropout
        self._places = np.array([place for place, _ in encoded], dtype=np.int64)  # of the image of each caption
        self._token_ids = [np.array(ids[: MAX_CAPTION_WORDS + 2], dtype=np.int32) for _, ids in encoded]
        self.buckets = make_buckets(np.array([len(ids) - 1 for ids in self._token_ids], dtype=np.int64), batch_size)

    @property
    def lengths(self) -> list[int]:
        """The T of each bucket, ascending."""
        return sorted(self.buckets)

    def __len__(self) -> int:
        """Number of batches an epoch."""
        return sum(_parts(len(members), self._batch_size) for members in self.buckets.values())

    def fingerprint(self) -> str:
        """Return a hash of all captions as ids, in order, and of some features.

        Other data, another vocabulary or another encoder give another.
        """
        some = self._labelled.read(np.arange(0, self.images, max(1, self.images // FINGERPRINT_IMAGES)))
        return hashlib.sha256(b"".join([*(ids.tobytes() for ids in self._token_ids), some.tobytes()])).hexdigest()

    def epoch(self, seed: int, number: int) -> Iterator[Batch]:
        """Yield every caption once, in an order that `seed` and the epoch's `number` decide."""
        random = np.random.default_rng((seed, number))
        planned = [
            (length, part)
            for length, members in sorted(self.buckets.items())
            for part in np.array_split(random.permutation(members), _parts(len(members), self._batch_size))
        ]
        for place in random.permutation(len(planned)):
            yield self._batch(*planned[place], random)

    def _batch(self, length: int, members: np.ndarray, random: np.random.Generator) -> Batch:
        token_ids = np.full((len(members), length + 1), PAD, dtype=np.int32)
        for row, member in enumerate(members):
            token_ids[row, : len(self._token_ids[member])] = self._token_ids[member]
        inputs, targets = token_ids[:, :-1], token_ids[:, 1:]
        if self._word_dropout:
            hidden = (random.random(inputs.shape) < self._word_dropout) & (inputs >= len(RESERVED))
            inputs = np.where(hidden, UNKNOWN, inputs)
        return Batch(self._labelled.read(self._places[members]), inputs.astype(np.int32), targets)


def _parts(members: int, batch_size: int) -> int:
    return -(-members // batch_size)


def make_buckets(lengths: np.ndarray, batch_size: int) -> dict[int, np.ndarray]:
    """Return padded length -> places of the captions padded to it, each caption in one bucket.

    `lengths` [captions] are in positions. A bucket holds at least a full batch and MIN_BUCKET_SHARE of the
    captions, but for the last.
    """
    rounded = -(-lengths // LENGTH_STEP) * LENGTH_STEP
    least = max(batch_size, MIN_BUCKET_SHARE * len(lengths))
    buckets: dict[int, np.ndarray] = {}
    waiting = np.zeros(0, dtype=np.int64)
    for length in np.unique(rounded).tolist():
        waiting = np.concatenate([waiting, np.flatnonzero(rounded == length)])
        if len(waiting) >= least or length == rounded.max(initial=0):
            buckets[length] = waiting
            waiting = np.zeros(0, dtype=np.int64)
    return buckets
