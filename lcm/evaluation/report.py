"""Results image by image: what was written, what people wrote, and how it scored.

Knows how results are kept and which of them show what a model can and cannot do. Refuses to know how figures are drawn.

Tables for notebooks and pages.

Knows how cells read as Markdown, and as HTML whose rows become cards on a phone. Refuses to know what they say; every
text is escaped.

The tables of a comparison, for a notebook and for a page.

Knows which numbers stand beside each other, how each is written, and which is the best of its column. Refuses to know
pages.

Figures of several captioners: intervals beside each other, caption lengths, errors by length.

Knows how captioners are told apart, by colour and by mark, the same in every figure that is given the same `names`.
Refuses to know where numbers come from. The style, and how figures are shown and saved, is that of
`lcm.evaluation.plots`.

The figures of a comparison.

Knows which numbers of a comparison go into which figure. Refuses to know how figures look: that is
`lcm.evaluation.report`. None of them shows a photo or a caption.

Parts of the report of a comparison: its look, its figures, its cards of photos.

Knows how they read in light and dark, on a desk and on a phone. Refuses to know what they say; every text is escaped,
every picture is inside the page.

The report of a comparison: one page of HTML that opens alone.

Knows in which order a reader wants to know what was compared, and in which words. Refuses to know how anything was
measured. Every text is escaped, every picture is inside the page. Without a gallery, the page holds neither photos nor
captions of the data set, and can be published.
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from statistics import fmean

import numpy as np

from lcm import __version__
from lcm.captioning.tagging import Tag
from lcm.data.dataset import LabelledImage
from lcm.data.text import standardise
from lcm.evaluation.bootstrap import RESAMPLES, Interval, bootstrap_mean
from lcm.evaluation.compare import (
    MEASURES,
    REPORTED_RESULTS,
    WER_DEFINITIONS,
    CaptionerResult,
    Comparison,
    Disagreement,
    disagreements,
    image_metric,
    shares_best,
    smaller_is_better,
)
from lcm.evaluation.gallery import STYLE, GalleryItem, PagePhoto, evenly, thumbnail, whole_page
from lcm.evaluation.metrics import Scores, score
from lcm.evaluation.plots import ASIDE, COLOURS, GREY, INK, MAX_LENGTH_SHOWN, PALE, empty_figure, note, png


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
    confidences: Sequence[float] | None = None,
) -> list[ImageResult]:
    """Return one result an image, in the order of `images`; `scores` and `confidences` are of the best captions."""
    sure = confidences if confidences is not None else [None] * len(images)
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
        for place, (image, written, its_tags, confidence) in enumerate(zip(images, captions, tags, sure, strict=True))
    ]


def pick_page(results: Sequence[ImageResult], count: int) -> list[PagePhoto]:
    """Return `count` results, evenly spaced along the split, for a page with their tags."""
    picked = (results[place] for place in evenly(count, len(results)))
    return [PagePhoto(one.path, one.english_captions, one.tags, one.confidence) for one in picked]


def save_results(results: Sequence[ImageResult], path: Path) -> None:
    """Write one JSON object a line; it holds the data set's captions, so it stays out of git."""
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(asdict(result), ensure_ascii=False) + "\n" for result in results)


