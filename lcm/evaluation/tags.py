"""Quality of tags: their order against the words that people agreed on, retrieval, and words never seen in training.

The gold tags of an image are the content words that at least two of its references use. Average precision is the sum
of the precision at each hit over the number of gold tags, so one that was never proposed is a miss; precision at 5 is
the hits among the first five over 5, also where fewer were proposed. Both are 0 to 1 and more is better.

Edge cases: an image without gold tags, as any with fewer than two references, is skipped and counted; an image
without tags scores 0; a repeated tag counts once. Words are compared as `lcm.data.text` folds them.

Shapes: B images, K texts, D numbers in a vector, R texts of one block.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lcm.captioning.tagging import Photo, Tag, TagScorer, rank, tag_candidates
from lcm.data.text import candidates, content_words
from lcm.errors import DataError, require
from lcm.evaluation.bootstrap import Interval, bootstrap_difference, bootstrap_mean
from lcm.features.cache import LabelledFeatures

KS = (1, 5, 10)
# Cosines this close are equal. Two float32 sums of the same products differ by their order: by up to 5e-7, measured
# for equal vectors of 8 to 4,096 numbers.
TIE = 2e-6
BLOCK_COSINES = 1 << 22  # cosines held at once: 16 MB
LEAST = 2  # references that must use a word: one alone says as much about its writer as about the image
MEASURES = ("map", "precision_5")  # means over images: mean average precision, precision at 5
# What the scorer is compared with, all on the words of the same captions -> its title in a table.
BASELINES = {
    "caption_order": "caption order",  # first the words of the best caption
    "frequency": "training frequency",  # first what most train captions hold: an order that ignores the image
    "votes": "caption votes",  # first what most of the image's captions hold
    "upper_bound": "upper bound",  # gold tags first: the best that any order of these words can reach
}


@dataclass(frozen=True)
class Recall:
    """Recall at k in both directions, k -> share of queries: 0 to 1, higher is better."""

    image_to_text: dict[int, float]
    text_to_image: dict[int, float]
    images: int  # images with texts: the queries of image_to_text
    skipped_images: int  # images without
    texts: int  # the queries of text_to_image

    def as_metrics(self) -> dict[str, float]:
        """Return the flat object for metrics.json: `recall_1_image_to_text` to `recall_10_text_to_image`."""
        directions = {"image_to_text": self.image_to_text, "text_to_image": self.text_to_image}
        return {f"recall_{k}_{name}": share for name, recall in directions.items() for k, share in recall.items()}


def retrieval(image_vectors: np.ndarray, text_vectors: np.ndarray, owner: np.ndarray) -> Recall:
    """Count how often images [B, D] find their own texts [K, D], and texts their image: text i's is `owner[i]`, [K].

    Recall at k is the share of queries with an own item among the k of highest cosine (Hodosh, Young and Hockenmaier
    2013; both directions as in Karpathy and Fei-Fei 2015). A query's rank is how many items of others are at least as
    near as its nearest own one: ties count against it, so a model that gives everything the same vector ranks last.

    Edge cases: an image without texts asks nothing, but texts can still find it instead of their own; a vector of
    zeros has the cosine 0 with everything; any model reaches a k that is no smaller than the number of items.
    Memory: a float32 copy of both, and one block of cosines; never all K times B.
    Raises DataError when there are no images or no texts, or a vector is not finite.
    """
    if not len(image_vectors) or not len(text_vectors):
        raise DataError(f"{len(image_vectors)} images and {len(text_vectors)} texts; give at least one of each")
    images, texts, owner = _units(image_vectors, "image"), _units(text_vectors, "text"), np.asarray(owner)
    rows = max(1, BLOCK_COSINES // len(images))
    blocks = [slice(start, start + rows) for start in range(0, len(texts), rows)]
    own = np.concatenate([np.einsum("rd,rd->r", texts[block], images[owner[block]]) for block in blocks])  # [K]
    nearest = np.full(len(images), -np.inf, np.float32)  # [B], cosine of an image and the nearest of its own texts
    np.maximum.at(nearest, owner, own)

    text_ranks = np.empty(len(texts), np.int64)  # images of others at least as near as a text's own
    image_ranks = np.zeros(len(images), np.int64)  # texts of others at least as near as an image's nearest own
    for block in blocks:
        cosines = texts[block] @ images.T  # [R, B]
        cosines[np.arange(len(cosines)), owner[block]] = -np.inf  # leaves those of others
        text_ranks[block] = np.count_nonzero(cosines >= own[block, None] - TIE, axis=1)
        image_ranks += np.count_nonzero(cosines >= nearest - TIE, axis=0)
    asking = np.isfinite(nearest)
    return Recall(
        image_to_text={k: float((image_ranks[asking] < k).mean()) for k in KS},
        text_to_image={k: float((text_ranks < k).mean()) for k in KS},
        images=int(asking.sum()),
        skipped_images=int((~asking).sum()),
        texts=len(texts),
    )


def _units(vectors: np.ndarray, kind: str) -> np.ndarray:
    """Return the vectors at length one, float32; zeros stay zeros."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)).astype(np.float32)
    if not (usable := np.isfinite(lengths)).all():
        raise DataError(f"the vector of {kind} {int(usable.argmin())} has a number that is not finite, or too large")
    lengths[lengths == 0] = 1
    return np.divide(vectors, lengths[:, None], dtype=np.float32, casting="same_kind")


