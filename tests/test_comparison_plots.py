"""Figures of captioners: whole with much, little and odd data; the numbers where they belong; who is who."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from lcm.evaluation import report as plots
from lcm.evaluation.bootstrap import Interval
from tests.fakes.figure_checks import assert_whole, texts_of

NAMES = ["merge-1", "nearest", "a $name$ that is longer than any figure has room for"]
PANELS = {
    "WER": {name: Interval(0.5 + place / 10, 0.4 + place / 10, 0.65 + place / 10) for place, name in enumerate(NAMES)},
    "CIDEr": {NAMES[0]: Interval(0.5, 0.45, 0.56), NAMES[2]: Interval(0.6, 0.6, 0.6)},
}
LENGTHS = {"merge-1": [5, 6, 6], "nearest": [4, 20, 2000], NAMES[2]: [0, 0, 0]}
WORDS = [*[8.0] * 30, *[9.4] * 30, *[12.5] * 3]
WERS = {name: [place / 10] * 30 + [0.5] * 30 + [0.9] * 3 for place, name in enumerate(NAMES)}

FIGURES = {
    "forest": lambda: plots.forest(PANELS, NAMES),
    "forest of one": lambda: plots.forest({"WER": {"a": Interval(0.5, 0.4, 0.6)}}, ["a"]),
    "forest of nine": lambda: plots.forest(PANELS, [*NAMES, *"bcdefg"], 1),
    "forest without intervals": lambda: plots.forest({"WER": {}}, ["a"]),
    "forest of nothing": lambda: plots.forest({}, []),
    "lengths": lambda: plots.length_histograms(LENGTHS, [4, 7, 7, 9], NAMES),
    "lengths without people": lambda: plots.length_histograms({"a": []}, [], ["a"]),
    "lengths of nothing": lambda: plots.length_histograms({}, [], []),
    "wer by length": lambda: plots.wer_by_length(WORDS, WERS, NAMES),
    "wer of one image": lambda: plots.wer_by_length([9], {"a": [0.3]}, ["a"]),
    "wer of nothing": lambda: plots.wer_by_length([], {"a": []}, ["a"]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_whole_and_saved_without_a_warning(name, tmp_path):
    assert_whole(FIGURES[name], tmp_path)


def test_a_forest_plot_draws_each_interval_in_its_row():
    wer, cider, *_ = plots.forest(PANELS, NAMES).axes
    assert (wer.get_title(loc="left"), wer.get_xlabel()) == ("WER", "smaller is better")
    assert (cider.get_title(loc="left"), cider.get_xlabel()) == ("CIDEr", "more is better")
    ends = [tuple(line.get_xdata()) for line in wer.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"]
    assert ends == [(its.low, its.high) for its in PANELS["WER"].values()]
    rows = [line.get_ydata()[0] for line in cider.lines if line.get_marker() != "None"]
    assert rows == [0, 2]  # "nearest" has no CIDEr, and its row stays empty
    assert [label.get_text() for label in wer.get_yticklabels()] == [plots.shortened(name) for name in NAMES]
    assert "0.600" in texts_of(wer.figure)


def test_a_captioner_has_one_colour_and_mark_in_every_figure():
    looks = plots.look_of(list("abcdefghi"))
    assert len(set(looks.values())) == 9
    assert plots.look_of(["a", "b"])["b"] == looks["b"]
    forest, lengths, wers = (draw() for draw in (FIGURES["forest"], FIGURES["lengths"], FIGURES["wer by length"]))
    colour, _ = plots.look_of(NAMES)["nearest"]
    marks = [line for line in forest.axes[0].lines if line.get_marker() != "None"]
    assert to_hex(marks[1].get_color()).upper() == colour
    assert [text.get_color() for text in (lengths.axes[1]._left_title,)] == [colour]
    handles, labels = wers.axes[0].get_legend_handles_labels()
    assert to_hex(handles[labels.index("nearest")].get_color()).upper() == colour


def test_histograms_are_shares_over_those_of_people():
    first = plots.length_histograms({"a": [2, 2, 3, 3]}, [1, 2], ["a"]).axes[0]
    people, own = first.patches
    assert list(people.get_data().values) == [0, 50, 50, 0]
    assert list(own.get_data().values) == [0, 0, 50, 50]
    assert "median 2.5, longest 3" in texts_of(first.figure)


def test_wer_by_length_draws_the_mean_of_each_bin_and_pales_where_few_are():
    axes = plots.wer_by_length(WORDS, WERS, NAMES).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["8\nn=30", "9–13\nn=33"]
    points = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1]
    assert [point.get_ydata()[0] for point in points] == pytest.approx([0, (30 * 0.5 + 3 * 0.9) / 33])
    assert {point.get_alpha() for point in points} == {1}
    few = plots.wer_by_length([9] * 19, {"a": [0.3] * 19}, ["a"]).axes[0]
    assert [line.get_alpha() for line in few.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1] == [0.3]


@pytest.mark.parametrize("words", [[], [7], [3, 3.4, 3.5], np.linspace(3, 70, 500), [8] * 99 + [60]])
def test_bins_hold_every_image_once_and_are_few(words):
    places, labels = plots.length_bins(words)
    assert len(places) == len(words)
    assert len(labels) <= plots.LENGTH_BINS
    spans = [tuple(map(int, label.split("–"))) for label in labels]
    for place, length in zip(places, words, strict=True):
        assert spans[place][0] <= np.floor(length + 0.5) <= spans[place][-1]
