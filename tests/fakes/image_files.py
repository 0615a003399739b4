"""Image files made by hand, good, bad and hostile, and what reading one costs: by the rows of the acceptance list."""

import gzip
import io
import pickle
import random
import struct
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def encode(picture: Image.Image, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes = b"", checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(width: int, height: int, depth: int = 8, colour: int = 0, rows: bytes = b"", before: bytes = b"") -> bytes:
    """A PNG of these header fields; `rows` are the unpacked ones, each led by its filter type."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")


def with_chunk(data: bytes, *chunks: bytes) -> bytes:
    return data[:33] + b"".join(chunks) + data[33:]


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_segment(data: bytes, *segments: bytes) -> bytes:
    return data[:2] + b"".join(segments) + data[2:]


def with_exif(data: bytes, tiff: bytes) -> bytes:
    """`data` (JPEG, PNG or WebP) with `tiff` as its EXIF block, whatever that holds."""
    if data.startswith(b"\xff\xd8"):
        return with_segment(data, segment(0xE1, b"Exif\0\0" + tiff))
    if data.startswith(b"\x89PNG"):
        return with_chunk(data, chunk(b"eXIf", tiff))
    with Image.open(io.BytesIO(data)) as picture:
        return encode(picture, "WEBP", lossless=True, exact=True, exif=tiff)


def orientation(value: int, order: str = "<", kind: int = 3) -> bytes:
    """A TIFF block of three tags, the orientation second, as a short (3) or a long (4)."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    number = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
    make, resolution = struct.pack(order + "HHI4s", 0x010F, 2, 4, b"abc\0"), struct.pack(order + "HHII", 0x128, 3, 1, 2)
    entry = struct.pack(order + "HHI", 0x0112, kind, 1) + number
    return mark + struct.pack(order + "IH", 8, 3) + make + entry + resolution + struct.pack(order + "I", 0)


_XMP = b'<?xpacket begin=""?><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/"%s</rdf:Description>'


def noted(data: bytes, how: str, value: int) -> bytes:
    """`data` (JPEG, PNG or WebP) with an orientation in XMP, or in the text chunk that ImageMagick writes."""
    xmp = (
        _XMP % (b"><tiff:Orientation>%d</tiff:Orientation>" if "element" in how else b' tiff:Orientation="%d">') % value
    )
    if "raw profile" in how:
        block = (b"Exif\0\0" + orientation(value)).hex()
        lines = "\n".join(block[at : at + 72] for at in range(0, len(block), 72))
        text, name = f"\nexif\n{len(block) // 2:8}\n{lines}\n".encode(), b"Raw profile type exif\0"
        packed = chunk(b"zTXt", name + b"\0" + zlib.compress(text))
        return with_chunk(data, packed if "packed" in how else chunk(b"tEXt", name + text))
    if data.startswith(b"\xff\xd8"):
        return with_segment(data, segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp))
    if data.startswith(b"\x89PNG"):
        content = b"\1\0\0\0" + zlib.compress(xmp) if "packed" in how else b"\0\0\0\0" + xmp
        return with_chunk(data, chunk(b"iTXt", b"XML:com.adobe.xmp\0" + content))
    with Image.open(io.BytesIO(data)) as picture:
        return encode(picture, "WEBP", lossless=True, exact=True, xmp=xmp)


ADOBE_RGB = {  # the colours of Adobe RGB (1998) under D50, as ICC.1:2001-04 writes them: X, Y and Z by 65,536
    b"rXYZ": (0.60974, 0.31111, 0.01947),
    b"gXYZ": (0.20528, 0.62567, 0.06087),
    b"bXYZ": (0.14919, 0.06322, 0.74457),
    b"wtpt": (0.96420, 1.00000, 0.82491),
}


