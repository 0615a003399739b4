"""Copies are told from other pictures by their thumbnails alone."""

import io

import numpy as np
import pytest
from PIL import Image

from lcm.contributions import duplicates
from lcm.contributions.duplicates import SIDE, compare, is_same, thumbnail
from lcm.data.images import read_image
from tests.fakes.altered import ALTERED, NEXT, TOUCHED, alter, in_burst, scene


def thumb(data: bytes, size: int = 260) -> np.ndarray:
    return thumbnail(read_image(data, size))


def flat(*colour: int) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), colour, np.uint8)


@pytest.fixture(scope="module")
def others() -> np.ndarray:
    return np.stack([thumb(scene(seed)) for seed in range(20)])


@pytest.mark.parametrize("how", ALTERED)
def test_what_was_altered_is_a_copy_of_one_only(others, how):
    for seed in range(5):
        found = compare(thumb(alter(scene(seed), how)), others)
        assert np.flatnonzero(found).tolist() == [seed]


def test_a_picture_of_one_colour_is_a_copy_of_the_same_colour_only():
    """It may be off by a level, as JPEG leaves it: 8 x 8 levels of variance are granted, of which 3 % may differ."""
    found = compare(flat(200, 0, 0), np.stack([flat(200, 0, 0), flat(201, 1, 1), flat(202, 2, 2), flat(0, 200, 0)]))
    assert found.tolist() == [1, pytest.approx(1 - 1 / 64), 0, 0]


def test_something_small_that_moved_is_no_copy(monkeypatch):
    """Two moments of one scene: as a whole they agree to a hundredth, and yet they are two photos."""
    picture = Image.open(io.BytesIO(scene(1))).convert("RGB")
    before, after = picture.copy(), picture.copy()
    before.paste((255, 255, 255), (100, 100, 114, 114))
    after.paste((255, 255, 255), (200, 100, 214, 114))
    pictures = thumbnail(np.array(after)), thumbnail(np.array(before))[None]
    assert not compare(*pictures)[0]
    monkeypatch.setattr(duplicates, "MAX_BLOCK", 255)
    assert compare(*pictures)[0] > 0.98


def test_what_is_cut_in_half_or_mirrored_is_no_copy():
    picture = Image.open(io.BytesIO(scene(2))).convert("RGB")
    whole = thumbnail(np.array(picture))[None]
    for other in (picture.crop((0, 0, 160, 240)), picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)):
        assert not compare(thumbnail(np.array(other)), whole)[0]


@pytest.mark.parametrize("how", [*ALTERED, *TOUCHED])
def test_what_was_made_of_a_photo_is_the_same_photo(how):
    assert [is_same(alter(scene(seed), how), scene(seed)) for seed in range(5)] == [True] * 5


@pytest.mark.parametrize("how", NEXT)
def test_the_next_of_a_burst_and_a_patched_photo_are_others(how):
    for seed in range(5):
        first, after = (in_burst(scene(seed), one, scene(seed + 100), seed) for one in ("first", how))
        assert is_same(first, first)
        assert not is_same(after, first)
