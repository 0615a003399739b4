"""The only way an image enters lcm: a file or a decoded picture in; upright, opaque, 8-bit RGB pixels out.

Training and serving share one resize and one filter. All else that a file holds stays behind: GPS, comments, later
frames. Format and sides are read here, before Pillow is asked, and only what a picture needs is handed to it: left to
itself Pillow 13.0 takes 220 MB for 12 MB of JPEG comments, 500 MB for a GIF comment of 12 MB, and 160 MB for a GIF of
42 bytes before any check. Notes, that is which way is up and what the colours are, it reads apart from the pixels, so
that broken ones never refuse a good picture. HEIC and the previews of raw files need the extra `photos`.
"""

import io
import re
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import AvifImagePlugin, BmpImagePlugin, Image, ImageChops, ImageCms, ImageOps

from lcm.errors import BadImageError, ConfigError, require

Source = str | Path | bytes | BinaryIO | Image.Image | np.ndarray  # of a picture
KINDS = "a path, bytes, a binary file object, a PIL image or an array [H, W, 3] of uint8"  # the same, for messages
FORMATS = {"jpeg": "JPEG", "png": "PNG", "gif": "GIF", "webp": "WebP", "tiff": "TIFF", "bmp": "BMP", "avif": "AVIF"}
FORMATS |= {"heif": "HEIC", "raw": "camera raw"}  # by the extra `photos`; of raw files, the preview
_NAMED = {name: f"a{'n' * label.startswith('A')} {label}" for name, label in FORMATS.items()}
MAX_PIXELS = 40_000_000  # 160 MB as Pillow holds them, at four bytes each
MAX_JPEG_PIXELS = 64_000_000  # phones reach 50 million; an ordinary JPEG is decoded row by row at reduced size
MAX_WEBP_PIXELS = 16_000_000  # 240 MB: Pillow's WebP reader takes 15 bytes a pixel, even for a file of 38 bytes
MAX_HEIF_PIXELS = 25_000_000  # 250 MB: of HEIC libheif takes 8 bytes a pixel, of AVIF Pillow 10; phones reach 24.5
MAX_SEGMENTS = 20_000  # of a file; libpng's chunks of 8 KB make 160 MB of them, a hostile file has millions
MAX_SCANS = 50  # of a JPEG; libjpeg's progressive files have 10, and one of 60 bytes costs 22 ms at MAX_PIXELS
MAX_ASPECT = 200  # long side over short; panoramas stay below 20, and a square holds nothing of a thread
MAX_BYTES = 8 * MAX_PIXELS  # of a file on disk: 16-bit RGBA that is not compressed at all
MAX_PROFILE = 1 << 20  # of a colour profile, in bytes; those of cameras and screens have 0.5 to 10 KB
MAX_CLIPPED = 0.25  # share of values at 0 or 255: 1.4 % of 2,000 photos have more, and nearly all random bytes
SAME_COLOUR = 2  # levels of 255 by which profiles of sRGB differ, rounded as they are
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/", re.IGNORECASE)  # in a Path its two slashes are one; C:/ is none
_SIGNATURES = {  # those in capitals are refused; people do send them, so the message can name them
    "jpeg": rb"\xff\xd8\xff",  # MPO too: its first picture is an ordinary JPEG
    "png": rb"\x89PNG\r\n\x1a\n",
    "gif": rb"GIF8[79]a",
    "webp": rb"RIFF[\s\S]{4}WEBP",
    "avif": rb"[\s\S]{4}ftyp(avi[fs]|m[is]f1[\s\S]{4}([\s\S]{4}){0,7}avi[fs])",
    "heif": rb"[\s\S]{4}ftyp(he[iv][cfmsx]|m[is]f1)",
    # Canon's (the film-like one, and its TIFF), Fujifilm's, Olympus's and Panasonic's; others look like TIFF at first.
    "raw": rb"[\s\S]{4}ftypcrx |II\*\0[\s\S]{4}CR|FUJIFILMCCD-RAW|IIR[OS]|MMOR|IIU\0",
    "MP4, MOV or another film": rb"[\s\S]{4}ftyp",
    "tiff": rb"II\*\0|MM\0\*",
    "bmp": rb"BM",
    "SVG, XML or HTML": rb"\s*<",
}
_JPEG_FRAMES = {*range(0xC0, 0xD0), 0xDE} - {0xC4, 0xC8, 0xCC}  # T.81 table B.1, the markers with a picture's sides
_JPEG_METADATA = {*range(0xE1, 0xF0), 0xFE} - {0xEE}  # APP0 (JFIF) and APP14 (Adobe) say how colours are stored
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # in a scan FF 00 and FF D0 to D7 are data; FF FF fills
_JPEG_SCAN = b"\xff\xda"  # begins one
# What a TIFF's pixels are (TIFF 6.0), which way is up, the colour profile, and what tells a raw file.
_TIFF_LISTS = {258, 273, 279, 320, 324, 325, 338, 339, 347, 530, 532, 34675, 50706}  # the tags of several values
_TIFF_TAGS = {254, 256, 257, 259, 262, 266, 274, 277, 278, 284, 317, 322, 323, 332, 531} | _TIFF_LISTS
_TIFF_OF_RAW = {6, 32767, 32769, 32770, 34713, 65535}  # old JPEG, of previews, and Sony's, Nikon's, Pentax's
_TIFF_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946}  # none, fax, LZW, JPEG, Deflate, PackBits
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
# Where notes stand: of each kind the first counts; a JPEG's profile may lie in up to 16 segments, which are numbered.
_JPEG_NOTES = re.compile(rb"(?s)\xff[\xe1\xe2]..(Exif\0\0|http://ns\.adobe\.com/xap/1\.0/\0|ICC_PROFILE\0[\1-\x10])")
_PNG_NOTES = re.compile(rb"eXIf|iCCP|(tEX|zTX)tRaw profile type exif\0|iTXtXML:com\.adobe\.xmp\0")


