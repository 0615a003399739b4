"""Pieces of the pages as HTML: an answer, tags, tables, messages, for eyes and screen readers.

Every text is escaped, every picture is inside the page.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import ipywidgets as widgets

from lcm.captioning.description import sureness
from lcm.dashboard.client import Answer
from lcm.errors import LcmError
from lcm.evaluation.gallery import TAGS_SHOWN, thumbnail

# Of a field: what is typed is sent once the field is left, so that a click never overtakes its last letters.
SENT_ON_LEAVING = {"continuous_update": False}
LOG = logging.getLogger("lcm.dashboard")


def answer_card(photo: bytes, name: str, answer: Answer) -> str:
    """Return a photo with its caption, how sure that is, other captions, tags and the model that wrote them."""
    who = "<p class='good'>A person wrote this caption.</p>" if answer.contributed else ""
    sure = f"<p>{sureness(answer.confidence).capitalize()}.</p>" if answer.confidence is not None else ""
    version = f", version <code>{escape(answer.version)}</code>" if answer.version else ""
    others = "".join(f"<li>{escape(one)}</li>" for one in answer.others)
    more = f"<details><summary>Other captions ({len(answer.others)})</summary><ol>{others}</ol></details>"
    return (
        f'<div class="card answer"><div>{image(thumbnail(photo), name)}</div>'
        f'<div><p class="caption">{escape(answer.caption) or "(empty)"}</p>{who}{sure}'
        f'<p class="quiet">Model {escape(answer.model)}{version}</p>'
        f"{tag_bars(answer.tags)}{more if others else ''}</div></div>"
    )


def tag_bars(tags: Sequence[tuple[str, float]]) -> str:
    """Return the first tags as a bar chart that is a list: the longest bar is the best tag's."""
    most = max((score for _, score in tags), default=1.0) or 1.0
    rows = "".join(
        f'<li style="--share: {score / most:.1%}"><span>{escape(word)}</span><span>{score:.0%}</span></li>'
        for word, score in tags[:TAGS_SHOWN]
    )
    return f'<h3>Tags</h3><ol class="bars">{rows}</ol>' if rows else "<h3>Tags</h3><p>none</p>"


def image(jpeg: str, alt: str) -> str:
    """Return a picture from the base64 of a JPEG."""
    return f'<img alt="{escape(alt)}" src="data:image/jpeg;base64,{jpeg}">'


@dataclass(frozen=True)
class Cell:
    """One entry of a table."""

    text: str
    small: str = ""  # beside it, in small letters
    best: bool = False  # of its column

    def as_html(self) -> str:
        """Return it with every text escaped."""
        text = f"<b>{escape(self.text)}</b>" if self.best else escape(self.text)
        return f"{text} <small>{escape(self.small)}</small>" if self.small else text


def table(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Return a table whose rows become cards on a phone (style.css); the first cell of a row names it."""
    whole = [escape(heading.replace("-", "\N{NON-BREAKING HYPHEN}")) for heading in headings]  # BLEU-4 on one line
    head = "".join(f'<th scope="col">{heading}</th>' for heading in whole)
    body = ""
    for first, *others in rows:
        named = zip(whole[1:], others, strict=True)
        cells = (f'<td data-label="{heading}"><span>{cell.as_html()}</span></td>' for heading, cell in named)
        body += f'<tr><th scope="row">{first.as_html()}</th>{"".join(cells)}</tr>'
    return f'<table class="lcm-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def note(text: str, kind: str = "quiet") -> str:
    """Return a sentence; `kind` is quiet, good or bad."""
    return f'<p class="{kind}" role="status">{escape(text)}</p>' if text else ""


def error_note(error: Exception) -> str:
    """Return what people are told of an error."""
    return note(message_for(error), "bad")


def fill(part: widgets.HTML, read: Callable[[], str]) -> None:
    """Put into a widget what `read` returns, or why it failed: whatever that is, the page stays usable."""
    try:
        part.value = read()
    except Exception as error:
        part.value = error_note(error)


def message_for(error: Exception) -> str:
    """Return lcm's own words for an error; of a mistake in the page only that there is one, the rest is logged."""
    if isinstance(error, LcmError):
        return str(error)
    LOG.error("the dashboard failed", exc_info=error)
    return f"Something went wrong in this page ({type(error).__name__}); reload it, or look at what its server wrote."
