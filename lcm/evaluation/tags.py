"""Quality of tags: their order against the words that people agreed on, their probabilities, and retrieval.

The gold tags of an image are the content words that at least two of its references use. Average precision is the sum
of the precision at each hit over the number of gold tags, so one that was never proposed is a miss; precision at 5 is
the hits among the first five over 5, also where fewer were proposed. Both are 0 to 1 and more is better.

A word fits an image when at least one of its references uses it. There is a curve for the captions' words, of which a
third fit, and one for labels, of which nobody knows how many will: asked here are, of each image with gold tags, as
often four of which one, a gold tag, fits as four of which none does. Those are by turns gold tags of other images, so
"man" more often than "kitchen", and any of their words. Each half of the images is measured by the other's curves.

Edge cases: an image without gold tags, as any with fewer than two references, is skipped and counted; an image
without tags scores 0; a repeated tag counts once. Words are compared by their lemmas (`lcm.data.text`).

Shapes: B images, K texts, D numbers in a vector, R texts of one block.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lcm.captioning.tagging import MIN_SCORE, Curves, SeenImage, Tag, TagScorer, probability, rank, tag_candidates
from lcm.data.text import ENGLISH, candidates, comparison_form, content_words
from lcm.evaluation.bootstrap import Interval, bootstrap_difference, bootstrap_mean
from lcm.evaluation.calibration import BINS, LEAST, Bin, fit_curve
from lcm.features.cache import LabelledFeatures

KS = (1, 5, 10)
# Cosines this close are equal. Two float32 sums of the same products differ by their order: by up to 5e-7, measured
# for equal vectors of 8 to 4,096 numbers.
TIE = 2e-6
BLOCK = 1000  # texts whose cosines with all images are held at once
AGREED = 2  # references that must use a word: one alone says as much about its writer as about the image
ASKED, ROUNDS = 4, 4  # labels of a question, and questions of either kind about an image
MEASURES = ("map", "precision_5")  # means over images: mean average precision, precision at 5
# The same words in orders that need no scorer -> the title in a table.
BASELINES = {
    "caption_order": "caption order",  # first the words of the best caption
    "upper_bound": "upper bound",  # gold tags first: the best that any order of these words can reach
}


def retrieval(image_vectors: np.ndarray, text_vectors: np.ndarray, owner: np.ndarray) -> dict[str, float]:
    """Count how often images [B, D] find their own texts [K, D], and texts their image: text i's is `owner[i]`, [K].

    Returns `recall_1_image_to_text` to `recall_10_text_to_image`: the share of queries with an own item among the k of
    highest cosine (Hodosh, Young and Hockenmaier 2013; both directions as in Karpathy and Fei-Fei 2015). A query's rank
    is how many items of others are at least as near as its nearest own one: ties count against it, so a model that
    gives everything the same vector ranks last.

    Edge cases: an image without texts asks nothing, but texts can still find it instead of their own; a vector of
    zeros has the cosine 0 with everything; any model reaches a k that is no smaller than the number of items.
    """
    images, texts, owner = _units(image_vectors), _units(text_vectors), np.asarray(owner)
    own = np.einsum("kd,kd->k", texts, images[owner])  # [K]
    nearest = np.full(len(images), -np.inf, np.float32)  # [B], cosine of an image and the nearest of its own texts
    np.maximum.at(nearest, owner, own)

    text_ranks = np.empty(len(texts), np.int64)  # images of others at least as near as a text's own
    image_ranks = np.zeros(len(images), np.int64)  # texts of others at least as near as an image's nearest own
    for block in (slice(start, start + BLOCK) for start in range(0, len(texts), BLOCK)):
        cosines = texts[block] @ images.T  # [R, B]
        cosines[np.arange(len(cosines)), owner[block]] = -np.inf  # leaves those of others
        text_ranks[block] = np.count_nonzero(cosines >= own[block, None] - TIE, axis=1)
        image_ranks += np.count_nonzero(cosines >= nearest - TIE, axis=0)
    ranks = {"image_to_text": image_ranks[np.isfinite(nearest)], "text_to_image": text_ranks}
    return {f"recall_{k}_{name}": float((its < k).mean()) for name, its in ranks.items() for k in KS}


def _units(vectors: np.ndarray) -> np.ndarray:
    """Return the vectors at length one, float32; zeros stay zeros."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    return (vectors / lengths).astype(np.float32)


