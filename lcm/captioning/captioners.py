"""Captioners: an image in, a description out.

Knows how to find a bundle with its encoder and how to turn features into captions. Refuses to know HTTP,
files of results and metrics.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from lcm.captioning.bundle import Bundle
from lcm.captioning.decoding import State, decode_beam
from lcm.config import resource
from lcm.data.images import read_image
from lcm.data.vocabulary import Vocabulary
from lcm.encoding.encoders import find_encoder
from lcm.encoding.prepared import LabelledFeatures

SHIPPED_BUNDLE = "data/models/flickr8k"
IMAGES_AT_ONCE = 256  # bounds the memory of a beam search over many images


@dataclass(frozen=True)
class Description:
    """What a captioner says of one image."""

    caption: str
    model: str  # name of the captioner and its version


class Captioner(Protocol):
    """Anything that captions images."""

    name: str

    def describe(self, image: bytes | str | Path) -> Description:
        """Describe an image, given as its path or its bytes; raises BadImageError when it is not one."""
        ...


class Decoder(Protocol):
    """What turns features into words: a bundle, or a model in training."""

    vocabulary: Vocabulary

    def start(self, features: np.ndarray) -> State:
        """Return the state before the first word."""
        ...

    def step(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Return log-probabilities of the next word, and the next state."""
        ...


class BundleCaptioner:
    """A bundle with its encoder: the whole way from a picture to its caption, in ONNX Runtime alone."""

    def __init__(self, folder: Path):
        """Load both; raises BundleError when the bundle is damaged or the encoder is not the one it knows."""
        self._bundle = Bundle(folder)
        self._encoder = find_encoder(self._bundle.manifest.encoder)
        self.name = self._bundle.manifest.name

    def describe(self, image: bytes | str | Path) -> Description:
        """Describe an image, given as its path or its bytes; raises BadImageError when it is not one."""
        pixels = read_image(image, self._encoder.spec.size)
        manifest = self._bundle.manifest
        features = self._encoder.encode(pixels[None], (manifest.feature_kind,))[manifest.feature_kind]
        (caption,) = _captions_of(self._bundle, features, manifest.beam_width, manifest.max_words)
        return Description(caption, self.name)


def caption_features(
    decoder: Decoder, labelled: LabelledFeatures, beam_width: int, max_words: int, progress: bool = True
) -> list[str]:
    """Return the best caption of each image, from features that are encoded already."""
    captions = []
    starts = range(0, len(labelled), IMAGES_AT_ONCE)
    for start in tqdm(starts, desc="caption", unit=f" x {IMAGES_AT_ONCE} images", disable=not progress):
        features = labelled.read(slice(start, start + IMAGES_AT_ONCE))
        captions += _captions_of(decoder, features, beam_width, max_words)
    return captions


def _captions_of(decoder: Decoder, features: np.ndarray, beam_width: int, max_words: int) -> list[str]:
    """Return a caption for each image's features, [B, D] or [B, N, D]."""
    found = decode_beam(decoder.step, decoder.start(features), max_words, beam_width)
    return [decoder.vocabulary.decode(hypotheses[0].token_ids) for hypotheses in found]


def load_captioner(bundle: str | Path | None = None) -> BundleCaptioner:
    """Return the captioner of a bundle's folder; without one, of the bundle that lcm ships.

    Raises BundleError when the folder holds no whole bundle.
    """
    return BundleCaptioner(Path(bundle) if bundle else resource(SHIPPED_BUNDLE))
