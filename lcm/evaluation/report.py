"""What the notebooks show of an evaluation and of a comparison: sentences, pandas tables, figures, cards of photos.

The executed notebook is the report. Tables are styled pandas frames of finished text, every cell escaped, since names
of captioners and words of captions come from outside; sentences are Markdown, with names escaped likewise.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lcm.captioning.bundle import Bundle
from lcm.captioning.decoding import caption_features
from lcm.captioning.peers import nearest_captions
from lcm.captioning.tagging import Reranker, Tag
from lcm.config import EvaluateConfig
from lcm.data.dataset import LabelledImage
from lcm.errors import require
from lcm.evaluation import plots
from lcm.evaluation.bootstrap import Interval
from lcm.evaluation.compare import MEASURES, CaptionerResult, Comparison
from lcm.evaluation.gallery import CaptionLine, PhotoCard, described, evenly
from lcm.evaluation.metrics import DEGENERATION, Scores, score, score_several
from lcm.evaluation.tags import BASELINES, KS, TagReport
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
NONE = "–"  # not measured
MAY_BE_CHANCE = "may be chance"
WHY_WER = (
    "Short or broken captions win WER, which counts wrong words: they have few. CIDEr counts what people say of this "
    "image and not of others."
)
PAIRED = (
    "Differences are paired: both captioners on the same drawn images. Of twenty differences that are nothing but "
    "chance, one is expected to look like more."
)


# Languages


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


def languages_table(others: Mapping[str, Mapping[str, Any]]):
    """Return the scores of each further language."""
    names = [*LABELS, "cider_nearest"]
    rows = [[language, its["images"], *(number(its[name]) for name in names)] for language, its in others.items()]
    return _table(["language", "images", *LABELS.values(), "CIDEr of the nearest photo's caption"], rows)


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
    """Return the places of the `count` best, median and worst values, in that order, each with which of these it is.

    Of few values there are fewer of each; no place is there twice, and none without a value.
    """
    found = [place for place, value in enumerate(values) if value is not None]
    ranked = sorted(found, key=lambda place: -values[place])
    count = min(count, max(1, len(ranked) // 3))
    last, titles = len(ranked) - count, {}
    for title, start in (("median", last // 2), ("worst", last), ("best", 0)):  # of two, none is the median
        titles |= dict.fromkeys(ranked[start : start + count], title)
    return {place: titles[place] for place in ranked if place in titles}


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
    ciders = [result.scores.per_image.get("cider") for result in comparison.results]
    if None in ciders:
        return []
    found = []
    for place, image in enumerate(comparison.images):
        scores = [its[place] for its in ciders]
        if None in scores or min(scores) == max(scores):
            continue
        lines = [
            CaptionLine(result.captions[place], f"{result.name}, CIDEr {value:.2f}", value == max(scores))
            for result, value in zip(comparison.results, scores, strict=True)
        ]
        found.append((max(scores) - min(scores), PhotoCard(image.path, lines, references=image.captions)))
    return [card for _, card in sorted(found, key=lambda one: -one[0])[:count]]


# Sentences


def answer(comparison: Comparison, images: str, of: int) -> str:
    """Return who leads on `images` ("Flickr8k, dev") `of` so many, by WER and by CIDEr, by how much, and how surely.

    It says where the two rank differently, and whose output is degenerate: none of these leads.
    """
    if not comparison.images:
        return (
            f"**There is nothing to compare**: none of {of:,} images is held out ({plain(images)}). About one in ten "
            "is, where no list says which: add photos, or name some in a list, such as dev.txt, and run again."
        )
    count, skipped = len(comparison.results), len(comparison.images) - comparison.scored_images
    said = f"{count} captioner{'s' * (count != 1)} on {comparison.scored_images:,} images of {plain(images)}"
    said += f" ({skipped} more have no usable reference)." if skipped else "."
    leaders = [_leader(comparison, "wer", "WER, smaller is better"), _leader(comparison, "cider", "CIDEr")]
    missing = [f"**{plain(name)}** could not be run: {plain(why)}" for name, why in comparison.not_run.items()]
    return "\n\n".join([said, *leaders, *_warnings(comparison), *missing])


def _warnings(comparison: Comparison) -> list[str]:
    """Return whose output is degenerate, where the rankings differ, and why WER alone is not to be trusted then."""
    said = []
    for one in comparison.results:
        if one.signs:
            scores = f"WER {number(one.scores.wer)}, CIDEr {number(one.scores.cider)}"
            why = plain("; ".join(one.signs))
            said.append(f"**{plain(one.name)} is degenerate** and comes last whatever it scores ({scores}): {why}.")
    ranked = comparison.ranked("wer", degenerate_last=False), comparison.ranked("cider", degenerate_last=False)
    by_wer, by_cider = (plain(", ".join(one.name for one in its)) for its in ranked)
    if by_wer != by_cider and ranked[1][0].scores.cider is not None:
        lengths = plain(", ".join(f"{one.name} {number(one.scores.length_ratio)}" for one in ranked[0]))
        said.append(
            f"**WER and CIDEr rank differently**: by WER {by_wer}; by CIDEr {by_cider}. Words for each word of "
            f"people's: {lengths}."
        )
    return [*said, WHY_WER] if said else []


def _leader(comparison: Comparison, metric: str, label: str) -> str:
    first, *others = comparison.ranked(metric)
    if first.signs:
        return f"By {label}: nobody, for all output is degenerate."
    if getattr(first.scores, metric) is None:
        return f"By {label}: not measured ({plain(first.scores.reasons[metric])})."
    said = f"By {label}, **{plain(first.name)}** has {_scored(first, metric)}"
    lead = comparison.difference(metric, first.name, others[0].name) if others else None
    if lead is None:
        return f"{said}."
    chance = "is hardly" if lead.better else "may be"
    return (
        f"{said}, {plain(others[0].name)} {number(getattr(others[0].scores, metric))}. The difference "
        f"{plain(lead.first)} − {plain(lead.second)} is {with_ends(lead, '+')}: "
        f"it {chance} an accident of these images."
    )


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
    """Return the scores with their intervals, the best by WER first."""
    rows = [[result.name, *(_scored(result, metric) for metric in LABELS)] for result in comparison.ranked("wer")]
    return _table(["captioner", *LABELS.values()], rows)


def degeneration_table(comparison: Comparison):
    """Return how captioners write, beside how people do."""
    rows = []
    for result in comparison.ranked("wer"):
        scores = result.scores
        shares = [scores.distinct_captions, scores.copied_from_train, scores.vocabulary_used]
        shares += [result.degeneration[name] for name in DEGENERATION]
        rows.append([result.name, number(scores.length_ratio), *map(_share, shares)])
    rows.append(["people, first reference", *[""] * 4, *(_share(comparison.people[name]) for name in DEGENERATION)])
    variety = ["distinct captions", "copied from training", "of the run's vocabulary used"]
    ailing = ["break off", "repeat words", "most frequent caption"]
    return _table(["captioner", "length ratio", *variety, *ailing], rows)


def costs_table(comparison: Comparison):
    """Return time and memory, and what exactly each captioner was."""
    rows = []
    for result in comparison.ranked("wer"):
        costs = result.costs()
        memory = costs["peak_memory_mb"]
        times = map(_time, (costs["seconds_median"], costs["seconds_p95"]))
        held = NONE if memory is None else f"{memory:,.0f} MB"
        rows.append([result.name, *times, costs["seconds_photos"], held, result.note])
    headings = ["time of a photo, median", "95 % are faster than", "photos timed", "peak memory", "model"]
    return _table(["captioner", *headings], rows)


def pairs_table(comparison: Comparison):
    """Return every pair's difference by every measure, and who is better where that is more than chance; or None.

    A captioner whose output is degenerate is not better, whatever its score.
    """
    said = {None: MAY_BE_CHANCE} | {one.name: f"({one.name}: degenerate)" for one in comparison.results if one.signs}
    rows = [
        [f"{one.first} − {one.second}", LABELS[one.measure], with_ends(one, "+"), said.get(one.better, one.better)]
        for one in comparison.differences
    ]
    if not rows:
        return None
    return _table(["pair", "measure", "difference (95 %)", "better"], rows).set_caption(PAIRED)


def tag_tables(report: TagReport) -> list:
    """Return the scorer's order beside others and the recall; the reason where there is none."""
    tables = [_table(["tags"], [[report.reason]])] if report.reason else []
    if report.intervals:
        orders = {"": "scorer", **{f"_{name}": title for name, title in BASELINES.items()}}
        rows = [
            [title, *(with_ends(report.intervals[f"tag_{measure}{order}"]) for measure in TAG_MEASURES)]
            for order, title in orders.items()
        ]
        over = [with_ends(report.intervals[f"tag_{measure}_over_caption_order"], "+") for measure in TAG_MEASURES]
        tables.append(_table(["order", "MAP (95 %)", "P@5 (95 %)"], [*rows, ["scorer minus caption order", *over]]))
    if report.recall:
        rows = [
            [name.replace("_to_", " → "), *(number(report.recall[f"recall_{k}_{name}"]) for k in KS)]
            for name in ("image_to_text", "text_to_image")
        ]
        tables.append(_table(["retrieval", *(f"recall@{k}" for k in KS)], rows))
    return tables


