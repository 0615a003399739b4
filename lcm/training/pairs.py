"""Pairs: images with their captions as word ids, for contrastive training.

Knows the table of words that the dual encoder reads and how images, sentences and key words become arrays. Refuses
to know models and losses.

Shapes: B images in a batch, T words of a caption, F numbers in the image features, W words of the table, E numbers in
a word vector, C key words.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lcm.data.keywords import content_words, fold, is_content_word
from lcm.data.vocabulary import Vocabulary, count_words, standardise
from lcm.data.word_vectors import find_vectors
from lcm.encoding.prepared import LabelledFeatures

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
