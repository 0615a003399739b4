"""Pages to look at: photos with their captions and tags, as HTML that opens alone.

Knows how a photo with what was said of it reads, in light and dark, on a desk and on a phone. Refuses to know models;
every text is escaped, every picture is inside the page, and small: a page of 50 photos stays below 3 MB.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from lcm.captioning.confidence import percent
from lcm.captioning.tagging import Tag
from lcm.data.captions import LabelledImage
from lcm.data.images import open_image

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
