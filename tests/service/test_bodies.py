"""Sections D to F of the acceptance list over HTTP: what is taken, and what is kept of it. The case id leads each name.

What is refused is in test_http.py's table; how images are read and captions cleaned is tested in tests/data and
tests/contributions.
"""

import hashlib
import json
import unicodedata
from pathlib import Path

import pytest

from tests.fakes import image_files as files
from tests.fakes.naughty_texts import NAUGHTY
from tests.fakes.photo_files import TWINS
from tests.fakes.service_client import ROUTES, Caller, body_for, caption_body, png, question_body, text_of

JPEG, PNG = files.SCENES["jpeg"](), files.SCENES["png"]()
LIMIT = 1 << 20


def kept(caller: Caller, **changes):
    """Post a contribution, which must be taken, and return what the store has."""
    return caller.store.get(caller.answers("/caption", caption_body(**changes))["id"])


@pytest.mark.parametrize("route", ROUTES)
def test_c13_a_byte_order_mark_is_no_part_of_a_body(caller, route):
    caller.answers(route, b"\xef\xbb\xbf" + json.dumps(body_for(route)).encode())


def in_lines(text: str, ending: str) -> str:
    return ending.join(text[at : at + 76] for at in range(0, len(text), 76)) + ending


def url_safe(text: str) -> str:
    return text.replace("+", "-").replace("/", "_")


