"""Every figure of the project, drawn from plain numbers.

Knows how a figure should look: one restrained style, colours that the colour-blind can tell apart, units on every
axis. Refuses to know where numbers come from, and pyplot: each function returns a Figure of its own, in no window
and no global list; a notebook shows it and `save` writes it. Captions are shown as they are: "$" starts no formula,
and letters that no installed font has become boxes.
"""

import io
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lcm.errors import require

DPI = 150
# Okabe and Ito, "Color Universal Design" (2008), without the pale ones.
BLUE, VERMILION, *_ = COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
INK, GREY, PALE = "#222222", "#6B6B6B", "#E4E4E4"
# The first ships with matplotlib; the others, where installed, lend the letters that it lacks.
FONTS = """DejaVu Sans, Noto Sans, Noto Sans CJK SC, Noto Sans CJK JP, Noto Sans Arabic, Noto Sans Devanagari,
    WenQuanYi Zen Hei, Segoe UI, Microsoft YaHei, Nirmala UI, PingFang SC, Arial Unicode MS"""
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
MAX_LENGTH_SHOWN = 60  # words; longer captions are counted at the right edge
CELL, GAP, TEXT_GAP = 2.6, 0.3, 0.08  # of a gallery, inches: an image's longer side, space around it and below texts


@dataclass(frozen=True)
class GalleryItem:
    """One image of a gallery with the model's caption."""

    image: str | Path | bytes | np.ndarray  # file, its content, or pixels [H, W, 3] uint8
    caption: str  # the model's
    references: Sequence[str]  # people's; the first two are shown
    score: float


def learning_curves(epochs: Sequence[Mapping], best_epoch: int | None = None):
    """Draw loss, dev CIDEr, learning rate and speed of each epoch, and mark `best_epoch` where it is given.

    Each has epoch (from 1), train_loss, dev_loss, dev_cider, learning_rate, images_per_second; None if not measured.
    """
    with _figure(9.5, 5.6) as figure:
        (loss, cider), (rate, speed) = figure.subplots(2, 2, sharex=True, height_ratios=(2, 1))
        _curves(loss, epochs, {"train_loss": BLUE, "dev_loss": VERMILION}, "Loss", "nats a word", best_epoch)
        _curves(cider, epochs, {"dev_cider": VERMILION}, "CIDEr on dev", "CIDEr", best_epoch)
        _curves(rate, epochs, {"learning_rate": GREY}, "Learning rate", "at the epoch's end")
        _curves(speed, epochs, {"images_per_second": GREY}, "Speed", "images a second")
        loss.legend(*loss.get_legend_handles_labels())
        for axes in (rate, speed):
            axes.set_xlabel("epoch")
            axes.set_ylim(0, 1.1 * axes.dataLim.ymax if axes.lines else 1)
            axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    return figure


def caption_lengths(lengths_by_split: Mapping[str, Sequence[int]]):
    """Draw how long captions are, in words, as a share of each split's captions."""
    with _figure(8, 4) as figure:
        axes = figure.subplots()
        drawn = {split: np.asarray(lengths) for split, lengths in lengths_by_split.items() if len(lengths)}
        longest = max((lengths.max() for lengths in drawn.values()), default=0)
        edges = np.arange(-0.5, min(longest, MAX_LENGTH_SHOWN) + 1)
        for place, (split, lengths) in enumerate(drawn.items()):
            shares = np.histogram(lengths.clip(max=MAX_LENGTH_SHOWN), edges)[0] * 100 / len(lengths)
            label = f"{split}: {len(lengths):,} captions, median {np.median(lengths):g}, longest {lengths.max()}"
            axes.stairs(shares, edges, color=COLOURS[place % len(COLOURS)], linewidth=1.8, label=label)
        beyond = f" ({MAX_LENGTH_SHOWN} stands for all longer ones)" if longest > MAX_LENGTH_SHOWN else ""
        axes.set(title="Caption lengths", xlabel=f"words a caption{beyond}", ylabel="% of the split's captions")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.legend() if drawn else _note(axes, "no captions")
    return figure


