"""What the notebooks show of an evaluation and of a comparison: sentences, pandas tables, figures, cards of photos.

The executed notebook is the report. Tables are styled pandas frames of finished text, every cell escaped, since names
of captioners and words of captions come from outside; sentences are Markdown, with names escaped likewise.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lcm.captioning.bundle import Bundle
from lcm.captioning.decoding import caption_features
from lcm.captioning.model_card import METRIC_LABELS
from lcm.captioning.peers import nearest_captions
from lcm.captioning.tagging import Reranker, Tag
from lcm.config import EvaluateConfig
from lcm.data.dataset import LabelledImage
from lcm.errors import require
from lcm.evaluation import plots
from lcm.evaluation.bootstrap import Interval
from lcm.evaluation.compare import MEASURES, Comparison
from lcm.evaluation.gallery import CaptionLine, PhotoCard, described, evenly
from lcm.evaluation.metrics import DEGENERATION, Scores, score, score_several
from lcm.evaluation.tags import KS, TagReport
from lcm.evaluation.tags import MEASURES as TAG_MEASURES
from lcm.features.cache import PreparedRun

LABELS = {
    "wer": "WER",
    "cider": "CIDEr",
    "bleu_4": "BLEU-4",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    "wer_best": "WER, best reference",
}
VARIETY = ("length_ratio", "distinct_captions", "copied_from_train", "vocabulary_used")
HABITS = {name: METRIC_LABELS[name] for name in (*VARIETY, *DEGENERATION)}
COSTS = {
    "seconds_median": "seconds a photo, median",
    "seconds_p95": "95 % are faster than",
    "seconds_photos": "photos timed",
    "peak_memory_mb": "peak memory, MB",
    "note": "model",
}
TAG_ORDERS = {
    "": "scorer",
    "_caption_order": "caption order",
    "_upper_bound": "upper bound",
    "_over_caption_order": "scorer minus caption order",
}
NONE = "–"  # not measured


def score_other_languages(
    bundle: Bundle, prepared: PreparedRun, config: EvaluateConfig, reranker: Reranker | None
) -> dict[str, dict[str, float | str | None]]:
    """Caption and score the held-out images of every language but the first; returns metrics by language.

    Beside those of `Scores`, `cider_nearest` is the CIDEr of the nearest training image's caption.
    """
    found = {}
    for language in [*prepared.vocabulary.starts][1:]:
        pooled, held_out = (
            prepared.labelled_features(config.split, kind, language)
            for kind in ("pooled", bundle.manifest.feature_kind)
        )
        beam = config.beam_width, config.max_words
        captions, _ = caption_features(bundle, held_out, *beam, reranker=reranker, pooled=pooled)
        copied = nearest_captions(prepared, config.split, language)
        options = {"meteor": config.meteor, "language": language}
        scores, nearest = score_several([best_of(captions), copied], held_out.references, **options)
        found[language] = scores.as_metrics() | {"cider_nearest": nearest.cider}
    return found


def language_metrics(others: Mapping[str, Mapping[str, Any]]) -> dict[str, float | str | None]:
    """Return the flat object for metrics.json: the keys of the first language with `_fr` and the like after them."""
    return {f"{name}_{language}": value for language, its in others.items() for name, value in its.items()}


# Image by image


def best_of(captions: Sequence[Sequence[str]]) -> list[str]:
    """Return the best caption of each image: its first."""
    return [best for best, *_ in captions]


def collect_results(
    images: Sequence[LabelledImage],
    captions: Sequence[Sequence[str]],
    tags: Sequence[tuple[Tag, ...]],
    scores: Scores,
    confidences: Sequence[float],
) -> list[dict[str, Any]]:
    """Return what results.jsonl has of each image; `scores` and `confidences` are of the best captions.

    The tags were made from `english_captions`, of which the first is the caption.
    """
    return [
        {
            "image_id": image.image_id,
            "path": str(image.path),
            "caption": written[0],
            "references": image.captions,
            "scores": {name: values[place] for name, values in scores.per_image.items()},
            "english_captions": written,
            "tags": its_tags,
            "confidence": sure,
        }
        for place, (image, written, its_tags, sure) in enumerate(zip(images, captions, tags, confidences, strict=True))
    ]


def pick_evenly(results: Sequence[Mapping[str, Any]], count: int) -> list[PhotoCard]:
    """Return cards of `count` results, evenly spaced along the split, with their tags and confidences."""
    picked = (results[place] for place in evenly(count, len(results)))
    return [described(one["path"], one["english_captions"], one["tags"], one["confidence"]) for one in picked]


def pick_by_cider(results: Sequence[Mapping[str, Any]], count: int) -> list[PhotoCard]:
    """Return cards of the `count` best, median and worst results by CIDEr."""
    cards, ciders = [], [one["scores"].get("cider") for one in results]
    for place, title in best_median_worst(ciders, count).items():
        one, label = results[place], f"{title}: CIDEr {ciders[place]:.2f}"
        cards.append(PhotoCard(one["path"], [CaptionLine(one["caption"], label)], references=one["references"][:2]))
    return cards


def best_median_worst(values: Sequence[float | None], count: int) -> dict[int, str]:
    """Return the places of the `count` best, median and worst values, in that order, each with which of these it is."""
    found = [place for place, value in enumerate(values) if value is not None]
    ranked = sorted(found, key=lambda place: -values[place])
    middle = max(0, len(ranked) - count) // 2
    parts = {"best": ranked[:count], "median": ranked[middle : middle + count], "worst": ranked[-count:]}
    return {place: title for title, places in parts.items() for place in places}  # of few, each once


def score_control(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float | None]:
    """Score each caption against the image half the set away: what a captioner gets that ignores the image.

    Returns `cider_shuffled`, `wer_shuffled` and `wer_best_shuffled`.
    """
    half = len(captions) // 2
    scores = score([*captions[half:], *captions[:half]], references, meteor=False)
    return {f"{name}_shuffled": getattr(scores, name) for name in ("cider", "wer", "wer_best")}


def disagreements(comparison: Comparison, count: int) -> list[PhotoCard]:
    """Return cards of the `count` images with the widest range of CIDEr among the captioners, the widest first.

    Of images on which all score the same, or that have no CIDEr, there are no cards.
    """
    found = []
    for row in comparison.rows:
        scores = {name: its.get("cider") for name, its in row["captioners"].items()}
        if None in scores.values() or len(set(scores.values())) < 2:
            continue
        worst, best = min(scores.values()), max(scores.values())
        lines = [
            CaptionLine(its["caption"], f"{name}, CIDEr {scores[name]:.2f}", scores[name] == best)
            for name, its in row["captioners"].items()
        ]
        found.append((best - worst, PhotoCard(Path(row["path"]), lines, references=row["references"])))
    return [card for _, card in sorted(found, key=lambda one: -one[0])[:count]]


# Sentences


def answer(comparison: Comparison, images: str, of: int) -> str:
    """Return who leads on `images` ("Flickr8k, dev") `of` so many, by WER and by CIDEr, by how much, and how surely.

    It says where the two rank differently, and whose output is degenerate: none of these leads.
    """
    record, count = comparison.record, len(comparison.models)
    if not comparison.rows:
        return (
            f"**There is nothing to compare**: none of {of:,} images is held out ({plain(images)}). About one in ten "
            "is, where no list says which: add photos, or name some in a list, such as dev.txt, and run again."
        )
    said = f"{count} captioner{'s' * (count != 1)} on {record['images']:,} images of {plain(images)}"
    skipped = record["skipped_images"]
    said += f" ({skipped} more have no usable reference)." if skipped else "."
    leaders = [_leader(comparison, "wer", "WER, smaller is better"), _leader(comparison, "cider", "CIDEr")]
    missing = [f"**{plain(name)}** could not be run: {plain(why)}" for name, why in record["not_run"].items()]
    return "\n\n".join([said, *leaders, *_warnings(comparison), *missing])


def _warnings(comparison: Comparison) -> list[str]:
    """Return whose output is degenerate, and where the rankings differ."""
    said, models = [], comparison.models
    for name, signs in comparison.signs.items():
        if signs:
            scores = f"WER {number(models[name]['wer'])}, CIDEr {number(models[name]['cider'])}"
            why = plain("; ".join(signs))
            said.append(f"**{plain(name)} is degenerate** and comes last whatever it scores ({scores}): {why}.")
    by_wer, by_cider = (comparison.ranked(metric, degenerate_last=False) for metric in ("wer", "cider"))
    if by_wer != by_cider and models[by_cider[0]]["cider"] is not None:
        lengths = plain(", ".join(f"{name} {number(models[name]['length_ratio'])}" for name in by_wer))
        said.append(
            f"**WER and CIDEr rank differently**: by WER {plain(', '.join(by_wer))}; by CIDEr "
            f"{plain(', '.join(by_cider))}. Words for each word of people's: {lengths}."
        )
    return said


def _leader(comparison: Comparison, metric: str, label: str) -> str:
    first, *others = comparison.ranked(metric)
    numbers = comparison.models[first]
    if comparison.signs[first]:
        return f"By {label}: nobody, for all output is degenerate."
    if numbers[metric] is None:
        return f"By {label}: not measured ({plain(numbers[f'{metric}_reason'])})."
    said = f"By {label}, **{plain(first)}** has {_cell(numbers, metric)}"
    lead = comparison.difference(metric, first, others[0]) if others else None
    if lead is None:
        return f"{said}."
    chance = "is hardly" if lead.better else "may be"
    return (
        f"{said}, {plain(others[0])} {number(comparison.models[others[0]][metric])}. The difference "
        f"{plain(lead.first)} − {plain(lead.second)} is {with_ends(lead, '+')}: "
        f"it {chance} an accident of these images."
    )


def not_measured(comparison: Comparison) -> str:
    """Return which scores were not measured, and why; empty where all were."""
    reasons = {
        f"{LABELS.get(name, name.replace('_', ' '))} ({why})": None
        for numbers in comparison.models.values()
        for name, why in ((key.removesuffix("_reason"), why) for key, why in numbers.items() if key.endswith("_reason"))
    }
    return f"Not measured: {plain('; '.join(reasons))}." if reasons else ""


def plain(text: str) -> str:
    """Return a text as one line of Markdown in which nothing is markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$&])", lambda found: f"&#{ord(found[1])};", " ".join(text.split()))


