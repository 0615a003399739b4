"""Pieces of the pages as HTML: an answer, tags, tables, messages, for eyes and screen readers.

Every text is escaped, every picture is inside the page.
"""

import logging
from collections.abc import Callable, Sequence
from html import escape

import ipywidgets as widgets

from lcm.captioning.description import UNSURE, percent
from lcm.dashboard.client import Answer
from lcm.dashboard.language import name_of, say
from lcm.data.text import ENGLISH
from lcm.errors import LcmError
from lcm.evaluation.gallery import TAGS_SHOWN, thumbnail

# Of a field: what is typed is sent once the field is left, so that a click never overtakes its last letters.
SENT_ON_LEAVING = {"continuous_update": False}
LOG = logging.getLogger("lcm.dashboard")


def answer_card(photo: bytes, name: str, answer: Answer, asked: str = "") -> str:
    """Return a photo with all that is said of it; `asked` is the language asked for where that is another one."""
    notes = [("good", say("A person wrote this caption."))] if answer.contributed else []
    if asked:
        text = say("In {given}.") if answer.contributed else say("In {given}: the model does not write {asked} yet.")
        notes.append(("quiet", text.format(given=name_of(answer.language), asked=name_of(asked))))
    if answer.confidence is not None:
        share = say("{share} sure", share=say(percent(answer.confidence)))
        sure = share if answer.confidence >= UNSURE else say("unsure, please look")
        notes.append(("sure", f"{sure[0].upper()}{sure[1:]}."))
    notes.append(("quiet", say("Model {model}, version {version}", model=answer.model, version=answer.version or "?")))
    about = "".join(f'<p class="{kind}">{escape(text)}</p>' for kind, text in notes)
    others = "".join(f"<li>{escape(one)}</li>" for one in answer.others)
    what = say("Other captions") if answer.language in ("", ENGLISH) else say("In English")
    more = f"<details><summary>{what} ({len(answer.others)})</summary><ol>{others}</ol></details>"
    bars = "".join(
        f'<li style="--share: {score:.1%}"><span>{escape(word)}</span><span>{100 * score:.0f}&nbsp;%</span></li>'
        for word, score in answer.tags[:TAGS_SHOWN]
    )
    tags = f'<ol class="bars">{bars}</ol>' if bars else f"<p>{say('none')}</p>"
    return (
        f'<div class="card answer"><div>{image(thumbnail(photo), name)}</div>'
        f'<div><p class="caption">{escape(answer.caption) or say("(empty)")}</p>{about}'
        f"<h3>{say('Tags')}</h3>{tags}{more if others else ''}</div></div>"
    )


def image(jpeg: str, alt: str) -> str:
    """Return a picture from the base64 of a JPEG."""
    return f'<img alt="{escape(alt)}" src="data:image/jpeg;base64,{jpeg}">'


def cell(text: str, small: str = "", best: bool = False) -> str:
    """Return an entry of a table, with a text beside it in small letters; the best of its column is in bold."""
    shown = f"<b>{escape(text)}</b>" if best else escape(text)
    return f"{shown} <small>{escape(small)}</small>" if small else shown


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of cells whose rows become cards on a phone (style.css); the first cell of a row names it."""
    whole = [escape(heading.replace("-", "\N{NON-BREAKING HYPHEN}")) for heading in headings]  # BLEU-4 on one line
    head = "".join(f'<th scope="col">{heading}</th>' for heading in whole)
    body = ""
    for first, *others in rows:
        named = zip(whole[1:], others, strict=True)
        cells = (f'<td data-label="{heading}"><span>{its}</span></td>' for heading, its in named)
        body += f'<tr><th scope="row">{first}</th>{"".join(cells)}</tr>'
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
    return say("Something went wrong in this page ({error}); reload it, or see its log.", error=type(error).__name__)
