"""Figures of numbers, in one restrained style: colours that the colour-blind can tell apart, units on every axis.

Each function returns a Figure that is in no window and on no global list (pyplot is not used); a notebook shows it and
`save` writes it. A "$" in a name starts no formula.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import numpy as np

from lcm.errors import require
from lcm.evaluation.bootstrap import Interval
from lcm.paths import write_atomic

DPI = 150
# Okabe and Ito, "Color Universal Design" (2008), without the pale ones.
BLUE, VERMILION, *_ = COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK, GREY, PALE = "#222222", "#6B6B6B", "#E4E4E4"
STYLE = {
    **{"text.color": INK, "text.parse_math": False},  # False: a dollar sign is a dollar sign
    **{"font.size": 9, "legend.frameon": False, "lines.linewidth": 1.8, "axes.grid": True, "axes.axisbelow": True},
    **{"axes.titlelocation": "left", "axes.titlepad": 10, "axes.titlesize": 11, "axes.titleweight": "bold"},
    **{"axes.spines.right": False, "axes.spines.top": False, "figure.facecolor": "white", "grid.color": PALE},
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), GREY),
    **dict.fromkeys(("xtick.major.size", "xtick.minor.size", "ytick.major.size", "ytick.minor.size"), 0),
    **dict.fromkeys(("figure.constrained_layout.w_pad", "figure.constrained_layout.h_pad"), 0.12),  # inches
}
ASIDE = {"loc": "right", "fontsize": 9, "fontweight": "normal"}  # a second title, for a fact
NAME_SHOWN = 26  # letters of a captioner's name
MAX_LENGTH_SHOWN = 60  # words; longer captions are counted at the right edge


def learning_curves(epochs: Sequence[Mapping], best_epoch: int | None = None):
    """Draw loss, or the second stage's reward, and CIDEr on dev, of each epoch, and mark `best_epoch`, if given.

    Each has epoch (from 1), train_loss, dev_loss, train_reward and dev_cider; None if not measured.
    """
    with empty_figure(9.5, 3.8) as figure:
        first, cider = figure.subplots(1, 2, sharex=True)
        if any(each["train_reward"] is not None for each in epochs):
            _curves(first, epochs, {"train_reward": BLUE}, "Reward", "CIDEr-D of samples")
        else:
            _curves(first, epochs, {"train_loss": BLUE, "dev_loss": VERMILION}, "Loss", "nats a word", best_epoch)
            first.legend(*first.get_legend_handles_labels())
        _curves(cider, epochs, {"dev_cider": VERMILION}, "CIDEr on dev", "CIDEr", best_epoch)
    return figure


def _curves(axes, epochs, colours: Mapping[str, str], title: str, unit: str, best_epoch: int | None = None) -> None:
    """Draw the keys of `colours` over the epochs, where they have a value, and mark the best epoch on dev's."""
    axes.set(title=title, xlabel="epoch", ylabel=unit)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    for key, colour in colours.items():
        points = {each["epoch"]: each[key] for each in epochs if each[key] is not None}
        if points:
            axes.plot(points.keys(), points.values(), "o-", color=colour, markersize=3, label=key.removesuffix("_loss"))
        if key.startswith("dev") and best_epoch in points:
            best = points[best_epoch]
            axes.plot(best_epoch, best, "o", color=colour, markersize=9, fillstyle="none", markeredgewidth=1.6)
            axes.set_title(f"best epoch {best_epoch}: {best:.3f}", color=colour, **ASIDE)
    if not axes.lines:
        axes.set_title("not measured", color=GREY, **ASIDE)


