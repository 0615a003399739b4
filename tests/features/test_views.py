"""Views: which part of a picture each shows, decided by its key alone, and how it looks."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from lcm.data.images import read_image, read_views
from lcm.features.cache import MAX_STRETCH, VIEW_AREA, View, read_keys, view_keys

SIZE = 32
KEY = hashlib.sha256(b"a picture").hexdigest()
WHOLE = (0.0, 0.0, 1.0, 1.0)
MANY = [View.of(key) for key in view_keys(KEY, 4000)[1:]]


def key_of(*draws: float) -> str:
    """The key whose view is made from these five numbers, 0 to below 1."""
    return "".join(f"{int(draw * 2**32):08x}" for draw in (*draws, 0, 0, 0))


def encode(picture: Image.Image, file_format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def slopes(width: int = 400, height: int = 300) -> Image.Image:
    """Red tells how far a pixel is to the right, green how far it is down."""
    across, down = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    colours = np.stack([255 * across, 255 * down, np.full_like(down, 90)], axis=-1)
    return Image.fromarray(colours.round().astype(np.uint8))


# Keys


def test_the_keys_of_views_are_hashes_of_the_image_s_key_and_their_number():
    expected = [hashlib.sha256(f"{KEY} view {number} policy 1".encode()).hexdigest() for number in (1, 2)]
    assert view_keys(KEY, 2) == [KEY, *expected]
    assert view_keys(KEY, 0) == [KEY]


# What a view shows


@pytest.mark.parametrize(
    ("draws", "box", "mirrored"),
    [
        # area 0.8, as wide as high against the picture: sides of 0.8944, in the middle
        ((0.5, 0.5, 0.5, 0.5, 0.5), (0.0528, 0.0528, 0.9472, 0.9472), False),
        # area 0.6, 3/4 as wide: 0.6708 x 0.8944, in the upper left corner
        ((0, 0, 0, 0, 0), (0, 0, 0.6708, 0.8944), True),
        # area 0.6, nearly 4/3 as wide: 0.8944 x 0.6708, at the right, in the middle
        ((0, 1 - 2**-30, 1 - 2**-30, 0.5, 0.75), (0.1056, 0.1646, 1, 0.8354), False),
        # area 0.9, as narrow as fits: the whole height, 0.9 of the width
        ((0.75, 0, 0.5, 0.5, 0.25), (0.05, 0, 0.95, 1), True),
        # nearly all of it
        ((1 - 2**-30, 0, 0.5, 0.5, 0.25), (0, 0, 1, 1), True),
    ],
)
def test_views_worked_out_by_hand(draws, box, mirrored):
    view = View.of(key_of(*draws))
    assert view.box == pytest.approx(box, abs=1e-4)
    assert view.mirrored is mirrored


def test_area_and_sides_keep_their_limits_and_use_them():
    left, top, right, bottom = np.array([view.box for view in MANY]).T
    areas, stretches = (right - left) * (bottom - top), (right - left) / (bottom - top)
    assert min(left.min(), top.min()) >= 0
    assert max(right.max(), bottom.max()) <= 1
    assert VIEW_AREA[0] - 1e-9 <= areas.min() < 0.605
    assert 0.995 < areas.max() <= VIEW_AREA[1]
    assert areas.mean() == pytest.approx(0.8, abs=0.01)  # evenly between 0.6 and 1
    assert 1 / MAX_STRETCH - 1e-9 <= stretches.min() < 0.76
    assert 1.31 < stretches.max() <= MAX_STRETCH + 1e-9
    assert np.log(stretches).mean() == pytest.approx(0, abs=0.01)  # wider as often as narrower


# How it looks


def test_a_view_shows_its_part_of_the_picture_as_a_square():
    """The outermost pixels' middles lie half a pixel inside the box."""
    key = next(key for key in view_keys(KEY, 20)[1:] if not View.of(key).mirrored)
    left, top, right, bottom = View.of(key).box
    (shown,) = read_keys(encode(slopes()), SIZE, KEY, [key])
    assert shown.shape == (SIZE, SIZE, 3)
    assert shown.dtype == np.uint8
    half_x, half_y = (right - left) / (2 * SIZE), (bottom - top) / (2 * SIZE)
    red, green = shown[..., 0] / 255, shown[..., 1] / 255
    # An edge pixel's filter is cut off at the box, which shifts it by under half a pixel of the square.
    assert red[:, 0].mean() == pytest.approx(left + half_x, abs=half_x)
    assert red[:, -1].mean() == pytest.approx(right - half_x, abs=half_x)
    assert green[0].mean() == pytest.approx(top + half_y, abs=half_y)
    assert green[-1].mean() == pytest.approx(bottom - half_y, abs=half_y)
    assert red[:, SIZE // 2 - 1 : SIZE // 2 + 1].mean() == pytest.approx((left + right) / 2, abs=0.005)


def test_a_mirrored_view_is_its_part_with_left_and_right_exchanged():
    key = next(key for key in view_keys(KEY, 20)[1:] if View.of(key).mirrored)
    data = encode(slopes())
    (shown,) = read_keys(data, SIZE, KEY, [key])
    (upright,) = read_views(data, SIZE, [View.of(key).box])
    np.testing.assert_array_equal(shown, upright[:, ::-1])
    assert shown[0, 0, 0] > shown[0, -1, 0]  # red falls to the right
    assert shown[0, 0, 1] < shown[-1, 0, 1]  # green still grows downwards


def test_each_key_gets_its_own_picture_in_any_order_and_company():
    data, keys = encode(slopes()), view_keys(KEY, 5)
    together = read_keys(data, SIZE, KEY, keys)
    assert together.shape == (6, SIZE, SIZE, 3)
    np.testing.assert_array_equal(together[0], read_image(data, SIZE))
    np.testing.assert_array_equal(read_keys(data, SIZE, KEY, keys[::-1])[::-1], together)
    for key, picture in zip(keys, together, strict=True):
        np.testing.assert_array_equal(read_keys(data, SIZE, KEY, [key])[0], picture)
    assert len({picture.tobytes() for picture in together}) == 6
