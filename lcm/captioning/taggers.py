"""Tag scorers: the dual encoder or the text tower that a bundle carries, checkpoints, and the table of their names.

Shapes: B images, K texts, T words or tokens in a text, W words of the table, F numbers in the pooled features, E in a
word's row, D in a vector.
"""

from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from lcm.captioning.bundle import IMAGE_TOWER, TEXT_TOWER, TOKENIZER, TOWER, WORD_ROWS, WORDS, Manifest
from lcm.captioning.tagging import Curves, Reranker, SeenImage, probability
from lcm.data.text import comparison_form, words
from lcm.data.word_vectors import find_vectors
from lcm.errors import BundleError, ConfigError, DataError, LcmError, require
from lcm.features.encoders import load_encoder, open_session
from lcm.features.text_towers import find_text_tower

CACHED_TEXTS = 50_000  # vectors that are kept: 100 MB at D = 512
TEXTS_AT_ONCE = 64  # through a text tower; more would only take more memory


class DualEncoder:
    """A tag scorer of two towers: images and texts become vectors, and a cosine says how well two fit.

    Texts are read by a table of words, and what it cannot read is zeros. Safe to call from several threads.
    """

    threads = 1  # that one call of the text tower uses
    name: str
    scale: float  # what cosines are multiplied by before the softmax: one over the model's own temperature
    curves: Curves | None  # None: it has no probabilities
    sigmoid: Sequence[float] | None = None  # what a SigLIP was trained with, for words and labels; None: it is none

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        """Load the towers; `settings` are the manifest's: name, scale, perhaps curves, and what `_load` reads.

        Raises BundleError when a file is not what the format says, ConfigError when a package is missing.
        """
        try:
            self.name, self.scale, self.curves = str(settings["name"]), float(settings["scale"]), settings.get("curves")
            self._image_tower = open_session(folder / IMAGE_TOWER, threads=1)
            self._text_tower = open_session(folder / TEXT_TOWER, self.threads)
            self._nothing = np.zeros(self._text_tower.get_outputs()[0].shape[1], np.float32)
            self._load(folder, settings)
            for kind in ("words", "labels") if self.curves else ():
                probability(self.curves[kind], 0.0, self._nothing[None] @ self.curves["mean_image"])
        except LcmError:
            raise
        except Exception as error:  # onnxruntime has no common class for what it raises
            raise BundleError(
                f"{folder} holds a tag scorer that cannot be loaded ({type(error).__name__}); export it again"
            ) from error
        self._cached, self._lock = {}, Lock()  # a tokenizer that pads is not safe from threads either

    def _load(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Load the table of words; the settings are word_embedding and embedding_dim."""
        self._word_embedding, self._embedding_dim = str(settings["word_embedding"]), int(settings["embedding_dim"])
        known = (folder / WORDS).read_text(encoding="utf-8").splitlines()
        rows = np.load(folder / WORD_ROWS, allow_pickle=False)
        if rows.ndim != 2 or len(rows) != len(known):
            raise BundleError(f"{folder} holds a tag scorer whose files are not from one export; export it again")
        self._rows, self._row_width = dict(zip(map(comparison_form, known), rows, strict=True)), rows.shape[1]

    def image_vector(self, image: SeenImage) -> np.ndarray:
        """Return the image as a unit vector, [D] float32."""
        return self.image_vectors(image.features["pooled"][None])[0]

    def image_vectors(self, pooled: np.ndarray) -> np.ndarray:
        """Return unit vectors [B, D] of pooled features [B, F]."""
        (entry,) = self._image_tower.get_inputs()
        (vectors,) = self._image_tower.run(None, {entry.name: np.asarray(pooled, np.float32)})
        return vectors

    def text_vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return each text, a word or a sentence, as a unit vector [K, D]; zeros where no word of it is known."""
        with self._lock:
            if len(self._cached) > CACHED_TEXTS:
                self._cached = {}
            new = [text for text in dict.fromkeys(texts) if text not in self._cached]
            for start in range(0, len(new), TEXTS_AT_ONCE):
                part = new[start : start + TEXTS_AT_ONCE]
                self._cached |= dict.fromkeys(part, self._nothing) | self._encode(part)
            vectors = [self._cached[text] for text in texts]
        return np.array(vectors, np.float32).reshape(len(texts), len(self._nothing))

    def _encode(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the vectors of the texts of which a word is known, through the text tower."""
        shown = [words(text) for text in texts]
        outside = {word for each in shown for word in each if comparison_form(word) not in self._rows}
        rows = ChainMap(self._rows_outside(outside), self._rows)
        known = ([rows[form] for form in map(comparison_form, each) if form in rows] for each in shown)
        readable = {text: its_rows for text, its_rows in zip(texts, known, strict=True) if its_rows}
        if not readable:
            return {}
        longest = max(map(len, readable.values()))
        inputs = np.zeros((len(readable), longest, self._row_width), np.float32)
        counted = np.zeros((len(readable), longest), np.float32)
        for place, its_rows in enumerate(readable.values()):
            inputs[place, : len(its_rows)], counted[place, : len(its_rows)] = its_rows, 1
        names = [entry.name for entry in self._text_tower.get_inputs()]
        (vectors,) = self._text_tower.run(None, dict(zip(names, (inputs, counted), strict=True)))
        return dict(zip(readable, vectors, strict=True))

    def _rows_outside(self, words: set[str]) -> dict[str, np.ndarray]:
        """Return the rows that the text tower reads, [E] each, of words that only the word embedding may know."""
        try:
            found = find_vectors(sorted(words), self._word_embedding) if words else {}
        except (ConfigError, DataError):  # not installed here, or not readable: only the table's words are known
            return {}
        rows = {}
        for word, vector in found.items():
            if len(vector) == self._embedding_dim:  # else the file is another one by now
                learned = np.zeros(self._row_width - len(vector), np.float32)  # what training learns of a word: nothing
                rows[comparison_form(word)] = np.concatenate([vector, learned])
        return rows


class TextTower(DualEncoder):
    """The text side of the checkpoint whose image side is the encoder, as features.text_towers makes it."""

    threads = 0  # all: it is as large as the encoder

    def _load(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Load the tokenizer; the settings are `unknown`, the id of what is no token, and of SigLIP `bias`."""
        self._tokenizer = require("tokenizers", "tower").Tokenizer.from_file(str(folder / TOKENIZER))
        self._unknown = settings["unknown"]
        if "bias" in settings:  # the sigmoid of scale * cosine + bias, until 03_evaluate has fitted others
            self.sigmoid = [1.0, 0.0, float(settings["bias"])]
            kinds = dict.fromkeys(("words", "labels"), self.sigmoid)
            self.curves = self.curves or kinds | {"mean_image": self._nothing}

    def _encode(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the vectors of the texts of which all tokens are known, and any."""
        cut = {text: self._tokenizer.encode(text.encode("utf-8", "replace").decode()) for text in texts}
        own = {text: np.array(one.ids)[np.array(one.special_tokens_mask) == 0] for text, one in cut.items()}
        ids = {text: cut[text].ids for text, its in own.items() if len(its) and self._unknown not in its}
        if not ids:
            return {}
        longest = max(map(len, ids.values()))
        filled = [its + its[-1:] * (longest - len(its)) for its in ids.values()]  # CLIP's, with ends
        (vectors,) = self._text_tower.run(None, {"tokens": np.array(filled, np.int64)})
        return dict(zip(ids, vectors, strict=True))


CLIP_CHECKPOINT = "openai/clip-vit-large-patch14"  # Radford et al. 2021, arXiv 2103.00020; 1.7 GB


class CheckpointScorer(TextTower):
    """Both sides of a checkpoint of CLIP or SigLIP 2, which sees a picture with its own encoder."""

    def __init__(self, checkpoint: str = CLIP_CHECKPOINT):
        """Convert a checkpoint on first use, as load_encoder and find_text_tower do, and raise what they raise."""
        self._encoder = load_encoder(checkpoint)
        folder, facts = find_text_tower(self._encoder.identity)
        super().__init__(folder, facts | {"name": self._encoder.identity.name})

    def image_vector(self, image: SeenImage) -> np.ndarray:
        return self.image_vectors(self._encoder.encode(self._encoder.read(image.source)[None])["pooled"])[0]


BUNDLED, NONE = "dual_encoder", "none"
TAG_SCORERS = (BUNDLED, TOWER, "clip", NONE)


def load_tag_scorer(
    tagger: str | None, folder: Path | None = None, manifest: Manifest | None = None
) -> DualEncoder | None:
    """Return the tag scorer of a name in TAG_SCORERS, or of a checkpoint's name ("owner/name") or folder.

    Without a name it is that of the bundle in `folder`; None where it has none or there is no bundle, and for "none".
    Raises ConfigError for an unknown name, BundleError when there is nothing to load.
    """
    own = manifest.tagger if manifest else {}
    its = TOWER if own.get("name") == TOWER else BUNDLED
    if tagger == NONE or not (tagger or own):
        return None
    if own and tagger in (None, "", its):
        return (TextTower if its == TOWER else DualEncoder)(folder, own)
    checkpoint = "the name (owner/name) or the folder of a checkpoint of CLIP or SigLIP 2"
    if tagger in (BUNDLED, TOWER):
        raise BundleError(
            f"{folder or 'a captioner without a bundle'} has no {tagger} of its own; train a bundle with -p tagger "
            f"{tagger}, or give clip, or {checkpoint}"
        )
    if tagger != "clip" and "/" not in tagger and not Path(tagger).is_dir():
        raise ConfigError(f"unknown tagger {tagger!r}; choose from {', '.join(TAG_SCORERS)}, or give {checkpoint}")
    return CheckpointScorer() if tagger == "clip" else CheckpointScorer(tagger)


def load_reranker(
    folder: Path, manifest: Manifest, scorer: DualEncoder | None, weight: float, length_power: float
) -> Reranker | None:
    """Return what chooses among the beam's captions: the bundle's own tag scorer, whichever one scores the tags.

    `scorer` is the one that does. None for weight 0. Raises BundleError when the bundle carries no tag scorer.
    """
    if not weight:
        return None
    if not manifest.tagger:
        raise BundleError(
            f"{folder} was trained without a tag scorer, which rerank_weight {weight:g} asks; train with -p tagger "
            f"{BUNDLED}, or evaluate with -p rerank_weight 0"
        )
    is_own = scorer and not isinstance(scorer, CheckpointScorer)
    model = scorer if is_own else load_tag_scorer(None, folder, manifest)
    return Reranker(model, weight, length_power)