def folded_counts(captions: Iterable[str]) -> Counter[str]:
    """Return how many of the captions hold each content word; a caption counts once however often it holds one."""
    return Counter(word for caption in captions for word in content_words(caption))


def gold_tags(references: Sequence[str]) -> frozenset[str]:
    """Return the content words that at least two of an image's references use."""
    return frozenset(word for word, uses in folded_counts(references).items() if uses >= LEAST)


def average_precision(ranked: Sequence[str], gold: Collection[str]) -> float:
    """Return the sum over hits of the precision down to that hit, over the number of gold tags; best tag first."""
    precisions, hits = 0.0, 0
    for place, word in enumerate(dict.fromkeys(ranked), start=1):
        if word in gold:
            hits += 1
            precisions += hits / place
    return precisions / len(gold)


def precision_at_5(ranked: Sequence[str], gold: Collection[str]) -> float:
    """Return how many of the first five tags are gold, over 5."""
    return sum(word in gold for word in list(dict.fromkeys(ranked))[:5]) / 5


@dataclass(frozen=True)
class TagComparison:
    """The scorer's order of tags and every baseline's on the same images, with 95 % intervals over images.

    Both dicts go from order to measure to interval; they are empty where there are too few images to compare.
    """

    means: Mapping[str, Mapping[str, Interval]]  # of "scorer" and the names of BASELINES
    scorer_over: Mapping[str, Mapping[str, Interval]]  # the scorer's minus the baseline's, paired by image
    images: int  # images with gold tags
    skipped_images: int  # images without
    reason: str | None = None  # why there are no intervals

    def as_metrics(self) -> dict[str, float | str | None]:
        """Return the flat object for metrics.json.

        With M for tag_map and tag_precision_5, and B for each name of BASELINES: the scorer's `M`, the baseline's
        `M_B`, the scorer's minus the baseline's `M_over_B`; each with `…_low` and `…_high`, the ends of its interval.
        Also tag_images and tag_skipped_images. Without intervals all are None, and tag_map_reason says why.
        """
        flat: dict[str, float | str | None] = {}
        for measure in MEASURES:
            named = {f"tag_{measure}": self.means.get("scorer")}
            for name in BASELINES:
                named |= {f"tag_{measure}_{name}": self.means.get(name)}
                named |= {f"tag_{measure}_over_{name}": self.scorer_over.get(name)}
            for key, intervals in named.items():
                for end, part in {"": "value", "_low": "low", "_high": "high"}.items():
                    flat[f"{key}{end}"] = getattr(intervals[measure], part) if intervals else None
        flat |= {"tag_images": self.images, "tag_skipped_images": self.skipped_images}
        return flat | ({"tag_map_reason": self.reason} if self.reason else {})


def compare_tags(
    tags_by_image: Sequence[Sequence[str]],
    captions_by_image: Sequence[Sequence[str]],
    references_by_image: Sequence[Sequence[str]],
    train_counts: Mapping[str, int],
) -> TagComparison:
    """Compare the scorer's order of tags with simple orders of the same words, each with intervals over images.

    `tags_by_image` are the scorer's words, best first; it may leave out words that it cannot read, which the
    baselines keep, so a gold tag among them is the scorer's miss. `captions_by_image` are those the words were taken
    from, best first, and `train_counts` are `folded_counts` of the train captions. Ties of frequency and of votes go
    by caption order.
    """
    values: dict[str, dict[str, list[float]]] = {
        name: {measure: [] for measure in MEASURES} for name in ("scorer", *BASELINES)
    }
    for tags, captions, references in zip(tags_by_image, captions_by_image, references_by_image, strict=True):
        if gold := gold_tags(references):
            words, votes = candidates(captions), folded_counts(captions)
            orders = {  # `sorted` leaves ties in caption order
                "scorer": tags,
                "caption_order": words,
                "frequency": sorted(words, key=lambda word: -train_counts.get(word, 0)),
                "votes": sorted(words, key=lambda word, votes=votes: -votes[word]),
                "upper_bound": sorted(words, key=lambda word, gold=gold: word not in gold),
            }
            for name, ranked in orders.items():
                values[name]["map"].append(average_precision(ranked, gold))
                values[name]["precision_5"].append(precision_at_5(ranked, gold))

    images = len(values["scorer"]["map"])
    skipped = len(references_by_image) - images
    if images < 2:
        why = f"{images} of {images + skipped} images have a gold tag: a word that at least {LEAST} references use"
        return TagComparison({}, {}, images, skipped, f"{why}; intervals need two such images")
    means = {name: {measure: bootstrap_mean(its[measure]) for measure in MEASURES} for name, its in values.items()}
    over = {
        name: {measure: bootstrap_difference(values["scorer"][measure], values[name][measure]) for measure in MEASURES}
        for name in BASELINES
    }
    return TagComparison(means, over, images, skipped)


