"""Cross-modal retrieval: how often an image finds one of its own texts among all of them, and a text its own image.

Knows how recall at k is counted, and what a tie is worth. Refuses to know how vectors come about.

Recall at k is the share of queries with an own item among the k of highest cosine (Hodosh, Young and Hockenmaier
2013; both directions as in Karpathy and Fei-Fei 2015). A query's rank is how many items of others are at least as
near as its nearest own one: ties count against it, so a model that gives everything the same vector ranks last.

Edge cases: an image without texts asks nothing, but texts can still find it instead of their own; a vector of zeros
has the cosine 0 with everything; any model reaches a k that is no smaller than the number of items.

Shapes: B images, K texts, D numbers in a vector, R texts of one block.

How good ranked tags are, against the words that people agreed on, and against orders that need no tag scorer.

Knows which words an image's tags should hold, what a ranking of them is worth, and what simple orders of the same
words reach. Refuses to know images, models and where the ranking came from.

The gold tags of an image are the content words that at least two of its references use. Average precision is the sum
of the precision at each hit over the number of gold tags, so one that was never proposed is a miss; precision at 5 is
the hits among the first five over 5, also where fewer were proposed. Both are 0 to 1 and more is better.

Edge cases: an image without gold tags, as any with fewer than two references, is skipped and counted; an image
without tags scores 0; a repeated tag counts once. Words are compared as `lcm.data.text` folds them.

The tag scorer on held-out images: does it find their captions, order their key words, know words it never saw?

Knows which questions are asked of a tag scorer and how the answers read. Refuses to know how it was trained.

Shapes: B images, K texts, D numbers in a vector.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from lcm.captioning.tagging import Photo, Tag, TagScorer, rank, tag_candidates
from lcm.data.text import candidates, content_words
from lcm.errors import ConfigError, DataError
from lcm.evaluation.bootstrap import Interval, bootstrap_difference, bootstrap_mean
from lcm.features.cache import LabelledFeatures

KS = (1, 5, 10)
# Cosines this close are equal. Two float32 sums of the same products differ by their order: by up to 5e-7, measured
# for equal vectors of 8 to 4,096 numbers.
TIE = 2e-6
BLOCK_COSINES = 1 << 22  # cosines held at once: 16 MB


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

    Vectors need no unit length. Memory: a float32 copy of both, and one block of cosines; never all K times B.
    Raises DataError when there are no images or no texts, when shapes do not fit, an owner is none of the images, or
    a vector is not finite.
    """
    images, texts, owner = np.asarray(image_vectors), np.asarray(text_vectors), np.asarray(owner)
    _check(images, texts, owner)
    images, texts = _units(images, "image"), _units(texts, "text")
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
        image_to_text=_shares(image_ranks[asking]),
        text_to_image=_shares(text_ranks),
        images=int(asking.sum()),
        skipped_images=int((~asking).sum()),
        texts=len(texts),
    )


def _shares(ranks: np.ndarray) -> dict[int, float]:
    return {k: float((ranks < k).mean()) for k in KS}


def _check(images: np.ndarray, texts: np.ndarray, owner: np.ndarray) -> None:
    if not len(images) or not len(texts):
        raise DataError(f"{len(images)} images and {len(texts)} texts; retrieval needs at least one of each")
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:
        raise DataError(f"image vectors of shape {images.shape}, text vectors of {texts.shape}; give [B, D] and [K, D]")
    if owner.shape != texts.shape[:1] or not np.issubdtype(owner.dtype, np.integer):
        raise DataError(f"owners of shape {owner.shape} and type {owner.dtype}; give a whole number for each text")
    if owner.min() < 0 or owner.max() >= len(images):
        raise DataError(f"owners from {owner.min()} to {owner.max()}; the images are 0 to {len(images) - 1}")