def icc_profile(colours: dict[bytes, tuple[float, ...]], gamma: float, space: bytes = b"RGB ") -> bytes:
    """An ICC profile of version 2: what mixes the colours, and one gamma for all channels."""
    numbers = {tag: struct.pack(">3i", *(round(value * 65536) for value in xyz)) for tag, xyz in colours.items()}
    curve = struct.pack(">4sIIHH", b"curv", 0, 1, round(gamma * 256), 0)
    tags = {tag: b"XYZ \0\0\0\0" + number for tag, number in numbers.items()}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC", b"kTRC"), curve)
    table, content, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for tag, value in tags.items():
        table += struct.pack(">4sII", tag, start + len(content), len(value))
        content += value
    head = struct.pack(">I4sI4s4s4s12s4s", start + len(content), b"", 0x02100000, b"mntr", space, b"XYZ ", b"", b"acsp")
    return head.ljust(68, b"\0") + numbers[b"wtpt"] + bytes(48) + table + content


def jpeg_header(width: int, height: int, frame: int = 0xC0, bits: int = 8, scans: int = 1) -> bytes:
    """A small JPEG whose header tells of a picture of these sides."""
    data = encode(Image.new("L", (8, 8)), "JPEG")
    at, scan = data.index(b"\xff\xc0"), data[data.index(b"\xff\xda") : -2]
    data = data[:at] + struct.pack(">BBHBHH", 0xFF, frame, 11, bits, height, width) + data[at + 9 :]
    return data[:-2] + scan * (scans - 1) + b"\xff\xd9"


def gif_header(width: int, height: int, frame: tuple[int, int], before: bytes = b"") -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return screen + before + b"," + struct.pack("<4HB", 0, 0, *frame, 0) + b"\x02\x02\x44\x01\0;"


def webp_header(width: int, height: int, kind: bytes = b"VP8X") -> bytes:
    """A WebP of one chunk that tells of these sides and holds nothing."""
    if kind == b"VP8X":
        content = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    elif kind == b"VP8L":
        content = b"\x2f" + struct.pack("<I", width - 1 | height - 1 << 14) + bytes(5)
    else:
        content = b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height)
    return b"RIFF" + struct.pack("<I", len(content) + 12) + b"WEBP" + kind + struct.pack("<I", len(content)) + content


def scene(width: int = 48, height: int = 36) -> Image.Image:
    """A smooth picture in which no turn or mirror image equals another."""
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    colours = np.stack([255 * across, 255 * down, 60 + 120 * across * down], axis=-1)
    return Image.fromarray(colours.astype(np.uint8))


SCENES = {  # one good file of each kind
    "jpeg": lambda: encode(scene(), "JPEG", quality=90),
    "jpeg-progressive": lambda: encode(scene(), "JPEG", quality=90, progressive=True),
    "jpeg-restarts": lambda: encode(scene(), "JPEG", quality=90, restart_marker_rows=1),
    "png": lambda: encode(scene(), "PNG"),
    "png-palette": lambda: encode(scene().quantize(16), "PNG"),
    "gif": lambda: encode(scene().quantize(16), "GIF"),
    "webp": lambda: encode(scene(), "WEBP", quality=90),
    "webp-lossless": lambda: encode(scene(), "WEBP", lossless=True),
}


