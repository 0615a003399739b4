"""Figures: that they say what they were given, that nothing is cut off, and that odd text and little data are fine."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from lcm.evaluation import plots
from lcm.evaluation.plots import GalleryItem

EPOCHS = [
    {
        "epoch": epoch,
        "train_loss": 5.0 / epoch,
        "dev_loss": 4.0 / epoch,
        "dev_cider": 0.5 - abs(epoch - 7) / 20,
        "learning_rate": 1e-3 / epoch,
        "images_per_second": 480.0,
        "seconds": 13.0,
    }
    for epoch in range(1, 10)
]
PIXELS = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
CAPTIONS = [
    "a dog runs through the snow",
    "a $5 bill, $3 more and \\$ on x_1^2 and {braces}",
    "$x$",
    "$",
    "",
    "一只黑色的狗在草地上跑步并且追逐一个红色的球在阳光下" * 3,
    "كلب أسود يركض على العشب",
    "काला कुत्ता दौड़ रहा है और लाल गेंद का पीछा कर रहा है",
    "w" * 200,
    "a man\nwith\ta line break",
]


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


def items(captions=CAPTIONS):
    return [GalleryItem(PIXELS, caption, [caption, caption], 0.5) for caption in captions]


def without(epochs, *keys):
    return [each | dict.fromkeys(keys) for each in epochs]


FIGURES = {
    "curves": lambda: plots.learning_curves(EPOCHS, best_epoch=7),
    "curves of the last epoch": lambda: plots.learning_curves(EPOCHS, best_epoch=9),
    "curves of one epoch": lambda: plots.learning_curves(EPOCHS[:1], 1),
    "curves without dev": lambda: plots.learning_curves(without(EPOCHS, "dev_loss", "dev_cider"), 9),
    "curves of nothing": lambda: plots.learning_curves([]),
    "lengths": lambda: plots.caption_lengths({"train": [3, 8, 8, 9, 12], "dev": [7, 8], "test": []}),
    "lengths, long": lambda: plots.caption_lengths({"a $plit": [5, 2000]}),
    "lengths of nothing": lambda: plots.caption_lengths({"train": []}),
    "lengths of empty captions": lambda: plots.caption_lengths({"train": [0, 0]}),
    "words": lambda: plots.word_frequencies({f"word{i}": 1 + 9000 // (i + 1) for i in range(5000)}, min_count=5),
    "odd words": lambda: plots.word_frequencies({"$": 3, "$x$": 2, "собака": 2, "狗": 1, "w" * 99: 1}, min_count=9),
    "one word": lambda: plots.word_frequencies({"dog": 1}),
    "no words": lambda: plots.word_frequencies({}),
    "gallery": lambda: plots.gallery([("Best $", items()), ("Worst", items(CAPTIONS[:1])), ("Empty", [])]),
    "gallery of nothing": lambda: plots.gallery([]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_whole_and_saved_without_a_warning(name, tmp_path):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        figure = FIGURES[name]()
        path = plots.save(figure, tmp_path / "new folder" / "figure.png")
    assert warned == []
    with plots._style():
        assert_nothing_cut(figure, path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)


# Learning curves


def test_learning_curves_draw_the_numbers():
    loss, cider, rate, speed = plots.learning_curves(EPOCHS, best_epoch=7).axes
    assert [line.get_label() for line in loss.lines[:2]] == ["train", "dev"]
    assert list(loss.lines[0].get_ydata()) == [each["train_loss"] for each in EPOCHS]
    assert list(loss.lines[1].get_ydata()) == [each["dev_loss"] for each in EPOCHS]
    assert list(cider.lines[0].get_xdata()) == list(range(1, 10))
    assert cider.get_title(loc="right") == "best epoch 7: 0.500"
    assert [axes.get_ylim()[0] for axes in (rate, speed)] == [0, 0]


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


def test_very_long_captions_are_counted_at_the_edge():
    figure = plots.caption_lengths({"train": [1, 60, 61, 2000]})
    assert figure.axes[0].patches[0].get_data().values[-1] == 75
    assert "60 stands for all longer ones" in figure.axes[0].get_xlabel()


def test_word_frequencies_rank_the_words():
    figure = plots.word_frequencies({"red": 2, "a": 9, "dog": 2, "horse": 1}, top=3, min_count=2)
    words, ranks = figure.axes
    assert [label.get_text() for label in words.get_yticklabels()] == ["a", "dog", "red"]
    assert [bar.get_width() for bar in words.patches] == [9, 2, 2]
    assert list(ranks.lines[0].get_ydata()) == [9, 2, 2, 1]
    said = texts_of(ranks)
    assert "14 words, 4 different, 1 once" in said
    assert "min_count 2: 3 words kept, 92.9% of the text" in said  # 13 of 14


# Gallery


def test_gallery_says_what_was_written():
    item = GalleryItem(PIXELS, "a dog runs", ["A dog runs .", "Dogs .", "a third one"], 1.234)
    figure = plots.gallery([("Best captions", [item])], "CIDEr")
    assert [text.get_text() for text in figure.texts] == [
        *("Best captions", "CIDEr 1.23", "a dog runs", "“A dog runs.”", "“Dogs.”"),
    ]
    assert np.array_equal(figure.axes[0].images[0].get_array(), PIXELS)


def test_long_captions_are_broken_and_lose_no_letter():
    figure = plots.gallery([("", items([CAPTIONS[5], CAPTIONS[8], "a dog " * 30]))])
    said = ["".join(text.get_text().split()) for text in figure.texts]
    assert {CAPTIONS[5], CAPTIONS[8], "adog" * 30} <= set(said)


@pytest.mark.parametrize("caption", ["a $5 bill and $3", "$x^2$", "\\$", "$"])
def test_dollar_signs_are_no_formula(caption):
    figure = plots.gallery([("", [GalleryItem(PIXELS, caption, [], 0)])])
    drawn = figure.texts[-1]
    assert drawn._preprocess_math(drawn.get_text()) == (caption, False)  # what is drawn; False: as plain text


def test_gallery_grows_with_its_rows_and_columns(tmp_path):
    item = GalleryItem(PIXELS, "a dog", [], 0.5)  # 2.6 inches wide and 1.95 high, 0.3 between columns
    with Image.open(plots.save(plots.gallery([("Best", [item] * 3)] * 2), tmp_path / "gallery.png")) as image:
        width, height = np.array(image.size) / 150
    assert width == pytest.approx(3 * 2.6 + 2 * 0.3 + 2 * 0.15, abs=0.1)
    assert height > 2 * 1.95 + 2 * 0.15


def test_gallery_opens_image_files_upright(tmp_path):
    path = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (3000, 1000), "red").save(path, exif=exif)
    figure = plots.gallery([("", [GalleryItem(path, "red", [], 0), GalleryItem(path.read_bytes(), "red", [], 0)])])
    shapes = [axes.images[0].get_array().shape for axes in figure.axes]
    assert shapes == [(780, 260, 3)] * 2  # upright, and no larger than two pixels for each one printed


def test_gallery_shows_whole_images():
    wide, tall = np.zeros((10, 100, 3), np.uint8), np.zeros((100, 10), np.uint8)
    figure = plots.gallery([("", [GalleryItem(pixels, "a", [], 0) for pixels in (wide, tall)])])
    figure.draw_without_rendering()
    inches = [axes.get_window_extent().size / figure.dpi for axes in figure.axes]
    assert inches[0] == pytest.approx((2.6, 0.26))
    assert inches[1] == pytest.approx((0.26, 2.6))


# Saving, showing


def test_save_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")

    def fail(*_, **__):
        raise OSError("no space left")

    figure = plots.caption_lengths({"train": [1]})
    monkeypatch.setattr(type(path), "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        plots.save(figure, path)
    assert path.read_bytes() == b"old"


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    files = [plots.save(FIGURES["lengths"](), tmp_path / name).read_bytes() for name in ("a.png", "b.png")]
    assert files[0] == files[1]


def test_notebooks_show_figures():
    formatters = pytest.importorskip("IPython.core.formatters")
    figure = FIGURES["lengths"]()
    shown, _ = formatters.DisplayFormatter().format(figure)
    assert shown["image/png"].startswith(b"\x89PNG")


def test_style_stays_within_the_figure():
    import matplotlib

    before = dict(matplotlib.rcParams)
    FIGURES["curves"]()
    assert dict(matplotlib.rcParams) == before


def test_neither_pyplot_nor_anything_heavy_at_import():
    code = (
        "import sys; from lcm.evaluation import plots; print('matplotlib' in sys.modules, 'PIL' in sys.modules);"
        "plots.caption_lengths({'train': [1]}); print('matplotlib.pyplot' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["False", "False", "False"]
