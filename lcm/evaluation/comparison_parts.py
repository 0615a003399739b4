"""Parts of the report of a comparison: its look, its figures, its cards of photos.

Knows how they read in light and dark, on a desk and on a phone. Refuses to know what they say; every text is escaped,
every picture is inside the page.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape

from lcm.evaluation.captioner_result import smaller_is_better
from lcm.evaluation.comparison_images import Disagreement
from lcm.evaluation.pages import STYLE, thumbnail
from lcm.evaluation.plots import png
from lcm.evaluation.tables import TABLE_STYLE

# Figures are drawn on white; where the page is dark they are turned over, hues kept.
REPORT_STYLE = (
    STYLE
    + TABLE_STYLE
    + """
.lcm-report { color-scheme: light dark; --ink: light-dark(#222, #e8e8e8); --grey: light-dark(#5c5c5c, #a8a8a8);
  --card: light-dark(#fff, #1d1f21); --line: light-dark(#ddd, #3a3d40); --mark: light-dark(#0b6e99, #7cc4e8);
  font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 66em; }
.lcm-report h2 { font-size: 1.25em; margin: 2em 0 .4em; }
.lcm-report p, .lcm-report dl { max-width: 45em; margin: 0 0 1em; overflow-wrap: anywhere; }
.lcm-report dt { font-weight: 600; }
.lcm-report dd { margin: 0 0 .5em; }
.lcm-report .answer { font-size: 1.1em; }
.lcm-report pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--card); padding: .8em 1em;
  border: 1px solid var(--line); border-radius: 8px; max-width: 100%; box-sizing: border-box; }
.lcm-report summary { cursor: pointer; color: var(--mark); margin: .6em 0; }
.lcm-report .figures { display: grid; gap: 1em; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24em), 1fr));
  align-items: start; }
.lcm-report .figures div { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .6em; }
.lcm-report .figures img { display: block; width: 100%; max-width: 38em; margin: auto; }
@media (prefers-color-scheme: dark) {
  .lcm-report .figures img { filter: invert(.93) hue-rotate(180deg); mix-blend-mode: lighten; } }
.lcm-report .said { list-style: none; margin: 0 0 .8em; padding: 0; }
.lcm-report .said li { padding: .35em 0; border-bottom: 1px solid var(--line); }
.lcm-report .said span { display: flex; justify-content: space-between; gap: 1em; font-size: .85em;
  color: var(--grey); }
.lcm-report .said i { white-space: nowrap; }
.lcm-report .said .best span { color: var(--mark); font-weight: 600; }
.lcm-report .people { color: var(--grey); font-size: .9em; padding-left: 1.2em; margin: 0; list-style: disc; }
"""
)


def section(title: str, body: str) -> str:
    """Return a part of the page under its title; `body` is HTML."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def figure_grid(figures: Mapping[str, object]) -> str:
    """Return the figures beside each other, or below where there is no room."""
    pictures = [(escape(_said_by(figure)), base64.b64encode(png(figure)).decode()) for figure in figures.values()]
    cells = "".join(f'<div><img alt="{said}" src="data:image/png;base64,{data}"></div>' for said, data in pictures)
    return f'<div class="figures">{cells}</div>'


def _said_by(figure) -> str:
    """Return the titles of a figure's panels."""
    return "; ".join(filter(None, (axes.get_title(loc="left") for axes in figure.axes)))


def photo_grid(found: Sequence[Disagreement], label: str) -> str:
    """Return a card for each photo: what every captioner said, its score by `label`, and what people wrote."""
    return f'<div class="lcm-photos">{"".join(_card(one, label) for one in found)}</div>'


def _card(one: Disagreement, label: str) -> str:
    scores = [said.score for said in one.said]
    best = min(scores) if smaller_is_better(label.lower()) else max(scores)
    lines = ""
    for said in one.said:
        opened = '<li class="best">' if said.score == best else "<li>"
        lines += f"{opened}<span>{escape(said.name)} <i>{label} {said.score:.2f}</i></span>"
        lines += f"{escape(said.caption) or '(empty)'}</li>"
    people = "".join(f"<li>{escape(text)}</li>" for text in one.references)
    return (
        f'<figure><img alt="photo" src="data:image/jpeg;base64,{thumbnail(one.image)}"><figcaption>'
        f'<ul class="said">{lines}</ul><ul class="people">{people}</ul></figcaption></figure>'
    )