@dataclass(frozen=True)
class Header:
    """What a file says of its picture, and the file without everything else."""

    sides: tuple[int, int]  # width and height in pixels as stored, before EXIF turns the picture
    stream: bytes  # what Pillow is given
    notes: bytes = b""  # a file of the same format that holds notes alone; empty: there are none, or `stream` has them
    max_pixels: int = MAX_PIXELS  # how many this file may have
    has_end: bool = True  # whether the picture's end is marked; where it is not, every pixel has to be there


def image_format(data: bytes) -> str:
    """Return the key of FORMATS that `data` begins as, whatever its sender calls it; raises BadImageError for none."""
    name = next((name for name, signature in _SIGNATURES.items() if re.match(signature, data)), "unknown kind")
    if name == "tiff":
        with suppress(struct.error):  # DNG; or the first picture is a preview, or what a sensor saw
            tags = {tag: value for tag, (_, value) in _tiff_tags(data).items()}
            of_sensor = tags.get(259) in _TIFF_OF_RAW or tags.get(262) == 32803
            return "raw" if 50706 in tags or tags.get(254, 0) % 2 or of_sensor else name
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
    kept, notes, at, frame, scans, final, has_end = [b"\xff\xd8"], {}, 2, b"", 0, 0, True
    for _ in range(MAX_SEGMENTS):
        at = _JPEG_MARKER.search(data, at).start()  # None where a file is cut short: one more of _decode's exceptions
        marker = data[at + 1]
        if marker == 0xD9 and scans <= MAX_SCANS:
            height, width = struct.unpack_from(">HH", frame, 5)
            # Decoding at reduced size saves nothing when scans make Pillow hold the coefficients of the whole picture,
            # or when a short side leaves nothing to reduce.
            limit = MAX_JPEG_PIXELS if scans == 1 and min(width, height) > 2000 else MAX_PIXELS
            noted = b"".join([b"\xff\xd8", *notes.values(), frame, b"\xff\xda\0\2"]) if notes else b""
            return Header((width, height), b"".join([*kept, b"\xff\xd9"]), noted, limit, has_end)
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        if marker in _JPEG_FRAMES:
            if frame or marker > 0xC2 or data[at + 4] != 8:
                raise ValueError("only baseline and progressive, 8 bits")  # the rest browsers cannot show either
            frame = data[at:end]
        elif marker == 0xDA:
            scans += 1
            first, last, bits = data[end - 3 : end]  # which of 64 coefficients it holds; no bits left: to the last bit
            final += data[at + 4] * (last - first + 1) * (not bits & 15)
            found = _JPEG_MARKER.search(data, end)
            # All of them, of all components, and no zeros in place of bits: only the mark of the end may be missing.
            if not found and final == 64 * frame[9] and not re.fullmatch(rb"[^\xff]\0", data[-2:]):
                data, has_end = data.rstrip(b"\xff") + b"\xff\xd9", False
                found = _JPEG_MARKER.search(data, end)
            end = found.start()
        elif note := _JPEG_NOTES.match(data, at):
            notes.setdefault(note[1], data[at:end])
        if marker not in _JPEG_METADATA:
            kept.append(data[at:end])
        at = end
    raise ValueError("too many segments or scans")


