"""Words: how text becomes words, and words become ids.

Knows the one text standardisation that training, decoding and scoring share, and the vocabulary with its four
reserved ids. Refuses to know captions files, word vectors, images and models.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import regex

from lcm.errors import DataError

PAD, START, END, UNKNOWN = range(4)
RESERVED = ("<pad>", "<start>", "<end>", "<unknown>")  # written in this order at the head of vocabulary.txt

# A word: letters with their marks, digits, inner hyphens ("t-shirt") and the joiners U+200C and U+200D, with which
# Persian, Sinhala and others spell; the English "'s" is a word of its own, as in the Penn Treebank and in GloVe, and
# some data sets have it parted already ("the water 's edge"). All other punctuation only separates words. A mark alone
# is no word: emoji carry some.
WORD = regex.compile(
    r"(?<=[\p{L}\p{M}\p{N}] ?)'s\b|[\p{L}\p{N}][\p{L}\p{M}\p{N}]*(?:[-\u200c\u200d][\p{L}\p{M}\p{N}]+)*"
)
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


def build_vocabulary(captions: Iterable[str], min_count: int, known: Vocabulary | None = None) -> Vocabulary:
    """Return the words that `captions` (of the train split only) hold at least `min_count` times.

    Ordered by falling count, then by spelling, so that the same captions always give the same ids. The words of a
    `known` vocabulary come first, with the ids they have: a model that knows them goes on.
    Raises DataError when no word is that frequent.
    """
    counts = count_words(captions)
    frequent = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
    if known:
        return Vocabulary((*known.words, *(word for word in frequent if word not in known.ids)))
    if not frequent:
        most = counts.most_common(1)
        found = f"the most frequent, {most[0][0]!r}, occurs {most[0][1]} times" if most else "there are no words at all"
        raise DataError(f"no word occurs {min_count} times in the train captions ({found}); lower min_count")
    return Vocabulary((*RESERVED, *frequent))
