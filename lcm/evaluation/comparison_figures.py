"""The figures of a comparison.

Knows which numbers of a comparison go into which figure. Refuses to know how figures look: that is
`lcm.evaluation.comparison_plots`. None of them shows a photo or a caption.
"""

from statistics import fmean

from lcm.data.vocabulary import standardise
from lcm.evaluation.captioner_result import MEASURES
from lcm.evaluation.comparison import Comparison
from lcm.evaluation.comparison_plots import forest, length_histograms, wer_by_length
from lcm.evaluation.comparison_tables import LABELS
from lcm.evaluation.resampling import Interval


def draw_forest(comparison: Comparison, columns: int = 3):
    """Draw every measure's intervals in one figure, the best by WER first."""
    return forest({LABELS[name]: its for name, its in _panels(comparison).items()}, _names(comparison), columns)


def draw_figures(comparison: Comparison) -> dict[str, object]:
    """Draw a forest plot of each measure, how long captions are, and WER by how long people's captions are.

    The figures are under the names that their files may have: `forest_<measure>`, `caption_lengths`, `wer_by_length`.
    """
    names = _names(comparison)
    by_name = {result.name: result.scores.per_image for result in comparison.results}
    people = [[len(words) for text in each if (words := standardise(text))] for each in comparison.references]
    scored = [place for place, lengths in enumerate(people) if lengths]
    figures = {f"forest_{name}": forest({LABELS[name]: its}, names, 1) for name, its in _panels(comparison).items()}
    figures["caption_lengths"] = length_histograms(
        {name: [int(its["words"][place]) for place in scored] for name, its in by_name.items()},
        [length for lengths in people for length in lengths],
        names,
    )
    figures["wer_by_length"] = wer_by_length(
        [fmean(people[place]) for place in scored],
        {name: [its["wer"][place] for place in scored] for name, its in by_name.items()},
        names,
    )
    return figures


def _names(comparison: Comparison) -> list[str]:
    return [result.name for result in comparison.ranked("wer")]


def _panels(comparison: Comparison) -> dict[str, dict[str, Interval]]:
    """Return the intervals of each measure that any captioner has."""
    every = {name: {r.name: r.intervals[name] for r in comparison.results if name in r.intervals} for name in MEASURES}
    return {name: its for name, its in every.items() if its}
