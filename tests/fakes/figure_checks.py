"""What every figure must be: whole, saved without a warning, and saying what it was given."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcm.evaluation import plots


def texts_of(figure):
    """Everything a figure says, as it is drawn."""
    return [text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text"))]


def assert_nothing_cut(figure, path):
    """The rim of the picture is white, and texts that stand alone do not overlap."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"))
    assert min(rim.min() for rim in (pixels[:9], pixels[-9:], pixels[:, :9], pixels[:, -9:])) == 255
    boxes = [text.get_window_extent() for text in figure.texts if text.get_text()]
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other.padded(-1)) for other in boxes[:place])


def assert_whole(draw, folder: Path):
    """The figure that `draw` gives is saved whole and without a warning."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        figure = draw()
        path = plots.save(figure, folder / "new folder" / "figure.png")
    assert warned == []
    with plots._style():
        assert_nothing_cut(figure, path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
