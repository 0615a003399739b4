"""Figures of several captioners: intervals beside each other, caption lengths, errors by length.

Knows how captioners are told apart, by colour and by mark, the same in every figure that is given the same `names`.
Refuses to know where numbers come from. The style, and how figures are shown and saved, is that of
`lcm.evaluation.plots`.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from lcm.evaluation.plots import ASIDE, COLOURS, GREY, INK, MAX_LENGTH_SHOWN, PALE, empty_figure, note
from lcm.evaluation.resampling import Interval, bootstrap_mean

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
