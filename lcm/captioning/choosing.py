"""Choosing: which of the captions that beam search finds is said of an image.

Knows how the captioner's probability of a caption and the fit of caption and image, as the dual encoder sees it, are
added. Refuses to know how either comes about. The captioner knows which sentences are usual, the dual encoder was
trained to tell images apart.

Shapes: B images, F numbers in the pooled features, D in a unit vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lcm.captioning.decoding import LENGTH_POWER


class ImageTextModel(Protocol):
    """What tells how well a text fits an image: captioning/dual_encoder.py's."""

    def image_vectors(self, pooled: np.ndarray) -> np.ndarray:
        """Return unit vectors [B, D] of pooled features [B, F]."""
        ...

    def text_vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return each text as a unit vector [K, D]; zeros where no word of it is known."""
        ...


@dataclass(frozen=True)
class Chooser:
    """Candidates are compared by score + weight * cosine."""

    model: ImageTextModel
    weight: float  # of the cosine, in units of a hypothesis's score: about nats a word
    length_power: float = LENGTH_POWER  # of the score: see Hypothesis.score_at

    def choose(
        self, pooled: np.ndarray, candidates: Sequence[Sequence[str]], scores: Sequence[Sequence[float]]
    ) -> list[int]:
        """Return the place of each image's best caption among its `candidates`, which have `scores`.

        `pooled` [B, F] are the images' features; each image has one candidate or more.
        """
        texts = [text for each in candidates for text in each]
        vectors = np.split(self.model.text_vectors(texts), np.cumsum([len(each) for each in candidates])[:-1])
        images = self.model.image_vectors(pooled)
        return [
            int(np.argmax(np.array(its_scores) + self.weight * (its_vectors @ image)))
            for image, its_vectors, its_scores in zip(images, vectors, scores, strict=True)
        ]