def raw_file(preview: bytes, orientation: int = 1) -> bytes:
    """A camera's raw file as Nikon writes it: a directory of a thumbnail, and one below it that holds the preview."""

    def directory(*entries: tuple[int, int, int]) -> bytes:
        rows = (struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", value) for tag, kind, value in entries)
        return struct.pack("<H", len(entries)) + b"".join(rows) + bytes(4)

    thumbnail = (254, 4, 1), (256, 4, 16), (257, 4, 12), (258, 3, 8), (259, 3, 1), (262, 3, 2), (274, 3, orientation)
    first = directory(*thumbnail, (330, 4, 8 + 2 + 8 * 12 + 4))
    below = (254, 4, 1), (259, 3, 6), (513, 4, 300), (514, 4, len(preview))
    return (b"II*\0" + struct.pack("<I", 8) + first + directory(*below)).ljust(300, b"\0") + preview


class Cost:
    """Processor time, which other work on the machine does not add to, and growth of this process's peak memory."""

    def __enter__(self):
        self._baseline = self._peak_mb(reset=True)
        self._start = time.process_time()
        return self

    def __exit__(self, *_):
        self.seconds = time.process_time() - self._start
        self.megabytes = self._peak_mb() - self._baseline

    @staticmethod
    def _peak_mb(reset: bool = False) -> float:
        if not Path("/proc/self/clear_refs").exists():
            return 0.0  # not Linux: time alone is held
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024


def word_document() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("word/document.xml", "<w:document/>")
    return file.getvalue()


NOT_IMAGES = {
    "empty": (b"", "0 bytes"),
    "one-byte": (b"\xff", "1 bytes"),
    "text": (b"hello", "5 bytes"),
    "html": (b"<!doctype html><p>404", "SVG, XML or HTML"),
    "noise": (random.Random(0).randbytes(5000), "5,000 bytes"),
    "pickle": (pickle.dumps({"image": 1}), "unknown kind"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "unknown kind"),
    "word": (word_document(), "unknown kind"),
    "gzip": (gzip.compress(b"hello"), "unknown kind"),
}

HUGE = {  # beyond every limit of Pillow's
    "png-1-bit": lambda: png(50_000, 50_000, depth=1),
    "gif": lambda: gif_header(65535, 65535, (65535, 65535)),
    "jpeg": lambda: jpeg_header(65535, 65535),
    "webp": lambda: webp_header(16383, 16383, b"VP8L"),
    "webp-extended": lambda: webp_header(1 << 24, 1 << 24),
}

POLITE = {  # where Pillow would only warn, or not even that
    "png": lambda: png(8000, 8000, colour=2),
    "png-over-the-limit": lambda: png(8001, 5000),
    "gif-frame-beyond-screen": lambda: gif_header(10, 10, (13_000, 13_000), before=b"!\xf9\x04\x08\0\0\0\0"),
    "gif-offset-frame": lambda: gif_header(9000, 9000, (1, 1)),
    "jpeg": lambda: jpeg_header(8001, 8000),
    "jpeg-progressive": lambda: jpeg_header(7000, 7000, frame=0xC2, scans=2),
    "jpeg-thin": lambda: jpeg_header(65_500, 900),
    "webp": lambda: webp_header(5000, 5000, b"VP8 "),
    "webp-lossless": lambda: webp_header(4001, 4000, b"VP8L"),
    "webp-extended": lambda: webp_header(4001, 4000),
}

METADATA_BOMBS = {
    "png-ztxt": ("png", lambda data: with_chunk(data, chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(64 << 20), 1)))),
    "png-itxt": (
        "png",
        lambda data: with_chunk(data, chunk(b"iTXt", b"key\0\1\0\0\0" + zlib.compress(bytes(64 << 20), 1))),
    ),
    "png-iccp": ("png", lambda data: with_chunk(data, chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(64 << 20), 1)))),
    "png-text": ("png", lambda data: with_chunk(data, *[chunk(b"tEXt", b"key\0" + bytes(1 << 20))] * 8)),
    "jpeg-icc": (
        "jpeg",
        lambda data: with_segment(
            data, *[segment(0xE2, b"ICC_PROFILE\0" + bytes([n, 255]) + bytes(65_000)) for n in range(1, 256)]
        ),
    ),
    "jpeg-exif": (
        "jpeg",
        lambda data: with_segment(data, *[segment(0xE1, b"Exif\0\0" + b"II*\0\x08\0\0\0\xff\xff" * 6000)] * 99),
    ),
    "gif-comment": ("gif", lambda data: data[:61] + b"!\xfe" + (b"\xff" + bytes(255)) * 8000 + b"\0" + data[61:]),
}

MANY_PARTS = {  # each makes Pillow's own header reading take seconds or hundreds of MB
    "png-chunks": lambda: with_chunk(SCENES["png"](), chunk(b"abCd") * 1_000_000),
    "jpeg-comments": lambda: with_segment(SCENES["jpeg"](), b"\xff\xfe\0\2" * 3_000_000),
    "jpeg-tables": lambda: with_segment(SCENES["jpeg"](), segment(0xDB, bytes(65)) * 150_000),
    "jpeg-junk": lambda: with_segment(SCENES["jpeg"](), segment(0xFE, b"") + bytes(12_000_000)).partition(b"\xff\xda")[
        0
    ],
    "gif-blocks": lambda: gif_header(8, 8, (8, 8), before=b"!\xfe" + b"\1a" * 6_000_000 + b"\0"),
    "gif-extensions": lambda: gif_header(8, 8, (8, 8), before=b"!\xfe\0" * 4_000_000),
}

ROW = b"\0\x80"  # of a grey PNG one pixel wide: filter type 0, level 128