def word_frequencies(counts: Mapping[str, int], top: int = 30, min_count: int | None = None):
    """Draw the `top` most frequent words, and all by rank; `min_count` is where the vocabulary begins."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    with _figure(10, max(3.2, 1.2 + 0.17 * min(top, len(ranked)))) as figure:
        words, ranks = figure.subplots(1, 2, width_ratios=(1, 1.25))
        words.set(title="Most frequent words", xlabel="times in the captions")
        ranks.set(title="All words by rank", xlabel="rank of the word", ylabel="times in the captions")
        if ranked:
            _bars(words, ranked[:top])
            _ranks(ranks, np.array([count for _, count in ranked]), min_count)
    return figure


def gallery(rows: Sequence[tuple[str, Sequence[GalleryItem]]], score_name: str = "CIDEr"):
    """Draw rows of images, each row under its title, each image over its score, caption and references."""
    # The figure is an inch by an inch, so that its fractions are inches; a saved one ends where the drawing ends.
    with _figure(1, 1, layout=None) as figure:
        top = 0.0
        for title, items in rows:
            shown = [_pixels(item.image) for item in items]
            if shown:
                top = _write(figure, title, 0, top, 12, INK, fontweight="bold") - max(map(_height, shown))
                cells = zip(items, shown, range(len(items)), strict=True)
                top = min(_draw(figure, *cell, top, score_name) for cell in cells) - GAP
        if not figure.axes:
            _write(figure, "no images", 0, top, 9, GREY)
    return figure


def save(figure, path: str | Path) -> Path:
    """Write the figure as PNG, whole or not at all; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(_png(figure))
    temporary.replace(path)
    return path


def _png(figure) -> bytes:
    with _style(), io.BytesIO() as buffer:
        figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.15)
        return buffer.getvalue()


@contextmanager
def _style() -> Iterator[None]:
    """Draw in the project's style, and say nothing of letters that become boxes."""
    installed = set(require("matplotlib.font_manager", "evaluate").get_font_names())
    fonts = {"font.family": [name for name in re.split(r",\s+", FONTS) if name in installed]}
    with require("matplotlib", "evaluate").rc_context(STYLE | fonts), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield


@contextmanager
def _figure(width: float, height: float, layout: str | None = "constrained") -> Iterator:
    """Give an empty figure, in inches, to draw on in the project's style."""
    with _style():
        figure = require("matplotlib.figure", "evaluate").Figure((width, height), dpi=DPI, layout=layout)
        figure._repr_png_ = lambda: _png(figure)  # Jupyter shows only pyplot's figures by itself
        yield figure


def _note(axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, color=GREY, ha="center", va="center")
    axes.tick_params(labelbottom=False, labelleft=False, grid_alpha=0)


def _curves(axes, epochs, colours: Mapping[str, str], title: str, unit: str, best_epoch: int | None = None) -> None:
    """Draw the keys of `colours` over the epochs, where they have a value, and mark the best epoch on dev's."""
    axes.set(title=title, ylabel=unit)
    for key, colour in colours.items():
        points = {each["epoch"]: each[key] for each in epochs if each[key] is not None}
        if points:
            axes.plot(points.keys(), points.values(), "o-", color=colour, markersize=3, label=key.removesuffix("_loss"))
        if key.startswith("dev") and best_epoch in points:
            best = points[best_epoch]
            axes.plot(best_epoch, best, "o", color=colour, markersize=9, fillstyle="none", markeredgewidth=1.6)
            axes.set_title(f"best epoch {best_epoch}: {best:.3f}", color=colour, **ASIDE)
    if not axes.lines:
        _note(axes, "not measured")


