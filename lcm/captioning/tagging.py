"""Tags: key words with their share of how well they fit the image; and which of a beam's captions fits best.

A score is a share among the candidates, not of the image's area, and no probability: a softmax over the candidates says
how much better one fits than the others. Alone, any candidate has 1.

Shapes: B images, K candidates, F numbers in the pooled features, D in a vector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lcm.data.images import Source
from lcm.data.text import ENGLISH, candidates, standardise

Tag = tuple[str, float]  # word, score


@dataclass(frozen=True)
class SeenImage:
    """An image as a captioner has read and encoded it: its features, and where to read it anew."""

    source: Source
    pixels: np.ndarray | None  # uint8 [S, S, 3]: the picture as a square, as read_image returns it; None: not kept
    features: Mapping[str, np.ndarray]  # kind -> features of this image, those that its captioner or tag scorer reads


class TagScorer(Protocol):
    """A zero-shot image-text model: images and texts become vectors, and a cosine says how well two fit."""

    name: str
    scale: float  # what cosines are multiplied by before the softmax: one over the model's own temperature

    def image_vector(self, image: SeenImage) -> np.ndarray:
        """Return the image as a unit vector, [D] float32."""
        ...

    def text_vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return each text as a unit vector, [K, D] float32; a text that it cannot read is all zeros."""
        ...


def rank(scorer: TagScorer, image_vector: np.ndarray, texts: Sequence[str]) -> tuple[Tag, ...]:
    """Return the texts with their shares, best first, equal ones in the order given; unknown ones are left out."""
    vectors = scorer.text_vectors(texts)
    known = np.flatnonzero(vectors.any(1))
    if not len(known):
        return ()
    logits = scorer.scale * (vectors[known] @ image_vector).astype(np.float64)
    weights = np.exp(logits - logits.max())
    scores = weights / weights.sum()
    order = np.argsort(-scores, kind="stable")
    return tuple((texts[known[place]], float(scores[place])) for place in order)


def tag_candidates(captions: Sequence[str], labels: Sequence[str] | None = None, language: str = ENGLISH) -> list[str]:
    """Return what an image's tags are chosen from: the user's `labels`, else the content words of all its captions.

    Labels that differ only in case or punctuation are one, as first written. Captions without any content word give
    none.
    """
    if labels is None:
        return candidates(captions, language)
    different: dict[str, str] = {}
    for label in labels:
        different.setdefault(" ".join(standardise(label)) or label, label)
    return list(different.values())


@dataclass(frozen=True)
class Reranker:
    """Chooses among the captions that beam search finds, by score + weight * cosine.

    The captioner knows which sentences are usual, the dual encoder was trained to tell images apart.
    """

    model: Any  # a bundle's DualEncoder: it gives image_vectors and text_vectors
    weight: float  # of the cosine, in units of a hypothesis's score: about nats a word
    length_power: float  # of the score: see Hypothesis.score_at

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
