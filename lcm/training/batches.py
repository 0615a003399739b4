"""What training reads: captions in batches of like length, and images with their captions as pairs.

Order and views depend on seed and epoch alone, so that a resumed run sees what an uninterrupted one sees.

Shapes: B rows of a batch (of CaptionBatches an image with one of its captions, or with all of them), W captions of a
row, T positions or words of a caption, F numbers in the image features, W words of a table, E numbers in a word vector,
C key words.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lcm.data.text import (
    PAD,
    RESERVED,
    UNKNOWN,
    Vocabulary,
    content_words,
    count_words,
    fold,
    is_content_word,
    standardise,
)
from lcm.data.word_vectors import find_vectors
from lcm.features.cache import LabelledFeatures

MAX_CAPTION_WORDS = 50  # of a training caption; what is longer is cut, and then has no END to learn
LENGTH_STEP = 2  # lengths are rounded up to a multiple of it
FINGERPRINT_IMAGES = 16  # about so many, evenly spaced: enough to tell encoders apart
MIN_BUCKET_SHARE = 0.03  # of all rows; a rarer length joins the next longer one: each costs a compiled graph


@dataclass(frozen=True)
class Batch:
    """Rows of one bucket: captions with the features of their images."""

    features: np.ndarray  # [B, ...]
    inputs: np.ndarray  # [B, W, T] int32: START and the words
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

        `word_dropout` is the share of words that inputs (never targets) hide as UNKNOWN, other ones each epoch
        (Bowman et al., "Generating Sentences from a Continuous Space", 2016): the image has to tell what the words
        before do not.

        `together`: a row holds all captions of an image, else one. W is then the largest number of captions of an
        image in the batch, not in all the data: an image with very many should pad its own batch only.

        `view_share` is the share of rows whose features are those of a further view of the image, drawn each epoch.
        """
        encoded = [[vocabulary.encode(caption) for caption in image.captions] for image in labelled.images]
        self.images = len(labelled)
        self._labelled, self._word_dropout, self._view_share = labelled, word_dropout, view_share
        kept = [
            (place, [np.array(ids[: MAX_CAPTION_WORDS + 2], dtype=np.int32) for ids in texts if len(ids) > 2])
            for place, texts in enumerate(encoded)
        ]
        if not together:
            kept = [(place, [ids]) for place, texts in kept for ids in texts]
        kept = [(place, texts) for place, texts in kept if texts]
        self._places = np.array([place for place, _ in kept], dtype=np.int64)  # of each row's image
        self._texts = [texts for _, texts in kept]  # each row's captions as ids
        captions = sum(map(len, self._texts))
        self._batch_rows = max(1, round(batch_size * len(kept) / max(captions, 1)))
        longest = [max(map(len, texts)) - 1 for texts in self._texts]
        self.buckets = make_buckets(np.array(longest, dtype=np.int64), self._batch_rows)

    @property
    def lengths(self) -> list[int]:
        """The T of each bucket, ascending."""
        return sorted(self.buckets)

    @property
    def captions_per_image(self) -> float:
        """How many captions an image has, on average."""
        return sum(map(len, self._texts)) / self.images

    def __len__(self) -> int:
        """Number of batches an epoch."""
        return sum(_parts(len(members), self._batch_rows) for members in self.buckets.values())

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
            for part in np.array_split(random.permutation(members), _parts(len(members), self._batch_rows))
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
            inputs = np.where(hidden, UNKNOWN, inputs)
        places = self._places[members]
        views = self._labelled.draw_views(len(places), self._view_share, random)
        return Batch(self._labelled.read(places, views), inputs.astype(np.int32), targets)