def _units(vectors: np.ndarray, kind: str) -> np.ndarray:
    """Return the vectors at length one, float32; zeros stay zeros."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)).astype(np.float32)
    if not (usable := np.isfinite(lengths)).all():
        raise DataError(f"the vector of {kind} {int(usable.argmin())} has a number that is not finite, or too large")
    lengths[lengths == 0] = 1
    return np.divide(vectors, lengths[:, None], dtype=np.float32, casting="same_kind")


LEAST = 2  # references that must use a word: one alone says as much about its writer as about the image
MEASURES = {"map": "average_precision", "precision_5": "precision_5"}  # a mean over images -> its list in per_image
# What the scorer is compared with, all on the words of the same captions -> its title in the table.
BASELINES = {
    "caption_order": "caption order",  # first the words of the best caption
    "frequency": "training frequency",  # first what most train captions hold: an order that ignores the image
    "votes": "caption votes",  # first what most of the image's captions hold
    "upper_bound": "upper bound",  # gold tags first: the best that any order of these words can reach
}


@dataclass(frozen=True)
class TagScores:
    """What one ranking an image is worth."""

    map: float | None  # mean average precision over the images; None where there are none
    precision_5: float | None  # mean precision at 5, likewise
    images: int  # images with gold tags
    skipped_images: int  # images without
    # average_precision and precision_5, each a list along the images as given with None at a skipped one
    per_image: dict[str, list[float | None]]

    def as_metrics(self) -> dict[str, float | None]:
        """Return the flat object for metrics.json: tag_map, tag_precision_5, tag_images and tag_skipped_images."""
        names = (*MEASURES, "images", "skipped_images")
        return {f"tag_{name}": getattr(self, name) for name in names}


@dataclass(frozen=True)
class OrderQuality:
    """One way to order tags: its scores, and how sure they are. The keys of both dicts are map and precision_5."""

    scores: TagScores
    means: dict[str, Interval]  # 95 % over images
    scorer_over: dict[str, Interval]  # the scorer's minus this order's, paired by image; empty for the scorer itself


@dataclass(frozen=True)
class TagComparison:
    """The scorer and every baseline on the same images; without orders where there are too few images to compare."""

    orders: dict[str, OrderQuality]  # "scorer", then the names of BASELINES
    images: int  # images with gold tags
    skipped_images: int  # images without
    reason: str | None = None  # why there are no orders

    def as_metrics(self) -> dict[str, float | str | None]:
        """Return the flat object for metrics.json.

        With M for tag_map and tag_precision_5, and B for each name of BASELINES: the scorer's `M`, the baseline's
        `M_B`, the scorer's minus the baseline's `M_over_B`; each with `…_low` and `…_high`, the ends of its interval.
        Also tag_images and tag_skipped_images. Where there are no orders all are None, and tag_map_reason says why.
        """
        flat: dict[str, float | str | None] = {}
        for measure in MEASURES:
            flat |= _flat(f"tag_{measure}", self._interval("scorer", "means", measure))
            for name in BASELINES:
                flat |= _flat(f"tag_{measure}_{name}", self._interval(name, "means", measure))
                flat |= _flat(f"tag_{measure}_over_{name}", self._interval(name, "scorer_over", measure))
        flat |= {"tag_images": self.images, "tag_skipped_images": self.skipped_images}
        return flat | ({"tag_map_reason": self.reason} if self.reason else {})

    def as_table(self) -> str:
        """Return a Markdown table with a line an order, or the reason why there is none.

        The last column is positive where the scorer is the better one.
        """
        if self.reason:
            return self.reason
        lines = [
            "| order | MAP (95 %) | P@5 (95 %) | MAP of the scorer minus this (95 %) |",
            "| --- | --- | --- | --- |",
        ]
        for name, title in {"scorer": "scorer", **BASELINES}.items():
            order = self.orders[name]
            over = order.scorer_over.get("map")
            cells = [title, *(_cell(order.means[measure]) for measure in MEASURES), _cell(over, "+") if over else ""]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)

    def _interval(self, order: str, kind: str, measure: str) -> Interval | None:
        return getattr(self.orders[order], kind)[measure] if self.orders else None


def folded_counts(captions: Iterable[str]) -> Counter[str]:
    """Return how many of the captions hold each content word; a caption counts once however often it holds one."""
    return Counter(word for caption in captions for word in content_words(caption))


def gold_tags(references: Sequence[str], least: int = LEAST) -> frozenset[str]:
    """Return the content words that at least `least` of an image's references use."""
    return frozenset(word for word, uses in folded_counts(references).items() if uses >= least)


def average_precision(ranked: Sequence[str], gold: Collection[str]) -> float:
    """Return the sum over hits of the precision down to that hit, over the number of gold tags; best tag first.

    Raises DataError without gold tags, where it has no value.
    """
    if not gold:
        raise DataError("no gold tags; leave the image out, for no order of its tags is better than another")
    precisions, hits = 0.0, 0
    for place, word in enumerate(dict.fromkeys(ranked), start=1):
        if word in gold:
            hits += 1
            precisions += hits / place
    return precisions / len(set(gold))


