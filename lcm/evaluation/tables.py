"""Tables for notebooks and pages.

Knows how cells read as Markdown, and as HTML whose rows become cards on a phone. Refuses to know what they say; every
text is escaped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# The rows are cards where the screen is narrow: a cell then begins with its heading.
TABLE_STYLE = """
.lcm-table { border-collapse: collapse; width: 100%; margin: 0 0 1em; font-variant-numeric: tabular-nums; }
.lcm-table th, .lcm-table td { padding: .45em .8em .45em 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: break-word; font-weight: normal; }
.lcm-table thead th { color: var(--grey); font-size: .9em; border-bottom: 2px solid var(--line);
  vertical-align: bottom; }
.lcm-table tbody th { font-weight: 600; min-width: 8em; overflow-wrap: anywhere; }
.lcm-table small { display: block; color: var(--grey); font-weight: normal; }
.lcm-table .quoted th, .lcm-table .quoted td { font-style: italic; color: var(--grey); }
@media (max-width: 46em) {
  .lcm-table, .lcm-table tbody, .lcm-table tr, .lcm-table tbody th, .lcm-table td { display: block; }
  .lcm-table thead { display: none; }
  .lcm-table tr { border: 1px solid var(--line); border-radius: 8px; background: var(--card); padding: .5em .9em;
    margin-bottom: .7em; }
  .lcm-table tbody th, .lcm-table td { border: 0; padding: .15em 0; }
  .lcm-table td { display: flex; justify-content: space-between; gap: 1em; }
  .lcm-table td > span { text-align: right; min-width: 0; overflow-wrap: anywhere; }
  .lcm-table td::before { content: attr(data-label); color: var(--grey); flex: 0 0 40%; }
  .lcm-table td:has(> span:empty) { display: none; }
}
"""


@dataclass(frozen=True)
class Cell:
    """One entry of a table."""

    text: str
    small: str = ""  # beside it, in small letters
    best: bool = False  # of its column


@dataclass(frozen=True)
class Table:
    """Rows under headings; the first cell of a row names it."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    quoted: int = 0  # the last rows that are others' numbers

    def as_markdown(self) -> str:
        """Return the table for a notebook."""
        lines = [" | ".join(map(_plain, self.headings)), "|".join(["---"] * len(self.headings))]
        lines += [" | ".join(map(_markdown, row)) for row in self.rows]
        return "\n".join(f"| {line} |" for line in lines)

    def as_html(self) -> str:
        """Return the table for a page, every text escaped."""
        whole = [heading.replace("-", "\N{NON-BREAKING HYPHEN}") for heading in self.headings]  # BLEU-4 on one line
        head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in whole)
        ours = len(self.rows) - self.quoted
        opened = ["<tr>"] * ours + ['<tr class="quoted">'] * self.quoted
        body = "".join(f"{tag}{self._html_row(row)}</tr>" for tag, row in zip(opened, self.rows, strict=True))
        return f'<table class="lcm-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'

    def _html_row(self, row: Sequence[Cell]) -> str:
        first, *others = row
        cells = zip(self.headings[1:], others, strict=True)
        return f'<th scope="row">{_html(first)}</th>' + "".join(
            f'<td data-label="{escape(heading)}"><span>{_html(cell)}</span></td>' for heading, cell in cells
        )


def _html(cell: Cell) -> str:
    text = f"<b>{escape(cell.text)}</b>" if cell.best else escape(cell.text)
    return f"{text} <small>{escape(cell.small)}</small>" if cell.small else text


def _markdown(cell: Cell) -> str:
    text = f"**{_plain(cell.text)}**" if cell.best else _plain(cell.text)
    return f"{text} ({_plain(cell.small)})" if cell.small else text


def _plain(text: str) -> str:
    return escape(text, quote=False).replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").replace("\n", " ")
