"""Captioners: an image in, a description out.

Knows how to find a bundle with its encoder and how to turn features into captions. Refuses to know HTTP,
files of results and metrics.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from lcm.captioning.bundle import Bundle
from lcm.captioning.decoding import decode_beam
from lcm.config import resource
from lcm.data.images import read_image
from lcm.encoding.encoders import find_encoder

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
        kind = self._bundle.manifest.feature_kind
        features = self._encoder.encode(pixels[None], (kind,))[kind]
        (caption,) = write_captions(self._bundle, features)
        return Description(caption, self.name)


def write_captions(
    bundle: Bundle, features: np.ndarray, beam_width: int | None = None, max_words: int | None = None
) -> Iterator[str]:
    """Yield the best caption for each image's features, [B, D] or [B, N, D], by the bundle's own beam search.

    `beam_width` and `max_words` take the place of the bundle's.
    """
    beam_width = beam_width or bundle.manifest.beam_width
    max_words = max_words or bundle.manifest.max_words
    for start in range(0, len(features), IMAGES_AT_ONCE):
        state = bundle.start(features[start : start + IMAGES_AT_ONCE])
        for hypotheses in decode_beam(bundle.step, state, max_words, beam_width):
            yield bundle.vocabulary.decode(hypotheses[0].token_ids)


def load_captioner(bundle: str | Path | None = None) -> BundleCaptioner:
    """Return the captioner of a bundle's folder; without one, of the bundle that lcm ships.

    Raises BundleError when the folder holds no whole bundle.
    """
    return BundleCaptioner(Path(bundle) if bundle else resource(SHIPPED_BUNDLE))
