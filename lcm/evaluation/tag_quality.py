"""How good ranked tags are, against the words that people agreed on, and against orders that need no tag scorer.

Knows which words an image's tags should hold, what a ranking of them is worth, and what simple orders of the same
words reach. Refuses to know images, models and where the ranking came from.

The gold tags of an image are the content words that at least two of its references use. Average precision is the sum
of the precision at each hit over the number of gold tags, so one that was never proposed is a miss; precision at 5 is
the hits among the first five over 5, also where fewer were proposed. Both are 0 to 1 and more is better.

Edge cases: an image without gold tags, as any with fewer than two references, is skipped and counted; an image
without tags scores 0; a repeated tag counts once. Words are compared as `lcm.data.keywords` folds them.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from lcm.data.keywords import candidates, content_words
from lcm.errors import ConfigError, DataError
from lcm.evaluation.resampling import Interval, bootstrap_difference, bootstrap_mean

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
    for rank, word in enumerate(dict.fromkeys(ranked), start=1):
        if word in gold:
            hits += 1
            precisions += hits / rank
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