def _bars(axes, ranked: Sequence[tuple[str, int]]) -> None:
    words, counts = zip(*ranked, strict=True)
    axes.barh(range(len(words)), counts, color=BLUE, height=0.7)
    axes.set_yticks(range(len(words)), [word if len(word) <= 20 else word[:19] + "…" for word in words], color=INK)
    axes.set_ylim(len(words) - 0.4, -0.6)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(visible=False, axis="y")


def _ranks(axes, counts: np.ndarray, min_count: int | None) -> None:
    """Draw falling `counts` against rank, both logarithmic."""
    axes.loglog(np.arange(1, len(counts) + 1), counts, color=BLUE, marker="o" if len(counts) < 20 else "")
    for axis, largest in ((axes.xaxis, len(counts)), (axes.yaxis, counts[0])):
        axis.get_major_locator().set_params(subs=(1,) if largest >= 100 else (1, 2, 5))
        axis.set(major_formatter="{x:,.0f}", minor_formatter="")
    facts = f"{counts.sum():,} words, {len(counts):,} different, {np.sum(counts == 1):,} once"
    axes.set_title(facts, color=GREY, **ASIDE)
    if min_count is not None:
        kept = counts[counts >= min_count]
        note = f"min_count {min_count}: {len(kept):,} words kept, {kept.sum() / counts.sum():.1%} of the text"
        axes.axhline(min_count, color=VERMILION, linewidth=1.2, linestyle="--")
        axes.text(1, min_count * 0.92, note, color=VERMILION, va="top")
    axes.set(xlim=(0.8, None), ylim=(0.8, None))


def _pixels(image: str | Path | bytes | np.ndarray) -> np.ndarray:
    """Return pixels as they are, those of an image file no larger than a cell can show."""
    if not isinstance(image, np.ndarray):
        from lcm.data.images import open_image

        image = open_image(image)
        image.thumbnail((2 * DPI * CELL, 2 * DPI * CELL))
    return np.asarray(image)


def _wrap(text: str, size: float) -> str:
    """Break text into lines no wider than a cell, as measured; a word wider than that is broken anywhere."""
    paths = require("matplotlib.textpath", "evaluate").text_to_path
    font = require("matplotlib.font_manager", "evaluate").FontProperties(size=size)

    def fits(line: str) -> bool:
        return paths.get_text_width_height_descent(line, font, ismath=False)[0] <= 72 * 0.97 * CELL

    lines = [""]
    for word in re.sub(r" +([.,;:!?])", r"\1", text).split():  # Flickr8k parts punctuation from words
        for piece in [f" {word}"] if fits(word) else [" ", *word]:
            if fits((lines[-1] + piece).strip()):
                lines[-1] += piece
            else:
                lines.append(piece)
    return "\n".join(line.strip() for line in lines)


def _height(pixels: np.ndarray) -> float:
    """Return how high an image is shown, in inches."""
    return min(CELL, CELL * pixels.shape[0] / pixels.shape[1])


def _write(figure, text: str, left: float, top: float, size: float, colour: str, **style) -> float:
    """Write text as wide as a cell at most; returns where the next thing below it may begin."""
    lines = _wrap(text, size)
    written = figure.text(left, top, lines, fontsize=size, color=colour, va="top", linespacing=1.25, **style)
    return top - written.get_window_extent().height / figure.dpi - TEXT_GAP


def _draw(figure, item: GalleryItem, pixels: np.ndarray, column: int, top: float, score_name: str) -> float:
    """Show a whole image above `top` and its texts below; returns where they end."""
    left = column * (CELL + GAP)
    axes = figure.add_axes((left, top, CELL, _height(pixels)), anchor="SW")
    axes.imshow(pixels, cmap="gray")
    axes.set_axis_off()
    top = _write(figure, f"{score_name} {item.score:.2f}", left, top - TEXT_GAP, 8, BLUE)
    top = _write(figure, item.caption or "(empty)", left, top, 10, INK)
    for reference in item.references[:2]:
        top = _write(figure, f"“{reference}”", left, top, 8, GREY)
    return top
