"""Figures of photos: that they say and show what they were given, whole, and that odd text and few words are fine."""

import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from lcm.errors import DataError
from lcm.evaluation import plots
from lcm.evaluation.gallery import FADED, HEAT, GalleryItem, attention, gallery
from tests.fakes.figure_checks import assert_whole, texts_of

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


def items(captions=CAPTIONS):
    return [GalleryItem(PIXELS, caption, [caption, caption], 0.5) for caption in captions]


def corner(side=9, place=0):
    """Weights of one word, all at one place of a square grid."""
    return np.eye(side * side)[place]


def looked(*places, side=9):
    return np.stack([corner(side, place) for place in places])


FIGURES = {
    "gallery": lambda: gallery([("Best $", items()), ("Worst", items(CAPTIONS[:1])), ("Empty", [])]),
    "gallery of nothing": lambda: gallery([]),
    "words": lambda: attention(PIXELS, ["a", "dog", "jumps"], looked(0, 40, 80)),
    "odd words": lambda: attention(PIXELS, ["$", "$x$", "", "狗", "كلب", "w" * 99, "gy", "dog"], looked(*range(8))),
    "one position": lambda: attention(PIXELS, ["dog"], looked(0, side=1)),
    "no words": lambda: attention(PIXELS, [], np.zeros((0, 81))),
    "words of a tall photo": lambda: attention(np.zeros((90, 20), np.uint8), ["a", "tree"], looked(0, 1)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_whole_and_saved_without_a_warning(name, tmp_path):
    assert_whole(FIGURES[name], tmp_path)


# Gallery


def test_gallery_says_what_was_written():
    item = GalleryItem(PIXELS, "a dog runs", ["A dog runs .", "Dogs .", "a third one"], 1.234)
    figure = gallery([("Best captions", [item])], "CIDEr")
    assert [text.get_text() for text in figure.texts] == [
        *("Best captions", "CIDEr 1.23", "a dog runs", "“A dog runs.”", "“Dogs.”"),
    ]
    assert np.array_equal(figure.axes[0].images[0].get_array(), PIXELS)


def test_long_captions_are_broken_and_lose_no_letter():
    figure = gallery([("", items([CAPTIONS[5], CAPTIONS[8], "a dog " * 30]))])
    said = ["".join(text.get_text().split()) for text in figure.texts]
    assert {CAPTIONS[5], CAPTIONS[8], "adog" * 30} <= set(said)


@pytest.mark.parametrize("caption", ["a $5 bill and $3", "$x^2$", "\\$", "$"])
def test_dollar_signs_are_no_formula(caption):
    figure = gallery([("", [GalleryItem(PIXELS, caption, [], 0)])])
    drawn = figure.texts[-1]
    assert drawn._preprocess_math(drawn.get_text()) == (caption, False)  # what is drawn; False: as plain text


def test_gallery_grows_with_its_rows_and_columns(tmp_path):
    item = GalleryItem(PIXELS, "a dog", [], 0.5)  # 2.6 inches wide and 1.95 high, 0.3 between columns
    with Image.open(plots.save(gallery([("Best", [item] * 3)] * 2), tmp_path / "gallery.png")) as image:
        width, height = np.array(image.size) / 150
    assert width == pytest.approx(3 * 2.6 + 2 * 0.3 + 2 * 0.15, abs=0.1)
    assert height > 2 * 1.95 + 2 * 0.15


def test_gallery_opens_image_files_upright(tmp_path):
    path = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (3000, 1000), "red").save(path, exif=exif)
    figure = gallery([("", [GalleryItem(path, "red", [], 0), GalleryItem(path.read_bytes(), "red", [], 0)])])
    shapes = [axes.images[0].get_array().shape for axes in figure.axes]
    assert shapes == [(780, 260, 3)] * 2  # upright, and no larger than two pixels for each one printed


def test_gallery_shows_whole_images():
    wide, tall = np.zeros((10, 100, 3), np.uint8), np.zeros((100, 10), np.uint8)
    figure = gallery([("", [GalleryItem(pixels, "a", [], 0) for pixels in (wide, tall)])])
    figure.draw_without_rendering()
    inches = [axes.get_window_extent().size / figure.dpi for axes in figure.axes]
    assert inches[0] == pytest.approx((2.6, 0.26))
    assert inches[1] == pytest.approx((0.26, 2.6))


# Where a model looked


def shown(figure) -> list[np.ndarray]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes]


def test_words_stand_in_order_each_over_its_picture_and_after_the_photo():
    words = [f"word{i}" for i in range(13)]
    figure = attention(PIXELS, words, looked(*range(13)))
    assert [text for text in texts_of(figure) if text] == words
    assert np.array_equal(shown(figure)[0], PIXELS)
    places = [tuple(axes.get_position().p0) for axes in figure.axes]
    assert places == sorted(places, key=lambda place: (-place[1], place[0]))  # as one reads
    assert list(Counter(row for _, row in places).values()) == [5, 5, 4]
    for text, axes in zip((text for text in figure.texts if text.get_text()), figure.axes[1:], strict=True):
        box = axes.get_position()
        assert text.get_position()[0] == box.x0
        assert box.y1 < text.get_position()[1] < box.y1 + 0.2
        assert text.get_fontweight() == "bold"


