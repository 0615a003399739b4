"""Figures of the benchmark: what a whole is made of.

Knows how parts of wholes are drawn beside each other. Refuses to know what they are parts of; the style is that of
every figure (evaluation/plots.py).
"""

from collections.abc import Mapping

from lcm.evaluation.plots import COLOURS, GREY, INK, PALE, empty_figure, note

SHOWN = 0.03  # of the longest bar: parts below it are drawn without their number, which would not fit


def stacked_parts(wholes: Mapping[str, Mapping[str, float]], title: str, unit: str, digits: int = 0):
    """Draw each whole as a bar of its parts, in `unit`; parts of one name have one colour."""
    names = list(dict.fromkeys(name for parts in wholes.values() for name in parts))
    colours = dict(zip(names, (*COLOURS, GREY, PALE), strict=False))
    with empty_figure(9.5, 1.6 + 0.45 * len(wholes)) as figure:
        axes = figure.subplots()
        axes.set(title=title, xlabel=unit)
        longest = max((sum(parts.values()) for parts in wholes.values()), default=0.0)
        for row, parts in enumerate(wholes.values()):
            start = 0.0
            for name, value in parts.items():
                colour = colours.get(name, PALE)
                axes.barh(row, value, left=start, color=colour, height=0.62, edgecolor="white")
                if value >= SHOWN * longest:
                    ink = INK if colour == PALE else "white"
                    axes.text(start + value / 2, row, f"{value:.{digits}f}", color=ink, ha="center", va="center")
                start += value
        if wholes:
            axes.set_yticks(range(len(wholes)), list(wholes))
            axes.invert_yaxis()
            axes.grid(axis="y", visible=False)
            handles = [axes.barh(0, 0, color=colours.get(name, PALE)) for name in names]
            figure.legend(handles, names, loc="outside lower center", ncols=3)
        else:
            note(axes, "not measured")
    return figure
