"""Parts of the page: answers, tags, where the model looked, messages.

Knows how they read, for eyes and screen readers. Refuses to know where they come from; every text is escaped, every
picture is inside the page.
"""

import logging
from collections.abc import Sequence
from html import escape

from lcm.captioning.description import percent
from lcm.dashboard.answer import Answer
from lcm.dashboard.looking import Glance
from lcm.errors import LcmError
from lcm.evaluation.gallery import TAGS_SHOWN, thumbnail

# Of a field: what is typed is sent once it is left, so that a click never overtakes its last letters.
WHOLE = {"continuous_update": False}
LOG = logging.getLogger("lcm.dashboard")


def answer_card(photo: bytes, name: str, answer: Answer) -> str:
    """Return a photo with its caption, other captions, tags and the model that wrote them."""
    who = "<span class='good'>A person wrote this caption.</span> " if answer.contributed else ""
    sure = f"{percent(answer.confidence)} sure of every word. " if answer.confidence is not None else ""
    others = "".join(f"<li>{escape(one)}</li>" for one in answer.others)
    more = f"<details><summary>Other captions ({len(answer.others)})</summary><ol>{others}</ol></details>"
    picture = f'<img alt="{escape(name)}" src="data:image/jpeg;base64,{thumbnail(photo)}">'
    return (
        f'<div class="card answer"><div>{picture}</div>'
        f'<div><p class="caption">{escape(answer.caption) or "(empty)"}</p><p class="quiet">{who}{sure}'
        f"Model {escape(answer.model)}{_version(answer.version)}</p>{tag_bars(answer.tags)}"
        f"{more if others else ''}</div></div>"
    )


def _version(version: str) -> str:
    return f", version <code>{escape(version)}</code>" if version else ""


def tag_bars(tags: Sequence[tuple[str, float]]) -> str:
    """Return the first tags as a bar chart that is a list: the longest bar is the best tag's."""
    most = max((score for _, score in tags), default=1.0) or 1.0
    rows = "".join(
        f'<li style="--share: {score / most:.1%}"><span>{escape(word)}</span><span>{score:.0%}</span></li>'
        for word, score in tags[:TAGS_SHOWN]
    )
    return f'<h3>Tags</h3><ol class="bars">{rows}</ol>' if rows else "<h3>Tags</h3><p>none</p>"


def glance_grid(glances: Sequence[Glance]) -> str:
    """Return a picture for each word of a caption."""
    figures = "".join(
        f'<figure><img alt="Where the model looked for {escape(one.word)}: {one.place}" '
        f'src="data:image/jpeg;base64,{one.picture}"><figcaption>{escape(one.word)}</figcaption></figure>'
        for one in glances
    )
    return f'<div class="card"><div class="glances">{figures}</div></div>' if figures else note("The caption is empty.")


def note(text: str, kind: str = "quiet") -> str:
    """Return a sentence; `kind` is quiet, good or bad."""
    return f'<p class="{kind}" role="status">{escape(text)}</p>' if text else ""


def words_for(error: Exception) -> str:
    """Return what to tell people of an error: lcm's own words, of a mistake in the page only that there is one."""
    if isinstance(error, LcmError):
        return str(error)
    LOG.error("the dashboard failed", exc_info=error)
    return f"Something went wrong in this page ({type(error).__name__}); reload it, or look at what its server wrote."
