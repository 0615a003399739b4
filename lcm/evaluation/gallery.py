"""Photos with what was said of them, as cards of HTML, and where a model looked at each word of its caption.

Cards read in light and dark, on a desk and on a phone. Every text is escaped; every picture is inside the HTML, small.

Shapes: H, W pixels, T words, N image positions, rows of a square grid from the top left, D numbers of a position.
"""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from lcm.captioning.bundle import Bundle
from lcm.captioning.description import sureness
from lcm.captioning.tagging import Tag
from lcm.data.dataset import LabelledImage
from lcm.data.images import open_image

SIDE, QUALITY = 480, 75  # pixels of the longer side of a picture, and of its JPEG: 13,000 bytes for a photo
TAGS_SHOWN = 8
SURE = "80 % sure: of 100 such captions, about 80 name only what people named in the same photo."
STYLE = Path(__file__).with_name("gallery.css").read_text(encoding="utf-8")


@dataclass(frozen=True)
class CaptionLine:
    """One caption of a photo."""

    caption: str
    label: str = ""  # above it, in small letters: who wrote it, how it scored
    best: bool = False  # of several; its label is marked


@dataclass(frozen=True)
class PhotoCard:
    """A photo and what was said of it."""

    image: str | Path | bytes
    lines: Sequence[CaptionLine]
    tags: Sequence[Tag] = ()
    other_captions: Sequence[str] = ()  # folded away
    references: Sequence[str] = ()  # people's captions, in grey
    confidence: float | None = None  # of the first line, 0 to 1: see SURE


def described(
    image: str | Path | bytes, captions: Sequence[str], tags: Sequence[Tag] = (), confidence: float | None = None
) -> PhotoCard:
    """Return a card of a photo with its captions, the best first, tags, and the confidence of the best caption."""
    best, *others = captions or [""]
    sure = "" if confidence is None else sureness(confidence)
    return PhotoCard(image, [CaptionLine(best, sure)], tags, others, (), confidence)


def evenly(count: int, of: int) -> list[int]:
    """Return up to `count` places, evenly spaced among `of`: a choice that flatters nobody."""
    count = min(count, of)
    return [place * of // count for place in range(count)]


def labelled_photos(images: Sequence[LabelledImage], count: int) -> list[PhotoCard]:
    """Return cards of `count` images of a data set, evenly spaced, with what people wrote about them."""
    return [described(images[place].path, images[place].captions) for place in evenly(count, len(images))]


def section(heading: str, about: str, shown: str) -> str:
    """Return a section of a page, with a sentence about it; nothing where nothing is shown."""
    return f"<h2>{escape(heading)}</h2><p>{escape(about)}</p>{shown}" if shown else ""


def photo_cards(cards: Sequence[PhotoCard]) -> str:
    """Return the cards as a part of a page, empty without any; a confidence is explained once, at the beginning."""
    if not cards:
        return ""
    meaning = f"<small>{SURE}</small>" if any(card.confidence is not None for card in cards) else ""
    return f'<style>{STYLE}</style><div class="lcm-photos">{meaning}{"".join(map(_card, cards))}</div>'


def _card(card: PhotoCard) -> str:
    lines = ""
    for line in card.lines:
        label = f"<small>{escape(line.label)}</small>" if line.label else ""
        opened = '<p class="best">' if line.best else "<p>"
        lines += f"{opened}{label}{escape(line.caption) or '(no caption)'}</p>"
    tags = "".join(
        f'<li style="--share: {score:.1%}"><span>{escape(word)}</span><span>{score:.2f}</span></li>'
        for word, score in card.tags[:TAGS_SHOWN]
    )
    tags = f'<ol class="tags">{tags}</ol>' if tags else ""
    others = f"<details><summary>other captions</summary><ol>{_items(card.other_captions)}</ol></details>"
    others = others if card.other_captions else ""
    people = f"<ul>{_items(card.references)}</ul>" if card.references else ""
    name = escape(card.lines[0].caption) or "photo without a caption"
    return (
        f'<figure><img alt="{name}" src="data:image/jpeg;base64,{thumbnail(card.image)}">'
        f"<figcaption>{lines}{tags}{others}{people}</figcaption></figure>"
    )


def _items(texts: Sequence[str]) -> str:
    return "".join(f"<li>{escape(text)}</li>" for text in texts)


def thumbnail(image: str | Path | bytes) -> str:
    """Return the picture, small, as base64 of a JPEG."""
    picture = open_image(image)
    picture.thumbnail((SIDE, SIDE))
    return as_jpeg(picture)


def as_jpeg(picture) -> str:
    """Return a picture of Pillow's as base64 of a JPEG."""
    with io.BytesIO() as buffer:
        picture.save(buffer, "JPEG", quality=QUALITY)
        return base64.b64encode(buffer.getvalue()).decode()


# What the photo without colour is multiplied by where the model looked not at all, a third and two thirds of the most,
# and the most. Red never is lighter than yellow: the order is seen without colours, and by the colour-blind.
HEAT = ((255, 255, 255), (255, 221, 128), (246, 140, 31), (200, 32, 8))
FADED = 0.42  # share of its contrast that the photo keeps below


def attention_of(
    bundle: Bundle, features: np.ndarray, caption: str, language: str = ""
) -> tuple[list[str], np.ndarray]:
    """Return the words of a caption, as the bundle knows them, and where its model looked for each: weights [T, N].

    `features` [N, D] are the image's, of the bundle's kind.
    """
    token_ids = np.array(bundle.vocabulary.encode(caption, language))  # [2 + T]
    words = [bundle.vocabulary.words[token_id] for token_id in token_ids[1:-1]]
    if not words:
        return [], np.empty((0, len(features)))
    return words, bundle.attention(features[None], token_ids[None, None, :-2])[0, 0]


def looked_at(pixels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return a photo [H, W, 3] faded, without colour, and coloured where a word's weights [N] are high.

    Weights, none below 0, are scaled to their own maximum, so colours say where, not how much more than at other words.
    The square grid covers the whole photo, as far as the encoder sees it.
    """
    side = math.isqrt(len(weights))
    scaled = (weights / max(weights.max(), np.finfo(float).tiny)).astype(np.float32)
    heat = Image.fromarray(scaled.reshape(side, side)).resize(pixels.shape[1::-1], Image.Resampling.BICUBIC)
    stops = np.linspace(0, 1, len(HEAT))  # the cubic swings a little beyond them, where the ends hold
    tint = np.stack([np.interp(heat, stops, channel) for channel in zip(*HEAT, strict=True)], axis=-1)  # [H, W, 3]
    grey = 255 - FADED * (255 - np.asarray(Image.fromarray(pixels).convert("L"), np.float64))
    return (grey[:, :, None] * tint / 255).round().astype(np.uint8)