def gold_tags(references: Sequence[str], language: str = ENGLISH) -> frozenset[str]:
    """Return the content words that at least two of an image's references use."""
    uses = Counter(word for text in references for word in content_words(text, language))
    return frozenset(word for word, count in uses.items() if count >= AGREED)


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
class TagReport:
    """What was measured; without a tag scorer or images, nothing but empty tags.

    The keys of `intervals` are those of metrics.json. With M for tag_map and tag_precision_5: the scorer's `M`,
    `M_caption_order` and `M_upper_bound` of the same words in that order, and `M_over_caption_order`, the scorer's
    minus the former, paired by image.
    """

    tags: list[tuple[Tag, ...]]  # of each image, best first
    recall: Mapping[str, float] = field(default_factory=dict)  # of people's captions, see `retrieval`
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    images: int = 0  # images with gold tags
    reason: str | None = None  # why there are no intervals, where there are none
    curves: Curves | None = None  # None: for too few images
    bins: Mapping[str, list[Bin]] = field(default_factory=dict)  # of each curve, a tenth of the probabilities each
    reliability: Mapping[str, float] = field(default_factory=dict)  # metrics of the probabilities

    def as_metrics(self) -> dict[str, float | str | None]:
        """Return the flat object for metrics.json; `…_low` and `…_high` are the ends of an interval."""
        flat: dict[str, float | str | None] = {"tag_map": None, "tag_map_reason": self.reason} if self.reason else {}
        if self.recall:
            flat |= self.recall
            flat |= {"tag_images": self.images, "tag_skipped_images": len(self.tags) - self.images}
        for name, its in self.intervals.items():
            flat |= its.as_metrics(name)
        return flat | self.reliability


def report_tags(scorer: TagScorer | None, held_out: LabelledFeatures, captions: Sequence[Sequence[str]]) -> TagReport:
    """Measure `scorer` on held-out images with their pooled features and their generated captions, the best first.

    All are in one language.
    """
    if scorer is None or not captions:
        reason = "there are no images" if scorer else "the bundle has no tag scorer"
        return TagReport([() for _ in captions], reason=reason)
    pooled, references = held_out.read(slice(0, None)), held_out.references
    photos = [SeenImage(image.path, None, {"pooled": row}) for image, row in zip(held_out.images, pooled, strict=True)]
    vectors = np.stack([scorer.image_vector(photo) for photo in photos])  # [B, D]
    language = held_out.images[0].language
    texts_of = (tag_candidates(of, language=language) for of in captions)
    tags = [rank(scorer, vector, of) for vector, of in zip(vectors, texts_of, strict=True)]
    texts = [text for each in references for text in each]
    owner = np.repeat(np.arange(len(references)), [len(each) for each in references])
    recall = retrieval(vectors, scorer.text_vectors(texts), owner)
    intervals, images = compare_orders([[word for word, _ in one] for one in tags], captions, references, language)
    why = f"{images} of {len(tags)} images have a gold tag: a word that at least {AGREED} references use"
    reason = None if intervals else f"{why}; intervals need two such images"
    return TagReport(tags, recall, intervals, images, reason, *_fit_curves(scorer, vectors, held_out, captions))


