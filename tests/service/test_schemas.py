"""Section D of the acceptance list: base64, on both routes. The case id leads each test's name."""

import base64

import pytest

from lcm.service.schemas import TooLargeError, decode_image
from tests.fakes.service_client import GOOD, ROUTES, body_for, png, text_of

LIMIT = 1 << 20
# 63 bytes whose base64 has + and / in it and no padding; with one and two bytes more it has "==" and "=".


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
