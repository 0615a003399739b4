"""Section F of the acceptance list: fileType and captions, with the real store. The case id leads each test's name.

What is kept of a caption is the store's rule (lcm/contributions/text.py); here it is what comes through HTTP.
"""

import logging
import unicodedata

import pytest

from tests.fakes.image_files import SCENES
from tests.fakes.naughty_texts import NAUGHTY
from tests.fakes.service_client import Caller, DiskStore, caption_body, png, text_of

JPEG, PNG = SCENES["jpeg"](), SCENES["png"]()


def kept(caller: Caller, **changes):
    """Post a contribution, which must be taken, and return what the store has."""
    return caller.store.get(caller.answers("/caption", caption_body(**changes))["id"])


@pytest.mark.parametrize(
    ("file_type", "data", "true"),
    [("png", JPEG, "jpeg"), ("jpeg", PNG, "png"), ("gif", JPEG, "jpeg"), ("webp", PNG, "png"), ("", PNG, "png")],
)
def test_f02_the_true_format_is_kept(on_disk, file_type, data, true):
    row = kept(on_disk, fileType=file_type, image=text_of(data))
    assert row.image_format == true
    assert on_disk.store.read_image(row) == data


@pytest.mark.parametrize(
    "file_type",
    [
        *("PNG", ".png", "image/png", "jpg", "jpeg", "JPG", ".JPEG", "image/jpeg", "image/jpg", "IMAGE/PNG", " png "),
        *("jpe", "gif", "webp", "image/webp", ".WebP", "image/.png"),
    ],
)
def test_f03_file_types_are_normalised(on_disk, file_type):
    kept(on_disk, fileType=file_type)


def test_f05_the_limit(on_disk, caplog):
    caplog.set_level(logging.DEBUG, "lcm.service")
    assert len(kept(on_disk, caption="a" * 1000).caption) == 1000
    assert len(kept(on_disk, caption="  " + "b" * 1000 + "  ").caption) == 1000
    for caption in ("c" * 1001, "d" * (1 << 20), "e f " * (1 << 18), "é" * 1001, "🐕" * 1001, "g," * (1 << 19)):
        reply = on_disk.post("/caption", caption_body(caption=caption))
        assert reply.status_code == 400
        assert len(reply.text) < 500
    assert "c" * 17 not in caplog.text, "a request's id, 16 digits, may hold some"
    assert max(map(len, caplog.text.split("\n"))) < 500


@pytest.mark.parametrize("blank", ["\n", "\r\n", "\t", "\u2028", "\u0085", "\v", "\f", "\u2029", " \n \n "], ids=ascii)
def test_f06_line_breaks_become_blanks(on_disk, blank):
    row = kept(on_disk, caption=f"a dog{blank}in snow")
    assert row.caption == "a dog in snow"


@pytest.mark.parametrize("sign", ["\0", "\x1b", "\x07", "\x7f", "\x9b", "\x08"], ids=ascii)
def test_f07_controls_are_taken_out(on_disk, sign):
    assert kept(on_disk, caption=f"a {sign}dog").caption == "a dog"


@pytest.mark.parametrize(
    "caption",
    [
        "🐕",
        "👩‍👩‍👧‍👦",
        "🏳️‍🌈",
        "كلب في الثلج",
        "כלב בשלג",
        "一只狗",
        "z" + "\u0301" * 1000,
        "e\u0301te\u0301",
        "été",
        "Å",
    ],
    ids=ascii,
)
def test_f09_every_script_comes_back_in_nfc(on_disk, caption):
    row = kept(on_disk, caption=caption)
    assert row.caption == unicodedata.normalize("NFC", caption)


def test_f09_nfc_and_nfd_are_one_caption(on_disk):
    first = on_disk.post("/caption", caption_body(caption="un élève"))
    again = on_disk.post("/caption", caption_body(caption=unicodedata.normalize("NFD", "un élève")))
    assert first.json == again.json
    assert (first.headers["X-LCM-Known"], again.headers["X-LCM-Known"]) == ("false", "true")


@pytest.mark.parametrize("sign", ["\u202e", "\u2066", "\u200b", "\u200f", "\U000e0041", "\u00ad", "\ufeff"], ids=ascii)
def test_f10_invisible_signs_are_taken_out(on_disk, sign, caplog):
    assert kept(on_disk, caption=f"a {sign}dog").caption == "a dog"
    assert sign not in caplog.text


LITERAL = [
    *("'); DROP TABLE contributions;--", '" OR 1=1', "{{7*7}}", "${jndi:ldap://x/a}", "%s%n", "$(id)", "`id`"),
    *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "=1+1", "+1", "-1", "@SUM(A1)", "::set-output::x"),
    *("${{ github.token }}", "::add-mask::x", "https://example.com/x", "file:///etc/passwd", "../../x"),
]


@pytest.mark.parametrize("caption", LITERAL)
def test_f11_f12_f13_f15_f17_kept_literally(on_disk, caption):
    assert kept(on_disk, caption=caption).caption == caption


def test_f14_naughty_texts(on_disk):
    assert len(set(NAUGHTY)) >= 200
    taken = 0
    for place, text in enumerate(NAUGHTY):
        reply = on_disk.post("/caption", caption_body(caption=text), follow_up=place % 50 == 0)
        assert reply.status_code in (200, 400), ascii(text)
        if reply.status_code == 200:
            row = on_disk.store.get(reply.json["id"])
            assert row.caption == unicodedata.normalize("NFC", row.caption) == " ".join(row.caption.split())
            assert not [sign for sign in row.caption if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")]
            again = on_disk.post("/caption", caption_body(caption=row.caption), follow_up=False)
            assert again.json == reply.json, "what was cleaned is known again"
            taken += 1
    assert taken > 150


def test_f14_naughty_texts_in_every_other_field(caller):
    for text in NAUGHTY:
        for name in ("image", "fileType", "language"):
            reply = caller.post("/caption", caption_body() | {name: text}, follow_up=False)
            assert reply.status_code in (200, 400), ascii(text)
        labels = caller.post("/learning-model", {"image": text_of(png()), "labels": [text, "red"]}, follow_up=False)
        assert labels.status_code in (200, 400), ascii(text)
        assert caller.post("/learning-model", {"image": text}, follow_up=False).status_code == 400


def test_f18_f19_duplicates(service, tmp_path):
    caller = service(store=DiskStore(tmp_path / "contributions"))
    first = caller.post("/caption", caption_body())
    again = caller.post("/caption", caption_body(caption="  a  red square\n", fileType="jpg"))
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json == again.json
    assert (first.headers["X-LCM-Known"], again.headers["X-LCM-Known"]) == ("false", "true")
    other_caption = caller.answers("/caption", caption_body(caption="red"))
    other_image = caller.answers("/caption", caption_body(image=text_of(png("blue"))))
    assert len({first.json["id"], other_caption["id"], other_image["id"]}) == 3
    assert len(list(caller.store.contributions())) == 3
