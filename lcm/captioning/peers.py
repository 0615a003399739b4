"""Captioners to compare with: BLIP, by any checkpoint of it, and the nearest neighbour among a run's train images.

BLIP captions as its own service does (github.com/salesforce/BLIP, predict.py and models/blip.py), by beam search alone.
The nearest neighbour learns nothing from captions: what does not beat it has not either.

Shapes: D numbers in a vector; R train images, C captions of one.
"""

import re
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lcm.captioning.description import Captioner
from lcm.captioning.taggers import load_tag_scorer
from lcm.captioning.tagging import SeenImage
from lcm.data.images import Source, open_image
from lcm.data.text import join_words, standardise, words
from lcm.errors import DataError
from lcm.features import checkpoints
from lcm.features.cache import LabelledFeatures, PreparedRun
from lcm.features.encoders import find_encoder
from lcm.paths import RunDir

BLIP_CHECKPOINT = "Salesforce/blip-image-captioning-base"  # Li et al. 2022, arXiv 2201.12086; 1.0 GB
BLIP = checkpoints.Kind(
    label="BLIP",
    example=BLIP_CHECKPOINT,
    model="BlipForConditionalGeneration",
    processor="BlipImageProcessorPil",  # torchvision is not needed
    tokenizer="BertTokenizer",
    weights=("*.safetensors", "pytorch_model.bin"),  # the checkpoint above has no safetensors file
)
PROMPT = "a picture of"  # what every caption began with in training; it is no part of the answer
MAX_TOKENS, MIN_TOKENS = 20, 5  # of a text, the prompt's four counted: predict.py's max_length and min_length
BEAM_WIDTH = 3
APART = re.compile(r" ?(['\u2019-]) ?")  # the tokenizer parts "man's" and "t-shirt" into three


class BlipCaptioner(Captioner):
    """A loaded BLIP; safe to call from several threads. It gives one caption an image, whatever `samples` says."""

    def __init__(self, checkpoint: str = BLIP_CHECKPOINT, tagger: str | None = None):
        """Load a checkpoint by its folder or its name on the model hub; raises what checkpoints.load raises."""
        self.tag_scorer = load_tag_scorer(tagger)
        loaded = checkpoints.load(checkpoint, BLIP)
        self.name, self._torch, self._device = f"blip:{loaded.name}", loaded.torch, loaded.device
        self._processor, self._tokenizer = loaded.processor, loaded.tokenizer
        self._model = loaded.model
        self._model.text_decoder.generation_config = import_module("transformers").GenerationConfig(  # not its own
            max_length=MAX_TOKENS, min_length=MIN_TOKENS, num_beams=BEAM_WIDTH, do_sample=False
        )
        self._prompt = self._tokenizer(PROMPT)["input_ids"]  # `generate` puts START first and drops the last

    def see(self, image: Source) -> SeenImage:
        """Read an image; its features are the pixels as BLIP takes them, [1, 3, S, S]."""
        pixels = self._processor(images=open_image(image), return_tensors="pt")["pixel_values"]
        return SeenImage(image, None, {"pixels": pixels})

    def write(self, images: Sequence[SeenImage], *_) -> list[tuple[list[str], float | None]]:
        return [([self._caption(one.features["pixels"])], None) for one in images]

    def _caption(self, pixels: Any) -> str:
        prompt = self._torch.tensor([self._prompt], device=self._device)
        (ids,) = self._model.generate(pixels.to(self._device), input_ids=prompt)
        text = self._tokenizer.decode(ids[len(self._prompt) - 1 :], skip_special_tokens=True)
        return join_words(words(APART.sub(r"\1", text)))


DIGITS = 5  # of a cosine that count: the last ones differ between processors, and equal images must stay equal


class NearestImage:
    """Labelled images, searched by their pooled features. Holds 5 kB of features an image."""

    def __init__(self, labelled: LabelledFeatures):
        """Read their features; there must be at least one image."""
        self._references, features = labelled.references, labelled.read(slice(0, None))
        self._centre = features.mean(0, dtype=np.float64)
        self._directions = _unit(features - self._centre)  # [R, D]

    def captions(self, features: np.ndarray) -> list[str]:
        """Return the captions of the image nearest to these features [D], the most typical first, all different."""
        cosines = self._directions @ _unit(features - self._centre)  # [R]
        nearest = int(np.argmax(cosines.round(DIGITS)))  # of equal ones the first in the data set
        return by_agreement(self._references[nearest])


def nearest_captions(prepared: PreparedRun, split: str, language: str) -> list[str]:
    """Return the first caption in a language of the training image nearest to each image of a split."""
    nearest = NearestImage(prepared.labelled_features("train", "pooled", language))
    held_out = prepared.labelled_features(split, "pooled", language)
    return [nearest.captions(features)[0] for features in held_out.read(slice(0, None))]


class NearestCaptioner(Captioner):
    """A prepared run's train images with their captions, and its encoder."""

    def __init__(self, run_dir: str | Path, tagger: str | None = None, threads: int = 0):
        """Load both; raises DataError when the run is not prepared, BundleError when its encoder has changed since."""
        folder = Path(run_dir).resolve()
        prepared = PreparedRun.load(RunDir(folder))
        self.languages = (prepared.language,)
        labelled = prepared.labelled_features("train", "pooled", prepared.language)
        if not len(labelled):
            raise DataError(f"the run {folder} has no train images; run 01_prepare with a larger data set")
        self._nearest = NearestImage(labelled)
        self._encoder = find_encoder(prepared.encoded.encoder, threads)
        self.tag_scorer = load_tag_scorer(tagger)
        self.name = f"nearest:{folder.name}"

    def see(self, image: Source) -> SeenImage:
        pixels = self._encoder.read(image)
        return SeenImage(image, pixels, {"pooled": self._encoder.encode(pixels[None])["pooled"][0]})

    def write(self, images: Sequence[SeenImage], samples: int, *_) -> list[tuple[list[str], float | None]]:
        return [(self._nearest.captions(one.features["pooled"])[: 1 + samples], None) for one in images]


def by_agreement(captions: Sequence[str]) -> list[str]:
    """Return captions in lower case without punctuation, the most typical of them first, all different.

    It has most in common with the others: the mean over them of Dice's coefficient of words and pairs of words.
    """
    texts = [standardise(text) for text in captions]
    groups = [{*text, *pairwise(text)} for text in texts]
    overlaps = np.array([[2 * len(a & b) / max(len(a) + len(b), 1) for b in groups] for a in groups])  # [C, C]
    np.fill_diagonal(overlaps, 0)
    agreement = overlaps.sum(1) / max(len(texts) - 1, 1)
    order = np.argsort(-agreement.round(DIGITS), kind="stable")  # of equal ones as written first
    shown = {tuple(text): join_words(words(caption)) for text, caption in zip(texts, captions, strict=True)}
    return list(dict.fromkeys(shown[tuple(texts[place])] for place in order))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors at length 1, float32; one of length 0 stays as it is."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