def pick_gallery(results: Sequence[ImageResult], metric: str, count: int) -> list[tuple[str, list[GalleryItem]]]:
    """Return the `count` best, median and worst results by a metric of which more is better, as rows of a gallery.

    Images without a value are left out; where there are few, an image can stand in more than one row.
    """
    ranked = sorted((one for one in results if one.scores.get(metric) is not None), key=lambda one: -one.scores[metric])
    middle = max(0, (len(ranked) - count) // 2)
    rows = {"Best": ranked[:count], "Median": ranked[middle : middle + count], "Worst": ranked[-count:]}
    return [
        (title, [GalleryItem(Path(one.path), one.caption, one.references, one.scores[metric]) for one in row])
        for title, row in rows.items()
    ]


def score_control(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float | None]:
    """Score each caption against the image half the set away: what a captioner gets that ignores the image.

    Returns `cider_shuffled`, `wer_shuffled` and `wer_best_shuffled`.
    """
    half = len(captions) // 2
    scores = score([*captions[half:], *captions[:half]], references, meteor=False)
    return {
        "cider_shuffled": scores.cider,
        "wer_shuffled": scores.wer,
        "wer_best_shuffled": scores.wer_best,
    }


# The rows are cards where the screen is narrow: a cell then begins with its heading.
TABLE_STYLE = """
.lcm-table { border-collapse: collapse; width: 100%; margin: 0 0 1em; font-variant-numeric: tabular-nums; }
.lcm-table th, .lcm-table td { padding: .45em .8em .45em 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: break-word; font-weight: normal; }
.lcm-table thead th { color: var(--grey); font-size: .9em; border-bottom: 2px solid var(--line);
  vertical-align: bottom; }
.lcm-table tbody th { font-weight: 600; min-width: 8em; overflow-wrap: anywhere; }
.lcm-table small { display: block; color: var(--grey); font-weight: normal; }
.lcm-table .quoted th, .lcm-table .quoted td { font-style: italic; color: var(--grey); }
@media (max-width: 46em) {
  .lcm-table, .lcm-table tbody, .lcm-table tr, .lcm-table tbody th, .lcm-table td { display: block; }
  .lcm-table thead { display: none; }
  .lcm-table tr { border: 1px solid var(--line); border-radius: 8px; background: var(--card); padding: .5em .9em;
    margin-bottom: .7em; }
  .lcm-table tbody th, .lcm-table td { border: 0; padding: .15em 0; }
  .lcm-table td { display: flex; justify-content: space-between; gap: 1em; }
  .lcm-table td > span { text-align: right; min-width: 0; overflow-wrap: anywhere; }
  .lcm-table td::before { content: attr(data-label); color: var(--grey); flex: 0 0 40%; }
  .lcm-table td:has(> span:empty) { display: none; }
}
"""


@dataclass(frozen=True)
class Cell:
    """One entry of a table."""

    text: str
    small: str = ""  # beside it, in small letters
    best: bool = False  # of its column


@dataclass(frozen=True)
class Table:
    """Rows under headings; the first cell of a row names it."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    quoted: int = 0  # the last rows that are others' numbers

    def as_markdown(self) -> str:
        """Return the table for a notebook."""
        lines = [" | ".join(map(_plain, self.headings)), "|".join(["---"] * len(self.headings))]
        lines += [" | ".join(map(_markdown, row)) for row in self.rows]
        return "\n".join(f"| {line} |" for line in lines)

    def as_html(self) -> str:
        """Return the table for a page, every text escaped."""
        whole = [heading.replace("-", "\N{NON-BREAKING HYPHEN}") for heading in self.headings]  # BLEU-4 on one line
        head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in whole)
        ours = len(self.rows) - self.quoted
        opened = ["<tr>"] * ours + ['<tr class="quoted">'] * self.quoted
        body = "".join(f"{tag}{self._html_row(row)}</tr>" for tag, row in zip(opened, self.rows, strict=True))
        return f'<table class="lcm-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'

    def _html_row(self, row: Sequence[Cell]) -> str:
        first, *others = row
        cells = zip(self.headings[1:], others, strict=True)
        return f'<th scope="row">{_html(first)}</th>' + "".join(
            f'<td data-label="{escape(heading)}"><span>{_html(cell)}</span></td>' for heading, cell in cells
        )


def _html(cell: Cell) -> str:
    text = f"<b>{escape(cell.text)}</b>" if cell.best else escape(cell.text)
    return f"{text} <small>{escape(cell.small)}</small>" if cell.small else text


def _markdown(cell: Cell) -> str:
    text = f"**{_plain(cell.text)}**" if cell.best else _plain(cell.text)
    return f"{text} ({_plain(cell.small)})" if cell.small else text


def _plain(text: str) -> str:
    return escape(text, quote=False).replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").replace("\n", " ")


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
        for row in REPORTED_RESULTS
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


# Okabe and Ito's orange and sky blue beside the four of plots.COLOURS; a seventh captioner begins again, with its mark.
HUES = (*COLOURS, "#E69F00", "#56B4E9")
MARKS = ("o", "D", "s", "^", "v", "P", "X")
NAME_SHOWN = 26  # letters of a captioner's name
LENGTH_BINS = 7  # at most
FEW = 20  # images of a bin; below, it is pale


def look_of(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return each captioner's colour and mark."""
    return {name: (HUES[place % len(HUES)], MARKS[place % len(MARKS)]) for place, name in enumerate(names)}


def shortened(name: str) -> str:
    """Return the name, no longer than a figure has room for."""
    return name if len(name) <= NAME_SHOWN else name[: NAME_SHOWN - 1] + "…"


def forest(panels: Mapping[str, Mapping[str, Interval]], names: Sequence[str], columns: int = 3):
    """Draw intervals: a panel for each title, a row for each captioner, in the order of `names`.

    The dashed line is the first captioner's value. A captioner without an interval has an empty row.
    """
    columns = max(1, min(columns, len(panels)))
    rows = math.ceil(len(panels) / columns) or 1
    with empty_figure(1.8 + 2.5 * columns, rows * (1 + 0.3 * len(names))) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for place, (axes, (title, intervals)) in enumerate(zip(grid, panels.items(), strict=False)):
            axes.set_title(title)
            axes.set_xlabel("smaller is better" if "WER" in title else "more is better")
            _forest(axes, intervals, names)
            axes.tick_params(labelleft=place % columns == 0)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
    return figure


def _forest(axes, intervals: Mapping[str, Interval], names: Sequence[str]) -> None:
    for row, (name, (colour, mark)) in enumerate(look_of(names).items()):
        if name in intervals:
            its = intervals[name]
            axes.plot((its.low, its.high), (row, row), color=colour, linewidth=2.2, solid_capstyle="butt")
            axes.plot(its.value, row, mark, color=colour, markersize=7)
            axes.annotate(
                f"{its.value:.3f}", (1.02, row), xycoords=("axes fraction", "data"), color=INK, va="center", fontsize=9
            )
    if names and names[0] in intervals:
        axes.axvline(intervals[names[0]].value, color=GREY, linewidth=1, linestyle="--", zorder=0.5)
    if not intervals:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, color=GREY, ha="center", va="center")
        axes.tick_params(labelbottom=False)
    axes.set_yticks(range(len(names)), [shortened(name) for name in names], color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.08)
    axes.grid(visible=False, axis="y")
    axes.xaxis.get_major_locator().set_params(nbins=5)


