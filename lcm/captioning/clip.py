"""CLIP as a judge of tags: a picture and texts as unit vectors, whose cosine says how well they fit.

Knows that a checkpoint's own processor and tokenizer feed it, and how to tell that they are its own. Refuses to know
which texts are asked and how scores become tags; where checkpoints are found is pretrained.py's.

Shapes: K texts, D numbers in a vector.
"""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from lcm.captioning import pretrained
from lcm.captioning.tagging import Photo

CLIP_CHECKPOINT = "openai/clip-vit-large-patch14"  # Radford et al. 2021, arXiv 2103.00020; 1.7 GB
CLIP = pretrained.Kind(
    label="CLIP",
    model_type="clip",
    model_class="CLIPModel",
    words=("vocab.json", "merges.txt"),
    advice=(
        f"Give a checkpoint's name on the model hub, such as {CLIP_CHECKPOINT} (needs a network, once), or a folder "
        f"that holds one; to make it, on a machine with a network: hf download {CLIP_CHECKPOINT} --local-dir clip "
        "--include '*.json' --include '*.txt' --include '*.safetensors'. lcm's own embedded scorer needs no download"
    ),
)
TEXTS_AT_ONCE = 64
MAX_CACHED_TEXTS = 50_000  # 150 MB at D = 768


class ClipScorer:
    """A loaded CLIP; safe to call from several threads. A text's score is softmax(scale * cosine) over the texts."""

    def __init__(self, checkpoint: str = CLIP_CHECKPOINT):
        """Load a checkpoint: a folder that holds one, or a name on the model hub, downloaded on first use.

        Raises BundleError when it cannot be had or is no CLIP, and ConfigError when the packages are missing.
        """
        self._torch, transformers = pretrained.import_quietly()
        with pretrained.explaining(checkpoint, CLIP):
            folder = pretrained.find(checkpoint, CLIP)
            self._model = pretrained.load_model(folder, CLIP, self._torch, transformers)
            with pretrained.reading(folder, "image processor (preprocessor_config.json)"):
                self._processor = transformers.CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
                pretrained.check_pictures(self._model.config.vision_config, self._processor)
            with pretrained.reading(folder, "tokenizer (tokenizer.json, or vocab.json with merges.txt)"):
                self._tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, local_files_only=True)
                _check_texts(self._model.config.text_config, self._tokenizer)
        self.name = pretrained.name_of(checkpoint)
        self.scale = float(self._model.logit_scale.detach().exp())
        self._known: dict[str, np.ndarray] = {}  # [D] each, oldest first
        self._lock = threading.Lock()  # a tokenizer that pads is not safe from threads either

    def image_vector(self, photo: Photo) -> np.ndarray:
        """Return the unit vector of the RGB picture that `photo.open()` gives, float32 [D]; its middle counts."""
        pixels = self._processor(images=photo.open(), return_tensors="pt")["pixel_values"]
        with self._torch.inference_mode():
            return _unit(self._model.get_image_features(pixel_values=pixels).pooler_output)[0]

    def text_vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return the unit vectors of texts taken as they are, float32 [K, D]; the end of a very long one is cut off."""
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._known]
            for start in range(0, len(new), TEXTS_AT_ONCE):
                batch = new[start : start + TEXTS_AT_ONCE]
                self._known.update(zip(batch, self._read(batch), strict=True))
            vectors = [self._known[text] for text in texts]
            for text in list(self._known)[: max(0, len(self._known) - MAX_CACHED_TEXTS)]:
                del self._known[text]
        return np.array(vectors, np.float32).reshape(len(vectors), self._model.config.projection_dim)

    def unknown(self, texts: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002
        """Return the texts that this scorer cannot read: none, for CLIP spells out what is no word of its own."""
        return ()

    def _read(self, texts: list[str]) -> np.ndarray:
        """Return the unit vectors of a few texts, [K, D]."""
        longest = self._model.config.text_config.max_position_embeddings
        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        with self._torch.inference_mode():
            return _unit(self._model.get_text_features(**tokens).pooler_output)


def _unit(vectors: Any) -> np.ndarray:
    """Return a tensor's vectors at length 1, float32 [K, D]."""
    return (vectors / vectors.norm(dim=-1, keepdim=True)).numpy()


def _check_texts(model: Any, tokenizer: Any) -> None:
    """A text's vector is read where its end token stands; id 2 says in old checkpoints: the highest there is."""
    known = max(tokenizer.get_vocab().values()) + 1  # without its files a tokenizer comes up empty
    size = model.vocab_size
    end = size - 1 if model.eos_token_id == 2 else model.eos_token_id
    if known > size or tokenizer.eos_token_id != end:
        found = f"({known:,} tokens, end token {tokenizer.eos_token_id})"
        raise pretrained.UnusableError(f"its tokenizer {found} is not its model's ({size:,} tokens, end token {end})")
