"""Quality of tags: their order against the words that people agreed on, their probabilities, and retrieval.

The gold tags of an image are the content words that at least two of its references use. One that was never proposed is
a miss, and precision at 5 is over 5 where fewer were proposed, too.

A word fits an image when at least one of its references uses it. There is a curve for the captions' words, of which a
third fit, and one for labels, of which nobody knows how many will: asked here are, of each image with gold tags, as
often four of which one, a gold tag, fits as four of which none does. Those are by turns gold tags of other images, so
"man" more often than "kitchen", and any of their words. Each half of the images is measured by the other's curves.

An image without gold tags, as any with fewer than two references, is skipped and counted; one without tags scores 0; a
repeated tag counts once. Words are compared by their lemmas (`lcm.data.text`).

Shapes: B images, K texts, D numbers in a vector.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lcm.captioning.taggers import DualEncoder
from lcm.captioning.tagging import MIN_SCORE, Curves, SeenImage, Tag, probability, rank, tag_candidates
from lcm.data.text import ENGLISH, candidates, comparison_form, content_words
from lcm.evaluation.bootstrap import bootstrap_difference, bootstrap_mean
from lcm.evaluation.calibration import BINS, LEAST, Bin, bin_up, cross_fit, fit_curve
from lcm.features.cache import LabelledFeatures

KS = (1, 5, 10)
# Cosines this close are equal. Two float32 sums of the same products differ by their order: by up to 5e-7, measured
# for equal vectors of 8 to 4,096 numbers.
TIE = 2e-6
AGREED = 2  # references that must use a word: one alone says as much about its writer as about the image
ASKED, ROUNDS = 4, 4  # labels of a question, and questions of either kind about an image
MEASURES = ("map", "precision_5")  # means over images: mean average precision, precision at 5


def retrieval(image_vectors: np.ndarray, text_vectors: np.ndarray, owner: np.ndarray) -> dict[str, float]:
    """Count how often images [B, D] find their own texts [K, D], and texts their image: text i's is `owner[i]`, [K].

    All vectors are of length one, or zeros. Returns `recall_1_image_to_text` to `recall_10_text_to_image`: the share of
    queries with an own item among the k of highest cosine (Hodosh, Young and Hockenmaier 2013; both directions as in
    Karpathy and Fei-Fei 2015). Ties count against a query, so a model that gives everything the same vector ranks last.
    An image without texts asks nothing, but texts can find it.
    """
    own = np.einsum("kd,kd->k", text_vectors, image_vectors[owner])  # [K]
    image_ranks, text_ranks = [], np.zeros(len(owner), np.int64)  # how many of others are at least as near
    for place, image in enumerate(image_vectors):
        cosines, is_own = text_vectors @ image, owner == place  # [K]
        if is_own.any():
            image_ranks.append(np.count_nonzero(cosines[~is_own] >= cosines[is_own].max() - TIE))
        text_ranks += ~is_own & (cosines >= own - TIE)
    ranks = {"image_to_text": np.array(image_ranks), "text_to_image": text_ranks}
    return {f"recall_{k}_{name}": float((its < k).mean()) for name, its in ranks.items() for k in KS}


def gold_tags(references: Sequence[str], language: str = ENGLISH) -> frozenset[str]:
    """Return the content words that at least two of an image's references use."""
    uses = Counter(word for text in references for word in content_words(text, language))
    return frozenset(word for word, count in uses.items() if count >= AGREED)


def average_precision(ranked: Sequence[str], gold: Collection[str]) -> float:
    """Return the sum over hits of the precision down to that hit, over the number of gold tags; best tag first."""
    hits = np.array([word in gold for word in dict.fromkeys(ranked)], bool)
    precisions = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return precisions[hits].sum() / len(gold)


def precision_at_5(ranked: Sequence[str], gold: Collection[str]) -> float:
    """Return how many of the first five tags are gold, over 5."""
    return sum(word in gold for word in list(dict.fromkeys(ranked))[:5]) / 5


@dataclass(frozen=True)
class TagReport:
    """What was measured; without a tag scorer or images, nothing but empty tags."""

    tags: list[tuple[Tag, ...]]  # of each image, best first
    metrics: Mapping[str, float | str | None]  # for metrics.json: see `retrieval`, `compare_orders` and `_fit_curves`
    curves: Curves | None = None  # None: for too few images
    bins: Mapping[str, Sequence[Bin]] = field(default_factory=dict)  # of each curve, a tenth of the probabilities each


