"""Every figure of the project, drawn from plain numbers.

Knows how a figure should look: one restrained style, colours that the colour-blind can tell apart, units on every
axis. Refuses to know where numbers come from, and pyplot: each function returns a Figure of its own, in no window
and no global list, and `save` writes it.

Text from captions is shown as it is: "$" starts no formula, and letters that no installed font has become boxes.
"""

import os
import textwrap
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lcm.errors import require

DPI = 150
# Okabe and Ito, "Color Universal Design" (2008), without the pale ones.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
INK, GREY, PALE = "#222222", "#6B6B6B", "#E4E4E4"
# The first ships with matplotlib; the others, where installed, lend the letters that it lacks.
FONTS = (
    *("DejaVu Sans", "Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans Arabic", "Noto Sans Devanagari"),
    *("WenQuanYi Zen Hei", "Segoe UI", "Microsoft YaHei", "Nirmala UI", "PingFang SC", "Arial Unicode MS"),
)
STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelcolor": GREY,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "font.size": 9,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}
MAX_LENGTH_SHOWN = 60  # words; longer captions are counted at the right edge
CELL_WIDTH, IMAGE_HEIGHT, GAP = 2.75, 2.0, 0.25  # of a gallery, inches
REFERENCES_SHOWN = 2


@dataclass(frozen=True)
class GalleryItem:
    """One image of a gallery with the model's caption."""

    image: "str | Path | bytes | np.ndarray"  # file, its content, or pixels [H, W, 3] uint8
    caption: str  # the model's
    references: Sequence[str]  # people's; the first two are shown
    score: float


def learning_curves(epochs: Sequence[Mapping], best_epoch: int | None = None):
    """Draw loss, dev CIDEr, learning rate and speed of each epoch, the best one marked.

    Each of `epochs` has epoch (from 1), train_loss and dev_loss (nats a word), dev_cider, learning_rate and
    images_per_second; None where not measured. Without `best_epoch` the best is the one of highest dev CIDEr.
    """
    if best_epoch is None:
        scored = [each for each in epochs if each["dev_cider"] is not None]
        best_epoch = max(scored, key=lambda each: each["dev_cider"])["epoch"] if scored else None
    with _figure(9.5, 5.6) as figure:
        (loss, cider), (rate, speed) = figure.subplots(2, 2, sharex=True, height_ratios=(2, 1))
        train_lines = [("train, dropout on", "train_loss", BLUE), ("dev", "dev_loss", VERMILION)]
        _curves(loss, epochs, train_lines, "Loss", "nats a word", best_epoch)
        _curves(cider, epochs, [("dev", "dev_cider", VERMILION)], "CIDEr", "CIDEr on dev", best_epoch)
        _curves(rate, epochs, [("", "learning_rate", GREY)], "Learning rate", "at the epoch's end")
        _curves(speed, epochs, [("", "images_per_second", GREY)], "Speed", "images a second")
        for axes in (rate, speed):
            axes.set_xlabel("epoch")
            axes.set_ylim(bottom=0)
            axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    return figure


def caption_lengths(lengths_by_split: Mapping[str, Sequence[int]]):
    """Draw how long captions are, in words, as a share of each split's captions."""
    with _figure(8, 4) as figure:
        axes = figure.subplots()
        drawn = {split: np.asarray(lengths) for split, lengths in lengths_by_split.items() if len(lengths)}
        edges = np.arange(-0.5, min(max(map(np.max, drawn.values()), default=0), MAX_LENGTH_SHOWN) + 1)
        for (split, lengths), colour in zip(drawn.items(), _colours(len(drawn)), strict=True):
            counts, _ = np.histogram(lengths.clip(max=MAX_LENGTH_SHOWN), edges)
            label = f"{split}: {len(lengths):,} captions, median {np.median(lengths):g}, longest {lengths.max()}"
            axes.stairs(100 * counts / len(lengths), edges, color=colour, linewidth=1.6, label=_plain(label))
            axes.stairs(100 * counts / len(lengths), edges, color=colour, fill=True, alpha=0.07)
        cut = any(lengths.max() > MAX_LENGTH_SHOWN for lengths in drawn.values())
        axes.set_title("Caption lengths")
        axes.set_xlabel("words a caption" + (f" ({MAX_LENGTH_SHOWN} stands for all longer ones)" if cut else ""))
        axes.set_ylabel("% of the split's captions")
        axes.grid(visible=False, axis="x")
        axes.margins(x=0.01)
        axes.legend(loc="upper right") if drawn else _note(axes, "no captions")
    return figure