def _scan_png(data: bytes) -> Header:
    """Keep the still picture; it is complete where the second frame of an animation begins."""
    if data[8:16] != b"\0\0\0\x0dIHDR":
        raise ValueError("no header")
    kept, notes, at = [data[:33]], {}, 33
    for _ in range(MAX_SEGMENTS):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length  # length, kind, content, checksum
        if kind in (b"IEND", b"fdAT") and end <= len(data):
            noted = b"".join([data[:33], *notes.values(), b"\0\0\0\0IDAT"])
            return Header(struct.unpack_from(">II", data, 16), b"".join([*kept, _PNG_END]), noted)
        if kind in (b"PLTE", b"tRNS", b"IDAT"):
            kept.append(data[at:end])
        elif note := _PNG_NOTES.match(data, at + 4):
            notes.setdefault(note[0], data[at:end])
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


def _tiff_tags(data: bytes) -> dict[int, tuple[bytes, int]]:
    """Return what pixels need of a TIFF's first directory: each tag's entry, and its largest number; 0: none."""
    order, tags = "<" if data[:1] == b"I" else ">", {}
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, at)
    for place in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", data, place)
        letter = {1: "B", 3: "H", 4: "I"}.get(kind, "s")
        size = number * struct.calcsize(letter)
        where = place + 8 if size <= 4 else struct.unpack_from(f"{order}I", data, place + 8)[0]
        is_usual = size <= min(1 << 20, len(data) - where) and (number == 1 or tag in _TIFF_LISTS)
        if tag in _TIFF_TAGS and tag not in tags and is_usual:
            values = struct.unpack_from(f"{order}{number}{letter}", data, where)
            tags[tag] = data[place : place + 12], 0 if letter == "s" else max(values, default=0)
    return tags


def _scan_tiff(data: bytes) -> Header:
    """Keep the first page, under a directory of its own at the end: other tags may name the whole file each."""
    tags, order, end = _tiff_tags(data), "<" if data[:1] == b"I" else ">", len(data) + len(data) % 2
    known = dict.fromkeys((258, 259, 277, 322, 323, 339), 1) | {tag: value for tag, (_, value) in tags.items()}
    is_rare = known[259] not in _TIFF_COMPRESSIONS or known[258] > 16 or known[277] > 5 or known[339] > 1
    if is_rare or known[322] * known[323] > MAX_PIXELS:
        raise ValueError("a rare compression, over 16 bits or 5 colours, no whole numbers, or a tile of any size")
    directory = struct.pack(f"{order}H", len(tags)) + b"".join(tags[tag][0] for tag in sorted(tags)) + bytes(4)
    stream = b"".join([data[:4], struct.pack(f"{order}I", end), data[8:], bytes(len(data) % 2), directory])
    return Header((known[256], known[257]), stream)


