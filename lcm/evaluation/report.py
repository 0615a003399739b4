"""What the notebooks show of an evaluation and of a comparison: sentences, pandas tables, figures, cards of photos.

The executed notebook is the report. Tables are styled pandas frames of finished text, every cell escaped, since names
of captioners and words of captions come from outside; sentences are Markdown, with names escaped likewise.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lcm.captioning.tagging import Tag
from lcm.data.dataset import LabelledImage
from lcm.data.text import standardise
from lcm.errors import require
from lcm.evaluation import plots
from lcm.evaluation.bootstrap import Interval
from lcm.evaluation.compare import MEASURES, REPORTED_RESULTS, CaptionerResult, Comparison, smaller_is_better
from lcm.evaluation.gallery import CaptionLine, PhotoCard, described, evenly
from lcm.evaluation.metrics import Scores, score
from lcm.evaluation.tags import BASELINES, TagReport
from lcm.evaluation.tags import MEASURES as TAG_MEASURES

LABELS = {
    "wer": "WER",
    "wer_best": "WER, best reference",
    "cider": "CIDEr",
    "bleu_4": "BLEU-4",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
}
NONE = "–"  # not measured
MAY_BE_CHANCE = "may be chance"


# Image by image


@dataclass(frozen=True)
class ImageResult:
    """One held-out image."""

    image_id: str
    path: str
    caption: str
    references: tuple[str, ...]
    scores: dict[str, float | None]  # metric -> value
    english_captions: tuple[str, ...]  # the sentences that the tags were made from; the first is the caption
    tags: tuple[Tag, ...]
    confidence: float | None = None  # of the caption, where the model's is calibrated


def best_of(captions: Sequence[Sequence[str]]) -> list[str]:
    """Return the best caption of each image: its first."""
    return [best for best, *_ in captions]


def collect_results(
    images: Sequence[LabelledImage],
    captions: Sequence[Sequence[str]],
    tags: Sequence[tuple[Tag, ...]],
    scores: Scores,
    confidences: Sequence[float],
) -> list[ImageResult]:
    """Return one result an image, in the order of `images`; `scores` and `confidences` are of the best captions."""
    rows = zip(images, captions, tags, confidences, strict=True)
    return [
        ImageResult(
            image.image_id,
            str(image.path),
            written[0],
            image.captions,
            {name: values[place] for name, values in scores.per_image.items()},
            tuple(written),
            tuple(its_tags),
            confidence,
        )
        for place, (image, written, its_tags, confidence) in enumerate(rows)
    ]


def save_results(results: Sequence[ImageResult], path: Path) -> None:
    """Write one JSON object a line; it holds the data set's captions, so it stays out of git."""
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(asdict(result), ensure_ascii=False) + "\n" for result in results)


def pick_evenly(results: Sequence[ImageResult], count: int) -> list[PhotoCard]:
    """Return cards of `count` results, evenly spaced along the split, with their tags and confidences."""
    picked = (results[place] for place in evenly(count, len(results)))
    return [described(one.path, one.english_captions, one.tags, one.confidence) for one in picked]