def length_histograms(lengths: Mapping[str, Sequence[int]], references: Sequence[int], names: Sequence[str]):
    """Draw how long each captioner's captions are, in words, over how long people's are, one below the other."""
    with empty_figure(5.2, 0.9 + 1.05 * max(1, len(names))) as figure:
        panels = figure.subplots(max(1, len(names)), 1, sharex=True, sharey=True, squeeze=False).ravel()
        longest = max((max(each, default=0) for each in (*lengths.values(), references)), default=0)
        edges = np.arange(-0.5, min(longest, MAX_LENGTH_SHOWN) + 1)
        for axes, (name, (colour, _)) in zip(panels, look_of(names).items(), strict=False):
            if len(references):
                axes.stairs(_shares(references, edges), edges, color="#C4C4C4", fill=True, label="people")
            if len(its := lengths.get(name, ())):
                axes.stairs(_shares(its, edges), edges, color=colour, linewidth=1.8)
                axes.set_title(f"median {np.median(its):g}, longest {max(its)}", color=GREY, **ASIDE)
            axes.set_title(shortened(name), color=colour, fontsize=10)
            axes.yaxis.get_major_locator().set_params(nbins=3)
            axes.yaxis.set_major_formatter("{x:g} %")
        beyond = f" ({MAX_LENGTH_SHOWN} stands for all longer ones)" if longest > MAX_LENGTH_SHOWN else ""
        panels[-1].set_xlabel(f"words a caption{beyond}; grey: people's captions")
        panels[-1].xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if not names:
            note(panels[0], "no captions")
    return figure


