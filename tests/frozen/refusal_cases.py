"""Requests that the service refuses, after sections C, D, E and F of the acceptance list; each name begins with its row.

A case is (method, path, body, headers). Files are made here, so that nothing but the service decides on the answer.
"""

import base64
import io
import json
import struct
import zlib
from typing import Any

from PIL import Image

Case = tuple[str, str, bytes, dict[str, str]]
TOKEN = "correct-horse-battery-staple"
CAPTION, LEARN = ROUTES = ("/caption", "/learning-model")
JSON = {"Content-Type": "application/json"}
MISSING = object()  # as a field's value: the field is left out


def chunk(kind: bytes, content: bytes = b"", checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(width: int = 1, height: int = 1, depth: int = 8, colour: int = 0, pixels: bytes = b"\0\x80") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND")


def picture(file_format: str) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((48, 36)).save(file, file_format)
    return file.getvalue()


def jpeg(width: int = 8, height: int = 8, frame: int = 0xC0, bits: int = 8) -> bytes:
    data = picture("JPEG")
    at = data.index(b"\xff\xc0")
    return data[:at] + struct.pack(">BBHBHH", 0xFF, frame, 11, bits, height, width) + data[at + 9 :]


def gif(width: int, height: int) -> bytes:
    screen = struct.pack("<HHBBB4x", width, height, 0x80, 0, 0)
    return b"GIF89a" + screen + b"\0\0," + struct.pack("<4HB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\0;"


def webp(width: int, height: int) -> bytes:
    content = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(content) + 12) + b"WEBPVP8X" + struct.pack("<I", len(content)) + content


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


GOOD = text(png())
SIGNS = text(png() + b"\xfb\xff\xbf" * 20)  # holds + and /


def fields(route: str, **changes: Any) -> dict[str, Any]:
    good = {"image": GOOD, "caption": "a red square", "fileType": "png"} if route == CAPTION else {"image": GOOD}
    return {key: value for key, value in (good | changes).items() if value is not MISSING}


def encoded(route: str, **changes: Any) -> bytes:
    return json.dumps(fields(route, **changes)).encode()


BODIES = {  # sent to both routes as they are
    "C01 cut short": b'{"image":',
    "C01 comma": b'{"image": "a",}',
    "C01 quotes": b"{'image': 'a'}",
    "C02 empty": b"",
    "C02 blank": b" ",
    **{f"C05 {top}": top.encode() for top in ("[]", '"x"', "1", "null", "true")},
    "C06 no field": b"{}",
    **{f"C10 {value}": f'{{"image": "", "x": {value}}}'.encode() for value in ("NaN", "-Infinity")},
    "C11 deep": b"[" * 100_000,
    "C11 many": b'{"x":[' + b"[]," * 1_500_000 + b"0]}",
    "C12 digits": b'{"image": ' + b"9" * 5000 + b"}",
    "C13 utf-16": '{"image": ""}'.encode("utf-16"),
    "C13 byte order mark": b"\xef\xbb\xbf{}",
    "C13 not utf-8": b'{"image": "\xff"}',
    "C15 over the limit": b" " * ((32 << 20) + 1),
}
HEADERS = {  # sent to both routes with a good body
    "C03 text/plain": {"Content-Type": "text/plain"},
    "C03 none": {},
    "C03 form": {"Content-Type": "application/x-www-form-urlencoded"},
    "C03 multipart": {"Content-Type": "multipart/form-data; boundary=x"},
    "C04 vnd": {"Content-Type": "application/vnd.x+json"},
    "C04 charset": {"Content-Type": "application/json; charset=latin-1"},
    "C19 gzip": JSON | {"Content-Encoding": "gzip"},
}
IMAGES = {  # the field image, on both routes
    **{f"C07 image {value!r}": value for value in (None, 1, 1.5, True, [], {}, "")},
    "D01 no base64": f"data:image/png,{GOOD}",
    "D01 of text": f"data:text/html;base64,{GOOD}",
    "D01 alone": "data:image/png;base64,",
    "D02 mixed": SIGNS.replace("+", "-", 1),
    "D03 form feed": GOOD[:8] + "\f" + GOOD[8:],
    "D04 missing": text(b"xyzx").rstrip("="),
    "D04 extra": GOOD + "====",
    "D04 in the middle": GOOD[:4] + "=" + GOOD[4:],
    "D05 cut": GOOD[:21],
    "D05 cut at four": GOOD[:40],
    "D06 marks": "!!!@@@",
    "D06 beyond ASCII": GOOD[:8] + "é" + GOOD[8:],
    "D06 NUL": GOOD[:8] + "\0" + GOOD[8:],
    "D07 blanks": " \n\t",
    "D07 padding": "====",
    "D08 hex": png().hex(),
    "D08 twice": text(GOOD.encode()),
    "D08 percent": SIGNS.replace("+", "%2B"),
    "D09 http": "http://169.254.169.254/latest/meta-data/",
    "D09 file": "file:///etc/passwd",
    "D09 windows": "C:\\x.jpg",
    "D10 over the limit": text(png() + bytes((20 << 20) + 1 - len(png()))),
    "F08 half": "\ud800",
}
FILES = {  # the content of the field image, on both routes
    "E01 one byte": b"\xff",
    "E01 text": b"hello",
    "E01 html": b"<!doctype html><p>404",
    "E01 noise": bytes(range(7, 256, 3)) * 20,
    "E01 pickle": b"\x80\x04\x95\x0f\0\0\0\0\0\0\0}\x94\x8c\x05image\x94K\x01s.",
    "E01 hdf5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "E01 zip": b"PK\x03\x04" + bytes(100),
    "E01 gzip": b"\x1f\x8b\x08" + bytes(20),
    **{f"E02 {kind}": picture(kind)[: len(picture(kind)) // 2] for kind in ("JPEG", "PNG", "GIF", "WEBP")},
    "E03 png": png(50_000, 50_000, depth=1),
    "E03 jpeg": jpeg(65_535, 65_535),
    "E03 gif": gif(65_535, 65_535),
    "E03 webp": webp(1 << 24, 1 << 24),
    "E04 png": png(8000, 8000, colour=2),
    "E04 jpeg": jpeg(8001, 8000),
    "E04 progressive": jpeg(7000, 7000, frame=0xC2),
    "E04 gif": gif(8001, 5000),
    "E04 webp": webp(4001, 4000),
    "E05 wide": png(201, 1),
    "E05 high": png(1, 60_000),
    "E06 many parts": png()[:33] + chunk(b"abCd") * 100_000 + png()[33:],
    "E07 checksum": png().replace(struct.pack(">I", zlib.crc32(png()[12:29])), b"abcd"),
    "E07 depth": png(depth=3),
    "E07 colour": png(colour=9),
    "E07 no width": png(0, 1),
    "E07 no pixels": png(pixels=b""),
    "E07 length": png()[:33] + b"\xff\xff\xff\xfftEXt" + png()[33:],
    "E08 blp": b"BLP2\1\0\0\0" + bytes(300),
    **{f"E20 frame {frame:x}": jpeg(frame=frame) for frame in (0xC3, 0xC5, 0xC9, 0xCB)},
    "E20 12 bits": jpeg(frame=0xC1, bits=12),
    "E21 svg": b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
    "E21 pdf": b"%PDF-1.7\n1 0 obj",
    "E21 eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run showpage",
    "E21 psd": b"8BPS\0\1" + bytes(40),
    "E21 heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
    "E21 ico": b"\0\0\1\0\1\0" + bytes(40),
    "E22 avif": b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf" + bytes(100),
    "E22 looping tiff": b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 256, 3, 1, 9, 8),
    "E22 bmp": picture("BMP"),
}
LABELS = (None, "dog", 1, {}, [], [1], ["dog", None], ["dog", "  "], ["a" * 101], ["dog"] * 1001, ["a\0b"], ["\ud800"])
ONE_ROUTE = {  # (route, changed fields)
    **{f"C06 {key}": (CAPTION, {key: MISSING}) for key in ("image", "caption", "fileType")},
    **{
        f"C07 {key} {value!r}": (CAPTION, {key: value})
        for key in ("caption", "fileType", "language")
        for value in (None, 1, [])
    },
    **{f"C07 language {value!r}": (CAPTION, {"language": value}) for value in ("", "english", "../..", "a" * 999)},
    **{f"C07 samples {value!r}": (LEARN, {"samples": value}) for value in (None, -1, 11, 1.0, True, "5", [])},
    **{f"C07 labels {ascii(value)[:20]}": (LEARN, {"labels": value}) for value in LABELS},
    **{
        f"F01 {value!r:.40}": (CAPTION, {"fileType": value})
        for value in ("../../x", "..\\x", "png\0.sh", "a" * 10_000, "html", ".", "svg", "image/", "p ng", "🐕")
    },
    **{
        f"F04 {value!a}": (CAPTION, {"caption": value})
        for value in ("", " ", "\n\t", "\u200b", "\0", "\x1b\x7f", "\u202e", "...", "\u0301")
    },
    "F05 one more": (CAPTION, {"caption": "c" * 1001}),
    "F05 1 MB": (CAPTION, {"caption": "e f " * (1 << 18)}),
    **{f"F08 {key}": (CAPTION, {key: "a dog \ud83d"}) for key in ("caption", "fileType", "language")},
}


def all_cases() -> dict[str, Case]:
    """Return the cases of a service without a token."""
    cases: dict[str, Case] = {}
    for route in ROUTES:
        cases |= {f"{name} {route}": ("POST", route, body, JSON) for name, body in BODIES.items()}
        cases |= {f"{name} {route}": ("POST", route, encoded(route), headers) for name, headers in HEADERS.items()}
        images = IMAGES | {name: text(data) for name, data in FILES.items()}
        cases |= {f"{name} {route}": ("POST", route, encoded(route, image=one), JSON) for name, one in images.items()}
        twice = encoded(route)[:-1] + b', "image": "b@d!"}'
        cases[f"C09 the last counts {route}"] = ("POST", route, twice, JSON)
        cases |= {f"C20 {method} {route}": (method, route, b"", {}) for method in ("GET", "PUT", "DELETE")}
    cases |= {name: ("POST", route, encoded(route, **changes), JSON) for name, (route, changes) in ONE_ROUTE.items()}
    return cases | {f"C21 {path}": ("GET", path, b"", {}) for path in ("/nowhere", "/caption/", "/..%2fetc/passwd")}


def token_cases() -> dict[str, Case]:
    """Return the cases of a service that asks for TOKEN."""
    sent = {"none": "", "wrong": "Bearer wrong", "longer": f"Bearer {TOKEN}x", "basic": f"Basic {TOKEN}"}
    headers = {name: JSON | ({"Authorization": value} if value else {}) for name, value in sent.items()}
    return {f"C24 {name}": ("POST", CAPTION, encoded(CAPTION), value) for name, value in headers.items()}