def test_a_word_too_long_for_its_picture_goes_on_below_itself():
    figure = attention(PIXELS, ["supercalifragilisticexpialidocious"], looked(0))
    first, second = sorted((text for text in figure.texts if text.get_text()), key=lambda text: -text.get_position()[1])
    assert first.get_text() + second.get_text() == "supercalifragilisticexpialidocious"


def test_words_of_a_row_stand_on_one_line():
    figure = attention(PIXELS, ["a", "gypsy", "at", "w" * 40], looked(0, 1, 2, 3))
    by_word = {text.get_text(): text for text in figure.texts}
    heights = {by_word[word].get_position()[1] for word in ("a", "gypsy", "at")}
    assert len(heights) == 1
    assert {text.get_verticalalignment() for text in figure.texts} == {"baseline"}  # so no letter moves a word


@pytest.mark.parametrize(("place", "row", "column"), [(0, 0, 0), (8, 0, -1), (72, -1, 0), (80, -1, -1), (40, 90, 180)])
def test_the_heat_lies_where_the_weight_is(place, row, column):
    _, picture = shown(attention(np.full((180, 360, 3), 255, np.uint8), ["dog"], looked(place)))
    assert picture.shape == (180, 360, 3)
    assert picture[row, column].tolist() == pytest.approx(HEAT[-1], abs=2)
    cold = picture[~(picture != 255).any(axis=2)]
    assert len(cold) > 0.9 * 180 * 360  # the neighbours of one of 81 places are warm too, all else is not


def test_the_heat_is_smooth_and_falls_with_the_weight():
    weights = np.linspace(1, 0, 9)[None].repeat(9, axis=0).ravel()[None]  # all the same from top to bottom
    _, picture = shown(attention(np.full((90, 900, 3), 255, np.uint8), ["dog"], weights))
    brightness = picture.astype(int).sum(axis=2)
    assert (np.diff(brightness[45]) >= 0).all()
    assert np.diff(brightness[45]).max() <= 6  # of 765: no step of a grid of 9 places
    assert (brightness == brightness[:1]).all()


def test_each_word_is_scaled_to_its_own_maximum():
    weights = looked(0, 0, 0) * [[1.0], [1e-6], [1e9]]
    _, *pictures = shown(attention(PIXELS, ["a", "b", "c"], weights))
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures)
    assert len(np.unique(pictures[0].reshape(-1, 3), axis=0)) > 10


def test_what_was_not_looked_at_loses_its_colour_and_contrast():
    black = np.zeros((40, 40, 3), np.uint8)
    black[:, 20:] = (255, 0, 0)
    _, picture = shown(attention(black, ["dog"], np.zeros((1, 81))))  # nowhere at all
    assert np.unique(picture[:, :20]) == pytest.approx([round(255 * (1 - FADED))], abs=1)
    assert (picture == picture[:, :, :1]).all()


def test_the_heat_is_told_without_colours():
    brightness = [0.299 * red + 0.587 * green + 0.114 * blue for red, green, blue in HEAT]
    assert all(first - second > 25 for first, second in pairwise(brightness))


def test_a_photo_s_file_is_shown_whole(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (3000, 1000), "red").save(path)
    photo, picture = shown(attention(path, ["red"], looked(40)))
    assert photo.shape == picture.shape == (175, 525, 3)  # two pixels for each one printed on 1.75 inches


@pytest.mark.parametrize(
    ("words", "weights", "message"),
    [
        (["a", "dog"], looked(0), r"shape \(1, 81\) for 2 words"),
        (["a"], np.zeros((1, 80)), r"shape \(1, 80\) for 1 words; give a row a word, of a square grid"),
        (["a"], np.zeros((1, 9, 9)), r"shape \(1, 9, 9\)"),
        (["a"], np.full((1, 81), np.nan), "weights from nan to nan; give finite ones"),
        (["a"], np.full((1, 81), np.inf), "weights from inf to inf; give finite ones"),
        (["a"], -looked(0), "weights from -1.0 to -0.0; give finite ones, none below zero"),
    ],
)
def test_weights_of_another_shape_or_kind_are_refused(words, weights, message):
    with pytest.raises(DataError, match=message):
        attention(PIXELS, words, weights)


def test_neither_pyplot_nor_anything_heavy_at_import():
    code = (
        "import sys; from lcm.evaluation import pictures; print('matplotlib' in sys.modules, 'PIL' in sys.modules);"
        "pictures.gallery([]); print('matplotlib.pyplot' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["False", "False", "False"]