def report_tags(scorer: DualEncoder | None, held_out: LabelledFeatures, captions: Sequence[Sequence[str]]) -> TagReport:
    """Measure `scorer` on held-out images of one language, with pooled features and captions of each, best first."""
    if scorer is None or not captions:
        reason = "there are no images" if scorer else "the bundle has no tag scorer"
        return TagReport([() for _ in captions], {"tag_map": None, "tag_map_reason": reason})
    pooled, references = held_out.read(slice(0, None)), held_out.references
    photos = [SeenImage(image.path, None, {"pooled": row}) for image, row in zip(held_out.images, pooled, strict=True)]
    vectors = np.stack([scorer.image_vector(photo) for photo in photos])  # [B, D]
    language = held_out.images[0].language
    texts_of = (tag_candidates(of, None, language) for of in captions)
    tags = [rank(scorer, vector, of) for vector, of in zip(vectors, texts_of, strict=True)]
    texts = [text for each in references for text in each]
    owner = np.repeat(np.arange(len(references)), [len(each) for each in references])
    metrics = retrieval(vectors, scorer.text_vectors(texts), owner)
    metrics |= compare_orders([[word for word, _ in one] for one in tags], captions, references, language)
    curves, bins, reliability = _fit_curves(scorer, vectors, held_out, captions)
    return TagReport(tags, metrics | reliability, curves, bins)


def _fit_curves(scorer: DualEncoder, vectors: np.ndarray, held_out: LabelledFeatures, captions: Sequence) -> tuple:
    """Return `TagReport.curves`, `bins` and their metrics; arguments are as in report_tags, `vectors` [B, D]."""
    language, references = held_out.images[0].language, held_out.references
    said = [set().union(*(content_words(text, language) for text in each)) for each in references]
    words = [(place, word) for place, its in enumerate(captions) for word in tag_candidates(its, None, language)]
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
        found[known] = cross_fit(signals[known], fits[known], places[known] % 2 == 1)
        bins[kind], metrics[f"tag_{kind}_ece"] = bin_up(found, fits, _tenths(found))
        if scorer.sigmoid:  # how far it would have held
            its_own = probability(scorer.sigmoid, *signals.T)
            _, metrics[f"tag_{kind}_ece_sigmoid"] = bin_up(its_own, fits, _tenths(its_own))
    are_tags, has_one = (found >= MIN_SCORE).reshape(-1, ASKED), fits[::ASKED]
    none, one = float((~are_tags[~has_one].any(1)).mean()), float(are_tags[has_one, 0].mean())
    return curves, bins, metrics | {"tag_says_none": none, "tag_finds_one": one}


def _tenths(probabilities: np.ndarray) -> list[np.ndarray]:
    tenths = (probabilities * BINS).astype(int)
    return [np.flatnonzero(tenths == tenth) for tenth in np.unique(tenths)]


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
) -> dict[str, float | str | None]:
    """Compare the scorer's order of tags with others that need no scorer; returns what metrics.json gets.

    With M for tag_map and tag_precision_5: the scorer's `M`, `M_caption_order` of the same words as the captions have
    them, `M_over_caption_order`, the scorer's minus that, paired by image, and `M_upper_bound` of the best order there
    is; below two images with gold tags why these are missing. `tags_by_image` are the scorer's words, best first,
    without those that it cannot read: the other orders keep them. `captions_by_image` have the best first.
    """
    found = []
    for tags, captions, references in zip(tags_by_image, captions_by_image, references_by_image, strict=True):
        if gold := gold_tags(references, language):
            tags, words = (list(map(comparison_form, each)) for each in (tags, candidates(captions, language)))
            found.append((gold, tags, words, sorted(words, key=lambda word, gold=gold: word not in gold)))
    flat = {"tag_images": len(found), "tag_skipped_images": len(tags_by_image) - len(found)}
    if len(found) < 2:
        why = (
            f"{len(found)} of {len(tags_by_image)} images have a gold tag: a word that at least {AGREED} references use"
        )
        return flat | {"tag_map": None, "tag_map_reason": f"{why}; intervals need two such images"}
    for measure, value in zip(MEASURES, (average_precision, precision_at_5), strict=True):
        scorer, plain, best = zip(*([value(order, gold) for order in orders] for gold, *orders in found), strict=True)
        flat |= bootstrap_mean(scorer).as_metrics(f"tag_{measure}")
        flat |= bootstrap_mean(plain).as_metrics(f"tag_{measure}_caption_order")
        flat |= bootstrap_difference(scorer, plain).as_metrics(f"tag_{measure}_over_caption_order")
        flat |= bootstrap_mean(best).as_metrics(f"tag_{measure}_upper_bound")
    return flat
