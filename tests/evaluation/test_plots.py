"""Figures: that they say what they were given, that nothing is cut off, and that odd text and little data are fine."""

import warnings

import numpy as np
import pytest
from PIL import Image

from lcm.evaluation import plots
from lcm.evaluation.bootstrap import Interval


def texts_of(figure):
    """Everything a figure says, as it is drawn."""
    return [text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text"))]


EPOCHS = [
    {
        "epoch": epoch,
        "train_loss": 5.0 / epoch,
        "dev_loss": 4.0 / epoch,
        "train_reward": None,
        "dev_cider": 0.5 - abs(epoch - 7) / 20,
    }
    for epoch in range(1, 10)
]
REWARDED = [each | {"train_loss": None, "dev_loss": None, "train_reward": 0.6 + each["epoch"] / 50} for each in EPOCHS]
LONG = "a $name$ that is longer than any figure has room for"
PANELS = {title: {"merge": Interval(0.5, 0.4, 0.65), LONG: Interval(0.6, 0.5, 0.75)} for title in ("WER", "CIDEr")}
BINS = [(0.1, 0.05, 100), (0.4, 0.6, 100), (0.5, 0.5, 101)]


def without(epochs, *keys):
    return [each | dict.fromkeys(keys) for each in epochs]


FIGURES = {
    "curves": lambda: plots.learning_curves(EPOCHS, best_epoch=7),
    "curves of one epoch": lambda: plots.learning_curves(EPOCHS[:1], 1),
    "curves without dev": lambda: plots.learning_curves(without(EPOCHS, "dev_loss", "dev_cider"), 9),
    "curves of rewards": lambda: plots.learning_curves(REWARDED, best_epoch=7),
    "curves of nothing": lambda: plots.learning_curves([]),
    "lengths": lambda: plots.caption_lengths({"train": [3, 8, 8, 9, 12], "dev": [7, 8], "test": []}),
    "lengths, long": lambda: plots.caption_lengths({"a $plit": [5, 2000]}),
    "lengths of nothing": lambda: plots.caption_lengths({"train": []}),
    "forest": lambda: plots.forest(PANELS),
    "reliability": lambda: plots.reliability({"Words": BINS, "Labels": BINS}),
    "reliability, sure and right": lambda: plots.reliability({"Confidence": [(0.99, 1.0, 1)]}),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_whole_and_saved_without_a_warning(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.save(FIGURES[name](), path := tmp_path / "figure.png")
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"))
    assert min(rim.min() for rim in (pixels[:9], pixels[-9:], pixels[:, :9], pixels[:, -9:])) == 255  # nothing cut off


# Learning curves


def test_learning_curves_draw_the_numbers():
    loss, cider = plots.learning_curves(EPOCHS, best_epoch=7).axes
    assert [line.get_label() for line in loss.lines[:2]] == ["train", "dev"]
    assert list(loss.lines[0].get_ydata()) == [each["train_loss"] for each in EPOCHS]
    assert list(loss.lines[1].get_ydata()) == [each["dev_loss"] for each in EPOCHS]
    assert list(cider.lines[0].get_xdata()) == list(range(1, 10))
    assert cider.get_title(loc="right") == "best epoch 7: 0.500"


def test_learning_curves_of_the_second_stage_draw_rewards_in_place_of_losses():
    reward, cider = plots.learning_curves(REWARDED, best_epoch=7).axes
    assert (reward.get_title(loc="left"), reward.get_ylabel()) == ("Reward", "CIDEr-D of samples")
    (line,) = reward.lines
    assert list(line.get_ydata()) == [each["train_reward"] for each in REWARDED]
    assert reward.get_legend() is None
    assert cider.get_title(loc="right") == "best epoch 7: 0.500"


def test_learning_curves_leave_out_what_was_not_measured():
    figure = plots.learning_curves(without(EPOCHS[:2], "dev_cider") + EPOCHS[2:])
    assert list(figure.axes[1].lines[0].get_xdata()) == list(range(3, 10))
    figure = plots.learning_curves(without(EPOCHS, "dev_loss", "dev_cider"), best_epoch=9)
    assert texts_of(figure.axes[1]).count("not measured") == 1
    assert [line.get_label() for line in figure.axes[0].lines] == ["train"]


# Captions and words


def test_caption_lengths_are_shares_of_their_split():
    figure = plots.caption_lengths({"train": [2, 3, 3, 4], "dev": [3]})
    train, dev = figure.axes[0].patches
    assert list(train.get_data().values) == [0, 0, 25, 50, 25]  # of 0, 1, 2, 3 and 4 words
    assert list(dev.get_data().values) == [0, 0, 0, 100, 0]
    assert "train: 4 captions, median 3, longest 4" in texts_of(figure)
    (axes,) = plots.caption_lengths({"train": [1, 60, 61, 2000]}).axes
    assert axes.patches[0].get_data().values[-1] == 75
    assert "60 stands for all longer ones" in axes.get_xlabel()


# Captioners


def test_a_forest_plot_draws_each_interval_in_its_row():
    wer, cider = plots.forest(PANELS).axes
    assert (wer.get_title(loc="left"), wer.get_xlabel()) == ("WER", "smaller is better")
    assert (cider.get_title(loc="left"), cider.get_xlabel()) == ("CIDEr", "more is better")
    drawn = [(*line.get_xdata(), line.get_ydata()[0]) for line in wer.lines]
    assert drawn == [(0.4, 0.65, 0), (0.5, 0), (0.5, 0.75, 1), (0.6, 1)]
    assert [label.get_text() for label in wer.get_yticklabels()] == ["merge", "a $name$ that is longer th"]


# Confidence


def test_reliability_draws_the_bins_against_the_line_where_they_should_be():
    (axes,) = plots.reliability({"Confidence": BINS}).axes
    line, points = axes.lines
    assert list(line.get_xdata()) == list(line.get_ydata())
    assert list(points.get_xdata()) == pytest.approx([10, 40, 50])
    assert list(points.get_ydata()) == pytest.approx([5, 60, 50])
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_ylim()[1] > axes.collections[0].get_segments()[1][1, 1] > 60  # the highest interval is in sight
    assert "301, 38.4% right" in texts_of(axes)  # 5 + 60 + 50.5
    # Wilson's interval of 5 in 100 is 2.15 % to 11.18 % (Newcombe 1998, method 3).
    assert axes.collections[0].get_segments()[0][:, 1] == pytest.approx([2.15, 11.18], abs=0.01)


# Saving, showing


def test_notebooks_show_figures():
    formatters = pytest.importorskip("IPython.core.formatters")
    figure = FIGURES["lengths"]()
    shown, _ = formatters.DisplayFormatter().format(figure)
    assert shown["image/png"].startswith(b"\x89PNG")