def _shares(lengths: Sequence[int], edges: np.ndarray) -> np.ndarray:
    return np.histogram(np.minimum(lengths, MAX_LENGTH_SHOWN), edges)[0] * 100 / len(lengths)


def wer_by_length(reference_words: Sequence[float], wers: Mapping[str, Sequence[float]], names: Sequence[str]):
    """Draw each captioner's mean WER of images whose references have about as many words, with 95 % intervals.

    `reference_words` are the mean words of an image's references, `wers` are along the same images. Bins of fewer than
    20 images are pale, and a bin of one has no interval.
    """
    words = np.asarray(reference_words, np.float64)
    with empty_figure(5.2, 4.2) as figure:
        axes = figure.subplots()
        axes.set(title="WER by the length of people's captions", ylabel="mean WER, smaller is better")
        axes.set_xlabel("mean words of an image's references, and how many images")
        places, labels = length_bins(words)
        for order, (name, (colour, mark)) in enumerate(look_of(names).items()):
            shift = (order - (len(names) - 1) / 2) * min(0.12, 0.7 / len(names))
            for bin_place in range(len(labels)):
                its = np.asarray(wers[name], np.float64)[places == bin_place]
                if len(its):
                    _point(axes, bin_place + shift, its, colour, mark)
            axes.plot([], [], mark, color=colour, label=shortened(name))
        if not len(labels):
            note(axes, "no images")
            return figure
        counts = [int((places == bin_place).sum()) for bin_place in range(len(labels))]
        axes.set_xticks(range(len(labels)), [f"{label}\nn={n}" for label, n in zip(labels, counts, strict=True)])
        axes.grid(visible=False, axis="x")
        for edge in range(1, len(labels)):
            axes.axvline(edge - 0.5, color=PALE, linewidth=0.8, zorder=0.5)
        axes.margins(y=0.12)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=2)
    return figure


def _point(axes, place: float, values: np.ndarray, colour: str, mark: str) -> None:
    alpha = 1 if len(values) >= FEW else 0.3
    if len(values) > 1:
        its = bootstrap_mean(values)
        axes.plot((place, place), (its.low, its.high), color=colour, linewidth=1.4, alpha=alpha)
    axes.plot(place, values.mean(), mark, color=colour, markersize=6, alpha=alpha, markeredgewidth=0)


