"""Figures that show photos: a gallery of captions, and where a model looked at each word.

Knows how photos and texts lie beside each other, and how weights over an image become a picture. Refuses to know where
captions and weights come from. The style, and how figures are shown and saved, is that of `lcm.evaluation.plots`.

Shapes: H, W pixels, T words, N image positions, rows of a square grid from the top left.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lcm.errors import DataError, require
from lcm.evaluation.plots import BLUE, DPI, GREY, INK, empty_figure

CELL, GAP, TEXT_GAP = 2.6, 0.3, 0.08  # of a gallery, inches: an image's longer side, space around it and below texts
WORD_CELL, WORD_GAP, WORD_LINE = 1.75, 0.14, 0.2  # of where a model looked: the same two, and a line of its words
WORDS_A_ROW = 6  # at most; rows are about equally long, and the photo itself is the first of all
# What the photo without colour is multiplied by where the model looked not at all, a third and two thirds of the most,
# and the most. Red never is lighter than yellow: the order is seen without colours, and by the colour-blind.
HEAT = ((255, 255, 255), (255, 221, 128), (246, 140, 31), (200, 32, 8))
FADED = 0.42  # share of its contrast that the photo keeps below


@dataclass(frozen=True)
class GalleryItem:
    """One image of a gallery with the model's caption."""

    image: str | Path | bytes | np.ndarray  # file, its content, or pixels [H, W, 3] uint8
    caption: str  # the model's
    references: Sequence[str]  # people's; the first two are shown
    score: float


def gallery(rows: Sequence[tuple[str, Sequence[GalleryItem]]], score_name: str = "CIDEr"):
    """Draw rows of images, each row under its title, each image over its score, caption and references."""
    # The figure is an inch by an inch, so that its fractions are inches; a saved one ends where the drawing ends.
    with empty_figure(1, 1, layout=None) as figure:
        top = 0.0
        for title, items in rows:
            shown = [_pixels(item.image, CELL) for item in items]
            if shown:
                top = _write(figure, title, 0, top, 12, INK, "bold")
                top -= max(_sides(pixels, CELL)[1] for pixels in shown)
                cells = zip(items, shown, range(len(items)), strict=True)
                top = min(_draw(figure, *cell, top, score_name) for cell in cells) - GAP
        if not figure.axes:
            _write(figure, "no images", 0, top, 9, GREY)
    return figure


def attention(image: str | Path | bytes | np.ndarray, words: Sequence[str], weights: np.ndarray):
    """Draw the photo, and for each word where the model looked as it wrote it: `weights` [T, N], none below zero.

    Each word's weights are scaled to their own maximum, so colours say where, not how much more than at other words.
    The grid covers the whole photo: encoders squash it to a square and crop nothing.
    Raises DataError when there is no row of weights for each word, or a row is no square grid of such numbers.
    """
    weights = np.asarray(weights, np.float64)
    _check(words, weights)
    pixels = _pixels(image, WORD_CELL)
    cells = [("", pixels), *((word, looked_at(pixels, row)) for word, row in zip(words, weights, strict=True))]
    columns = math.ceil(len(cells) / math.ceil(len(cells) / WORDS_A_ROW))
    with empty_figure(1, 1, layout=None) as figure:  # an inch by an inch, as above
        top = 0.0
        for first in range(0, len(cells), columns):
            top = _draw_words(figure, cells[first : first + columns], top) - WORD_GAP
    return figure


def _check(words: Sequence[str], weights: np.ndarray) -> None:
    if weights.ndim != 2 or len(weights) != len(words) or math.isqrt(weights.shape[1]) ** 2 != weights.shape[1]:
        raise DataError(f"weights of shape {weights.shape} for {len(words)} words; give a row a word, of a square grid")
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise DataError(f"weights from {weights.min()} to {weights.max()}; give finite ones, none below zero")


