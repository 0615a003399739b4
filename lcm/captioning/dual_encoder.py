"""The embedded tag scorer: two towers that a bundle carries, one for images and one for words.

Knows the tower files of a bundle, which words have their vector ready, and how any other word that the word
embedding knows gets one. Refuses to know training; models/dual_encoder.py builds what is loaded here.

Shapes: K texts, T words in a text, W words of the table, E numbers in a word's row, D in a vector.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from lcm.captioning.bundle import IMAGE_TOWER, TEXT_TOWER, WORD_ROWS, WORD_VECTORS, WORDS
from lcm.captioning.tagging import Photo
from lcm.data.vocabulary import standardise
from lcm.data.word_vectors import find_vectors
from lcm.encoding.runtime import open_session
from lcm.errors import BundleError, ConfigError, DataError

CACHED_TEXTS = 10_000  # vectors of texts outside the table that are kept
TEXTS_AT_ONCE = 64  # through the text tower; more would only take more memory


class DualEncoder:
    """The tag scorer of a bundle; safe to call from several threads."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        """Load the towers; `settings` are the manifest's: name, scale, word_embedding and embedding_dim.

        Raises BundleError when a file is not what the format says.
        """
        try:
            self.name, self.scale = str(settings["name"]), float(settings["scale"])
            self._word_embedding, self._embedding_dim = str(settings["word_embedding"]), int(settings["embedding_dim"])
            self._image_tower = open_session(folder / IMAGE_TOWER, threads=1)
            self._text_tower = open_session(folder / TEXT_TOWER, threads=1)
            words = (folder / WORDS).read_text(encoding="utf-8").splitlines()
            self._rows = np.load(folder / WORD_ROWS, allow_pickle=False)
            self._vectors = np.load(folder / WORD_VECTORS, allow_pickle=False).astype(np.float32)
        except Exception as error:  # onnxruntime has no common class of its own for what it raises
            raise BundleError(
                f"{folder} holds a tag scorer that cannot be loaded ({type(error).__name__}); export it again"
            ) from error
        shapes = self._rows.shape, self._vectors.shape
        if any(len(shape) != 2 or shape[0] != len(words) for shape in shapes):
            raise BundleError(f"{folder} holds a tag scorer whose files are not from one export; export it again")
        self._places = {word: place for place, word in enumerate(words)}
        self._cache: dict[str, np.ndarray] = {}
        self._lock = Lock()

    def image_vector(self, photo: Photo) -> np.ndarray:
        """Return the image as a unit vector, [D] float32."""
        return self.image_vectors(photo.features["pooled"][None])[0]

    def image_vectors(self, pooled: np.ndarray) -> np.ndarray:
        """Return unit vectors [B, D] of pooled features [B, F]."""
        (entry,) = self._image_tower.get_inputs()
        (vectors,) = self._image_tower.run(None, {entry.name: np.asarray(pooled, np.float32)})
        return vectors

    def text_vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return each text, a word or a sentence, as a unit vector [K, D]; zeros where no word of it is known."""
        found = self._look_up(texts)
        nothing = np.zeros(self._vectors.shape[1], np.float32)
        vectors = [nothing if found[text] is None else found[text] for text in texts]
        return np.stack(vectors) if vectors else np.zeros((0, len(nothing)), np.float32)

    def unknown(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return the texts of which no word is known."""
        found = self._look_up(texts)
        return tuple(text for text in texts if found[text] is None)

    def _look_up(self, texts: Sequence[str]) -> dict[str, np.ndarray | None]:
        """Return each text's vector, from the table or from the cache, where a new one is put; None: unknown."""
        found = {text: self._vectors[self._places[text]] for text in texts if text in self._places}
        outside = [text for text in dict.fromkeys(texts) if text not in found]
        if outside:
            with self._lock:
                new = [text for text in outside if text not in self._cache]
                if len(self._cache) + len(new) > CACHED_TEXTS:
                    self._cache, new = {}, outside
                self._cache.update(zip(new, self._encode([standardise(text) for text in new]), strict=True))
                found |= {text: self._cache[text] for text in outside}
        return found

    def _encode(self, texts: Sequence[Sequence[str]]) -> list[np.ndarray | None]:
        """Return the vectors of texts given as words; None where no word is known."""
        rows = self._rows_of({word for words in texts for word in words})
        known = [[rows[word] for word in words if word in rows] for words in texts]
        vectors: dict[int, np.ndarray] = {}
        readable = sorted((place for place, each in enumerate(known) if each), key=lambda place: len(known[place]))
        for start in range(0, len(readable), TEXTS_AT_ONCE):
            part = readable[start : start + TEXTS_AT_ONCE]
            vectors.update(zip(part, self._through_tower([known[place] for place in part]), strict=True))
        return [vectors.get(place) for place in range(len(known))]

    def _rows_of(self, words: set[str]) -> dict[str, np.ndarray]:
        """Return the rows that the text tower reads, [E] each, of the words that are known."""
        rows = {word: self._rows[self._places[word]] for word in words if word in self._places}
        outside = sorted(words - set(rows))
        if outside:
            try:
                found = find_vectors(outside, self._word_embedding)
            except (ConfigError, DataError):  # not installed here, or not readable: only the table's words are known
                found = {}
            for word, vector in found.items():
                if len(vector) == self._embedding_dim:  # else the file is another one by now
                    rows[word] = np.zeros(self._rows.shape[1], np.float32)  # what training learns of a word: nothing
                    rows[word][: len(vector)] = vector
        return rows

    def _through_tower(self, texts: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
        """Return the unit vectors [K, D] of texts, each from the rows [E] of its known words."""
        longest = max(map(len, texts))
        rows = np.zeros((len(texts), longest, self._rows.shape[1]), np.float32)
        counted = np.zeros((len(texts), longest), np.float32)
        for place, words in enumerate(texts):
            rows[place, : len(words)], counted[place, : len(words)] = words, 1
        names = [entry.name for entry in self._text_tower.get_inputs()]
        (vectors,) = self._text_tower.run(None, dict(zip(names, (rows, counted), strict=True)))
        return vectors
