"""Pages to look at: photos with their captions and tags, as HTML that opens alone.

Knows how a photo with what was said of it reads, in light and dark, on a desk and on a phone. Refuses to know models;
every text is escaped, every picture is inside the page, and small: a page of 50 photos stays below 3 MB.

Figures that show photos: a gallery of captions, and where a model looked at each word.

Knows how photos and texts lie beside each other, and how weights over an image become a picture. Refuses to know where
captions and weights come from. The style, and how figures are shown and saved, is that of `lcm.evaluation.plots`.

Shapes: H, W pixels, T words, N image positions, rows of a square grid from the top left.

Where a captioner looked: photos with a picture of it for each word of their captions.

Knows which photos are shown, and which look belongs to which word. Refuses to know how a look is found and drawn: the
bundle and pictures.py do that.

Shapes: T words, N image positions, F features.
"""

import base64
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from lcm.captioning.bundle import Bundle
from lcm.captioning.description import percent
from lcm.captioning.tagging import Tag
from lcm.data.dataset import LabelledImage
from lcm.data.images import open_image
from lcm.errors import DataError, require
from lcm.evaluation import plots
from lcm.evaluation.plots import BLUE, DPI, GREY, INK, empty_figure
from lcm.features.cache import LabelledFeatures

THUMBNAIL = 480  # pixels of the longer side
THUMBNAIL_BYTES = 40_000  # at most; seen for photos: 15,000
# Longer side and JPEG quality, the next where a picture of much detail would be larger than that; pure noise has 10,000
# at the last.
THUMBNAILS = ((THUMBNAIL, 85), (THUMBNAIL, 65), (320, 65), (240, 40))
TAGS_SHOWN = 8
SURE = "80 % sure of every word: of 100 such captions, about 80 name only what people named in the same photo."
STYLE = """
.lcm-photos { color-scheme: light dark; --ink: light-dark(#222, #e8e8e8); --grey: light-dark(#5c5c5c, #a8a8a8);
  --card: light-dark(#fff, #1d1f21); --line: light-dark(#ddd, #3a3d40); --bar: light-dark(#9fcbe6, #1b5a80);
  font: 15px/1.4 system-ui, sans-serif; color: var(--ink); display: grid; gap: 1.2em;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 17em), 1fr)); }
.lcm-photos figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  overflow: hidden; }
.lcm-photos img { width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: #0002; display: block; }
.lcm-photos figcaption { padding: .8em 1em 1em; }
.lcm-photos p { margin: 0 0 .5em; font-weight: 600; }
.lcm-photos small { display: block; margin: -.4em 0 .6em; font-size: .9em; color: var(--grey); }
.lcm-photos > small { grid-column: 1 / -1; margin: 0; max-width: 45em; }
.lcm-photos ol { list-style: none; margin: 0; padding: 0; }
.lcm-photos .tags li { display: flex; justify-content: space-between; padding: 0 .4em; margin: 2px 0;
  border-radius: 3px; background: linear-gradient(var(--bar) 0 0) 0 / var(--share) 100% no-repeat; }
.lcm-photos details { margin-top: .6em; color: var(--grey); }
"""


@dataclass(frozen=True)
class PagePhoto:
    """A photo and what was said of it."""

    image: str | Path | bytes
    captions: Sequence[str]  # the best first
    tags: Sequence[Tag]
    confidence: float | None = None  # of the best caption, 0 to 1: see SURE


def evenly(count: int, of: int) -> list[int]:
    """Return up to `count` places, evenly spaced among `of`: a choice that flatters nobody."""
    count = min(count, of)
    return [place * of // count for place in range(count)]


def labelled_photos(images: Sequence[LabelledImage], count: int) -> list[PagePhoto]:
    """Return `count` images of a data set, evenly spaced, with what people wrote about them."""
    return [PagePhoto(images[place].path, images[place].captions, ()) for place in evenly(count, len(images))]


def photo_cards(photos: Sequence[PagePhoto]) -> str:
    """Return the photos as a part of a page; where one has a confidence, it begins with what that means."""
    meaning = f"<small>{SURE}</small>" if any(photo.confidence is not None for photo in photos) else ""
    return f'<style>{STYLE}</style><div class="lcm-photos">{meaning}{"".join(map(_card, photos))}</div>'


def photo_page(title: str, photos: Sequence[PagePhoto]) -> str:
    """Return the photos as a whole page."""
    return whole_page(title, photo_cards(photos))


def whole_page(title: str, body: str) -> str:
    """Return a page under its title, with `body` as it is: HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title></head>"
        '<body style="margin: 1.5em; background: light-dark(#f4f4f4, #121314); color-scheme: light dark">'
        f'<h1 style="font: 600 22px system-ui; color: light-dark(#222, #e8e8e8)">{escape(title)}</h1>'
        f"{body}</body></html>\n"
    )


def _card(photo: PagePhoto) -> str:
    best, *others = photo.captions or [""]
    tags = "".join(
        f'<li style="--share: {score:.1%}"><span>{escape(word)}</span><span>{score:.2f}</span></li>'
        for word, score in photo.tags[:TAGS_SHOWN]
    )
    more = "".join(f"<li>{escape(caption)}</li>" for caption in others)
    details = f"<details><summary>other captions</summary><ol>{more}</ol></details>" if more else ""
    name = escape(best) or "photo without a caption"
    sure = f"<small>{percent(photo.confidence)} sure of every word</small>" if photo.confidence is not None else ""
    return (
        f'<figure><img alt="{name}" src="data:image/jpeg;base64,{thumbnail(photo.image)}">'
        f'<figcaption><p>{escape(best)}</p>{sure}<ol class="tags">{tags}</ol>{details}</figcaption></figure>'
    )


def thumbnail(image: str | Path | bytes) -> str:
    """Return the picture, small, as base64 of a JPEG."""
    picture, data = open_image(image), b""
    for side, quality in THUMBNAILS:
        picture.thumbnail((side, side))
        with io.BytesIO() as buffer:
            picture.save(buffer, "JPEG", quality=quality)
            data = buffer.getvalue()
        if len(data) <= THUMBNAIL_BYTES:
            break
    return base64.b64encode(data).decode()


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


PHOTOS = 4


def draw_attention(bundle: Bundle, labelled: LabelledFeatures, captions: Sequence[str], folder: Path) -> list:
    """Return a figure of each of PHOTOS photos, evenly spaced, and save them in `folder` as attention_1.png and so on.

    `captions` are the model's, one an image. Returns none where the bundle cannot tell where its model looked; a photo
    whose caption has no words is left out.
    """
    if not bundle.has_attention:
        return []
    figures = []
    for place in evenly(PHOTOS, len(captions)):
        words, weights = attention_gallery(bundle, labelled.read(slice(place, place + 1)), captions[place])
        if words:
            figures.append(attention(labelled.paths[place], words, weights))
            plots.save(figures[-1], folder / f"attention_{len(figures)}.png")
    return figures


def attention_gallery(bundle: Bundle, features: np.ndarray, caption: str) -> tuple[list[str], np.ndarray]:
    """Return the words of a caption, as the bundle knows them, and where its model looked for each: weights [T, N].

    `features` [1, N, F] are the image's, of the bundle's kind.
    """
    token_ids = np.array(bundle.vocabulary.encode(caption))  # [2 + T]
    words = [bundle.vocabulary.words[token_id] for token_id in token_ids[1:-1]]
    if not words:
        return [], np.empty((0, features.shape[1]))
    return words, bundle.attention(features, token_ids[None, None, :-2])[0, 0]