def looked_at(pixels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return a photo [H, W, 3] faded, without colour, and coloured where the weights [N] are high."""
    from PIL import Image

    side = math.isqrt(len(weights))
    scaled = (weights / max(weights.max(), np.finfo(float).tiny)).astype(np.float32)
    heat = Image.fromarray(scaled.reshape(side, side)).resize(pixels.shape[1::-1], Image.Resampling.BICUBIC)
    stops = np.linspace(0, 1, len(HEAT))  # the cubic swings a little beyond them, where the ends hold
    tint = np.stack([np.interp(heat, stops, channel) for channel in zip(*HEAT, strict=True)], axis=-1)  # [H, W, 3]
    grey = 255 - FADED * (255 - np.asarray(Image.fromarray(pixels).convert("L"), np.float64))
    return (grey[:, :, None] * tint / 255).round().astype(np.uint8)


def _pixels(image: str | Path | bytes | np.ndarray, cell: float) -> np.ndarray:
    """Return pixels as they are, those of an image file no larger than a cell can show."""
    if not isinstance(image, np.ndarray):
        from lcm.data.images import open_image

        image = open_image(image)
        image.thumbnail((2 * DPI * cell, 2 * DPI * cell))
    return np.asarray(image)


def _wrap(text: str, size: float, width: float, weight: str) -> str:
    """Break text into lines no wider than `width` inches, as measured; a word wider than that is broken anywhere."""
    paths = require("matplotlib.textpath", "evaluate").text_to_path
    font = require("matplotlib.font_manager", "evaluate").FontProperties(size=size, weight=weight)

    def fits(line: str) -> bool:
        return paths.get_text_width_height_descent(line, font, ismath=False)[0] <= 72 * 0.97 * width

    lines = [""]
    for word in re.sub(r" +([.,;:!?])", r"\1", text).split():  # Flickr8k parts punctuation from words
        for piece in [f" {word}"] if fits(word) else [" ", *word]:
            if fits((lines[-1] + piece).strip()):
                lines[-1] += piece
            else:
                lines.append(piece)
    return "\n".join(line.strip() for line in lines)


def _sides(pixels: np.ndarray, cell: float) -> tuple[float, float]:
    """Return how wide and how high an image is shown, in inches: its longer side is a cell's."""
    height, width = pixels.shape[:2]
    return cell * width / max(height, width), cell * height / max(height, width)


def _write(figure, text: str, left: float, top: float, size: float, colour: str, weight: str = "normal") -> float:
    """Write text as wide as a cell of the gallery at most; returns where the next thing below it may begin."""
    style = {"fontsize": size, "color": colour, "fontweight": weight, "va": "top", "linespacing": 1.25}
    written = figure.text(left, top, _wrap(text, size, CELL, weight), **style)
    return top - written.get_window_extent().height / figure.dpi - TEXT_GAP


def _show(figure, pixels: np.ndarray, left: float, bottom: float, cell: float) -> None:
    """Show a whole image with its lower left corner there."""
    axes = figure.add_axes((left, bottom, *_sides(pixels, cell)))
    axes.imshow(pixels, cmap="gray", aspect="auto")
    axes.set_axis_off()


def _draw(figure, item: GalleryItem, pixels: np.ndarray, column: int, top: float, score_name: str) -> float:
    """Show a whole image above `top` and its texts below; returns where they end."""
    left = column * (CELL + GAP)
    _show(figure, pixels, left, top, CELL)
    top = _write(figure, f"{score_name} {item.score:.2f}", left, top - TEXT_GAP, 8, BLUE)
    top = _write(figure, item.caption or "(empty)", left, top, 10, INK)
    for reference in item.references[:2]:
        top = _write(figure, f"“{reference}”", left, top, 8, GREY)
    return top


def _draw_words(figure, cells: Sequence[tuple[str, np.ndarray]], top: float) -> float:
    """Show a row of pictures below `top`, each under its word; returns where they end. All words stand on one line."""
    lines = [_wrap(word, 11, WORD_CELL, "bold").split("\n") for word, _ in cells]
    top -= WORD_LINE * max(map(len, lines))
    bottom = top - max(_sides(picture, WORD_CELL)[1] for _, picture in cells)
    for column, (_, picture) in enumerate(cells):
        left = column * (WORD_CELL + WORD_GAP)
        _show(figure, picture, left, bottom, WORD_CELL)
        for place, line in enumerate(reversed(lines[column])):
            figure.text(left, top + TEXT_GAP + place * WORD_LINE, line, fontsize=11, fontweight="bold", color=INK)
    return bottom