def length_bins(words: Sequence[float]) -> tuple[np.ndarray, list[str]]:
    """Return each image's bin by the mean words of its references, rounded, and what the bins are called.

    Bins are as wide as each other but for the first and the last, which hold the shortest and longest twentieth too.
    """
    whole = np.floor(np.asarray(words, np.float64) + 0.5).astype(int)
    if not len(whole):
        return whole, []
    low, high = (int(end) for end in np.quantile(whole, (0.05, 0.95)))
    width = math.ceil((high - low + 1) / LENGTH_BINS)
    count = math.ceil((high - low + 1) / width)
    places = ((whole - low) // width).clip(0, count - 1)
    labels = []
    for place in range(count):
        first = whole.min() if place == 0 else low + place * width
        last = whole.max() if place == count - 1 else low + (place + 1) * width - 1
        labels.append(f"{first}" if first == last else f"{first}–{last}")
    return places, labels


def draw_forest(comparison: Comparison, columns: int = 3):
    """Draw every measure's intervals in one figure, the best by WER first."""
    return forest({LABELS[name]: its for name, its in _panels(comparison).items()}, _names(comparison), columns)


def draw_figures(comparison: Comparison) -> dict[str, object]:
    """Draw a forest plot of each measure, how long captions are, and WER by how long people's captions are.

    The figures are under the names that their files may have: `forest_<measure>`, `caption_lengths`, `wer_by_length`.
    """
    names = _names(comparison)
    by_name = {result.name: result.scores.per_image for result in comparison.results}
    people = [[len(words) for text in each if (words := standardise(text))] for each in comparison.references]
    scored = [place for place, lengths in enumerate(people) if lengths]
    figures = {f"forest_{name}": forest({LABELS[name]: its}, names, 1) for name, its in _panels(comparison).items()}
    figures["caption_lengths"] = length_histograms(
        {name: [int(its["words"][place]) for place in scored] for name, its in by_name.items()},
        [length for lengths in people for length in lengths],
        names,
    )
    figures["wer_by_length"] = wer_by_length(
        [fmean(people[place]) for place in scored],
        {name: [its["wer"][place] for place in scored] for name, its in by_name.items()},
        names,
    )
    return figures


def _names(comparison: Comparison) -> list[str]:
    return [result.name for result in comparison.ranked("wer")]


def _panels(comparison: Comparison) -> dict[str, dict[str, Interval]]:
    """Return the intervals of each measure that any captioner has."""
    every = {name: {r.name: r.intervals[name] for r in comparison.results if name in r.intervals} for name in MEASURES}
    return {name: its for name, its in every.items() if its}


# Figures are drawn on white; where the page is dark they are turned over, hues kept.
REPORT_STYLE = (
    STYLE
    + TABLE_STYLE
    + """
.lcm-report { color-scheme: light dark; --ink: light-dark(#222, #e8e8e8); --grey: light-dark(#5c5c5c, #a8a8a8);
  --card: light-dark(#fff, #1d1f21); --line: light-dark(#ddd, #3a3d40); --mark: light-dark(#0b6e99, #7cc4e8);
  font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 66em; }
.lcm-report h2 { font-size: 1.25em; margin: 2em 0 .4em; }
.lcm-report p, .lcm-report dl { max-width: 45em; margin: 0 0 1em; overflow-wrap: anywhere; }
.lcm-report dt { font-weight: 600; }
.lcm-report dd { margin: 0 0 .5em; }
.lcm-report .answer { font-size: 1.1em; }
.lcm-report pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--card); padding: .8em 1em;
  border: 1px solid var(--line); border-radius: 8px; max-width: 100%; box-sizing: border-box; }
.lcm-report summary { cursor: pointer; color: var(--mark); margin: .6em 0; }
.lcm-report .figures { display: grid; gap: 1em; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24em), 1fr));
  align-items: start; }
.lcm-report .figures div { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .6em; }
.lcm-report .figures img { display: block; width: 100%; max-width: 38em; margin: auto; }
@media (prefers-color-scheme: dark) {
  .lcm-report .figures img { filter: invert(.93) hue-rotate(180deg); mix-blend-mode: lighten; } }
.lcm-report .said { list-style: none; margin: 0 0 .8em; padding: 0; }
.lcm-report .said li { padding: .35em 0; border-bottom: 1px solid var(--line); }
.lcm-report .said span { display: flex; justify-content: space-between; gap: 1em; font-size: .85em;
  color: var(--grey); }
.lcm-report .said i { white-space: nowrap; }
.lcm-report .said .best span { color: var(--mark); font-weight: 600; }
.lcm-report .people { color: var(--grey); font-size: .9em; padding-left: 1.2em; margin: 0; list-style: disc; }
"""
)


def section(title: str, body: str) -> str:
    """Return a part of the page under its title; `body` is HTML."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def figure_grid(figures: Mapping[str, object]) -> str:
    """Return the figures beside each other, or below where there is no room."""
    pictures = [(escape(_said_by(figure)), base64.b64encode(png(figure)).decode()) for figure in figures.values()]
    cells = "".join(f'<div><img alt="{said}" src="data:image/png;base64,{data}"></div>' for said, data in pictures)
    return f'<div class="figures">{cells}</div>'


def _said_by(figure) -> str:
    """Return the titles of a figure's panels."""
    return "; ".join(filter(None, (axes.get_title(loc="left") for axes in figure.axes)))


def photo_grid(found: Sequence[Disagreement], label: str) -> str:
    """Return a card for each photo: what every captioner said, its score by `label`, and what people wrote."""
    return f'<div class="lcm-photos">{"".join(_card(one, label) for one in found)}</div>'


def _card(one: Disagreement, label: str) -> str:
    scores = [said.score for said in one.said]
    best = min(scores) if smaller_is_better(label.lower()) else max(scores)
    lines = ""
    for said in one.said:
        opened = '<li class="best">' if said.score == best else "<li>"
        lines += f"{opened}<span>{escape(said.name)} <i>{label} {said.score:.2f}</i></span>"
        lines += f"{escape(said.caption) or '(empty)'}</li>"
    people = "".join(f"<li>{escape(text)}</li>" for text in one.references)
    return (
        f'<figure><img alt="photo" src="data:image/jpeg;base64,{thumbnail(one.image)}"><figcaption>'
        f'<ul class="said">{lines}</ul><ul class="people">{people}</ul></figcaption></figure>'
    )


GALLERY = 12  # photos
CHANCE = "That interval holds zero: the lead may be an accident of these images."
SURE = "That interval does not hold zero: the lead is hardly an accident of these images."
INTERVALS = (
    f"Intervals are 95 % bootstrap intervals: the images are drawn again with replacement, {RESAMPLES:,} times. They "
    "say how a number could have come out with other images of the same kind, not with another training run. "
    "Differences are paired: both captioners on the same drawn images."
)
DEFINITIONS = (
    (
        "mean, the headline",
        "WER against each reference of an image, their mean, then the mean over images. Every "
        "reference counts, and no caption gains by one that happens to be near.",
    ),
    ("best reference", "WER against the image's nearest reference only, then the mean over images."),
    (
        "first reference",
        "WER against the image's first reference only, as the files have them, then the mean over images.",
    ),
    (
        "pooled",
        "All edits against all references of all images, by all words of these references. Long references weigh more.",
    ),
)


def comparison_page(
    comparison: Comparison,
    images: Sequence[LabelledImage],
    *,
    data: str,
    split: str,
    repeat: str = "",
    gallery: int = GALLERY,
    title: str = "Which captioner, on these images?",
) -> str:
    """Return the report as a whole page.

    `images` are those compared, of the `split` of `data` ("Flickr8k"); `repeat` says how to run it again, as one would
    type it. `gallery` photos are shown on which captioners disagree most; with 0, `images` may be empty.
    Raises DataError when there are not as many images as were compared, BadImageError for a photo that is none.
    """
    figures = draw_figures(comparison)
    sections = [
        f'<p class="answer">{_answer(comparison, f"{data}, {split}")}</p>',
        _scores(comparison, figures),
        _definitions(comparison),
        _writing(comparison, figures),
        _published(comparison, f"{data}, {split}"),
        _not_run(comparison),
        _gallery(comparison, images, gallery) if gallery else "",
        _repeat(comparison, repeat),
    ]
    return whole_page(title, f'<style>{REPORT_STYLE}</style><div class="lcm-report">{"".join(sections)}</div>')


def _answer(comparison: Comparison, images: str) -> str:
    """Return who leads, by how much, and whether that is sure."""
    skipped = f" ({comparison.skipped_images} more have no usable reference)" if comparison.skipped_images else ""
    count = len(comparison.results)
    text = f"{count} captioner{'s' * (count != 1)} on {comparison.images:,} images of {escape(images)}{skipped}. "
    text += _leader(comparison, "wer", "mean WER, the original’s measure, smaller is better")
    return text + _leader(comparison, "cider", "CIDEr")


def _leader(comparison: Comparison, metric: str, label: str) -> str:
    first, *others = comparison.ranked(metric)
    best = getattr(first.scores, metric)
    if best is None:
        return f"By {label}: not measured ({escape(first.scores.reasons[metric])}). "
    text = f"By {label}, <b>{escape(first.name)}</b> {'leads with' if others else 'has'} {number(best)}"
    pair = [first.name, others[0].name] if others else []
    lead = comparison.difference(metric, *(pair[::-1] if smaller_is_better(metric) else pair)) if others else None
    if lead is None:
        return f"{text}. "
    sure = CHANCE if lead.holds_zero else SURE
    return f"{text}, {number(lead.value)} better than {escape(pair[1])} ({ends(lead)}). {sure} "


def _scores(comparison: Comparison, figures: Mapping[str, object]) -> str:
    forests = {name: figure for name, figure in figures.items() if name.startswith("forest")}
    more = section(
        "All scores",
        "<p>The best of a column is bold. CIDEr and WER are means over images, BLEU and METEOR are of the whole set. "
        "BLEU-4’s interval is that of the whole set; METEOR’s is that of its mean over images, another number.</p>"
        f"{scores_table(comparison).as_html()}{_missing(comparison)}<p>{INTERVALS}</p>{figure_grid(forests)}",
    )
    pairs = pairs_table(comparison, ("wer", "cider", "bleu_4", "meteor_mean", "wer_best"))
    if pairs.rows:
        more += (
            f"<details><summary>Every pair, by every measure ({len(pairs.rows)} differences)</summary>"
            "<p>Of twenty differences that are nothing but chance, one is expected to look like more.</p>"
            f"{pairs.as_html()}</details>"
        )
    first = section("The original’s comparison: mean WER", wer_table(comparison).as_html())
    return first + more


def _missing(comparison: Comparison) -> str:
    """Return which scores were not measured, and why."""
    reasons = dict.fromkeys(
        f"{metric} ({why})" for result in comparison.results for metric, why in result.scores.reasons.items()
    )
    return f"<p>Not measured: {escape('; '.join(reasons))}.</p>" if reasons else ""


def _definitions(comparison: Comparison) -> str:
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>" for term, meaning in DEFINITIONS)
    ranks = [comparison.ranks(name) for name in WER_DEFINITIONS]
    same = all(one == ranks[0] for one in ranks)
    verdict = "The ranking is the same by all of them." if same else "The ranking depends on the definition."
    return section(
        "How several references become one WER",
        "<p>The word error rate is the fewest words to insert, delete and replace, by the words of the reference. "
        f"People’s captions of an image are several; there is more than one way. {verdict}</p>"
        f"<dl>{terms}</dl>{definitions_table(comparison).as_html()}",
    )


def _writing(comparison: Comparison, figures: Mapping[str, object]) -> str:
    others = {name: figure for name, figure in figures.items() if not name.startswith("forest")}
    return section(
        "How they write, and what it costs",
        f"{habits_table(comparison).as_html()}{figure_grid(others)}"
        f"<h3>Time and memory</h3>{costs_table(comparison).as_html()}",
    )


def _published(comparison: Comparison, images: str) -> str:
    return section(
        "Published numbers",
        f"<p>Rows in italics are quoted, not measured here. Ours are on {escape(images)}; theirs are on the images "
        "named in their row, with their own encoders and tokenisers: an orientation, not a ranking.</p>"
        f"{published_table(comparison, images).as_html()}",
    )


def _not_run(comparison: Comparison) -> str:
    if not comparison.not_run:
        return ""
    terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(why)}</dd>" for name, why in comparison.not_run.items())
    return section("Could not be run", f"<dl>{terms}</dl>")


def _gallery(comparison: Comparison, images: Sequence[LabelledImage], count: int) -> str:
    found = disagreements(comparison, images, count)
    label = LABELS[image_metric(comparison)]
    shares = "; ".join(f"{escape(name)} on {share:.0%}" for name, share in shares_best(comparison).items())
    how = (
        f"<p>The images with the widest range of {label} from the worst captioner to the best; the best is marked. "
        f"Over all images the best {label} has: {shares} (equals count for each).</p>"
    )
    nothing = "<p>No image has captioners of different scores.</p>"
    return section("Where the captioners disagree most", how + photo_grid(found, label) if found else nothing)


def _repeat(comparison: Comparison, repeat: str) -> str:
    command = f"<pre>{escape(repeat)}</pre>" if repeat else ""
    notes = [f"{r.name}: {r.output.note}" for r in comparison.results if r.output.note]
    items = "".join(f"<li>{escape(one)}</li>" for one in notes)
    return section(
        "How to repeat it",
        f"{command}<p>lcm {escape(__version__)}; {RESAMPLES:,} resamples of seed 0. Captions and references are "
        f"standardised alike: small letters, no punctuation.</p><ul>{items}</ul>",
    )