def _scan_by_reader(data: bytes) -> Header:
    """Ask Pillow's reader for the sides, which decodes no pixel for that; Image.open would warn of large ones."""
    name, readers = image_format(data), {"bmp": BmpImagePlugin.BmpImageFile, "avif": AvifImagePlugin.AvifImageFile}
    if name == "heif":
        heif = require("pillow_heif", "photos")
        heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
        readers[name] = heif.HeifImageFile
    picture = readers[name](io.BytesIO(data))
    if picture.info.get("compression") in (1, 2):
        raise ValueError("run lengths, which Pillow reads a byte at a time")
    return Header(picture.size, data, max_pixels=MAX_PIXELS if name == "bmp" else MAX_HEIF_PIXELS)


def _scan_raw(data: bytes) -> Header:
    """Take the largest JPEG that a camera put into its raw file, turned as the file says."""
    exiv2, raw = require("exiv2", "photos"), open_metadata(data)
    previews = exiv2.PreviewManager(raw)
    found = [one for one in previews.getPreviewProperties() if one.mimeType_ == "image/jpeg"]
    jpeg = bytes(previews.getPreviewImage(max(found, key=lambda one: one.width_ * one.height_)).data())
    notes, key = raw.exifData(), "Exif.Image.Orientation"
    turned = notes[key].toUint32() % 65536 if key in notes else 1
    exif = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 274, 3, 1, turned, 0, 0)
    return _scan_jpeg(jpeg[:2] + struct.pack(">HH", 0xFFE1, len(exif) + 8) + b"Exif\0\0" + exif + jpeg[2:])


def open_metadata(data: bytes) -> "exiv2.Image":  # noqa: F821
    """Return what exiv2 reads of a photo or an XMP sidecar; raises ConfigError without the extra, else exiv2's own."""
    exiv2 = require("exiv2", "photos")
    exiv2.LogMsg.setLevel(exiv2.LogMsg.Level.mute)
    image = exiv2.ImageFactory.open(data)
    image.readMetadata()
    return image


_SCANNERS = {"jpeg": _scan_jpeg, "png": _scan_png, "gif": _scan_gif, "webp": _scan_webp, "tiff": _scan_tiff}
_SCANNERS |= dict.fromkeys(("bmp", "avif", "heif"), _scan_by_reader) | {"raw": _scan_raw}


def read_image(source: Source, size: int) -> np.ndarray:
    """Return the whole picture as a square, uint8 [size, size, 3]: upright, on white, never cropped.

    Of a file object all is read from its position on, so only once; what is decoded already is never changed. Raises
    BadImageError when `source` is not a picture that lcm accepts.
    """
    return np.array(_read(source, size, size))


WHOLE = (0.0, 0.0, 1.0, 1.0)  # the box of a view that shows the whole picture


@dataclass(frozen=True)
class Square:
    """How an image encoder of the model hub wants the square that it sees: of a file that is decoded at full size."""

    size: int  # pixels a side
    resample: int  # filter: a number of Pillow's Resampling
    shorter: int = 0  # pixels that the shorter side gets before the middle is cut out; 0: the whole picture is squeezed


