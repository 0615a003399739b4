"""Tag scorers: the dual encoder that a bundle carries, CLIP, and the table of their names.

Shapes: B images, K texts, T words in a text, W words of the table, F numbers in the pooled features, E in a word's row,
D in a vector.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from lcm.captioning import checkpoints
from lcm.captioning.bundle import IMAGE_TOWER, TEXT_TOWER, WORD_ROWS, WORD_VECTORS, WORDS, Manifest
from lcm.captioning.tagging import Reranker, SeenImage, TagScorer
from lcm.data.text import standardise
from lcm.data.word_vectors import find_vectors
from lcm.errors import BundleError, ConfigError, DataError
from lcm.features.encoders import open_session

CACHED_TEXTS = 50_000  # vectors that are kept: 100 MB at D = 512
TEXTS_AT_ONCE = 64  # through a text model; more would only take more memory


class _TextCache:
    """Vectors of texts, made when first asked for, the oldest dropped first; safe to call from several threads."""

    def __init__(self, encode: Callable[[Sequence[str]], Sequence[np.ndarray | None]]):
        """`encode` returns the vectors [D] of different texts, None for one that cannot be read."""
        self._encode, self._known = encode, {}
        self._lock = Lock()  # a tokenizer that pads is not safe from threads either

    def __call__(self, texts: Sequence[str]) -> dict[str, np.ndarray | None]:
        """Return the vector of each text."""
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._known]
            self._known.update(zip(new, self._encode(new), strict=True))
            found = {text: self._known[text] for text in texts}
            for text in list(self._known)[: max(0, len(self._known) - CACHED_TEXTS)]:
                del self._known[text]
        return found


class DualEncoder:
    """The tag scorer of a bundle, two towers with a table of words; safe to call from several threads."""

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
        except Exception as error:  # onnxruntime has no common class for what it raises
            raise BundleError(
                f"{folder} holds a tag scorer that cannot be loaded ({type(error).__name__}); export it again"
            ) from error
        shapes = self._rows.shape, self._vectors.shape
        if any(len(shape) != 2 or shape[0] != len(words) for shape in shapes):
            raise BundleError(f"{folder} holds a tag scorer whose files are not from one export; export it again")
        self._places = {word: place for place, word in enumerate(words)}
        self._cache = _TextCache(self._encode)

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
        found = self._look_up(texts)
        nothing = np.zeros(self._vectors.shape[1], np.float32)
        vectors = [nothing if found[text] is None else found[text] for text in texts]
        return np.stack(vectors) if vectors else np.zeros((0, len(nothing)), np.float32)

    def unknown(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return the texts of which no word is known."""
        found = self._look_up(texts)
        return tuple(text for text in texts if found[text] is None)

    def _look_up(self, texts: Sequence[str]) -> dict[str, np.ndarray | None]:
        """Return each text's vector, from the table or through the text tower; None: unknown."""
        found = {text: self._vectors[self._places[text]] for text in texts if text in self._places}
        return found | self._cache([text for text in texts if text not in found])

    def _encode(self, texts: Sequence[str]) -> list[np.ndarray | None]:
        """Return the vectors of texts; None where no word is known."""
        words = [standardise(text) for text in texts]
        rows = self._rows_of({word for each in words for word in each})
        known = [[rows[word] for word in each if word in rows] for each in words]
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


CLIP_CHECKPOINT = "openai/clip-vit-large-patch14"  # Radford et al. 2021, arXiv 2103.00020; 1.7 GB
CLIP = checkpoints.Kind(
    label="CLIP",
    model_type="clip",
    model="CLIPModel",
    processor="CLIPImageProcessorPil",  # torchvision is not needed
    tokenizer="CLIPTokenizer",
    advice=(
        f"Give a checkpoint's name on the model hub, such as {CLIP_CHECKPOINT} (needs a network, once), or a folder "
        f"that holds one; to make it, on a machine with a network: hf download {CLIP_CHECKPOINT} --local-dir clip "
        "--include '*.json' --include '*.txt' --include '*.safetensors'. lcm's own embedded scorer needs no download"
    ),
)