# Tables


def captioners_table(comparison: Comparison, columns: Mapping[str, str], people: bool = False):
    """Return numbers of each captioner, the best by WER first: `columns` are LABELS, HABITS or COSTS.

    With `people`, how people's first captions are comes last.
    """
    rows = [(name, comparison.models[name]) for name in comparison.ranked("wer")]
    if people:
        rows.append(("people, first reference", comparison.record["people"]))
    return _numbers_table("captioner", rows, columns)


def languages_table(others: Mapping[str, Mapping[str, Any]]):
    """Return the scores of each further language."""
    columns = {"images": "images", **LABELS, "cider_nearest": "CIDEr of the nearest photo's caption"}
    return _numbers_table("language", others.items(), columns)


def pairs_table(comparison: Comparison):
    """Return every pair's difference by every measure, and who is better where that is more than chance; or None.

    A captioner whose output is degenerate is not better, whatever its score.
    """
    said = {None: "may be chance"} | {
        name: f"({name}: degenerate)" for name, signs in comparison.signs.items() if signs
    }
    rows = [
        [f"{one.first} − {one.second}", LABELS[one.measure], with_ends(one, "+"), said.get(one.better, one.better)]
        for one in comparison.differences
    ]
    return _table(["pair", "measure", "difference (95 %)", "better"], rows) if rows else None


