"""Requests that the service refuses, by rows of sections C, D, E and F of the acceptance list."""

import base64
import io
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image

TOKEN = "correct-horse-battery-staple"
CAPTION, LEARN = ("/caption", "/learning-model")
JSON = {"Content-Type": "application/json"}
MISSING = object()  # as a field's value: the field is left out


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int = 1, height: int = 1, depth: int = 8, colour: int = 0, pixels: bytes = b"\0\x80") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(pixels, 0)) + chunk(b"IEND")


def jpeg(width: int = 8, height: int = 8, frame: int = 0xC0, bits: int = 8) -> bytes:
    Image.new("L", (8, 8)).save(file := io.BytesIO(), "JPEG")
    start, _, rest = file.getvalue().partition(b"\xff\xc0")
    return start + struct.pack(">BBHBHH", 0xFF, frame, 11, bits, height, width) + rest[7:]


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


GOOD, SIGNS = text(png()), text(b"\xfb\xff\xbf" * 20)  # the second is +/+/…
GIF = b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\2\2\x44\1\0;"  # 65,535 x 65,535
WEBP = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xa0\x0f\0\x9f\x0f\0"  # 4,001 x 4,000
BODIES = {  # sent to both routes as they are
    "C01": [b'{"image":', b'{"image": "a",}', b"{'image': 'a'}"],
    "C02": [b"", b" "],
    "C05": [b"[]", b'"x"', b"1", b"null", b"true"],
    "C06": [b"{}"],
    "C09": [f'{{"image": "{GOOD}", "caption": "a", "fileType": "", "image": "b@d!"}}'.encode()],
    "C10": [b'{"image": NaN}', b'{"image": "", "x": -Infinity}'],
    "C11": [b"[" * 100_000, b'{"x":[' + b"[]," * 1_500_000 + b"0]}"],
    "C12": [b'{"image": ' + b"9" * 5000 + b"}"],
    "C13": ['{"image": ""}'.encode("utf-16"), b"\xef\xbb\xbf{}", b'{"image": "\xff"}'],
    "C15": [b" " * ((32 << 20) + 1)],
}
HEADERS = {  # sent to both routes with a good body
    "C03": [{"Content-Type": kind} for kind in ("text/plain", "", "application/x-www-form-urlencoded")],
    "C04": [{"Content-Type": f"application/{kind}"} for kind in ("vnd.x+json", "json; charset=latin-1")],
    "C19": [JSON | {"Content-Encoding": "gzip"}],
}
IMAGES = {  # the field image, on both routes; bytes are sent in base64
    "C07": [None, 1, 1.5, True, [], {}, ""],
    "D01": [f"data:image/png,{GOOD}", f"data:image/png;utf8,{GOOD}", "data:image/png;base64,"],
    "D03": [GOOD[:8] + "\f" + GOOD[8:]],
    "D04": [GOOD + "====", GOOD[:4] + "=" + GOOD[4:], text(b"x").rstrip("=")],
    "D05": [GOOD[:21], GOOD[:40]],
    "D06": ["!!!@@@", GOOD[:8] + "é" + GOOD[8:], GOOD[:8] + "\0" + GOOD[8:]],
    "D07": [" \n\t", "===="],
    "D08": [png().hex(), text(GOOD.encode()), SIGNS.replace("+", "%2B")],
    "D09": ["http://169.254.169.254/latest/meta-data/", "file:///etc/passwd", "C:\\x.jpg"],
    "D10": [bytes((20 << 20) + 1)],
    "E01": [b"\xff", b"hello", b"<!doctype html>", b"\x80\x04\x95" + bytes(9), b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"],
    "E02": [png()[:40], jpeg()[:-9], WEBP[:20]],
    "E03": [png(50_000, 50_000, depth=1), jpeg(65_535, 65_535), GIF],
    "E04": [png(8000, 8000, colour=2), jpeg(8001, 8000), WEBP],
    "E05": [png(201, 1), png(1, 60_000)],
    "E06": [png()[:33] + chunk(b"abCd") * 100_000 + png()[33:]],
    "E07": [png(depth=3), png(colour=9), png(0, 1), png(pixels=b""), png()[:30] + b"abc" + png()[33:]],
    "E08": [b"BLP2\1\0\0\0" + bytes(300)],
    "E20": [jpeg(frame=0xC3), jpeg(frame=0xC9), jpeg(frame=0xC1, bits=12)],
    "E21": [b'<?xml version="1.0"?><svg/>', b"%PDF-1.7", b"%!PS-Adobe-3.0", b"8BPS\0\1", b"\0\0\0\x18ftypheic"],
    "E22": [b"\0\0\0\x20ftypavif\0\0\0\0avif", b"II*\0\x08\0\0\0" + bytes(9), b"BM" + bytes(60)],
    "F08": ["\ud800"],
}
FIELDS = [  # (row, route, field, its values)
    *(("C06", CAPTION, name, [MISSING]) for name in ("image", "caption", "fileType")),
    *(("C07", CAPTION, name, [None, 1, []]) for name in ("caption", "fileType", "language")),
    ("C07", CAPTION, "language", ["", "english", "../.."]),
    ("C07", LEARN, "samples", [None, -1, 11, 1.0, True, "5"]),
    ("C07", LEARN, "labels", [None, "dog", [], [1], ["dog", "  "], ["a" * 101], ["dog"] * 1001, ["a\0b"], ["\ud800"]]),
    ("C07", LEARN, "scores", [None, 1, "odds"]),
    ("C07", LEARN, "style", [None, "long"]),
    ("C07", LEARN, "min_score", [None, True, "0.5", -0.1, 1.1, 0.5]),
    ("F04", CAPTION, "caption", ["", " ", "\n\t", "\u200b", "\0", "\x1b\x7f", "\u202e", "...", "\u0301"]),
    ("F05", CAPTION, "caption", ["c" * 1001, "e f " * (1 << 18)]),
    *(("F08", CAPTION, name, ["a dog \ud83d"]) for name in ("caption", "fileType", "language")),
]


def encoded(route: str, **changes: Any) -> bytes:
    sent = {"image": GOOD} | ({"caption": "a red square", "fileType": "png"} if route == CAPTION else {}) | changes
    return json.dumps({key: one for key, one in sent.items() if one is not MISSING}, default=text).encode()


def requests() -> Iterator[tuple[str, str, str, bytes, dict[str, str]]]:
    """Yield (row, method, path, body, headers) of each refused request; those of row C24 need a service with TOKEN."""
    for route in (CAPTION, LEARN):
        yield from ((row, "POST", route, body, JSON) for row, bodies in BODIES.items() for body in bodies)
        yield from ((row, "POST", route, encoded(route), one) for row, several in HEADERS.items() for one in several)
        images = [(row, one) for row, several in IMAGES.items() for one in several]
        yield from ((row, "POST", route, encoded(route, image=one), JSON) for row, one in images)
        yield from (("C20", method, route, b"", {}) for method in ("GET", "PUT", "DELETE"))
    for row, route, name, values in FIELDS:
        yield from ((row, "POST", route, encoded(route, **{name: value}), JSON) for value in values)
    yield from (("C21", "GET", path, b"", {}) for path in ("/nowhere", "/caption/", "/..%2fetc/passwd"))
    bad = [JSON | {"Authorization": token} for token in ("", "Bearer x", TOKEN)]
    yield from (("C24", "POST", CAPTION, encoded(CAPTION), headers) for headers in bad)