def precision_at(ranked: Sequence[str], gold: Collection[str], k: int = 5) -> float:
    """Return how many of the first `k` tags are gold, over `k`. Raises ConfigError when `k` is less than 1."""
    if k < 1:
        raise ConfigError(f"precision at {k}; give a k of at least 1")
    return sum(word in gold for word in list(dict.fromkeys(ranked))[:k]) / k


def score_tags(
    ranked_by_image: Sequence[Sequence[str]], references_by_image: Sequence[Sequence[str]], least: int = LEAST
) -> TagScores:
    """Score each image's tags, best first, against the words that at least `least` of its references use.

    Raises DataError when the two do not have the same length.
    """
    _check_lengths(tags=ranked_by_image, references=references_by_image)
    return _score(ranked_by_image, [gold_tags(references, least) for references in references_by_image])


def compare_tags(
    tags_by_image: Sequence[Sequence[str]],
    captions_by_image: Sequence[Sequence[str]],
    references_by_image: Sequence[Sequence[str]],
    train_counts: Mapping[str, int],
    least: int = LEAST,
) -> TagComparison:
    """Compare the scorer's order of tags with simple orders of the same words, each with intervals over images.

    `tags_by_image` are the scorer's words, best first; it may leave out words that it cannot read, which the
    baselines keep, so a gold tag among them is the scorer's miss. `captions_by_image` are those the words were taken
    from, best first, and `train_counts` are `folded_counts` of the train captions. Ties of frequency and of votes go
    by caption order.
    Raises DataError when lengths differ, or when a tag is no word of its image's captions.
    """
    _check_lengths(tags=tags_by_image, captions=captions_by_image, references=references_by_image)
    golds = [gold_tags(references, least) for references in references_by_image]
    rankings: dict[str, list[Sequence[str]]] = {"scorer": [], **{name: [] for name in BASELINES}}
    for place, (tags, captions, gold) in enumerate(zip(tags_by_image, captions_by_image, golds, strict=True)):
        words = candidates(captions)
        if strange := set(tags).difference(words):
            raise DataError(f"image {place} has tags that its captions do not hold: {', '.join(sorted(strange))}")
        rankings["scorer"].append(tags)
        for name, ranked in _baselines(words, captions, gold, train_counts).items():
            rankings[name].append(ranked)

    scores = {name: _score(ranked, golds) for name, ranked in rankings.items()}
    images, skipped = scores["scorer"].images, scores["scorer"].skipped_images
    if images < 2:
        why = f"{images} of {images + skipped} images have a gold tag: a word that at least {least} references use"
        return TagComparison({}, images, skipped, f"{why}; intervals need two such images")
    orders = {name: _quality(theirs, scores["scorer"], name) for name, theirs in scores.items()}
    return TagComparison(orders, images, skipped)


def _baselines(
    words: Sequence[str], captions: Sequence[str], gold: Collection[str], train_counts: Mapping[str, int]
) -> dict[str, list[str]]:
    """Return one image's `words`, given in caption order, in the order of each baseline; `sorted` keeps ties so."""
    votes = folded_counts(captions)
    return {
        "caption_order": list(words),
        "frequency": sorted(words, key=lambda word: -train_counts.get(word, 0)),
        "votes": sorted(words, key=lambda word: -votes[word]),
        "upper_bound": sorted(words, key=lambda word: word not in gold),
    }


def _score(ranked_by_image: Sequence[Sequence[str]], golds: Sequence[Collection[str]]) -> TagScores:
    pairs = list(zip(ranked_by_image, golds, strict=True))
    per_image = {
        "average_precision": [average_precision(ranked, gold) if gold else None for ranked, gold in pairs],
        "precision_5": [precision_at(ranked, gold, 5) if gold else None for ranked, gold in pairs],
    }
    images = sum(map(bool, golds))
    means = {name: fmean(_scored(per_image[values])) if images else None for name, values in MEASURES.items()}
    return TagScores(**means, images=images, skipped_images=len(golds) - images, per_image=per_image)


def _quality(scores: TagScores, scorer: TagScores, name: str) -> OrderQuality:
    ours = {measure: _scored(scorer.per_image[values]) for measure, values in MEASURES.items()}
    theirs = {measure: _scored(scores.per_image[values]) for measure, values in MEASURES.items()}
    means = {measure: bootstrap_mean(values) for measure, values in theirs.items()}
    if name == "scorer":
        return OrderQuality(scores, means, {})
    over = {measure: bootstrap_difference(ours[measure], values) for measure, values in theirs.items()}
    return OrderQuality(scores, means, over)


