"""Every figure of the project, drawn from plain numbers.

Knows how a figure should look: one restrained style, colours that the colour-blind can tell apart, units on every
axis. Refuses to know where numbers come from, and pyplot: each function returns a Figure of its own, in no window
and no global list; a notebook shows it and `save` writes it.

Text from captions is shown as it is: "$" starts no formula, and letters that no installed font has become boxes.
"""

import io
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np

from lcm.errors import require

DPI = 150
# Okabe and Ito, "Color Universal Design" (2008), without the pale ones.
BLUE, VERMILION, GREEN, PURPLE = COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
INK, GREY, PALE = "#222222", "#6B6B6B", "#E4E4E4"
# The first ships with matplotlib; the others, where installed, lend the letters that it lacks.
FONTS = (
    *("DejaVu Sans", "Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans Arabic", "Noto Sans Devanagari"),
    *("WenQuanYi Zen Hei", "Segoe UI", "Microsoft YaHei", "Nirmala UI", "PingFang SC", "Arial Unicode MS"),
)
STYLE = {
    **{"font.size": 9, "legend.frameon": False, "lines.linewidth": 1.8, "axes.grid": True, "axes.axisbelow": True},
    **{"axes.titlelocation": "left", "axes.titlepad": 10, "axes.titlesize": 11, "axes.titleweight": "bold"},
    **{"axes.spines.right": False, "axes.spines.top": False, "figure.facecolor": "white", "grid.color": PALE},
    **dict.fromkeys(("text.color", "axes.titlecolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), GREY),
    **{f"{axis}tick.{kind}.size": 0 for axis in "xy" for kind in ("major", "minor")},
}
MAX_LENGTH_SHOWN = 60  # words; longer captions are counted at the right edge
CELL, GAP, TITLE, TEXT_GAP = 2.6, 0.3, 0.35, 0.08  # of a gallery, inches: an image's longer side, space above each
REFERENCES_SHOWN = 2


@dataclass(frozen=True)
class GalleryItem:
    """One image of a gallery with the model's caption."""

    image: "str | Path | bytes | np.ndarray"  # file, its content, or pixels [H, W, 3] uint8
    caption: str  # the model's
    references: Sequence[str]  # people's; the first two are shown
    score: float


def learning_curves(epochs: Sequence[Mapping], best_epoch: int | None = None):
    """Draw loss, dev CIDEr, learning rate and speed of each epoch, and mark `best_epoch` where it is given.

    Each of `epochs` has epoch (from 1), train_loss and dev_loss (nats a word), dev_cider, learning_rate and
    images_per_second; None where not measured.
    """
    with _figure(9.5, 5.6) as figure:
        (loss, cider), (rate, speed) = figure.subplots(2, 2, sharex=True, height_ratios=(2, 1))
        _curves(loss, epochs, {"train_loss": BLUE, "dev_loss": VERMILION}, "Loss", "nats a word", best_epoch)
        _curves(cider, epochs, {"dev_cider": VERMILION}, "CIDEr on dev", "CIDEr", best_epoch)
        _curves(rate, epochs, {"learning_rate": GREY}, "Learning rate", "at the epoch's end")
        _curves(speed, epochs, {"images_per_second": GREY}, "Speed", "images a second")
        if loss.lines:
            loss.legend()
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
        for (split, lengths), colour in zip(drawn.items(), cycle(COLOURS), strict=False):
            shares = np.histogram(lengths.clip(max=MAX_LENGTH_SHOWN), edges)[0] * 100 / len(lengths)
            label = f"{split}: {len(lengths):,} captions, median {np.median(lengths):g}, longest {lengths.max()}"
            axes.stairs(shares, edges, color=colour, linewidth=1.6, label=_plain(label))
            axes.stairs(shares, edges, color=colour, fill=True, alpha=0.07)
        beyond = f" ({MAX_LENGTH_SHOWN} stands for all longer ones)" if longest > MAX_LENGTH_SHOWN else ""
        axes.set(title="Caption lengths", xlabel=f"words a caption{beyond}", ylabel="% of the split's captions")
        axes.grid(visible=False, axis="x")
        axes.margins(x=0.01)
        axes.legend(loc="upper right") if drawn else _note(axes, "no captions")
    return figure


def word_frequencies(counts: Mapping[str, int], top: int = 30, min_count: int | None = None):
    """Draw the `top` most frequent words, and how often a word occurs against its rank.

    `min_count`, when given, is drawn as the line from which a word is in the vocabulary.
    """
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    with _figure(10, max(3.2, 1.2 + 0.17 * min(top, len(ranked)))) as figure:
        words, ranks = figure.subplots(1, 2, width_ratios=(1, 1.25))
        words.set(title="Most frequent words", xlabel="times in the captions")
        ranks.set(title="All words by rank", xlabel="rank of the word", ylabel="times in the captions")
        if ranked:
            _bars(words, ranked[:top])
            _ranks(ranks, np.array([count for _, count in ranked]), min_count)
        else:
            _note(words, "no words")
            _note(ranks, "no words")
    return figure


def gallery(rows: Sequence[tuple[str, Sequence[GalleryItem]]], score_name: str = "CIDEr"):
    """Draw rows of images, each row under its title, each image over its score, caption and references."""
    with _figure(1, 1, layout=None) as figure:
        drawn = [
            (_text(figure, title, 12, INK, fontweight="bold"), [_cell(figure, item, score_name) for item in items])
            for title, items in rows
            if items
        ]
        heights = [(max(cell.image_height for cell in row), max(cell.text_height for cell in row)) for _, row in drawn]
        height = GAP + sum(TITLE + image + text + GAP for image, text in heights or [(0, 0)])
        figure.set_size_inches(GAP + max((len(row) for _, row in drawn), default=1) * (CELL + GAP), height)
        top = height - GAP  # inches above the figure's lower edge
        for (title, row), (image_height, text_height) in zip(drawn, heights, strict=True):
            _place(title, GAP, top)
            top -= TITLE + image_height
            for column, cell in enumerate(row):
                _draw(figure, cell, GAP + column * (CELL + GAP), top)
            top -= text_height + GAP
        if not drawn:
            _place(_text(figure, "no images", 9, GREY), GAP, top)
    return figure


def save(figure, path: str | Path) -> Path:
    """Write the figure as PNG, whole or not at all; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(_png(figure))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _png(figure) -> bytes:
    with io.BytesIO() as buffer, _boxes_for_missing_letters():
        figure.savefig(buffer, format="png", dpi=DPI)
        return buffer.getvalue()


@contextmanager
def _figure(width: float, height: float, layout: str | None = "constrained") -> Iterator:
    """Give an empty figure (inches) to draw on in the project's style, and settle its layout afterwards."""
    matplotlib = require("matplotlib", "evaluate")
    installed = set(require("matplotlib.font_manager", "evaluate").get_font_names())
    fonts = {"font.family": [name for name in FONTS if name in installed]}
    with matplotlib.rc_context(STYLE | fonts), _boxes_for_missing_letters():
        figure = require("matplotlib.figure", "evaluate").Figure((width, height), layout=layout)
        figure._repr_png_ = lambda: _png(figure)  # Jupyter shows only pyplot's figures by itself
        if layout:
            figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)  # inches
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
    axes.text(0.5, 0.5, text, transform=axes.transAxes, color=GREY, ha="center", va="center", backgroundcolor="white")
    axes.set_yticks([])


def _curves(axes, epochs, colours: Mapping[str, str], title: str, unit: str, best_epoch: int | None = None) -> None:
    """Draw the keys of `colours` over the epochs, where they have a value, and mark the best epoch on dev's."""
    axes.set(title=title, ylabel=unit)
    for key, colour in colours.items():
        points = {each["epoch"]: each[key] for each in epochs if each[key] is not None}
        if points:
            label = key.removesuffix("_loss")
            axes.plot(points.keys(), points.values(), color=colour, marker="o", markersize=3, label=label)
        if key.startswith("dev") and best_epoch in points:
            best = points[best_epoch]
            axes.plot(best_epoch, best, "o", color=colour, markersize=9, fillstyle="none", markeredgewidth=1.6)
            note = f"best epoch {best_epoch}: {best:.3f}"
            axes.set_title(note, loc="right", color=colour, fontsize=9, fontweight="normal")
    if not axes.lines:
        _note(axes, "not measured")


def _bars(axes, ranked: Sequence[tuple[str, int]]) -> None:
    words, counts = zip(*ranked, strict=True)
    axes.barh(range(len(words)), counts, color=BLUE, height=0.7)
    labels = [_plain(word if len(word) <= 20 else word[:19] + "…") for word in words]
    axes.set_yticks(range(len(words)), labels, color=INK)
    axes.set_ylim(len(words) - 0.4, -0.6)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _ranks(axes, counts: np.ndarray, min_count: int | None) -> None:
    """Draw falling `counts` against rank, both logarithmic."""
    axes.loglog(np.arange(1, len(counts) + 1), counts, color=BLUE, marker="o" if len(counts) < 20 else "")
    for axis, largest in ((axes.xaxis, len(counts)), (axes.yaxis, counts[0])):
        axis.get_major_locator().set_params(subs=(1,) if largest >= 100 else (1, 2, 5))
        axis.set_major_formatter("{x:,.0f}")
        axis.set_minor_formatter("")
    facts = f"words: {counts.sum():,}\ndifferent words: {len(counts):,}\noccurring once: {np.sum(counts == 1):,}"
    axes.text(0.98, 0.97, facts, transform=axes.transAxes, color=GREY, ha="right", va="top", linespacing=1.5)
    if min_count is not None:
        kept = counts[counts >= min_count]
        note = f"min_count {min_count}: {len(kept):,} words kept, {kept.sum() / counts.sum():.1%} of the text"
        axes.axhline(min_count, color=VERMILION, linewidth=1.2, linestyle="--")
        axes.text(1, min_count * 0.92, note, color=VERMILION, va="top")


@dataclass(frozen=True)
class _Cell:
    """One image of a gallery, ready to be placed; heights in inches."""

    pixels: np.ndarray  # [H, W, 3] or [H, W]
    texts: list  # matplotlib's Text, from the one right below the image to the lowest

    @property
    def image_height(self) -> float:
        return min(CELL, CELL * self.pixels.shape[0] / self.pixels.shape[1])

    @property
    def text_height(self) -> float:
        return sum(_height(text) for text in self.texts)


def _cell(figure, item: GalleryItem, score_name: str) -> _Cell:
    quoted = [(f"“{text}”", 8, GREY) for text in item.references[:REFERENCES_SHOWN]]
    texts = [(f"{score_name} {item.score:.2f}", 8, BLUE), (item.caption or "(empty)", 10, INK), *quoted]
    return _Cell(_pixels(item.image), [_text(figure, *text) for text in texts])


def _pixels(image: "str | Path | bytes | np.ndarray") -> np.ndarray:
    """Return pixels as they are, those of an image file no larger than a cell can show."""
    if isinstance(image, np.ndarray):
        return image
    from lcm.data.images import open_image

    opened = open_image(image)
    opened.thumbnail((2 * DPI * CELL, 2 * DPI * CELL))
    return np.asarray(opened)


def _wrap(text: str, size: float) -> str:
    """Break text into lines no wider than a cell, as measured; a word wider than that is broken anywhere."""
    measure = require("matplotlib.textpath", "evaluate").text_to_path.get_text_width_height_descent
    font = require("matplotlib.font_manager", "evaluate").FontProperties(size=size)

    def fits(line: str) -> bool:
        return measure(line, font, ismath=False)[0] <= 72 * 0.97 * CELL

    lines = [""]
    for word in re.sub(r" +([.,;:!?])", r"\1", text).split():  # Flickr8k parts punctuation from words
        for place, piece in enumerate([word] if fits(word) else word):
            longer = lines[-1] + (" " if lines[-1] and place == 0 else "") + piece
            if fits(longer):
                lines[-1] = longer
            else:
                lines.append(piece)
    return "\n".join(lines).strip("\n")


def _text(figure, text: str, size: float, colour: str, **style):
    """Add text as wide as a cell at most, still to be placed; a row's title is the same."""
    lines = _plain(_wrap(text, size))
    return figure.text(0, 0, lines, fontsize=size, color=colour, va="top", linespacing=1.25, **style)


def _height(text) -> float:
    """Return the height of a text with the gap above it, in inches; scripts differ."""
    return TEXT_GAP + text.get_window_extent().height / text.get_figure().dpi


def _place(text, left: float, top: float) -> None:
    """Put a text's upper left corner at inches from the figure's lower left corner."""
    width, height = text.get_figure().get_size_inches()
    text.set_position((left / width, top / height))


def _draw(figure, cell: _Cell, left: float, top: float) -> None:
    """Show a cell's whole image above `top`, its texts below."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, top / height, CELL / width, cell.image_height / height), anchor="SW")
    axes.imshow(cell.pixels, cmap="gray")
    axes.set_axis_off()
    for text in cell.texts:
        _place(text, left, top - TEXT_GAP)
        top -= _height(text)
