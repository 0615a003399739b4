"""A data set of one's own, begun, is one that lcm reads."""

import pytest
from PIL import Image

from lcm.data.dataset import CAPTIONS, begin_data_set, read_dataset
from lcm.errors import BadImageError, DataError


@pytest.fixture
def photos(tmp_path):
    paths = [tmp_path / name for name in ("a.png", "b c.png")]
    for path, colour in zip(paths, ("red", "blue"), strict=True):
        Image.new("RGB", (20, 10), colour).save(path)
    return paths


def test_it_can_be_read_and_begun_again(photos, tmp_path):
    folder = tmp_path / "own"
    begin_data_set(folder, {photos[0]: "an old text", photos[1]: "a blue\n\tone"})
    assert begin_data_set(folder, {photos[0]: "a red one", photos[1]: "a blue\n\tone"}) == folder
    found = {image.image_id: image.captions for image in read_dataset(folder).images}
    assert found == {"a.png": ("a red one",), "b c.png": ("a blue one",)}


def test_images_that_are_there_already_stay(photos, tmp_path):
    before = photos[0].read_bytes()
    begin_data_set(tmp_path, {photos[0]: "a red one"})
    assert photos[0].read_bytes() == before


def test_what_cannot_be_a_data_set_is_told(photos, tmp_path):
    (tmp_path / "no.png").write_bytes(b"no image")
    (tmp_path / "sub").mkdir()
    photos[0].rename(same := tmp_path / "sub" / "b c.png")
    for captions, error, words in (
        ({photos[1]: " "}, DataError, "b c.png has no caption"),
        ({photos[1]: "one", same: "two"}, DataError, "two images are called b c.png"),
        ({tmp_path / "no.png": "no"}, BadImageError, "no.png"),
    ):
        with pytest.raises(error, match=words):
            begin_data_set(tmp_path / "own", captions)
    assert not (tmp_path / "own").exists()


def test_captions_of_other_images_are_never_written_over(photos, tmp_path):
    folder = begin_data_set(tmp_path / "own", {photos[0]: "a red one"})
    with pytest.raises(DataError, match="has captions of 1 other images"):
        begin_data_set(folder, {photos[1]: "a blue one"})
    assert (folder / CAPTIONS).read_text() == "a.png\ta red one\n"