ACCEPTED = {
    "plain": str,
    "d01-prefix": lambda text: f"data:image/png;base64,{text}",
    "d01-prefix-other-type": lambda text: f"data:image/svg+xml;base64,{text}",
    "d01-prefix-any-type": lambda text: f"data:application/octet-stream;base64,{text}",
    "d01-prefix-wrong-type": lambda text: f"data:text/html;base64,{text}",
    "d01-prefix-no-type": lambda text: f"data:;base64,{text}",
    "d01-prefix-blanks": lambda text: f"data: image/jpg ; base64 , {text}",
    "d01-prefix-quoted-parameter": lambda text: f'data:image/jpeg;name="my photo, 2.jpg";base64,{text}',
    "d01-prefix-end-alone": lambda text: f"base64,{text}",
    "d01-prefix-capitals": lambda text: f"DATA:IMAGE/PNG;BASE64,{text}",
    "d01-prefix-parameter": lambda text: f"data:image/jpeg;name=x.jpg;charset=utf-8;base64,{text}",
    "d01-prefix-between-blanks": lambda text: f" \r\n data:image/png;base64, {text}",
    "d02-url-safe": url_safe,
    "d02-both-alphabets": lambda text: text.replace("+", "-", 1),
    "d02-url-safe-prefix": lambda text: "data:image/png;base64," + url_safe(text),
    "d03-lines-76": lambda text: in_lines(text, "\n"),
    "d03-lines-crlf": lambda text: in_lines(text, "\r\n"),
    "d03-spaces-and-tabs": "\t ".join,
    "d03-before-the-padding": lambda text: text.replace("=", "\n=\n"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_d01_d02_d03_the_bytes_that_were_sent_arrive(caller, name):
    """Their base64 has + and / in it, and the padding of each length."""
    for more in (b"", b"x", b"xy"):
        data = png() + b"\xfb\xff\xbf" * 20 + more
        assert {*"+/"} <= {*text_of(data)}
        image = ACCEPTED[name](text_of(data))
        assert caller.store.read_image(kept(caller, image=image, caption=f"more {len(more)}")) == data
        caller.answers("/learning-model", question_body(image=image), follow_up=False)


@pytest.mark.parametrize("route", ROUTES)
def test_d10_size_at_and_over_the_limit(service, route):
    caller = service(max_image_mb=1)
    for size in (LIMIT - 2, LIMIT - 1, LIMIT):  # of each padding
        caller.answers(route, body_for(route, image=text_of(png().ljust(size, b"\0"))))
    for image in (text_of(bytes(LIMIT + 1)), in_lines(text_of(bytes(2 * LIMIT)), "\r\n")):
        assert "1,048,576 bytes, the most accepted" in caller.refuses(route, body_for(route, image=image), 413)


def accepts(caller: Caller, data: bytes, kind: str) -> dict:
    """Both routes take the file; it is kept as it was sent under its hash and its true format."""
    row = kept(caller, image=text_of(data), caption=f"of {len(data)} bytes")
    assert (row.image_sha256, row.image_format) == (hashlib.sha256(data).hexdigest(), kind)
    assert caller.store.read_image(row) == data
    return caller.answers("/learning-model", question_body(image=text_of(data)))


@pytest.mark.parametrize("kind", [*files.SCENES, *TWINS])
def test_every_format_is_accepted(caller, kind):
    accepts(caller, TWINS[kind][0]() if kind in TWINS else files.SCENES[kind](), kind.split("-")[0])


def test_e17_gps_is_kept_private(caller, caplog):
    """The original is kept as it was sent, for the operator; nothing of it is answered or logged."""
    secret = b"GPSLatitude 52,31N"
    data = files.with_segment(JPEG, files.segment(0xFE, secret))
    assert secret.decode() not in str(accepts(caller, data, "jpeg"))
    assert secret.decode() not in caplog.text


def test_e25_same_bytes_same_answer(caller):
    body = question_body(image=text_of(JPEG))
    assert len({caller.post("/learning-model", body, follow_up=False).text for _ in range(20)}) == 1


def test_i11_no_temporary_files_and_no_open_files(caller, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    if not (opened := Path("/proc/self/fd")).is_dir():
        pytest.skip("open files cannot be counted here")
    before = len(list(opened.iterdir()))
    for data in (JPEG, b"no image", files.encode(files.scene(900, 700), "PNG", compress_level=0)):
        for route in ROUTES:
            caller.client.post(route, json=body_for(route, image=text_of(data)))
    assert list(temporary.iterdir()) == []
    assert len(list(opened.iterdir())) <= before


def test_c07_labels_at_their_limits(caller):
    caller.answers("/learning-model", question_body(labels=[f"{'a' * 96}{n:04}" for n in range(1000)]))
    body = caller.answers("/learning-model", question_body(labels=["red   square", "red square", "blue"]))
    assert [word for word, _ in body["tags"]] == ["red square", "blue"]


FILE_TYPES = (
    "png",
    "PNG",
    ".png",
    "image/png",
    "jpg",
    " png ",
    "",
    "webp",
    "html",
    "../../x",
    "png\0.sh",
    "a" * 9999,
    "🐕",
)


def test_f01_f02_f03_the_true_format_is_kept_whatever_the_file_type(caller):
    for file_type in FILE_TYPES:
        for data, true in ((JPEG, "jpeg"), (PNG, "png")):
            row = kept(caller, fileType=file_type, image=text_of(data), caption=f"as {file_type[:9]}")
            assert row.image_format == true


def test_f14_naughty_texts(caller):
    """In the caption, where most are taken and come back in one form, and in every other field."""
    assert len(set(NAUGHTY)) >= 200
    taken = 0
    for text in NAUGHTY:
        reply = caller.post("/caption", caption_body(caption=text), follow_up=False)
        assert reply.status_code in (200, 400), ascii(text)
        if reply.status_code == 200:
            row = caller.store.get(reply.json["id"])
            assert row.caption == unicodedata.normalize("NFC", row.caption) == " ".join(row.caption.split())
            assert not [sign for sign in row.caption if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")]
            taken += 1
        for name in ("image", "fileType", "language", "contributor"):
            assert caller.client.post("/caption", json=caption_body() | {name: text}).status_code in (200, 400)
        labels = caller.post("/learning-model", question_body(labels=[text, "red"]), follow_up=False)
        assert labels.status_code in (200, 400), ascii(text)
    assert taken > 150
