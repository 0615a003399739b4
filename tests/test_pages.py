"""Pages: every text escaped, every picture inside, nothing from outside."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from lcm.errors import BadImageError
from lcm.evaluation.gallery import SURE, TAGS_SHOWN, THUMBNAIL, PagePhoto, evenly, photo_cards, photo_page

VOID = {"meta", "img"}
EVIL = "</p></title><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


class Reader(HTMLParser):
    """What a browser makes of a page: elements with their attributes, and the texts in them; checks the nesting."""

    def __init__(self, page: str):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.open[-1] != "style":
            self.texts.append((self.open[-1], data))

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text_of(self, tag: str) -> list[str]:
        return [text for where, text in self.texts if where == tag]


def picture_bytes(colour="red", size=(60, 40)) -> bytes:
    with io.BytesIO() as buffer:
        Image.new("RGB", size, colour).save(buffer, "PNG")
        return buffer.getvalue()


def photo_of(*captions: str, tags=(("dog", 0.75), ("grass", 0.25)), **picture) -> PagePhoto:
    return PagePhoto(picture_bytes(**picture), captions, tags)


def shown(image: dict) -> Image.Image:
    kind, _, data = image["src"].partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))


def test_a_page_shows_each_photo_with_its_captions_and_tags():
    photos = [photo_of("a dog", "a dog on grass", "two dogs"), photo_of("a cat", tags=[("cat", 1.0)], colour="blue")]
    page = Reader(photo_page("Some photos", photos))
    assert page.text_of("title") == page.text_of("h1") == ["Some photos"]
    assert page.text_of("p") == ["a dog", "a cat"]
    assert page.text_of("li") == ["a dog on grass", "two dogs"]
    assert page.text_of("span") == ["dog", "0.75", "grass", "0.25", "cat", "1.00"]
    assert [item.get("style") for item in page.all("li")] == [
        *("--share: 75.0%", "--share: 25.0%", None, None),
        "--share: 100.0%",
    ]
    assert [image["alt"] for image in page.all("img")] == ["a dog", "a cat"]
    assert [np.argmax(shown(image).getpixel((30, 20))) for image in page.all("img")] == [0, 2]
    assert len(page.all("details")) == 1  # the second has no other captions


def test_cards_are_a_part_of_a_page():
    cards = photo_cards([photo_of("a dog")])
    assert Reader(cards).all("html") == Reader(cards).all("body") == []
    assert cards in photo_page("x", [photo_of("a dog")])


def test_texts_cannot_become_markup():
    photo = photo_of(EVIL, f"other {EVIL}", tags=[(EVIL, 0.5)])
    page = Reader(photo_page(EVIL, [photo]))
    plain = Reader(photo_page("x", [photo_of("x", "x", tags=[("x", 0.5)])]))
    assert [name for name, _ in page.elements] == [name for name, _ in plain.elements]
    assert [set(attributes) for _, attributes in page.elements] == [set(attributes) for _, attributes in plain.elements]
    assert page.all("script") == []
    assert page.all("img")[0]["alt"] == EVIL  # shown as it is, in text and attribute
    assert page.text_of("title") == page.text_of("h1") == page.text_of("p") == [EVIL]
    assert page.text_of("li") == [f"other {EVIL}"]
    assert page.text_of("span") == [EVIL, "0.50"]


def test_texts_of_every_script_are_shown():
    page = photo_page("写真", [photo_of("собака на траве", tags=[("犬", 1.0)])])
    reader = Reader(page.encode().decode())
    assert reader.all("meta")[0] == {"charset": "utf-8"}
    assert (reader.text_of("h1"), reader.text_of("p")) == (["写真"], ["собака на траве"])


def test_the_page_asks_for_nothing_from_outside():
    page = photo_page("x", [photo_of("a dog", "a cat")])
    without_pictures = page.replace(Reader(page).all("img")[0]["src"], "")
    for sign in ("http", "//", "url(", "@import", "<link", "<script", "<iframe", "href", "srcset"):
        assert sign not in without_pictures, sign


@pytest.mark.parametrize("captions", [(), ("",)])
def test_a_photo_without_caption_is_shown_and_named(captions):
    page = Reader(photo_page("x", [PagePhoto(picture_bytes(), captions, ())]))
    assert [image["alt"] for image in page.all("img")] == ["photo without a caption"]
    assert page.text_of("p") == page.text_of("span") == []
    assert page.all("details") == page.all("li") == []


def test_an_empty_page_is_a_page():
    page = Reader(photo_page("Nothing", []))
    assert page.text_of("h1") == ["Nothing"]
    assert page.all("figure") == []


def test_the_best_tags_are_shown_and_no_more():
    tags = [(f"word{place}", 0.1) for place in range(TAGS_SHOWN + 3)]
    page = Reader(photo_cards([photo_of("a dog", tags=tags)]))
    assert page.text_of("span")[::2] == [word for word, _ in tags[:TAGS_SHOWN]]


@pytest.mark.parametrize(
    ("size", "small"),
    [((60, 40), (60, 40)), ((1200, 600), (THUMBNAIL, THUMBNAIL // 2)), ((500, 1000), (THUMBNAIL // 2, THUMBNAIL))],
)
def test_pictures_are_small_and_keep_their_shape(size, small, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(picture_bytes(size=size))
    for source in (path, str(path), path.read_bytes()):
        (image,) = Reader(photo_cards([PagePhoto(source, ["x"], ())])).all("img")
        assert (shown(image).format, shown(image).size) == ("JPEG", small)


@pytest.mark.parametrize("size", [(240, 240), (320, 320), (480, 360), (1500, 1000)])
def test_a_page_of_fifty_photos_stays_small_however_much_they_show(size):
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    with io.BytesIO() as buffer:
        Image.fromarray(noise).save(buffer, "PNG")
        photo = PagePhoto(buffer.getvalue(), ["a caption"] * 6, [("word", 0.1)] * TAGS_SHOWN, 0.5)
    page = photo_page("x", [photo])
    assert 50 * len(page) < 3_000_000
    (image,) = Reader(page).all("img")
    assert min(shown(image).size) >= 160  # small, but there to be seen


def test_where_a_photo_was_taken_is_not_shown(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "in my garden"
    Image.new("RGB", (60, 40)).save(tmp_path / "photo.jpg", exif=exif, comment=b"my garden")
    assert b"my garden" in (tmp_path / "photo.jpg").read_bytes()
    (image,) = Reader(photo_cards([PagePhoto(tmp_path / "photo.jpg", ["x"], ())])).all("img")
    assert b"my garden" not in base64.b64decode(image["src"].partition(",")[2])


@pytest.mark.parametrize(
    ("confidence", "said"),
    [
        (0.8349, "83 %"),
        (0.5, "50 %"),
        (0.9951, "over 99 %"),
        (1.0, "over 99 %"),
        (0.9949, "99 %"),
        (0.006, "1 %"),
        (0.0049, "under 1 %"),
        (0.0, "under 1 %"),
    ],
)
def test_a_card_says_how_sure_its_caption_is_and_the_page_once_what_that_means(confidence, said):
    photos = [PagePhoto(picture_bytes(), ["a dog", "two dogs"], (), confidence), photo_of("a cat")]
    page = Reader(photo_page("x", [*photos, *photos]))
    assert page.text_of("small") == [SURE, *[f"{said} sure of every word"] * 2]
    assert page.text_of("p") == ["a dog", "a cat"] * 2


def test_without_confidences_nothing_is_said_of_them():
    assert Reader(photo_page("x", [photo_of("a cat")])).all("small") == []


def test_what_is_no_picture_is_refused():
    with pytest.raises(BadImageError):
        photo_page("x", [PagePhoto(b"no picture", ["x"], ())])


@pytest.mark.parametrize(
    ("count", "of", "places"),
    [(3, 10, [0, 3, 6]), (2, 4, [0, 2]), (5, 3, [0, 1, 2]), (1, 7, [0]), (0, 5, []), (3, 0, []), (4, 4, [0, 1, 2, 3])],
)
def test_places_are_evenly_spaced(count, of, places):
    assert evenly(count, of) == places
