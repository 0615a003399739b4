"""Cards of photos: every text escaped, every picture inside, nothing from outside."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from lcm.evaluation.gallery import (
    TAGS_SHOWN,
    CaptionLine,
    PhotoCard,
    described,
    evenly,
    photo_cards,
    section,
    thumbnail,
)
from tests.fakes.html_reader import EVIL, Reader


def picture_bytes(colour="red", size=(60, 40)) -> bytes:
    with io.BytesIO() as buffer:
        Image.new("RGB", size, colour).save(buffer, "PNG")
        return buffer.getvalue()


def photo_of(*captions: str, tags=(("dog", 0.75), ("grass", 0.25)), **picture) -> PhotoCard:
    return described(picture_bytes(**picture), captions, tags)


def shown(image: dict) -> Image.Image:
    kind, _, data = image["src"].partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))


def test_a_page_shows_each_photo_with_its_captions_and_tags():
    tags = [("cat", 1.0), *[("grass", 0.0)] * TAGS_SHOWN]  # one more than is shown
    photos = [photo_of("a dog", "a dog on grass", "two dogs"), photo_of("a cat", tags=tags, colour="blue")]
    page = Reader(photo_cards(photos))
    assert page.text_of("p") == ["a dog", "a cat"]
    assert page.text_of("li") == ["a dog on grass", "two dogs"]
    assert page.text_of("span")[:6] == ["dog", "0.75", "grass", "0.25", "cat", "1.00"]
    assert len(page.text_of("span")) == 2 * (2 + TAGS_SHOWN)
    assert page.all("li")[0] == {"style": "--share: 75.0%"}
    assert [image["alt"] for image in page.all("img")] == ["a dog", "a cat"]
    assert [np.argmax(shown(image).getpixel((30, 20))) for image in page.all("img")] == [0, 2]
    assert len(page.all("details")) == 1  # the second has no other captions


def test_texts_cannot_become_markup():
    def card(text):
        lines = [CaptionLine(text, f"{text}, CIDEr 1.00", True), CaptionLine(f"other {text}")]
        return PhotoCard(picture_bytes(), lines, [(text, 0.5)], [f"more {text}"], [f"people {text}"])

    page, plain = Reader(photo_cards([card(EVIL)])), Reader(photo_cards([card("x")]))
    assert [name for name, _ in page.elements] == [name for name, _ in plain.elements]
    assert [set(attributes) for _, attributes in page.elements] == [set(attributes) for _, attributes in plain.elements]
    assert page.all("script") == []
    assert page.all("img")[0]["alt"] == EVIL  # shown as it is, in text and attribute
    assert page.text_of("p") == [EVIL, f"other {EVIL}"]
    assert page.text_of("small") == [f"{EVIL}, CIDEr 1.00"]
    assert page.text_of("li") == [f"more {EVIL}", f"people {EVIL}"]
    assert page.text_of("span") == [EVIL, "0.50"]
    assert [line.get("class") for line in page.all("p")] == ["best", None]


def test_the_page_asks_for_nothing_from_outside():
    page = photo_cards([photo_of("a dog", "a cat")])
    without_pictures = page.replace(Reader(page).all("img")[0]["src"], "")
    for sign in ("http", "//", "url(", "@import", "<link", "<script", "<iframe", "href", "srcset"):
        assert sign not in without_pictures, sign


@pytest.mark.parametrize("captions", [(), ("",)])
def test_a_photo_without_caption_is_shown_and_named(captions):
    page = Reader(photo_cards([described(picture_bytes(), captions, ())]))
    assert [image["alt"] for image in page.all("img")] == ["photo without a caption"]
    assert page.text_of("p") == ["(no caption)"]
    assert page.all("details") == page.all("li") == []


def test_where_a_photo_was_taken_is_not_shown(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "in my garden"
    Image.new("RGB", (60, 40)).save(tmp_path / "photo.jpg", exif=exif, comment=b"my garden")
    assert b"my garden" in (tmp_path / "photo.jpg").read_bytes()
    (image,) = Reader(photo_cards([described(tmp_path / "photo.jpg", ["x"], ())])).all("img")
    assert b"my garden" not in base64.b64decode(image["src"].partition(",")[2])


def test_a_card_says_how_sure_its_caption_is():
    page = Reader(photo_cards([described(picture_bytes(), ["a dog", "two dogs"], (), 0.8349), photo_of("a cat")]))
    assert page.text_of("small") == ["83 % sure"]


@pytest.mark.parametrize(("size", "small"), [((60, 40), (60, 40)), ((500, 1000), (240, 480))])
def test_thumbnails_are_small_and_keep_their_shape(size, small, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(picture_bytes(size=size))
    for source in (path, str(path), path.read_bytes()):
        picture = Image.open(io.BytesIO(base64.b64decode(thumbnail(source))))
        assert (picture.format, picture.size) == ("JPEG", small)


@pytest.mark.parametrize(("count", "of", "places"), [(3, 10, [0, 3, 6]), (5, 3, [0, 1, 2]), (0, 5, []), (3, 0, [])])
def test_places_are_evenly_spaced(count, of, places):
    assert evenly(count, of) == places


def test_what_has_nothing_to_show_is_left_out():
    assert photo_cards([]) == ""
    assert section("Photos", "Some.", "") == ""
    assert section("A & B", "Some.", "<b>x</b>") == "<h2>A &amp; B</h2><p>Some.</p><b>x</b>"
