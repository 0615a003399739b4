"""The tables of a comparison, for a notebook and for a page.

Knows which numbers stand beside each other, how each is written, and which is the best of its column. Refuses to know
pages.
"""

from collections.abc import Sequence

from lcm.evaluation.captioner_result import CaptionerResult
from lcm.evaluation.comparison import WER_DEFINITIONS, Comparison
from lcm.evaluation.published import PUBLISHED
from lcm.evaluation.resampling import Interval
from lcm.evaluation.tables import Cell, Table

LABELS = {
    "wer": "WER",
    "wer_best": "WER, best reference",
    "wer_first": "WER, first reference",
    "wer_pooled": "WER, pooled",
    "cider": "CIDEr",
    "bleu_4": "BLEU-4",
    "meteor_mean": "METEOR, mean over images",
}
NONE = "–"  # not measured
MAY_BE_CHANCE = "may be chance"


def ends(interval: Interval | None, sign: str = "") -> str:
    """Return the ends of an interval in words, with their sign where `sign` is "+"."""
    return f"{number(interval.low, sign)} to {number(interval.high, sign)}" if interval else ""


def wer_table(comparison: Comparison) -> Table:
    """Return the original's comparison: mean WER, the best first, each against the best."""
    best, *_ = ranked = comparison.ranked("wer")
    rows = []
    for result in ranked:
        apart = comparison.difference("wer", result.name, best.name)
        against = Cell(NONE)
        if apart:
            sure = MAY_BE_CHANCE if apart.holds_zero else "more than chance"
            against = Cell(number(apart.value, "+"), f"{ends(apart, '+')}; {sure}")
        rank = comparison.ranks("wer")[result.name]
        wer = _score(comparison, result, "wer", result.intervals.get("wer"))
        rows.append([Cell(result.name, result.output.note), Cell(str(rank or NONE)), wer, against])
    return Table(("captioner", "rank", "WER, smaller is better", "against the best"), rows)


def scores_table(comparison: Comparison) -> Table:
    """Return the other scores with their intervals, the best by WER first."""
    rows = []
    for result in comparison.ranked("wer"):
        its = result.intervals
        mean = its.get("meteor_mean")
        meteor = f"mean over images {mean.value:.3f}, {ends(mean)}" if mean else ""
        rows.append(
            [
                Cell(result.name),
                _score(comparison, result, "cider", its.get("cider")),
                _score(comparison, result, "bleu_4", its.get("bleu_4")),
                _score(comparison, result, "meteor", None, meteor),
                _score(comparison, result, "rouge_l"),
                _score(comparison, result, "wer_best", its.get("wer_best")),
            ]
        )
    return Table(("captioner", "CIDEr", "BLEU-4", "METEOR", "ROUGE-L", "WER, best reference"), rows)


def definitions_table(comparison: Comparison) -> Table:
    """Return WER by each way in which several references become one number, with the ranks that follow."""
    ranks = {name: comparison.ranks(name) for name in WER_DEFINITIONS}
    rows = [
        [
            Cell(result.name),
            *(
                _score(comparison, result, name, small=f"rank {ranks[name][result.name] or NONE}")
                for name in WER_DEFINITIONS
            ),
        ]
        for result in comparison.ranked("wer")
    ]
    return Table(("captioner", "mean, the headline", "best reference", "first reference", "pooled"), rows)


def habits_table(comparison: Comparison) -> Table:
    """Return how captioners write, beside how people do."""
    headings = ("captioner", "length ratio", "distinct captions", "copied from training", "vocabulary used")
    rows = [
        [
            Cell(result.name),
            Cell(number(result.scores.length_ratio)),
            *map(
                _share,
                (result.scores.distinct_captions, result.scores.copied_from_train, result.scores.vocabulary_used),
            ),
            *map(
                _share, (result.habits.bad_endings, result.habits.repeated_words, result.habits.most_frequent_caption)
            ),
        ]
        for result in comparison.ranked("wer")
    ]
    people = comparison.people
    yardstick = map(_share, (people.bad_endings, people.repeated_words, people.most_frequent_caption))
    rows.append([Cell("people", "first reference"), *[Cell("")] * 4, *yardstick])
    return Table((*headings, "break off", "repeat words", "most frequent caption"), rows)


def costs_table(comparison: Comparison) -> Table:
    """Return time and memory."""
    rows = []
    for result in comparison.ranked("wer"):
        costs = result.costs()
        photos = f"of {costs['seconds_photos']} photos" if costs["seconds_photos"] else ""
        memory = costs["peak_memory_mb"]
        rows.append(
            [
                Cell(result.name),
                Cell(_time(costs["seconds_median"]), photos),
                Cell(_time(costs["seconds_p95"])),
                Cell(NONE if memory is None else f"{memory:,.0f} MB"),
            ]
        )
    return Table(("captioner", "time of a photo, median", "95 % are faster than", "peak memory"), rows)


def pairs_table(comparison: Comparison, measures: Sequence[str]) -> Table:
    """Return every pair's difference by each of `measures`, and who is better where that is no accident."""
    rows = [
        [
            Cell(f"{one.first} − {one.second}"),
            Cell(LABELS[one.measure]),
            Cell(number(one.interval.value, "+"), ends(one.interval, "+")),
            Cell(one.better or MAY_BE_CHANCE),
        ]
        for one in comparison.differences
        if one.measure in measures
    ]
    return Table(("pair", "measure", "difference", "better"), rows)


def published_table(comparison: Comparison, images: str) -> Table:
    """Return ours, measured on `images` ("Flickr8k, dev"), and below it what others have published."""
    ours = [
        [
            Cell(result.name),
            Cell(images),
            *(Cell(number(getattr(result.scores, name))) for name in ("bleu_4", "meteor", "cider")),
            Cell("measured here"),
        ]
        for result in comparison.ranked("wer")
    ]
    theirs = [
        [
            Cell(row.model, "quoted"),
            Cell(row.images),
            *map(_cell, (row.bleu_4, row.meteor, row.cider)),
            Cell(row.source, row.link),
        ]
        for row in PUBLISHED
    ]
    return Table(("model", "images", "BLEU-4", "METEOR", "CIDEr", "source"), [*ours, *theirs], quoted=len(theirs))


def _score(
    comparison: Comparison, result: CaptionerResult, metric: str, interval: Interval | None = None, small: str = ""
) -> Cell:
    """Return a score with its interval, marked where it is the best of several."""
    best = len(comparison.results) > 1 and comparison.ranks(metric)[result.name] == 1
    return Cell(number(getattr(result.scores, metric)), small or ends(interval), best)


def number(value: float | None, sign: str = "") -> str:
    """Return a number as every table has it."""
    return NONE if value is None else f"{value:{sign}.3f}".replace("-", "−")


def _cell(value: float | None) -> Cell:
    return Cell(number(value))


def _share(value: float | None) -> Cell:
    return Cell(NONE if value is None else f"{100 * value:.{1 if value < 0.1 else 0}f} %")


def _time(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