def tag_tables(report: TagReport) -> list:
    """Return the scorer's order beside others and the recall; the reason where there is none."""
    numbers, tables = report.metrics, []
    if "tag_map_reason" in numbers:
        tables.append(_table(["tags"], [[numbers["tag_map_reason"]]]))
    else:
        rows = [
            [title, *(_cell(numbers, f"tag_{measure}{order}") for measure in TAG_MEASURES)]
            for order, title in TAG_ORDERS.items()
        ]
        tables.append(_table(["order", "MAP (95 %)", "P@5 (95 %)"], rows))
    if "recall_1_image_to_text" in numbers:
        rows = [
            [name.replace("_to_", " → "), *(_cell(numbers, f"recall_{k}_{name}") for k in KS)]
            for name in ("image_to_text", "text_to_image")
        ]
        tables.append(_table(["retrieval", *(f"recall@{k}" for k in KS)], rows))
    return tables


def _table(headings: Sequence[str], rows: Sequence[Sequence]):
    frame = require("pandas", "evaluate").DataFrame(rows, columns=headings, dtype=str)
    left = {"selector": "th, td", "props": "text-align: left; vertical-align: top"}
    return frame.style.hide(axis="index").format(escape="html").set_table_styles([left])


def _numbers_table(first: str, rows: Iterable[tuple[str, Mapping[str, Any]]], columns: Mapping[str, str]):
    """Return a table of flat objects like metrics.json by name; `columns` are keys of them, with their headings."""
    cells = [[name, *(_cell(numbers, key) for key in columns)] for name, numbers in rows]
    return _table([first, *columns.values()], cells)


def _cell(numbers: Mapping[str, Any], key: str) -> str:
    """Return a value of a flat object like metrics.json, with its interval where it has one."""
    if f"{key}_low" in numbers:
        return with_ends(_interval(numbers, key))
    value = numbers.get(key)
    return number(value) if value is None or isinstance(value, float) else str(value)


def _interval(numbers: Mapping[str, Any], key: str) -> Interval:
    return Interval(numbers[key], numbers[f"{key}_low"], numbers[f"{key}_high"])


def with_ends(interval: Interval, sign: str = "") -> str:
    """Return an interval in words, with signs where `sign` is "+"."""
    return f"{number(interval.value, sign)} ({number(interval.low, sign)} to {number(interval.high, sign)})"


def number(value: float | None, sign: str = "") -> str:
    """Return a number as every table has it."""
    return NONE if value is None else f"{value:{sign}z.3f}".replace("-", "−")


def draw_forest(comparison: Comparison):
    """Draw every measure's intervals in one figure, the best by WER first; None where there are no intervals."""
    ranked, models = comparison.ranked("wer"), comparison.models
    measured = [measure for measure in MEASURES if f"{measure}_low" in models[ranked[0]]]
    panels = {LABELS[measure]: {name: _interval(models[name], measure) for name in ranked} for measure in measured}
    return plots.forest(panels) if panels else None