def word_frequencies(counts: Mapping[str, int], top: int = 30, min_count: int | None = None):
    """Draw the `top` most frequent words, and how often a word occurs against its rank.

    `min_count`, when given, is drawn as the line above which a word is in the vocabulary.
    """
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    with _figure(10, max(3.2, 1.2 + 0.17 * min(top, len(ranked)))) as figure:
        words, ranks = figure.subplots(1, 2, width_ratios=(1, 1.25))
        words.set_title("Most frequent words")
        ranks.set_title("All words by rank")
        if ranked:
            _bars(words, ranked[:top])
            _ranks(ranks, np.array([count for _, count in ranked]), min_count)
        else:
            _note(words, "no words")
            _note(ranks, "no words")
    return figure


def gallery(rows: Sequence[tuple[str, Sequence[GalleryItem]]], score_name: str = "CIDEr"):
    """Draw rows of images, each row under its title, each image over its score, caption and references."""
    rows = [(title, [(item, *_wrapped(item)) for item in items]) for title, items in rows if items]
    text_heights = [max(_text_height(caption, below) for _, caption, below in items) for _, items in rows]
    width = GAP + max((len(items) for _, items in rows), default=1) * (CELL_WIDTH + GAP)
    height = max(GAP + sum(0.45 + IMAGE_HEIGHT + text + GAP for text in text_heights), 1.0)
    with _figure(width, height, layout=None) as figure:
        top = height - GAP
        for (title, items), text_height in zip(rows, text_heights, strict=True):
            figure.text(GAP / width, top / height, _plain(title), fontsize=12, fontweight="bold", va="top")
            bottom = top - 0.35 - IMAGE_HEIGHT
            for column, (item, caption, below) in enumerate(items):
                left = GAP + column * (CELL_WIDTH + GAP)
                box = (left / width, bottom / height, CELL_WIDTH / width, IMAGE_HEIGHT / height)
                _show(figure.add_axes(box, anchor="SW"), item.image)
                label = f"{score_name} {item.score:.2f}"
                for text, drop, size, colour in (
                    (label, 0.08, 8, BLUE),
                    (caption, 0.26, 10, INK),
                    (below, 0.32 + _lines_height(caption, 10), 8, GREY),
                ):
                    place = (left / width, (bottom - drop) / height)
                    figure.text(*place, _plain(text), fontsize=size, color=colour, va="top", linespacing=1.25)
            top = bottom - text_height - GAP - 0.1
        if not rows:
            figure.text(0.5, 0.5, "no images", color=GREY, ha="center", va="center")
    return figure


def save(figure, path: str | Path) -> Path:
    """Write the figure as PNG, whole or not at all; returns the path, for a notebook to show."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _boxes_for_missing_letters():
            figure.savefig(unfinished, format="png", dpi=DPI, metadata={"Software": None})
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


@contextmanager
def _figure(width: float, height: float, layout: str | None = "constrained") -> Iterator:
    """Give an empty figure (inches) to draw on in the project's style, and settle its layout afterwards."""
    matplotlib = require("matplotlib", "evaluate")
    installed = set(require("matplotlib.font_manager", "evaluate").get_font_names())
    fonts = {"font.family": [name for name in FONTS if name in installed]}
    with matplotlib.rc_context(STYLE | fonts), _boxes_for_missing_letters():
        figure = require("matplotlib.figure", "evaluate").Figure((width, height), layout=layout)
        yield figure
        figure.draw_without_rendering()  # ticks are made on the first drawing, which must still know the style


@contextmanager
def _boxes_for_missing_letters() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield


