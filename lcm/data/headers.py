"""Headers of image files: the format and the sides, told before a pixel is decoded.

Knows how JPEG, PNG, GIF and WebP files are laid out, and how large a picture each may hold. Refuses to know pixels;
decoding is images.py's.

Scanners walk the segments of a file and keep what Pillow needs, without metadata, which can then neither refuse a good
picture nor cost anything. Left to itself Pillow 13.0 takes 500 MB for a GIF comment of 12 MB, 2 s for 8 MB of JPEG
comments, 160 MB for a GIF of 42 bytes before any check, and warns once for each damaged EXIF tag.
"""

import re
import struct
from dataclasses import dataclass

from lcm.errors import BadImageError

FORMATS = {"jpeg": "JPEG", "png": "PNG", "gif": "GIF", "webp": "WebP"}  # what cameras write and browsers show
MAX_PIXELS = 40_000_000  # 160 MB as Pillow holds them, at four bytes each
MAX_JPEG_PIXELS = 64_000_000  # phones reach 50 million; an ordinary JPEG is decoded row by row at reduced size
MAX_WEBP_PIXELS = 16_000_000  # 240 MB: Pillow's WebP reader takes 15 bytes a pixel, even for a file of 38 bytes
MAX_SEGMENTS = 20_000  # of a file; libpng's chunks of 8 KB make 160 MB of them, a hostile file has millions
MAX_SCANS = 50  # of a JPEG; libjpeg's progressive files have 10, and one of 60 bytes costs 22 ms at MAX_PIXELS

_SIGNATURES = {  # those in capitals are refused; people do send them, so the message can name them
    "jpeg": rb"\xff\xd8\xff",  # MPO too: its first picture is an ordinary JPEG
    "png": rb"\x89PNG\r\n\x1a\n",
    "gif": rb"GIF8[79]a",
    "webp": rb"RIFF[\s\S]{4}WEBP",
    "HEIC or AVIF": rb"[\s\S]{4}ftyp",
    "TIFF": rb"II\*\0|MM\0\*",
    "BMP": rb"BM",
    "SVG, XML or HTML": rb"\s*<",
}
_JPEG_FRAMES = {*range(0xC0, 0xD0), 0xDE} - {0xC4, 0xC8, 0xCC}  # T.81 table B.1, the markers with a picture's sides
_JPEG_METADATA = {*range(0xE1, 0xF0), 0xFE} - {0xEE}  # APP0 (JFIF) and APP14 (Adobe) say how colours are stored
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # in a scan FF 00 and FF D0 to D7 are data; FF FF fills
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


@dataclass(frozen=True)
class Header:
    """What a file says of its picture, and the file without everything else."""

    sides: tuple[int, int]  # width and height in pixels as stored, before EXIF turns the picture
    stream: bytes  # what Pillow is given
    exif: bytes = b""  # the EXIF block, unread
    max_pixels: int = MAX_PIXELS  # how many this file may have


def image_format(data: bytes) -> str:
    """Return the key of FORMATS that `data` begins as, whatever its sender calls it; raises BadImageError for none."""
    name = next((name for name, signature in _SIGNATURES.items() if re.match(signature, data)), "unknown kind")
    if name in FORMATS:
        return name
    accepted = ", ".join(FORMATS.values())
    raise BadImageError(f"received {len(data):,} bytes ({name}); {accepted} are accepted: save it as one of these")


def scan(data: bytes, name: str) -> Header:
    """Return the header of a file in format `name`.

    Raises whatever a damaged file makes it trip over: ValueError, IndexError, AttributeError, struct.error.
    """
    return _SCANNERS[name](data)


def _scan_jpeg(data: bytes) -> Header:
    """Keep the tables and scans of the first picture, up to its end: after it comes an MPO's second one, or a film."""
    kept, at, exif, frame, scans = [b"\xff\xd8"], 2, b"", b"", 0
    for _ in range(MAX_SEGMENTS):
        at = _JPEG_MARKER.search(data, at).start()  # None where a file is cut short: one more of _decode's exceptions
        marker = data[at + 1]
        if marker == 0xD9 and scans <= MAX_SCANS:
            height, width = struct.unpack_from(">HH", frame, 5)
            # Decoding at reduced size saves nothing when scans make Pillow hold the coefficients of the whole picture,
            # or when a short side leaves nothing to reduce.
            limit = MAX_JPEG_PIXELS if scans == 1 and min(width, height) > 2000 else MAX_PIXELS
            return Header((width, height), b"".join([*kept, b"\xff\xd9"]), exif, limit)
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        if marker in _JPEG_FRAMES:
            if frame or marker > 0xC2 or data[at + 4] != 8:
                raise ValueError("only baseline and progressive, 8 bits")  # the rest browsers cannot show either
            frame = data[at:end]
        elif marker == 0xDA:
            scans += 1
            end = _JPEG_MARKER.search(data, end).start()
        elif data[at + 4 : at + 10] == b"Exif\0\0":
            exif = exif or data[at + 10 : end]
        if marker not in _JPEG_METADATA:
            kept.append(data[at:end])
        at = end
    raise ValueError("too many segments or scans")


def _scan_png(data: bytes) -> Header:
    """Keep the still picture; it is complete where the second frame of an animation begins."""
    if data[8:16] != b"\0\0\0\x0dIHDR":
        raise ValueError("no header")
    kept, at, exif = [data[:33]], 33, b""
    for _ in range(MAX_SEGMENTS):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length  # length, kind, content, checksum
        if kind in (b"IEND", b"fdAT") and end <= len(data):
            return Header(struct.unpack_from(">II", data, 16), b"".join([*kept, _PNG_END]), exif)
        if kind in (b"PLTE", b"tRNS", b"IDAT"):
            kept.append(data[at:end])
        elif kind == b"eXIf":
            exif = data[at + 8 : end - 4]
        at = end
    raise ValueError("too many chunks")


def _scan_gif(data: bytes) -> Header:
    """Find the first frame, which may reach over the screen's edge; what follows is not looked at."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at, in_extension = 13 + (6 << (flags & 7) if flags & 0x80 else 0), False
    for _ in range(MAX_SEGMENTS):
        if in_extension:  # blocks, each led by its length, up to an empty one
            in_extension = data[at] > 0
            at += 1 + data[at]
        elif data[at] == 0x2C:
            left, top, across, down = struct.unpack_from("<4H", data, at + 1)
            return Header((max(width, left + across), max(height, top + down)), data)
        else:
            in_extension = data[at] == 0x21
            at += 2 if in_extension else 1
    raise ValueError("too many blocks")


def _scan_webp(data: bytes) -> Header:
    """Read the sides from whichever of the three headers is there; only libwebp walks the rest."""
    if data[12:16] == b"VP8X":
        sides = 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    elif data[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        sides = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = struct.unpack_from("<HH", data, 26)
        sides = width & 0x3FFF, height & 0x3FFF
    return Header(sides, data, max_pixels=MAX_WEBP_PIXELS)


_SCANNERS = {"jpeg": _scan_jpeg, "png": _scan_png, "gif": _scan_gif, "webp": _scan_webp}