NO_SCORER = "the bundle has no tag scorer"
NO_IMAGES = "there are no images"
NO_UNSEEN_WORDS = "the scorer can read no word of the references that the train captions lack and not all images have"


@dataclass(frozen=True)
class UnseenWord:
    """A word that no train caption holds, on held-out images whose captions hold it and on all others."""

    word: str
    images: int  # whose captions hold it
    fitting: float  # mean cosine with them
    others: float  # mean cosine with all other images
    auc: float  # chance that a fitting image has a higher cosine than another; 0.5 is guessing


@dataclass(frozen=True)
class TagReport:
    """What was measured; without a tag scorer or images, nothing but empty tags."""

    tags: list[tuple[Tag, ...]]  # of each image, best first
    recall: Recall | None = None  # of people's captions
    comparison: TagComparison | None = None
    unseen: tuple[UnseenWord, ...] = ()
    reason: str = NO_SCORER  # why recall and comparison are None, where they are

    @property
    def unseen_auc(self) -> float | None:
        """The mean over the unseen words, each counting as much; None without any."""
        return float(np.mean([one.auc for one in self.unseen])) if self.unseen else None

    def as_metrics(self) -> dict[str, float | str | None]:
        """Return the flat object for metrics.json."""
        if self.recall is None or self.comparison is None:
            return {"tag_map": None, "tag_map_reason": self.reason}
        unseen = {"unseen_words": len(self.unseen), "unseen_words_auc": self.unseen_auc}
        if not self.unseen:
            unseen |= {"unseen_words_auc_reason": NO_UNSEEN_WORDS}
        return self.recall.as_metrics() | self.comparison.as_metrics() | unseen


def report_tags(
    scorer: TagScorer | None,
    held_out: LabelledFeatures,
    captions: Sequence[Sequence[str]],
    train_captions: Sequence[str],
) -> TagReport:
    """Measure `scorer` on held-out images with their pooled features and their generated captions, the best first."""
    if scorer is None or not captions:
        return TagReport([() for _ in captions], reason=NO_IMAGES if scorer else NO_SCORER)
    pooled, references = held_out.read(slice(0, None)), held_out.references
    photos = [Photo(image.path, {"pooled": row}) for image, row in zip(held_out.images, pooled, strict=True)]
    vectors = np.stack([scorer.image_vector(photo) for photo in photos])  # [B, D]
    tags = [rank(scorer, vector, tag_candidates(of)) for vector, of in zip(vectors, captions, strict=True)]
    counts = folded_counts(train_captions)
    texts = [text for each in references for text in each]
    owner = np.repeat(np.arange(len(references)), [len(each) for each in references])
    return TagReport(
        tags,
        retrieval(vectors, scorer.text_vectors(texts), owner),
        compare_tags([[word for word, _ in one] for one in tags], captions, references, counts),
        _unseen_words(scorer, vectors, references, counts),
    )


def _unseen_words(
    scorer: TagScorer, vectors: np.ndarray, references: Sequence[Sequence[str]], train_counts: Mapping[str, int]
) -> tuple[UnseenWord, ...]:
    """Return the content words of the references that no train caption holds and that the scorer can read."""
    holding: dict[str, set[int]] = {}
    for place, each in enumerate(references):
        for word in {word for text in each for word in content_words(text)}:
            holding.setdefault(word, set()).add(place)
    words = sorted(word for word, places in holding.items() if word not in train_counts and len(places) < len(vectors))
    unknown = set(scorer.unknown(words))
    words = [word for word in words if word not in unknown]
    found = []
    for word, text_vector in zip(words, scorer.text_vectors(words), strict=True):
        cosines = vectors @ text_vector  # [B]
        fits = np.isin(np.arange(len(vectors)), list(holding[word]))
        auc = require("sklearn.metrics", "evaluate").roc_auc_score(fits, cosines)
        fitting, others = cosines[fits], cosines[~fits]
        found.append(UnseenWord(word, len(fitting), float(fitting.mean()), float(others.mean()), float(auc)))
    return tuple(found)
