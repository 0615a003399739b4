"""CIDEr-D: how much a caption says that people say of this image and not of every one.

Knows how common each n-gram is in the references of a set, counted once, and scores captions of any of its images.
Refuses to know models and how the captions came about. A word may be anything that can be compared: text, as scores are
reported, or an id, as self-critical training rewards what it samples, END among them.

After Vedantam et al., "CIDEr: Consensus-based Image Description Evaluation" (2015), details as in pycocoevalcap's
cider_scorer.py, which keeps the n-grams of all captions at once: 180 MB at 10,000 images.

Shapes: B images, S captions of each, n words in an n-gram.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

# Of pycocoevalcap.cider.cider_scorer
SIZES = (1, 2, 3, 4)  # n; the score is the mean over them
SIGMA = 6.0  # words of difference in length that cost e**-0.5
SCALE = 10.0

Words = Sequence[Hashable]  # of a caption
NGram = tuple[Hashable, ...]


class _Vector(NamedTuple):
    """A caption as CIDEr-D sees it."""

    weights: list[dict[NGram, float]]  # for each n: how often the n-gram occurs, times its idf
    norms: list[float]  # for each n: Euclidean
    length: int  # words


class CiderD:
    """CIDEr-D against the captions of images, n-grams weighted by how few of the images' captions hold them."""

    def __init__(self, references: Sequence[Sequence[Words]]):
        """`references`: for each image, its captions as words; kept as they are, not copied.

        Ids that captions to be scored end on, such as END, belong at the end of these too. The vectors of the
        references are made anew for each batch: of 30,000 captions they would fill 160 MB beside the 9 MB of
        this, and the 7 ms of a batch (16 images, 5 captions of each, 5 references) become 5 to 8.
        """
        self._references = references
        self._rarest = math.log(max(1, len(references)))  # idf of what one image's captions hold, or none's
        self._idf = {ngram: self._rarest - math.log(images) for ngram, images in _shared_ngrams(references).items()}

    def score(self, places: Sequence[int], captions: Sequence[Sequence[Words]]) -> np.ndarray:
        """Return the CIDEr-D [B, S] of S captions for each of the images at `places`; 0 to 10.

        An empty caption earns 0, and so does every caption of an image without references. With a single image all
        earn 0, since each n-gram then weighs log 1 = 0.
        """
        scores = []
        for place, candidates in zip(places, captions, strict=True):
            references = [self._vector(reference) for reference in self._references[place]]
            scores.append([_mean_similarity(self._vector(caption), references) for caption in candidates])
        return SCALE * np.array(scores, dtype=np.float64)

    def _vector(self, caption: Words) -> _Vector:
        weights = [
            {ngram: count * self._idf.get(ngram, self._rarest) for ngram, count in Counter(_ngrams(caption, n)).items()}
            for n in SIZES
        ]
        norms = [math.sqrt(sum(weight * weight for weight in each.values())) for each in weights]
        return _Vector(weights, norms, len(caption))


def _ngrams(caption: Words, n: int) -> Iterator[NGram]:
    return zip(*(caption[start:] for start in range(n)), strict=False)


def _shared_ngrams(references: Sequence[Sequence[Words]]) -> dict[NGram, int]:
    """Return how many images' captions hold each n-gram that those of two or more do.

    The others, four in five, have log(1) = 0 in their idf as unseen ones do. An n-gram is counted only if both
    halves of it, each one word shorter, are shared: it cannot be otherwise, and memory stays small while counting.
    """
    shared: dict[NGram, int] = {(): len(references)}
    for n in SIZES:
        counts: Counter[NGram] = Counter()
        for captions in references:
            found = {ngram for caption in captions for ngram in _ngrams(caption, n)}
            counts.update(ngram for ngram in found if ngram[1:] in shared and ngram[:-1] in shared)
        shared |= {ngram: images for ngram, images in counts.items() if images > 1}
    return shared


def _mean_similarity(caption: _Vector, references: list[_Vector]) -> float:
    """Return the mean over references and n of the cosine, clipped and less for another length; 0 to 1."""
    total = 0.0
    for reference in references:
        penalty = math.exp(-((caption.length - reference.length) ** 2) / (2 * SIGMA**2))
        for ours, theirs, our_norm, their_norm in zip(
            caption.weights, reference.weights, caption.norms, reference.norms, strict=True
        ):
            product = 0.0
            for ngram, weight in ours.items():
                if their_weight := theirs.get(ngram):
                    product += min(weight, their_weight) * their_weight  # what is said too often earns nothing
            if product:
                total += penalty * product / (our_norm * their_norm)
    return total / (len(SIZES) * max(1, len(references)))