class ClipScorer:
    """A loaded CLIP; safe to call from several threads. A text's score is softmax(scale * cosine) over the texts."""

    def __init__(self, checkpoint: str = CLIP_CHECKPOINT):
        """Load a checkpoint: a folder that holds one, or a name on the model hub, downloaded on first use.

        Raises BundleError when it cannot be had or is no CLIP, and ConfigError when the packages are missing.
        """
        loaded = checkpoints.load(checkpoint, CLIP)
        self.name, self._torch = loaded.name, loaded.torch
        self._model, self._processor, self._tokenizer = loaded.model, loaded.processor, loaded.tokenizer
        self.scale = float(self._model.logit_scale.detach().exp())
        self._cache = _TextCache(self._encode)

    def image_vector(self, image: SeenImage) -> np.ndarray:
        """Return the unit vector of the RGB picture that `image.open()` gives, float32 [D]; its middle counts."""
        pixels = self._processor(images=image.open(), return_tensors="pt")["pixel_values"]
        with self._torch.inference_mode():
            return _unit(self._model.get_image_features(pixel_values=pixels).pooler_output)[0]

    def text_vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return the unit vectors of texts taken as they are, float32 [K, D]; the end of a very long one is cut off."""
        found = self._cache(texts)
        vectors = [found[text] for text in texts]
        return np.array(vectors, np.float32).reshape(len(vectors), self._model.config.projection_dim)

    def unknown(self, texts: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002
        """Return the texts that this scorer cannot read: none, for CLIP spells out any word."""
        return ()

    def _encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        longest, vectors = self._model.config.text_config.max_position_embeddings, []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            part = list(texts[start : start + TEXTS_AT_ONCE])
            tokens = self._tokenizer(part, padding=True, truncation=True, max_length=longest, return_tensors="pt")
            with self._torch.inference_mode():
                vectors += list(_unit(self._model.get_text_features(**tokens).pooler_output))
        return vectors


def _unit(vectors: Any) -> np.ndarray:
    """Return a tensor's vectors at length 1, float32 [K, D]."""
    return (vectors / vectors.norm(dim=-1, keepdim=True)).numpy()


BUNDLED, NONE = "dual_encoder", "none"
TAG_SCORERS = (BUNDLED, "clip", NONE)


def load_tag_scorer(
    tagger: str | None, folder: Path | None = None, manifest: Manifest | None = None
) -> TagScorer | None:
    """Return the tag scorer of a name in TAG_SCORERS, or of a CLIP checkpoint's name ("owner/name") or folder.

    Without a name it is that of the bundle in `folder`; None where it has none or there is no bundle, and for "none".
    Raises ConfigError for an unknown name, BundleError when there is nothing to load.
    """
    if not tagger:
        return DualEncoder(folder, manifest.tagger) if manifest and manifest.tagger else None
    if tagger == NONE:
        return None
    if tagger == BUNDLED and manifest is None:
        raise ConfigError(
            f"the tagger {BUNDLED} is a part of a bundle, which this captioner does without; give clip, or the name "
            "(owner/name) or the folder of a CLIP checkpoint"
        )
    if tagger == BUNDLED and not manifest.tagger:
        raise BundleError(
            f"{folder} was trained without a tag scorer; train with -p tagger {BUNDLED}, or give the name or the "
            "folder of a CLIP checkpoint"
        )
    if tagger == BUNDLED:
        return DualEncoder(folder, manifest.tagger)
    if tagger != "clip" and "/" not in tagger and not Path(tagger).is_dir():
        raise ConfigError(
            f"unknown tagger {tagger!r}; choose from {', '.join(TAG_SCORERS)}, or give the name (owner/name) or the "
            "folder of a CLIP checkpoint"
        )
    return ClipScorer() if tagger == "clip" else ClipScorer(tagger)


def load_reranker(
    folder: Path,
    manifest: Manifest,
    loaded: TagScorer | None = None,
    weight: float | None = None,
    length_power: float | None = None,
) -> Reranker | None:
    """Return what chooses among the beam's captions: the bundle's own tag scorer, whichever one scores the tags.

    `loaded` saves loading it twice where it is the one; `weight` and `length_power` stand in for the manifest's. None
    for weight 0. Raises BundleError when the bundle carries no tag scorer.
    """
    weight = manifest.rerank_weight if weight is None else weight
    if not weight:
        return None
    if not manifest.tagger:
        raise BundleError(
            f"{folder} was trained without a tag scorer, which rerank_weight {weight:g} asks; train with -p tagger "
            f"{BUNDLED}, or evaluate with -p rerank_weight 0"
        )
    power = manifest.length_power if length_power is None else length_power
    return Reranker(loaded if isinstance(loaded, DualEncoder) else DualEncoder(folder, manifest.tagger), weight, power)
