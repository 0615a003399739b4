"""Section D of the acceptance list: base64, on both routes. The case id leads each test's name."""

import base64

import pytest

from lcm.service.base64_images import decode_image
from lcm.service.refusals import BadRequestError, TooLargeError
from tests.acceptance.service_client import GOOD, ROUTES, body_for, caption_body, png, text_of

LIMIT = 1 << 20
# 63 bytes whose base64 has + and / in it and no padding; with one and two bytes more it has "==" and "=".
EXACT = bytes(range(193, 256))


def with_both_signs() -> bytes:
    """A good PNG whose base64 holds + and /, by junk after its end."""
    data = png() + b"\xfb\xff\xbf" * 20
    assert "+" in text_of(data)
    assert "/" in text_of(data)
    return data


def lines(text: str, ending: str) -> str:
    return ending.join(text[at : at + 76] for at in range(0, len(text), 76)) + ending


ACCEPTED = {
    "plain": lambda text: text,
    "d01-prefix": lambda text: f"data:image/png;base64,{text}",
    "d01-prefix-other-type": lambda text: f"data:image/svg+xml;base64,{text}",
    "d01-prefix-capitals": lambda text: f"DATA:IMAGE/PNG;BASE64,{text}",
    "d01-prefix-parameter": lambda text: f"data:image/jpeg;name=x.jpg;charset=utf-8;base64,{text}",
    "d01-prefix-after-blanks": lambda text: f" \r\n data:image/png;base64, {text}",
    "d02-url-safe": lambda text: text.replace("+", "-").replace("/", "_"),
    "d02-url-safe-prefix": lambda text: "data:image/png;base64," + text.replace("+", "-").replace("/", "_"),
    "d03-lines-76": lambda text: lines(text, "\n"),
    "d03-lines-crlf": lambda text: lines(text, "\r\n"),
    "d03-spaces": lambda text: " ".join(text),
    "d03-tabs": lambda text: "\t" + text[:9] + "\t" + text[9:] + "\t",
    "d03-trailing": lambda text: text + "\n\n",
    "d03-before-the-padding": lambda text: text.replace("=", "\n=\n"),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", ACCEPTED)
def test_d01_d02_d03_accepted(caller, route, name):
    """The bytes that arrive are those that were sent; the padding is that of each length."""
    for more in (b"", b"x", b"xy"):
        data = with_both_signs() + more
        caller.answers(route, body_for(route, image=ACCEPTED[name](text_of(data))))
        if route == "/caption":
            assert caller.store.rows[-1][0] == data


GOOD_SIGNS = text_of(with_both_signs())
REFUSED = {
    "d01-prefix-without-base64": f"data:image/png,{GOOD}",
    "d01-prefix-of-text": f"data:text/html;base64,{GOOD}",
    "d01-prefix-twice": f"data:image/png;base64,data:image/png;base64,{GOOD}",
    "d01-prefix-cut": f"image/png;base64,{GOOD}",
    "d01-prefix-alone": "data:image/png;base64,",
    "d01-prefix-at-the-end": f"{GOOD}data:image/png;base64,",
    "d02-mixed": GOOD_SIGNS.replace("+", "-", 1),
    "d02-mixed-other": GOOD_SIGNS.replace("/", "_", 1),
    "d03-form-feed": GOOD[:8] + "\f" + GOOD[8:],
    "d03-vertical-tab": GOOD[:8] + "\v" + GOOD[8:],
    "d03-no-break-space": GOOD[:8] + "\u00a0" + GOOD[8:],
    "d03-escaped-line-break": GOOD[:8] + "\\n" + GOOD[8:],
    "d04-extra-padding": text_of(png()) + "=",
    "d04-four-signs": text_of(png()) + "====",
    "d04-padding-in-the-middle": GOOD[:4] + "=" + GOOD[4:],
    "d04-padding-first": "=" + GOOD,
    "d04-two-texts": text_of(b"a") + text_of(b"bc"),
    "d06-marks": "!!!@@@",
    "d06-marks-inside": GOOD[:8] + "!" + GOOD[8:],
    "d06-beyond-ascii": GOOD[:8] + "é" + GOOD[8:],
    "d06-full-width": GOOD[:8] + "\uff21" + GOOD[8:],
    "d06-nul": GOOD[:8] + "\0" + GOOD[8:],
    "d06-surrogate": GOOD + "\ud800",
    "d06-comma": GOOD[:8] + "," + GOOD[8:],
    "d07-empty": "",
    "d07-blanks": " \n\t",
    "d07-padding": "====",
    "d07-one-padding": "=",
    "d08-hex": png().hex(),
    "d08-twice": text_of(GOOD.encode()),
    "d08-three-times": text_of(text_of(GOOD.encode()).encode()),
    "d08-base32": base64.b32encode(png()).decode(),
    "d08-base85": base64.b85encode(png()).decode(),
    "d08-percent": GOOD_SIGNS.replace("+", "%2B").replace("/", "%2F"),
    "d08-bytes-in-python": repr(GOOD.encode()),
    "d08-json": f'["{GOOD}"]',
    "d09-link-local": "http://169.254.169.254/latest/meta-data/",
    "d09-https": "https://example.com/photo.jpg",
    "d09-file": "file:///etc/passwd",
    "d09-path": "/etc/passwd",
    "d09-windows": "C:\\x.jpg",
    "d09-base64-path": "etc/passwd++",
    "d09-fsspec": "s3://bucket/photo.jpg",
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", REFUSED)
def test_d01_to_d09_refused(caller, route, name, monkeypatch):
    """Nothing is fetched and no file is read: sockets are out of order meanwhile (I9)."""
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection was asked for"))
    caller.refuses(route, body_for(route, image=REFUSED[name]))


@pytest.mark.parametrize("route", ROUTES)
def test_d04_missing_padding_is_refused(caller, route):
    """Documented: without it a text that was cut short looks whole."""
    for more in (b"", b"x", b"xy", b"xyz"):
        text = text_of(png() + more)
        if text.endswith("="):
            assert "cut short" in caller.refuses(route, body_for(route, image=text.rstrip("=")))


@pytest.mark.parametrize("route", ROUTES)
def test_d05_any_cut_is_refused(caller, route):
    for length in range(len(GOOD)):
        reply = caller.post(route, body_for(route, image=GOOD[:length]), follow_up=length % 40 == 0)
        assert reply.status_code == 400, length


def test_d05_every_cut_that_is_no_multiple_of_four():
    text = text_of(EXACT)
    for length in range(1, len(text)):
        if length % 4:
            with pytest.raises(BadRequestError, match="cut short"):
                decode_image(text[:length], LIMIT)


@pytest.mark.parametrize("route", ROUTES)
def test_d10_size_at_and_over_the_limit(service, route):
    caller = service(max_image_mb=1)
    data = png()
    for ending in (0, 1, 2):  # of each padding
        exact = data + bytes(LIMIT - ending - len(data))
        caller.answers(route, body_for(route, image=text_of(exact)))
    assert "1,048,576 bytes, the most accepted" in caller.refuses(
        route, body_for(route, image=text_of(data + bytes(LIMIT + 1 - len(data)))), 413
    )
    caller.refuses(route, body_for(route, image=lines(text_of(bytes(2 * LIMIT)), "\r\n")), 413)


def test_d10_the_size_is_told_exactly():
    for size in range(1, 20):
        text = text_of(bytes(size))
        assert decode_image(text, size) == bytes(size)
        with pytest.raises(TooLargeError):
            decode_image(text, size - 1)


def test_d02_python_would_have_dropped_what_is_not_its_alphabet():
    """Why the rule is strict: the standard library reads other bytes, without a word."""
    text = text_of(b"\xfb\xff\xbf" * 4 + b"abc").replace("+", "-").replace("/", "_")
    assert base64.b64decode(text) != decode_image(text, LIMIT) == b"\xfb\xff\xbf" * 4 + b"abc"


def test_d09_a_caption_that_is_an_address_is_only_text(caller):
    """F17: a URL in the caption is kept as it is."""
    caller.answers("/caption", caption_body(caption="see http://169.254.169.254/latest"))
    assert caller.store.rows[0][1] == "see http://169.254.169.254/latest"
