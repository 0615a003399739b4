"""Photos with what was said of them, as cards of HTML.

Cards read in light and dark, on a desk and on a phone. Every text is escaped; every picture is inside the HTML, small.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from lcm.captioning.description import sureness
from lcm.captioning.tagging import Tag
from lcm.data.dataset import LabelledImage
from lcm.data.images import open_image

SIDE, QUALITY = 480, 75  # pixels of the longer side of a picture, and of its JPEG: 13,000 bytes for a photo
TAGS_SHOWN = 8
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


def described(
    image: str | Path | bytes, captions: Sequence[str], tags: Sequence[Tag] = (), confidence: float | None = None
) -> PhotoCard:
    """Return a card of a photo with its captions, the best first, tags, and the confidence of the best caption."""
    best, *others = captions or [""]
    return PhotoCard(image, [CaptionLine(best, "" if confidence is None else sureness(confidence))], tags, others)


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
    """Return the cards as a part of a page, empty without any."""
    return f'<style>{STYLE}</style><div class="lcm-photos">{"".join(map(_card, cards))}</div>' if cards else ""


def _card(card: PhotoCard) -> str:
    lines = ""
    for line in card.lines:
        label = f"<small>{escape(line.label)}</small>" if line.label else ""
        opened = '<p class="best">' if line.best else "<p>"
        lines += f"{opened}{label}{escape(line.caption) or '(no caption)'}</p>"
    tags = [
        f'<li style="--share: {score:.1%}"><span>{escape(word)}</span><span>{score:.2f}</span></li>'
        for word, score in card.tags[:TAGS_SHOWN]
    ]
    others, people = (
        [f"<li>{escape(text)}</li>" for text in texts] for texts in (card.other_captions, card.references)
    )
    lists = {
        '<ol class="tags">{}</ol>': tags,
        "<details><summary>other captions</summary><ol>{}</ol></details>": others,
        "<ul>{}</ul>": people,
    }
    name = escape(card.lines[0].caption) or "photo without a caption"
    return (
        f'<figure><img alt="{name}" src="data:image/jpeg;base64,{thumbnail(card.image)}"><figcaption>{lines}'
        f"{''.join(around.format(''.join(items)) for around, items in lists.items() if items)}</figcaption></figure>"
    )


def thumbnail(image: str | Path | bytes) -> str:
    """Return the picture, small, as base64 of a JPEG."""
    picture = open_image(image, wanted=SIDE)
    picture.thumbnail((SIDE, SIDE))
    return as_jpeg(picture)


def as_jpeg(picture) -> str:
    """Return a picture of Pillow's as base64 of a JPEG."""
    with io.BytesIO() as buffer:
        picture.save(buffer, "JPEG", quality=QUALITY)
        return base64.b64encode(buffer.getvalue()).decode()
