"""Captions in batches of like length, as training reads them.

Order, hidden words and views depend on seed and epoch alone, so that a resumed run sees what an uninterrupted one sees.

Shapes: B rows of a batch (an image with one of its captions, or with all of them), W captions of a row, T positions.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from lcm.data.text import PAD, RESERVED, UNKNOWN, Vocabulary
from lcm.features.cache import LabelledFeatures

MAX_CAPTION_WORDS = 50  # of a training caption; what is longer is cut, and then has no END to learn
LENGTH_STEP = 2  # lengths are rounded up to a multiple of it
FINGERPRINT_IMAGES = 16  # about so many, evenly spaced: enough to tell encoders apart
MIN_BUCKET_SHARE = 0.03  # of all rows; a rarer length joins the next longer one: each costs a compiled graph


class Batch(NamedTuple):
    """Rows of one bucket: captions with the features of their images."""

    features: np.ndarray  # [B, ...]
    inputs: np.ndarray  # [B, W, T] int32: the start token and the words
    targets: np.ndarray  # [B, W, T] int32: the words and END; PAD where the caption is over, or where there is none

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
        together: bool = False,
        view_share: float = 0.0,
    ):
        """Encode the captions of all the images; `batch_size` counts captions.

        `word_dropout` is the share of words that inputs (never targets) hide as UNKNOWN, other ones each epoch (Bowman
        et al., "Generating Sentences from a Continuous Space", 2016). `together`: a row holds all captions of an image,
        in all its languages, else one; an image with very many pads its own batch only. `view_share` is the share of
        rows that read a further view of the image, drawn each epoch.
        """
        self.images = len(labelled)
        self._labelled, self._word_dropout, self._view_share = labelled, word_dropout, view_share
        kept: dict[Any, tuple[int, list[np.ndarray]]] = {}  # the place of each row's image, and its captions as ids
        for place, image in enumerate(labelled.images):
            encoded = (vocabulary.encode(caption, image.language) for caption in image.captions)
            for number, ids in enumerate(ids for ids in encoded if len(ids) > 2):
                _, texts = kept.setdefault(image.image_id if together else (place, number), (place, []))
                texts.append(np.array(ids[: MAX_CAPTION_WORDS + 2], dtype=np.int32))
        self._places = np.array([place for place, _ in kept.values()], dtype=np.int64)
        self._texts = [texts for _, texts in kept.values()]
        self.captions = sum(map(len, self._texts))
        self._batch_rows = max(1, round(batch_size * len(kept) / max(self.captions, 1)))
        longest = [max(map(len, texts)) - 1 for texts in self._texts]
        self.buckets = make_buckets(np.array(longest, dtype=np.int64), self._batch_rows)

    def __len__(self) -> int:
        """Number of batches an epoch."""
        return sum(-(-len(members) // self._batch_rows) for members in self.buckets.values())

    def fingerprint(self) -> str:
        """Return a hash of all captions as ids, in order, and of some features.

        Other data, another vocabulary or another encoder give another.
        """
        some = self._labelled.read(np.arange(0, self.images, max(1, self.images // FINGERPRINT_IMAGES)))
        token_ids = [ids.tobytes() for texts in self._texts for ids in texts]
        return hashlib.sha256(b"".join([*token_ids, some.tobytes()])).hexdigest()

    def epoch(self, seed: int, number: int) -> Iterator[Batch]:
        """Yield every caption once, in an order that `seed` and the epoch's `number` decide."""
        random = np.random.default_rng((seed, number))
        planned = [
            (length, part)
            for length, members in sorted(self.buckets.items())
            for part in np.array_split(random.permutation(members), -(-len(members) // self._batch_rows))
        ]
        for place in random.permutation(len(planned)):
            yield self._batch(*planned[place], random)

    def _batch(self, length: int, members: np.ndarray, random: np.random.Generator) -> Batch:
        width = max(len(self._texts[member]) for member in members)
        token_ids = np.full((len(members), width, length + 1), PAD, dtype=np.int32)
        for row, member in enumerate(members):
            for place, ids in enumerate(self._texts[member]):
                token_ids[row, place, : len(ids)] = ids
        inputs, targets = token_ids[..., :-1], token_ids[..., 1:]
        if self._word_dropout:
            hidden = (random.random(inputs.shape) < self._word_dropout) & (inputs >= len(RESERVED))
            hidden[..., 0] = False  # a start token
            inputs = np.where(hidden, UNKNOWN, inputs)
        places = self._places[members]
        views = self._labelled.draw_views(len(places), self._view_share, random)
        return Batch(self._labelled.read(places, views), inputs.astype(np.int32), targets)


def make_buckets(lengths: np.ndarray, batch_size: int) -> dict[int, np.ndarray]:
    """Return padded length -> places of the rows padded to it, each row in one bucket.

    `lengths` [rows] are in positions, of a row's longest caption; `batch_size` counts rows. A bucket holds at least a
    full batch and MIN_BUCKET_SHARE of all rows, but for the last.
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