def _plain(text: str) -> str:
    r"""Return text that matplotlib shows as it is; it takes \$ for a dollar sign and $ for a formula."""
    return text.replace("$", r"\$")


def _note(axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, color=GREY, ha="center", va="center")


def _colours(count: int) -> list[str]:
    return [(BLUE, VERMILION, GREEN, PURPLE)[i % 4] for i in range(count)]


def _curves(axes, epochs, lines, title: str, unit: str, best_epoch: int | None = None) -> None:
    """Draw `lines` (label, key, colour) over the epochs, those with values only, and mark the best epoch."""
    axes.set_title(title)
    axes.set_ylabel(unit)
    for label, key, colour in lines:
        points = [(each["epoch"], each[key]) for each in epochs if each[key] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, label=label)
        at_best = [value for epoch, value in points if epoch == best_epoch]
        if at_best and key.startswith("dev"):
            axes.plot(best_epoch, at_best[0], "o", color=colour, markersize=9, fillstyle="none", markeredgewidth=1.6)
            text = f"best: epoch {best_epoch}, {at_best[0]:.3f}"
            axes.annotate(text, (best_epoch, at_best[0]), (0, 9), textcoords="offset points", color=colour, ha="center")
            axes.margins(y=0.15)
    if not axes.lines:
        _note(axes, "not measured")
    elif len(lines) > 1:
        axes.legend()


def _bars(axes, ranked: Sequence[tuple[str, int]]) -> None:
    words, counts = zip(*ranked, strict=True)
    places = range(len(words))
    axes.barh(places, counts, color=BLUE, height=0.7)
    axes.set_yticks(places, [_plain(word if len(word) <= 20 else word[:19] + "…") for word in words], color=INK)
    axes.set_ylim(len(words) - 0.4, -0.6)
    axes.set_xlabel("times in the captions")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _ranks(axes, counts: np.ndarray, min_count: int | None) -> None:
    """Draw falling `counts` against rank, both logarithmic."""
    axes.loglog(np.arange(1, len(counts) + 1), counts, color=BLUE)
    axes.set_xlabel("rank of the word")
    axes.set_ylabel("times in the captions")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,.0f}")
        axis.set_minor_formatter("")
    facts = f"{counts.sum():,} words, {len(counts):,} different\n{np.sum(counts == 1):,} of them occur once"
    axes.text(0.98, 0.97, facts, transform=axes.transAxes, color=GREY, ha="right", va="top", linespacing=1.5)
    if min_count is not None:
        kept = counts >= min_count
        share = counts[kept].sum() / counts.sum()
        text = f"min_count {min_count}: {kept.sum():,} words kept, {share:.1%} of the text"
        axes.axhline(min_count, color=VERMILION, linewidth=1.2, linestyle="--")
        axes.text(1.1, min_count * 0.9, text, color=VERMILION, va="top")


def _wrapped(item: GalleryItem) -> tuple[str, str]:
    """Return the caption and the references below it as lines that fit a cell."""
    references = [_wrap(f"“{text}”", 40) for text in item.references[:REFERENCES_SHOWN]]
    return _wrap(item.caption or "(empty)", 31), "\n".join(references)


def _wrap(text: str, width: int) -> str:
    """Break text into lines of `width` letters at most, half as many of the wide ones of Chinese or Japanese."""
    wide = any(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return textwrap.fill(text, width // 2 if wide else width)


def _lines_height(text: str, size: float) -> float:
    """Return the height in inches of lines of text in points."""
    return (text.count("\n") + 1) * size * 1.25 * 1.17 / 72  # 1.17: DejaVu Sans from descender to ascender


def _text_height(caption: str, below: str) -> float:
    return 0.32 + _lines_height(caption, 10) + _lines_height(below, 8)


def _show(axes, image) -> None:
    """Show pixels or an image file whole, without ticks."""
    if not isinstance(image, np.ndarray):
        from lcm.data.images import open_image

        image = open_image(image)
        image.thumbnail((3 * DPI * CELL_WIDTH, 3 * DPI * IMAGE_HEIGHT))
    axes.imshow(image, cmap="gray")
    axes.set_axis_off()
