"""Tags: key words with a score of how well they fit the image; and which of a beam's captions fits best.

A score is a share among the candidates, not of the image's area, and no probability: a softmax over the candidates says
how much better one fits than the others; alone, any has 1. Or, where lcm.evaluation.tags has fitted curves, each has a
probability of its own, and what is improbable is no tag.

Shapes: B images, K candidates, F numbers in the pooled features, D in a vector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lcm.captioning.terms import Terms, Texts
from lcm.data.images import Source
from lcm.data.text import candidates, standardise
from lcm.errors import ConfigError

if TYPE_CHECKING:
    from lcm.captioning.taggers import DualEncoder

Tag = tuple[str, float]  # word, score
SHARE, PROBABILITY = SCORES = ("share", "probability")
MIN_SCORE = 0.5  # least probability of a tag, where nobody says another: it rather fits than not
TagRequest = tuple[Texts | None, str, float]  # labels, None: the captions' words; one of SCORES; least score
SHARES: TagRequest = (None, SHARE, 0.0)
# Numbers for `probability`: of "words" that a captioner wrote, of "labels" that a person asks about, and "mean_image".
Curves = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class SeenImage:
    """An image as a captioner has read and encoded it: its features, and where to read it anew."""

    source: Source
    pixels: np.ndarray | None  # uint8 [S, S, 3]: the picture as a square, as read_image returns it; None: not kept
    features: Mapping[str, np.ndarray]  # kind -> features of this image, those that its captioner or tag scorer reads


def tag_request(scorer: "DualEncoder | None", labels: Texts | None, scores: str, min_score: Any) -> TagRequest:
    """Return what is wanted of tags; raises ConfigError for what cannot be had, as probabilities without curves."""
    if scores == SHARE and min_score is None:
        return labels, scores, 0.0
    least = MIN_SCORE if min_score is None else min_score
    if scores != PROBABILITY or not (isinstance(least, int | float) and 0 <= least <= 1):
        raise ConfigError(
            f"scores is {scores!r} and min_score {min_score!r}; choose scores from {', '.join(SCORES)}, and for "
            "probabilities alone a min_score from 0 to 1"
        )
    if not (scorer and scorer.curves):
        raise ConfigError(
            "this model has no probabilities of tags; leave scores out, or have 03_evaluate measure it on 50 photos"
        )
    return labels, scores, least


def probability(curve: Sequence[float], own: np.ndarray, typical: np.ndarray) -> np.ndarray:
    """Return how probable it is that texts fit an image [K]: the sigmoid of a * own + b * typical + c.

    The curve has a, b and c. `own` are the cosines of texts and image, `typical` those of texts and the mean image, all
    times the scorer's scale: what is near every photo must be nearer to this one.
    """
    return (1 + np.tanh((curve[0] * own + curve[1] * typical + curve[2]) / 2)) / 2  # e ** x would overflow


def rank(scorer: "DualEncoder", vector: np.ndarray, texts: Texts, wanted: TagRequest = SHARES) -> tuple[Tag, ...]:
    """Return texts with scores, best first, equal ones as given; what is unknown or scores too low is left out."""
    shown = [*texts]
    vectors = scorer.text_vectors([*texts.values()] if isinstance(texts, Mapping) else shown)
    known = np.flatnonzero(vectors.any(1))
    if not len(known):
        return ()
    labels, kind, least = wanted
    logits = scorer.scale * (vectors[known] @ vector).astype(np.float64)
    if kind == PROBABILITY:
        typical = scorer.scale * (vectors[known] @ scorer.curves["mean_image"])
        scores = probability(scorer.curves["words" if labels is None else "labels"], logits, typical)
    else:
        weights = np.exp(logits - logits.max())
        scores = weights / weights.sum()
    order = np.argsort(-scores, kind="stable")
    return tuple((shown[known[place]], float(scores[place])) for place in order if not scores[place] < least)


def tag_candidates(
    captions: Sequence[str], labels: Texts | None, language: str, terms: Terms | None = None, shown_in: str = ""
) -> dict[str, str]:
    """Return what an image's tags are chosen from: the user's `labels`, else the content words of all its captions.

    Each has the text that is scored. What is one of the `terms` is shown as such, in the language `shown_in`. Labels
    that differ only in case or punctuation are one, as first written.
    """
    if labels is None and terms:
        return terms.find(captions, language, shown_in)
    if labels is None:
        return {word: word for word in candidates(captions, language)}
    different: dict[str, str] = {}
    for label in labels:
        different.setdefault(" ".join(standardise(label)) or label, label)
    return {label: labels[label] if isinstance(labels, Mapping) else label for label in different.values()}


@dataclass(frozen=True)
class Reranker:
    """Chooses among the captions that beam search finds, by score + weight * cosine.

    The captioner knows which sentences are usual, the dual encoder was trained to tell images apart.
    """

    model: "DualEncoder"  # a bundle's own
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