def read_views(
    source: Source, square: int | Square, boxes: Sequence[tuple[float, float, float, float]] = (WHOLE,)
) -> np.ndarray:
    """Return parts of the picture as squares, uint8 [len(boxes), size, size, 3].

    A box is left, top, right and bottom in shares of the upright picture's sides, 0 to 1. The file is decoded once.
    `square` may be a size alone: each part is then as read_image returns the whole.
    """
    wanted, square = (square, Square(square, Image.Resampling.BICUBIC)) if isinstance(square, int) else (None, square)
    picture, size = _read(source, wanted, None), square.size
    views = np.empty((len(boxes), size, size, 3), np.uint8)
    for view, box in zip(views, boxes, strict=True):
        left, top, right, bottom = pixels = [share * side for share, side in zip(box, picture.size * 2, strict=True)]
        sides = size, size
        if square.shorter:
            part = right - left, bottom - top
            sides = tuple(max(square.shorter, int(square.shorter * side / min(part))) for side in part)
        left, top = ((side - size) // 2 for side in sides)
        view[:] = picture.resize(sides, square.resample, pixels).crop((left, top, left + size, top + size))
    return views


def open_image(source: Source, square: Square | None = None, wanted: int | None = None) -> Image.Image:
    """Return the picture at its own size in mode RGB, for people to look at; otherwise as read_image.

    With `square`, only what is left where an image encoder cuts the middle out. Where only so many pixels a side are
    `wanted`, it may come out smaller, but not below twice that, and sooner.
    """
    picture = _read(source, wanted, None)
    if not (square and square.shorter):
        return picture
    side = round(min(picture.size) * square.size / square.shorter)
    left, top = ((whole - side) // 2 for whole in picture.size)
    return picture.crop((left, top, left + side, top + side))


def read_stream(source: Source) -> Source:
    """Return a file object's content from its position on, and anything else as it is."""
    if not hasattr(source, "read"):
        return source
    try:
        data = source.read()
    except (OSError, ValueError):  # ValueError: it is closed, or its bytes are no text
        data = None
    if not isinstance(data, bytes):
        raise BadImageError(
            "received a file object that gives no bytes; open it in binary mode ('rb'), and leave it open until it is "
            "described"
        )
    if not data:
        raise BadImageError("received a file object at its end; take it back to its beginning: seek(0)")
    return data


def _read(source: Source, wanted: int | None, size: int | None) -> Image.Image:
    """Return the RGB picture as a square of `size`, or at its own size; a path's name leads an error's message.

    Where only a square of `wanted` will be made of it, its own size may come out smaller, but not below twice that.
    """
    source = read_stream(source)
    if isinstance(source, bytes):
        return _place(_decode(source, wanted), size)
    if isinstance(source, Image.Image | np.ndarray):
        return _place(_take(source), size)
    if not isinstance(source, str | Path):
        raise BadImageError(f"received a {type(source).__name__}; one picture is {KINDS}")
    if address := _URL.match(str(source)):
        raise BadImageError(
            f"received an address ({address[1]}://…), and none is fetched; download it first, then give the path of "
            "the file or its bytes"
        )
    path = Path(source)
    try:
        return _read(read_file(path), wanted, size)
    except BadImageError as error:
        raise BadImageError(f"{path.name!r}: {error}") from None


def read_file(path: Path) -> bytes:
    """Return the bytes of an image file; raises BadImageError, which does not name it."""
    try:
        if not path.is_file():  # a pipe or a device might never end
            raise BadImageError("no such file, or a folder; give the path of one picture")
        if path.stat().st_size > MAX_BYTES:
            raise BadImageError(f"received a file of over {MAX_BYTES:,} bytes, the most accepted: make it smaller")
        return path.read_bytes()
    except (OSError, ValueError):  # ValueError: the name holds a NUL
        raise BadImageError("the file cannot be read; check its name and its permissions") from None


def _decode(data: bytes, wanted: int | None) -> Image.Image:
    """Return the picture on white, in 8 bits, with its notes."""
    name = image_format(data)
    try:
        header = scan(data, name)
        _check_limits(_NAMED[name], header)
        name = "jpeg" if name == "raw" else name
        image = Image.open(io.BytesIO(header.stream), formats=(name.upper(),))
        if image.size != header.sides and (name != "tiff" or image.size[::-1] != header.sides):  # Pillow turns a TIFF
            raise ValueError("Pillow sees other sides than those that were checked")
        if wanted:  # JPEG decodes at 1/2, 1/4 or 1/8, down to twice what is wanted, so that the filter has its say
            image.draft(None, (2 * wanted, 2 * wanted))
        if name == "png" and "transparency" in image.info:
            _clear_as_stored(image, header.stream)
        image.load()
        if name == "jpeg" and not _is_whole_jpeg(image, header):
            raise ValueError("its scan holds fewer or more bytes than the picture")
        with suppress(Exception):  # of whatever kind, as below; of WebP and GIF Pillow has copied them already
            image.info |= Image.open(io.BytesIO(header.notes), formats=(name.upper(),)).info
        return _flatten(image)
    except BadImageError:
        raise
    except ConfigError:  # its message names a library, which no client is told
        extra = "install what reads it (pip install 'lcm[photos]'), or save it as JPEG"
        raise BadImageError(f"received {_NAMED[name]} file ({len(data):,} bytes); {extra}") from None
    except Exception:
        # Decoders trip over a damaged file wherever they did not expect it: OSError, SyntaxError, ValueError, KeyError,
        # struct.error, zlib.error, MemoryError and more. Pillow's messages hold memory addresses, so none is repeated.
        raise BadImageError(
            f"received {_NAMED[name]} file ({len(data):,} bytes) that is damaged, cut short or of a rare kind; "
            "only whole pictures are accepted: send it again, or save it anew in an image editor"
        ) from None


def _take(picture: Image.Image | np.ndarray) -> Image.Image:
    """Return what _decode does, of pixels that are decoded already; these stay as they are."""
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.shape[2:] != (3,) or not picture.size:
            raise BadImageError(
                f"received an array of shape {list(picture.shape)} and type {picture.dtype}; [H, W, 3] of uint8 is "
                "accepted, red, green and blue from 0 to 255: make it of shares from 0 to 1 by (255 * array).round()"
                ".astype('uint8'), and give grey or transparent pixels as a PIL image"
            )
        picture = Image.fromarray(picture)
    received = f"received a PIL image of mode {picture.mode} and {picture.width:,} x {picture.height:,} pixels"
    if picture.mode[:1] in "IF" and picture.mode != "I;16":
        raise BadImageError(f"{received}, in which no value is known to be white; make it one of mode L or RGB")
    try:
        # As many pixels as there are: they are in memory, or Pillow's own limit has let them pass.
        _check_limits("a decoded", Header(picture.size, b"", max_pixels=picture.width * picture.height))
        return _flatten(picture.copy())  # which loads it: a PNG has its notes only then
    except BadImageError:
        raise
    except Exception:  # as in _decode
        raise BadImageError(
            f"{received} that cannot be read; leave its file open, or make it one of mode RGB"
        ) from None


def _check_limits(label: str, header: Header) -> None:
    (width, height), limit = header.sides, header.max_pixels
    received = f"received {label} picture of {width:,} x {height:,} pixels"
    if min(header.sides) < 1:
        raise ValueError("no pixels")
    if width * height > limit:
        raise BadImageError(f"{received}; at most {limit:,} pixels are accepted in such a file: make it smaller")
    if max(header.sides) > MAX_ASPECT * min(header.sides):
        raise BadImageError(f"{received}; one side may be at most {MAX_ASPECT} times the other: crop it")


def _is_whole_jpeg(image: Image.Image, header: Header) -> bool:
    """Whether the last scan of a JPEG holds the bytes that its picture needs; random ones are too few or too many.

    libjpeg makes a picture of any bytes and only warns, which Pillow does not pass on. Too few leave the end flat, and
    many clip values; photos have that too, so other bytes tell: put behind the scan, they may change nothing, and in
    place of its last ones they must; not where these may say nothing: of one colour, or in the last of several scans.
    A file without its end is always asked.
    """
    stream = header.stream
    may_be_idle = image.getcolors(1) is not None or stream.count(_JPEG_SCAN) > 1
    if header.has_end:
        counts = image.resize((32, 32), Image.Resampling.NEAREST).histogram()
        is_clipped = sum(counts[::256] + counts[255::256]) > MAX_CLIPPED * 32 * 32 * len(image.getbands())
        is_flat = image.crop((0, image.height - 1, *image.size)).getcolors(1) is not None
        if not (is_flat or is_clipped) or may_be_idle:
            return True
    at, end = stream.rindex(_JPEG_SCAN) + 2, len(stream) - 2
    start = at + struct.unpack_from(">H", stream, at)[0]
    # libjpeg reads zeros where no bits are left, so ones come first; then the restart mark that would be the next one.
    bits, restarts = bytes(range(254, 127, -1)), len(re.findall(rb"\xff[\xd0-\xd7]", stream[start:]))
    other = bits + bytes((0xFF, 0xD0 + restarts % 8)) + bits

    def draw(kept: int, added: bytes) -> list[int]:
        """Return the pixels' levels, of grey ones at an eighth of the sides, with other bytes from `kept` on."""
        drawn = Image.open(io.BytesIO(stream[:kept] + added + stream[end:]), formats=("JPEG",))
        drawn.draft(*(("L", (1, 1)) if header.has_end else (None, image.size)))
        return drawn.histogram()

    whole = draw(end, b"")
    return whole == draw(end, other) and (may_be_idle or whole != draw(max(start, end - len(other)), other))


def _clear_as_stored(image: Image.Image, stream: bytes) -> None:
    """Make Pillow see what is transparent: a level or a colour in the file's own depth (PNG, 11.3.1.1), which Pillow
    looks for in what it has stretched from 2 or 4 bits to 8, or cut from 16.
    """
    stored, clear = image.tile[0].args, image.info["transparency"]
    if stored in ("L;2", "L;4"):
        top = 2 ** int(stored[2:]) - 1
        image.info["transparency"] = (clear & top) * 255 // top
    elif stored == "RGB;16B":
        shown = np.zeros(image.size[::-1], bool)
        for order, shift in {"RGB;16L": 0, stored: 8}.items():  # in the other order of bytes, the low one is kept
            half = Image.open(io.BytesIO(stream), formats=("PNG",))
            half.tile = [half.tile[0]._replace(args=order)]
            for band, level in zip("RGB", clear, strict=True):
                shown |= np.asarray(half.getchannel(band)) != level >> shift & 255
        del half, image.info["transparency"]
        image.putalpha(Image.fromarray(shown))


@lru_cache(8)
def _to_srgb(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """Return what makes sRGB of an RGB profile's colours, None for sRGB's own; raises what Pillow makes of others."""
    transform = ImageCms.buildTransform(io.BytesIO(profile), ImageCms.createProfile("sRGB"), "RGB", "RGB")
    colours = Image.fromarray(51 * np.indices((6, 6, 6), np.uint8).reshape(3, -1).T[np.newaxis])
    change = ImageChops.difference(colours, ImageCms.applyTransform(colours, transform))
    return transform if max(high for _, high in change.getextrema()) > SAME_COLOUR else None


def _flatten(image: Image.Image) -> Image.Image:
    """Return mode L, LA, RGB or RGBA, its colours as seen on white; an alpha that is left means nothing any more."""
    if not image.mode.startswith(("RGB", "P")):
        image.info.pop("icc_profile", None)  # of grey or of inks
    if image.mode == "I;16":  # the high byte, as Pillow does for colour; for grey it makes all above 255 white
        levels = np.asarray(image)
        narrow = (levels >> 8).astype(np.uint8)
        narrow[levels == image.info.get("transparency", -1)] = 255
        flat = Image.fromarray(narrow)
        flat.info = image.info
        return flat
    if image.has_transparency_data:
        image = image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
        image.paste("white", mask=ImageChops.invert(image.getchannel("A")))  # in place: saves 160 MB
        return image
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _place(image: Image.Image, size: int | None) -> Image.Image:
    """Return mode RGB, turned as the notes say, resized when `size` is given, and in the colours of sRGB."""
    with suppress(Exception):  # of whatever kind, as in _decode
        ImageOps.exif_transpose(image, in_place=True)
    whole = image.mode in ("L", "RGB")  # faster; band by band, copies take a quarter of the memory
    parts = [image] if whole else (image.getchannel(band) for band in image.getbands() if band != "A")
    if size:
        parts = (part.resize((size, size), Image.Resampling.BICUBIC) for part in parts)
    first, *rest = parts
    placed = (Image.merge("RGB", (first, *rest)) if rest else first).convert("RGB")
    with suppress(Exception):  # KeyError where there is no profile, and of whatever kind
        if to_srgb := _to_srgb(image.info["icc_profile"][:MAX_PROFILE]):
            ImageCms.applyTransform(placed, to_srgb, inPlace=True)
    placed.info.clear()  # a WebP's GPS and a GIF's comment would be saved again with the picture
    return placed


THUMBNAIL_SIDE = 48


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Return the picture of uint8 pixels [S, S, 3] as copies are told by, uint8 [THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3]."""
    return np.asarray(Image.fromarray(pixels).resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX))