def _parts(members: int, rows: int) -> int:
    return -(-members // rows)


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


MAX_WORDS = 20  # of a caption; the rest is not read: a batch is as long as its longest caption


@dataclass(frozen=True)
class WordTable:
    """The words that are read: those of the vocabulary, for which more is learned, and others the embedding knows."""

    words: tuple[str, ...]
    learned: int  # the first so many are the vocabulary's
    vectors: np.ndarray  # [W, E]; zeros for a word of the vocabulary that the embedding does not know

    @cached_property
    def ids(self) -> dict[str, int]:
        """Word to id; ids begin at 1, 0 is no word."""
        return {word: place for place, word in enumerate(self.words, start=1)}

    def encode(self, text: str) -> list[int]:
        """Return the ids of the words of a text that the table holds."""
        return [self.ids[word] for word in standardise(text) if word in self.ids][:MAX_WORDS]

    @cached_property
    def key_words(self) -> tuple[str, ...]:
        """The content words of the vocabulary, folded, as tags have them; only such as the table holds."""
        folded = dict.fromkeys(fold(word) for word in self.words[: self.learned] if is_content_word(word))
        return tuple(word for word in folded if word in self.ids and is_content_word(word))


def build_word_table(labelled: LabelledFeatures, vocabulary: Vocabulary, word_embedding: str) -> WordTable:
    """Return the table for the captions of `labelled`, the train split: all their words that can be read."""
    own = vocabulary.own_words
    seen = count_words(caption for image in labelled.images for caption in image.captions)
    found = find_vectors([*own, *seen, *map(fold, own)], word_embedding)
    others = sorted(set(found) - set(own))
    width = len(next(iter(found.values()), [0.0]))  # where it knows no word at all, each has a zero
    vectors = [found.get(word, np.zeros(width, np.float32)) for word in (*own, *others)]
    return WordTable((*own, *others), len(own), np.array(vectors, np.float32).reshape(len(own) + len(others), width))


@dataclass(frozen=True)
class PairBatch:
    """Images with one caption each, and the key words of all their captions."""

    features: np.ndarray  # [B, F]
    word_ids: np.ndarray  # [B, T] int32; 0 where the caption is over
    key_words: np.ndarray  # [B, C] float32: the share of each key word among those of the image's captions; or zeros


class Pairs:
    """All images of a split that have a readable caption; without any, no batches."""

    def __init__(self, labelled: LabelledFeatures, table: WordTable, batch_size: int, view_share: float = 0.0):
        """Encode the captions; `batch_size` counts images, `view_share` is that of images read from a further view."""
        encoded = [[ids for caption in image.captions if (ids := table.encode(caption))] for image in labelled.images]
        self._places = np.array([place for place, captions in enumerate(encoded) if captions], dtype=np.int64)
        self._captions = [captions for captions in encoded if captions]
        self._labelled, self._table, self._view_share = labelled, table, view_share
        self._batch_size = min(batch_size, max(len(self._places), 1))
        columns = {word: column for column, word in enumerate(table.key_words)}
        self._shares = [_shares(labelled.images[place].captions, columns) for place in self._places]
        self._columns = len(columns)

    def __len__(self) -> int:
        """Number of batches an epoch; what does not fill the last one waits for another epoch's order."""
        return len(self._places) // self._batch_size

    @property
    def images(self) -> int:
        """The number of images that have a readable caption."""
        return len(self._places)

    @property
    def views(self) -> int:
        """The number of further views of each image."""
        return self._labelled.views

    @property
    def features(self) -> np.ndarray:
        """The features of all images, [images, F]."""
        return self._labelled.read(self._places)

    def fingerprint(self) -> str:
        """Return a hash of all that is learned from: other captions, features, words or word vectors give another."""
        digest = hashlib.sha256(json.dumps([self._labelled.references, self._table.words]).encode())
        for array in (self.features, self._table.vectors):
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()

    def epoch(self, seed: int, number: int) -> Iterator[PairBatch]:
        """Yield images with one of their captions each, in an order that `seed` and the epoch's `number` decide."""
        random = np.random.default_rng((seed, number))
        order = random.permutation(len(self._places))
        for start in range(0, len(self) * self._batch_size, self._batch_size):
            yield self._batch(order[start : start + self._batch_size], random)

    def _batch(self, members: np.ndarray, random: np.random.Generator) -> PairBatch:
        captions = [self._captions[member][random.integers(len(self._captions[member]))] for member in members]
        word_ids = np.zeros((len(members), max(map(len, captions))), np.int32)
        key_words = np.zeros((len(members), self._columns), np.float32)
        for row, (member, ids) in enumerate(zip(members, captions, strict=True)):
            word_ids[row, : len(ids)] = ids
            columns, shares = self._shares[member]
            key_words[row, columns] = shares
        views = self._labelled.draw_views(len(members), self._view_share, random)
        return PairBatch(self._labelled.read(self._places[members], views), word_ids, key_words)


def _shares(captions: tuple[str, ...], columns: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return which key words an image's captions hold, and the share of each."""
    counts = Counter(columns[word] for caption in captions for word in content_words(caption) if word in columns)
    values = np.array(list(counts.values()), np.float32)
    return np.array(list(counts), dtype=np.int64), values / max(values.sum(), 1)