def caption_lengths(lengths: Mapping[str, Sequence[int]]):
    """Draw how long captions are, in words, as a share of all of each name: a split, a captioner, people."""
    with empty_figure(8, 4) as figure:
        axes = figure.subplots()
        drawn = {name: np.asarray(its) for name, its in lengths.items() if len(its)}
        longest = max((its.max() for its in drawn.values()), default=0)
        edges = np.arange(-0.5, min(longest, MAX_LENGTH_SHOWN) + 1)
        for (name, its), colour in zip(drawn.items(), cycle(COLOURS), strict=False):
            shares = np.histogram(its.clip(max=MAX_LENGTH_SHOWN), edges)[0] * 100 / len(its)
            label = f"{name}: {len(its):,} captions, median {np.median(its):g}, longest {its.max()}"
            axes.stairs(shares, edges, color=colour, linewidth=1.8, label=label)
        beyond = f" ({MAX_LENGTH_SHOWN} stands for all longer ones)" if longest > MAX_LENGTH_SHOWN else ""
        axes.set(title="Caption lengths", xlabel=f"words a caption{beyond}", ylabel="% of the captions")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if drawn:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left")
        else:
            axes.set_title("no captions", color=GREY, **ASIDE)
    return figure


def reliability(panels: Mapping[str, Sequence[tuple[float, float, int]]]):
    """Draw how many are right against how many should be, a panel for each title: captions, words, labels.

    Each bin, one or more, is (mean probability, share that is right, how many). Bars are 95 % intervals of the share
    (Wilson 1927): what as many others of the same quality could have given.
    """
    with empty_figure(0.4 + 5 * len(panels), 5) as figure:
        for axes, (title, bins) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            axes.set(title=title, xlabel="probability, mean of the bin (%)", ylabel="right (%)")
            predicted, observed, counts = (np.array(column, float) for column in zip(*bins, strict=True))
            z = 1.96  # 95 % of the normal distribution
            centre = 100 * (observed + z**2 / (2 * counts)) / (1 + z**2 / counts)
            half = 100 * z * np.sqrt(observed * (1 - observed) / counts + z**2 / (4 * counts**2)) / (1 + z**2 / counts)
            end = min(102, 1.05 * max(predicted.max() * 100, (centre + half).max()))
            axes.plot((0, end), (0, end), color=GREY, linewidth=1.2, linestyle="--", label="as sure as right")
            axes.vlines(predicted * 100, centre - half, centre + half, color=BLUE, linewidth=1.2, alpha=0.5)
            axes.plot(predicted * 100, observed * 100, "o", color=BLUE, markersize=5, label="a bin, 95 % interval")
            fact = f"{counts.sum():,.0f}, {(counts @ observed) / counts.sum():.1%} right"
            axes.set_title(fact, color=GREY, **ASIDE)
            axes.set(xlim=(0, end), ylim=(0, end), aspect="equal")
            axes.legend()
    return figure


def forest(panels: Mapping[str, Mapping[str, Interval]]):
    """Draw intervals by captioner: a panel for each title, in each the same captioners, the first at the top."""
    count = len(next(iter(panels.values())))
    with empty_figure(1.8 + 2.5 * len(panels), 1 + 0.3 * count) as figure:
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (title, intervals) in zip(grid, panels.items(), strict=True):
            axes.set(title=title, xlabel="smaller is better" if "WER" in title else "more is better")
            for row, its in enumerate(intervals.values()):
                axes.plot((its.low, its.high), (row, row), color=BLUE, linewidth=2.2)
                axes.plot(its.value, row, "o", color=BLUE, markersize=7)
            axes.set_yticks(range(count), [name[:NAME_SHOWN] for name in intervals], color=INK)
            axes.set_ylim(count - 0.4, -0.6)
            axes.grid(visible=False, axis="y")
            axes.xaxis.get_major_locator().set_params(nbins=4)
    return figure


def save(figure, path: Path) -> None:
    """Write the figure as PNG into a folder that is there."""
    write_atomic(path, png(figure))


def png(figure) -> bytes:
    """Return the figure as the bytes of a PNG file, cut to what is drawn."""
    with require("matplotlib", "evaluate").rc_context(STYLE), io.BytesIO() as buffer:
        figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.15)
        return buffer.getvalue()


@contextmanager
def empty_figure(width: float, height: float) -> Iterator:
    """Give an empty figure, in inches, to draw on in the style of all figures."""
    with require("matplotlib", "evaluate").rc_context(STYLE):
        figure = require("matplotlib.figure", "evaluate").Figure((width, height), dpi=DPI, layout="constrained")
        figure._repr_png_ = lambda: png(figure)  # Jupyter shows only pyplot's figures by itself
        yield figure