def pick_by_score(results: Sequence[ImageResult], metric: str, count: int) -> list[PhotoCard]:
    """Return cards of the `count` best, median and worst results by a metric of which more is better.

    Images without a value are left out; where there are few, an image can be among several of the three.
    """
    ranked = sorted((one for one in results if one.scores.get(metric) is not None), key=lambda one: -one.scores[metric])
    middle = max(0, (len(ranked) - count) // 2)
    groups = {"best": ranked[:count], "median": ranked[middle : middle + count], "worst": ranked[-count:]}
    return [
        PhotoCard(
            one.path,
            [CaptionLine(one.caption, f"{title}: {LABELS[metric]} {one.scores[metric]:.2f}")],
            references=one.references[:2],
        )
        for title, group in groups.items()
        for one in group
    ]


def score_control(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float | None]:
    """Score each caption against the image half the set away: what a captioner gets that ignores the image.

    Returns `cider_shuffled`, `wer_shuffled` and `wer_best_shuffled`.
    """
    half = len(captions) // 2
    scores = score([*captions[half:], *captions[:half]], references, meteor=False)
    return {f"{name}_shuffled": getattr(scores, name) for name in ("cider", "wer", "wer_best")}


def disagreements(comparison: Comparison, images: Sequence[LabelledImage], count: int) -> list[PhotoCard]:
    """Return cards of the `count` images with the widest range of scores among the captioners, the widest first.

    The scores are those of `image_metric`. Of images on which all score the same there are no cards.
    """
    metric = image_metric(comparison)
    best_of_all, found = min if smaller_is_better(metric) else max, []
    for place, image in enumerate(images):
        scores = [result.scores.per_image.get(metric, [None] * len(images))[place] for result in comparison.results]
        if None not in scores and max(scores) > min(scores):
            lines = [
                CaptionLine(
                    result.output.captions[place],
                    f"{result.name}, {LABELS[metric]} {value:.2f}",
                    value == best_of_all(scores),
                )
                for result, value in zip(comparison.results, scores, strict=True)
            ]
            card = PhotoCard(image.path, lines, references=comparison.references[place])
            found.append((max(scores) - min(scores), card))
    return [card for _, card in sorted(found, key=lambda one: -one[0])[:count]]


def image_metric(comparison: Comparison) -> str:
    """Return what images are told apart by: CIDEr, or WER where CIDEr could not be measured."""
    return "cider" if all("cider" in result.scores.per_image for result in comparison.results) else "wer"


# Sentences


def answer(comparison: Comparison, images: str) -> str:
    """Return who leads on `images` ("Flickr8k, dev"), by WER and by CIDEr, by how much, and whether that is sure."""
    skipped = f" ({comparison.skipped_images} more have no usable reference)" if comparison.skipped_images else ""
    count = len(comparison.results)
    said = f"{count} captioner{'s' * (count != 1)} on {comparison.images:,} images of {plain(images)}{skipped}."
    leaders = [_leader(comparison, "wer", "WER, smaller is better"), _leader(comparison, "cider", "CIDEr")]
    missing = [f"**{plain(name)}** could not be run: {plain(why)}" for name, why in comparison.not_run.items()]
    return "\n\n".join([said, *leaders, *missing])


def _leader(comparison: Comparison, metric: str, label: str) -> str:
    first, *others = comparison.ranked(metric)
    best = getattr(first.scores, metric)
    if best is None:
        return f"By {label}: not measured ({plain(first.scores.reasons[metric])})."
    interval = first.intervals.get(metric)
    said = f"By {label}, **{plain(first.name)}** {'leads with' if others else 'has'} {number(best)}"
    said += f" ({ends(interval)})" if interval else ""
    pair = [first.name, others[0].name] if others else []
    lead = comparison.difference(metric, *(pair[::-1] if smaller_is_better(metric) else pair)) if others else None
    if lead is None:
        return f"{said}."
    sure = (
        "That interval holds zero: the lead may be an accident of these images."
        if lead.holds_zero
        else "That interval does not hold zero: the lead is hardly an accident of these images."
    )
    return f"{said}, {number(lead.value)} better than {plain(pair[1])} ({ends(lead)}). {sure}"


def not_measured(comparison: Comparison) -> str:
    """Return which scores were not measured, and why; empty where all were."""
    reasons = dict.fromkeys(
        f"{LABELS.get(metric, metric.replace('_', ' '))} ({why})"
        for result in comparison.results
        for metric, why in result.scores.reasons.items()
    )
    return f"Not measured: {plain('; '.join(reasons))}." if reasons else ""


def plain(text: str) -> str:
    """Return a text as one line of Markdown in which nothing is markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$&])", lambda found: f"&#{ord(found[1])};", " ".join(text.split()))


# Tables


def scores_table(comparison: Comparison):
    """Return the scores with their intervals, the best by WER first and the best of each column in bold."""
    metrics = ("wer", "cider", "bleu_4", "meteor", "rouge_l", "wer_best")
    rows = [[result.name, *(_scored(result, metric) for metric in metrics)] for result in comparison.ranked("wer")]
    best = {LABELS[metric]: comparison.best(metric) if len(rows) > 1 else () for metric in metrics}
    return _table(["captioner", *best], rows, best)


def degeneration_table(comparison: Comparison):
    """Return how captioners write, beside how people do."""
    rows = [
        [
            result.name,
            number(result.scores.length_ratio),
            *map(_share, (result.scores.distinct_captions, result.scores.copied_from_train)),
            _share(result.scores.vocabulary_used),
            *map(_share, asdict(result.degeneration).values()),
        ]
        for result in comparison.ranked("wer")
    ]
    rows.append(["people, first reference", *[""] * 4, *map(_share, asdict(comparison.people).values())])
    headings = ("length ratio", "distinct captions", "copied from training", "vocabulary used")
    return _table(["captioner", *headings, "break off", "repeat words", "most frequent caption"], rows)


def costs_table(comparison: Comparison):
    """Return time and memory, and what exactly each captioner was."""
    rows = []
    for result in comparison.ranked("wer"):
        costs = result.costs()
        memory = costs["peak_memory_mb"]
        times = map(_time, (costs["seconds_median"], costs["seconds_p95"]))
        held = NONE if memory is None else f"{memory:,.0f} MB"
        rows.append([result.name, *times, costs["seconds_photos"], held, result.output.note])
    headings = ["time of a photo, median", "95 % are faster than", "photos timed", "peak memory", "model"]
    return _table(["captioner", *headings], rows)


def pairs_table(comparison: Comparison):
    """Return every pair's difference by every measure, and who is better where that is more than chance."""
    rows = [
        [
            f"{one.first} − {one.second}",
            LABELS[one.measure],
            _with_ends(one.interval, "+"),
            one.better or MAY_BE_CHANCE,
        ]
        for one in comparison.differences
    ]
    return _table(["pair", "measure", "difference (95 %)", "better"], rows)


def reported_table(comparison: Comparison, images: str):
    """Return ours, measured on `images` ("Flickr8k, dev"), and below it what papers report, in italics."""
    metrics = ("bleu_4", "meteor", "cider")
    rows = [
        [result.name, images, *(number(getattr(result.scores, metric)) for metric in metrics), "measured here"]
        for result in comparison.ranked("wer")
    ]
    ours = len(rows)
    for row in REPORTED_RESULTS:
        source = f"quoted: {row.source} {row.link}".strip()
        rows.append([row.model, row.images, *(number(getattr(row, metric)) for metric in metrics), source])
    table = _table(["model", "images", *(LABELS[metric] for metric in metrics), "source"], rows)
    quoted = "font-style: italic; color: #6B6B6B"
    return table.apply(lambda row: [quoted if row.name >= ours else ""] * len(row), axis=1)


def tag_tables(report: TagReport) -> list:
    """Return the scorer's order beside others and the recall; the reason where there is none."""
    orders = [_table(["tags"], [[report.reason]])]
    if report.intervals:
        rows = [
            [title, *(_with_ends(report.intervals[f"tag_{measure}{order}"]) for measure in TAG_MEASURES)]
            for order, title in {"": "scorer", **{f"_{name}": title for name, title in BASELINES.items()}}.items()
        ]
        over = [_with_ends(report.intervals[f"tag_{measure}_over_caption_order"], "+") for measure in TAG_MEASURES]
        headings = ["order", "MAP (95 %)", "P@5 (95 %)"]
        orders = [_table(headings, [*rows, ["scorer minus caption order", *over]])]
    if report.recall is None:
        return orders
    recall = {"image → text": report.recall.image_to_text, "text → image": report.recall.text_to_image}
    rows = [[title, *map(number, shares.values())] for title, shares in recall.items()]
    return [*orders, _table(["retrieval", *(f"recall@{k}" for k in report.recall.image_to_text)], rows)]


def _table(headings: Sequence[str], rows: Sequence[Sequence], best: Mapping[str, Sequence[str]] | None = None):
    """Return rows under headings as a styled frame; of the columns in `best`, the rows of these names are bold."""
    frame = require("pandas", "evaluate").DataFrame([list(map(str, row)) for row in rows], columns=list(headings))
    names = frame[headings[0]]

    def bold(column):
        return ["font-weight: bold" if name in (best or {}).get(column.name, ()) else "" for name in names]

    left = [
        {"selector": "th, td", "props": "text-align: left; vertical-align: top"},
        {"selector": "th", "props": "white-space: nowrap"},
    ]
    return frame.style.hide(axis="index").format(escape="html").set_table_styles(left).apply(bold, axis=0)


def _scored(result: CaptionerResult, metric: str) -> str:
    """Return a score, with its interval where it has one."""
    interval = result.intervals.get(metric)
    return _with_ends(interval) if interval else number(getattr(result.scores, metric))


def _with_ends(interval: Interval, sign: str = "") -> str:
    return f"{number(interval.value, sign)} ({ends(interval, sign)})"


def ends(interval: Interval, sign: str = "") -> str:
    """Return the ends of an interval in words, with their sign where `sign` is "+"."""
    return f"{number(interval.low, sign)} to {number(interval.high, sign)}"


def number(value: float | None, sign: str = "") -> str:
    """Return a number as every table has it."""
    return NONE if value is None else f"{value:{sign}z.3f}".replace("-", "−")


def _share(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.{1 if value < 0.1 else 0}f} %"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


# Figures of a comparison; how they look is in `lcm.evaluation.plots`


def draw_forest(comparison: Comparison):
    """Draw every measure's intervals in one figure, the best by WER first."""
    panels = {
        LABELS[name]: {r.name: r.intervals[name] for r in comparison.results if name in r.intervals}
        for name in MEASURES
    }
    names = [result.name for result in comparison.ranked("wer")]
    return plots.forest({title: its for title, its in panels.items() if its}, names)


def draw_lengths(comparison: Comparison):
    """Draw how long each captioner's captions are, beside how long people's are."""
    people = [len(words) for each in comparison.references for text in each if (words := standardise(text))]
    ours = {
        result.name: [int(words) for words in result.scores.per_image.get("words", []) if words is not None]
        for result in comparison.ranked("wer")
    }
    return plots.caption_lengths(ours | {"people": people})