def _table(headings: Sequence[str], rows: Sequence[Sequence]):
    frame = require("pandas", "evaluate").DataFrame(rows, columns=headings, dtype=str)
    left = {"selector": "th, td", "props": "text-align: left; vertical-align: top"}
    return frame.style.hide(axis="index").format(escape="html").set_table_styles([left])


def _scored(result: CaptionerResult, metric: str) -> str:
    interval = result.intervals.get(metric)
    return with_ends(interval) if interval else number(getattr(result.scores, metric))


def with_ends(interval: Interval, sign: str = "") -> str:
    """Return an interval in words, with signs where `sign` is "+"."""
    return f"{number(interval.value, sign)} ({number(interval.low, sign)} to {number(interval.high, sign)})"


def number(value: float | None, sign: str = "") -> str:
    """Return a number as every table has it."""
    return NONE if value is None else f"{value:{sign}z.3f}".replace("-", "−")


def _share(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.{1 if value < 0.1 else 0}f} %"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def draw_forest(comparison: Comparison):
    """Draw every measure's intervals in one figure, the best by WER first; None where there are no intervals."""
    ranked = comparison.ranked("wer")
    found = [name for name in MEASURES if name in ranked[0].intervals]
    return (
        plots.forest({LABELS[name]: {r.name: r.intervals[name] for r in ranked} for name in found}) if found else None
    )