def _fit_curves(scorer: TagScorer, vectors: np.ndarray, held_out: LabelledFeatures, captions: Sequence) -> tuple:
    """Return `TagReport.curves`, `bins` and `reliability`; the arguments are as in report_tags, and vectors [B, D]."""
    language, references = held_out.images[0].language, held_out.references
    said = [set().union(*(content_words(text, language) for text in each)) for each in references]
    words = [(place, word) for place, its in enumerate(captions) for word in tag_candidates(its, language=language)]
    asked = _ask(said, [sorted(gold_tags(each, language)) for each in references])
    if len({place for place, _ in asked}) < LEAST or not words:
        return None, {}, {}
    mean_image = vectors.mean(0, dtype=np.float64).round(5)
    curves, bins, metrics = {"mean_image": mean_image.tolist()}, {}, {}
    for kind, judged in {"words": words, "labels": asked}.items():
        places, texts = np.array([place for place, _ in judged]), scorer.text_vectors([word for _, word in judged])
        fits = np.array([comparison_form(word) in said[place] for place, word in judged])
        signals = scorer.scale * np.stack([np.einsum("kd,kd->k", texts, vectors[places]), texts @ mean_image], 1)
        known, found = texts.any(1), np.zeros(len(judged))
        if min(np.bincount(places[known] % 2, minlength=2)) < BINS:  # too few to fit a half on
            return None, {}, {}
        curves[kind] = fit_curve(signals[known], fits[known])
        for half in (0, 1):
            fitted, measured = (known & (places % 2 == one) for one in (half, 1 - half))
            found[measured] = probability(fit_curve(signals[fitted], fits[fitted]), *signals[measured].T)
        bins[kind], metrics[f"tag_{kind}_ece"] = _reliability(found, fits)
        if scorer.sigmoid:  # how far it would have held
            metrics[f"tag_{kind}_ece_sigmoid"] = _reliability(probability(scorer.sigmoid, *signals.T), fits)[1]
    are_tags, has_one = (found >= MIN_SCORE).reshape(-1, ASKED), fits[::ASKED]
    none, one = float((~are_tags[~has_one].any(1)).mean()), float(are_tags[has_one, 0].mean())
    return curves, bins, metrics | {"tag_says_none": none, "tag_finds_one": one}


def _reliability(found: np.ndarray, fits: np.ndarray) -> tuple[list[Bin], float]:
    """Return bins of probabilities, a tenth each, and how far they are from the shares that fit, on average."""
    tenths = (found * BINS).astype(int)
    groups = [np.flatnonzero(tenths == tenth) for tenth in np.unique(tenths)]
    bins = [Bin(float(found[each].mean()), float(fits[each].mean()), len(each)) for each in groups]
    return bins, sum(n * abs(said_so - are_so) for said_so, are_so, n in bins) / len(found)


def _ask(said: Sequence[set[str]], gold: Sequence[Sequence[str]]) -> list[tuple[int, str]]:
    """Return the labels of all questions, ASKED of each, one that fits first, with the place of the image."""
    random, asked = np.random.default_rng(0), []
    pools = [word for each in gold for word in each], sorted(set().union(*said))
    for place, own in enumerate(said):
        wrong = [[word for word in pool if word not in own] for pool in pools]
        for turn in range(2 * ROUNDS if gold[place] and all(wrong) else 0):
            chosen = [gold[place] if turn % 2 else wrong[0], *(wrong[number % 2] for number in range(1, ASKED))]
            asked += [(place, pool[random.integers(len(pool))]) for pool in chosen]
    return asked


def compare_orders(
    tags_by_image: Sequence[Sequence[str]],
    captions_by_image: Sequence[Sequence[str]],
    references_by_image: Sequence[Sequence[str]],
    language: str = ENGLISH,
) -> tuple[dict[str, Interval], int]:
    """Compare the scorer's order of tags with the baselines; returns `TagReport.intervals` and the images with gold.

    `tags_by_image` are the scorer's words, best first; it may leave out words that it cannot read, which the
    baselines keep, so a gold tag among them is the scorer's miss. `captions_by_image` are those the words were taken
    from, best first. Below two images with gold tags there are no intervals.
    """
    found = []
    for tags, captions, references in zip(tags_by_image, captions_by_image, references_by_image, strict=True):
        if gold := gold_tags(references, language):
            tags, words = (list(map(comparison_form, each)) for each in (tags, candidates(captions, language)))
            found.append((gold, tags, words, sorted(words, key=lambda word, gold=gold: word not in gold)))
    intervals: dict[str, Interval] = {}
    if len(found) < 2:
        return intervals, len(found)
    for measure, value in zip(MEASURES, (average_precision, precision_at_5), strict=True):
        scorer, plain, best = zip(*([value(order, gold) for order in orders] for gold, *orders in found), strict=True)
        intervals |= {
            f"tag_{measure}": bootstrap_mean(scorer),
            f"tag_{measure}_caption_order": bootstrap_mean(plain),
            f"tag_{measure}_over_caption_order": bootstrap_difference(scorer, plain),
            f"tag_{measure}_upper_bound": bootstrap_mean(best),
        }
    return intervals, len(found)