def _scored(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _check_lengths(**by_image: Sequence) -> None:
    if len(set(map(len, by_image.values()))) > 1:
        given = ", ".join(f"{name} of {len(values)}" for name, values in by_image.items())
        raise DataError(f"{given} images; give one of each an image, in the same order")


def _flat(name: str, interval: Interval | None) -> dict[str, float | None]:
    ends = {"": "value", "_low": "low", "_high": "high"}
    return {f"{name}{end}": getattr(interval, field) if interval else None for end, field in ends.items()}


def _cell(interval: Interval, sign: str = "") -> str:
    return f"{interval.value:{sign}z.3f} ({interval.low:{sign}z.3f} to {interval.high:{sign}z.3f})"


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
    reason: str = NO_SCORER  # why there is neither recall nor comparison, where there is none

    @property
    def unseen_auc(self) -> float | None:
        """The mean over the unseen words, each counting as much; None where there are none."""
        return float(np.mean([one.auc for one in self.unseen])) if self.unseen else None

    def as_metrics(self) -> dict[str, float | str | None]:
        """Return the flat object for metrics.json."""
        if self.recall is None or self.comparison is None:
            return {"tag_map": None, "tag_map_reason": self.reason}
        unseen = {"unseen_words": len(self.unseen), "unseen_words_auc": self.unseen_auc}
        if not self.unseen:
            unseen |= {"unseen_words_auc_reason": NO_UNSEEN_WORDS}
        return self.recall.as_metrics() | self.comparison.as_metrics() | unseen

    def as_table(self, unseen: int = 10) -> str:
        """Return the comparison, the recall and the `unseen` words with the most images as Markdown."""
        if self.recall is None or self.comparison is None:
            return self.reason
        recall = {"image → text": self.recall.image_to_text, "text → image": self.recall.text_to_image}
        ranks = sorted(self.recall.image_to_text)
        rows = [
            f"| {title} | " + " | ".join(f"{shares[k]:.3f}" for k in ranks) + " |" for title, shares in recall.items()
        ]
        words = sorted(self.unseen, key=lambda one: -one.images)[:unseen]
        cells = [f"| {w.word} | {w.images} | {w.fitting:.2f} | {w.others:.2f} | {w.auc:.2f} |" for w in words]
        heading = "| word no train caption holds | images | cosine, fitting | cosine, others | AUC |"
        return "\n".join(
            [
                self.comparison.as_table(),
                "",
                "| retrieval | " + " | ".join(f"recall@{k}" for k in ranks) + " |",
                "|---" * (len(ranks) + 1) + "|",
                *rows,
                *(["", heading, "|---|---|---|---|---|", *cells] if cells else []),
            ]
        )


def report_tags(
    scorer: TagScorer | None,
    held_out: LabelledFeatures,
    captions: Sequence[Sequence[str]],
    train_captions: Sequence[str],
) -> TagReport:
    """Measure `scorer` on held-out images with their pooled features and their generated captions, the best first."""
    if scorer is None or not captions:
        return TagReport([() for _ in captions], reason=NO_IMAGES if scorer else NO_SCORER)
    pooled = held_out.read(slice(0, None))
    photos = [Photo(image.path, {"pooled": row}) for image, row in zip(held_out.images, pooled, strict=True)]
    vectors = np.stack([scorer.image_vector(photo) for photo in photos])  # [B, D]
    tags = [rank(scorer, vector, tag_candidates(of)) for vector, of in zip(vectors, captions, strict=True)]
    counts = folded_counts(train_captions)
    return TagReport(
        tags,
        _recall(scorer, vectors, held_out.references),
        compare_tags([[word for word, _ in one] for one in tags], captions, held_out.references, counts),
        _unseen_words(scorer, vectors, held_out.references, counts),
    )


def _recall(scorer: TagScorer, vectors: np.ndarray, references: Sequence[Sequence[str]]) -> Recall:
    texts = [text for each in references for text in each]
    owner = np.repeat(np.arange(len(references)), [len(each) for each in references])
    return retrieval(vectors, scorer.text_vectors(texts), owner)


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
        fitting, others = cosines[fits], cosines[~fits]
        auc = np.mean(fitting[:, None] > others) + np.mean(fitting[:, None] == others) / 2
        found.append(UnseenWord(word, len(fitting), float(fitting.mean()), float(others.mean()), float(auc)))
    return tuple(found)