BAD_PNGS = {
    "header-checksum": lambda: png(1, 1, rows=ROW).replace(
        struct.pack(">I", zlib.crc32(png(1, 1)[12:29])), b"\0\0\0\0"
    ),
    "palette-checksum": lambda: png(1, 1, colour=3, rows=b"\0\0", before=chunk(b"PLTE", b"abc", checksum=1)),
    "depth-3": lambda: png(1, 1, depth=3, rows=ROW),
    "depth-0": lambda: png(1, 1, depth=0, rows=ROW),
    "colour-1": lambda: png(1, 1, colour=1, rows=ROW),
    "colour-9": lambda: png(1, 1, colour=9, rows=ROW),
    "no-width": lambda: png(0, 1, rows=ROW),
    "no-height": lambda: png(1, 0, rows=ROW),
    "no-pixels": lambda: png(1, 1, rows=ROW).replace(chunk(b"IDAT", zlib.compress(ROW)), b""),
    "no-zlib": lambda: png(1, 1).replace(chunk(b"IDAT", zlib.compress(b"")), chunk(b"IDAT", b"no zlib data")),
    "wrong-length": lambda: with_chunk(png(1, 1, rows=ROW), b"\xff\xff\xff\xfftEXt"),
    "no-header": lambda: b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", zlib.compress(ROW)) + chunk(b"IEND"),
    "line-ends-changed": lambda: png(1, 1, rows=ROW).replace(b"\r\n", b"\n"),
}


def frames(count: int = 3) -> list[Image.Image]:
    """Pictures of few colours, the first one in 16 of them so that GIF holds it exactly."""
    first = scene().quantize(16).convert("RGB")
    return [first, *(Image.new("RGB", first.size, (80 * n % 256, 255 - n % 256, 9)) for n in range(1, count))]


def repeat_gif_frame(data: bytes, count: int) -> bytes:
    """The same first frame, then `count` - 1 of one pixel, then a frame that is a bomb."""
    tiny = b"," + struct.pack("<4HB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    bomb = b"," + struct.pack("<4HB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x44\x01\0"
    return data[:-1] + tiny * (count - 1) + bomb + b";"


LEVELS = np.linspace(0, 255, 48 * 36).reshape(36, 48).astype(np.uint8)

UPRIGHT_OF = {  # EXIF 2.3, table 6: how the stored rows must be turned to stand upright
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored[::-1].swapaxes(0, 1),  # a quarter clockwise
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored.swapaxes(0, 1)[::-1],  # a quarter anticlockwise
}

BROKEN_EXIF = {
    "empty": b"",
    "one-byte": b"I",
    "text": b"no TIFF at all",
    "header-only": b"II*\0\x08\0\0\0",
    "offset-beyond": b"II*\0\xff\xff\xff\xff",
    "offset-to-itself": b"II*\0\0\0\0\0",
    "cut-short": orientation(6)[:30],
    "count-too-high": b"II*\0\x08\0\0\0\xff\xff" + bytes(60),
    "orientation-0": orientation(0),
    "orientation-9": orientation(9),
    "orientation-65535": orientation(65535, ">"),
    "empty-resolution": b"II*\0\x08\0\0\0\x02\0" + struct.pack("<HHIIHHII", 0x11A, 5, 0, 0, 0x128, 3, 1, 2) + bytes(4),
    "text-resolution": b"II*\0\x08\0\0\0\x02\0" + struct.pack("<HHIIHHII", 0x11A, 2, 0, 0, 0x128, 3, 1, 2) + bytes(4),
    "values-beyond": b"II*\0\x08\0\0\0\x80\0"
    + b"".join(struct.pack("<HHII", tag, 2, 1 << 30, 1 << 30) for tag in range(128)),
    "zeros": bytes(60_000),
}

FOREIGN = {
    "e21-svg": (b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>', "SVG"),
    "e21-pdf": (b"%PDF-1.7\n1 0 obj", "unknown kind"),
    "e21-eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run showpage", "unknown kind"),
    "e21-psd": (b"8BPS\0\1" + bytes(40), "unknown kind"),
    "e08-blp": (b"BLP2\1\0\0\0" + bytes(300), "unknown kind"),
}
