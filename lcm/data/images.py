"""The only way an image enters lcm: bytes or a path in, RGB pixels out.

Knows how any accepted picture becomes upright, opaque, 8-bit RGB: one resize, one filter, for training and serving
alike. Refuses to know what the pixels are for, and what else a file holds: GPS, comments, colour profile, later frames.
Formats and sizes are told by headers.py before a pixel is decoded.
"""

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from lcm.data.headers import FORMATS, MAX_PIXELS, Header, image_format, scan
from lcm.errors import BadImageError

MAX_ASPECT = 200  # long side over short; panoramas stay below 20, and a square holds nothing of a thread
MAX_BYTES = 8 * MAX_PIXELS  # of a file on disk: 16-bit RGBA that is not compressed at all
_TURNS = {  # EXIF 2.3, tag 0x0112: what makes the stored picture upright; 1 is upright already
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(source: bytes | str | Path, size: int) -> np.ndarray:
    """Return the whole picture as a square, uint8 [size, size, 3]: upright, on white, never cropped.

    `source` is a file's content or its path. Raises BadImageError when it is not a picture that lcm accepts.
    """
    return np.array(_read(source, size, size))


def read_views(source: bytes | str | Path, size: int, boxes: Sequence[tuple[float, float, float, float]]) -> np.ndarray:
    """Return parts of the picture, each as read_image returns the whole, uint8 [len(boxes), size, size, 3].

    A box is left, top, right and bottom in shares of the upright picture's sides, 0 to 1. The file is decoded once.
    """
    picture = _read(source, size, None)
    views = np.empty((len(boxes), size, size, 3), np.uint8)
    for view, box in zip(views, boxes, strict=True):
        pixels = tuple(share * side for share, side in zip(box, picture.size * 2, strict=True))
        view[:] = picture.resize((size, size), Image.Resampling.BICUBIC, pixels)
    return views


def open_image(source: bytes | str | Path) -> Image.Image:
    """Return the picture at its own size in mode RGB, for people to look at; otherwise as read_image."""
    return _read(source, None, None)


def _read(source: bytes | str | Path, wanted: int | None, size: int | None) -> Image.Image:
    """Return the RGB picture as a square of `size`, or at its own size; a path's name leads an error's message.

    Where only a square of `wanted` will be made of it, its own size may come out smaller, but not below twice that.
    """
    if isinstance(source, bytes):
        return _place(*_decode(source, wanted), size)
    try:
        return _read(_read_file(Path(source)), wanted, size)
    except BadImageError as error:
        raise BadImageError(f"{Path(source).name!r}: {error}") from None


def _read_file(path: Path) -> bytes:
    try:
        if not path.is_file():  # a pipe or a device might never end
            raise BadImageError("no such file, or a folder; give the path of one picture")
        if path.stat().st_size > MAX_BYTES:
            raise BadImageError(f"received a file of over {MAX_BYTES:,} bytes, the most accepted: make it smaller")
        return path.read_bytes()
    except (OSError, ValueError):  # ValueError: the name holds a NUL
        raise BadImageError("the file cannot be read; check its name and its permissions") from None


def _decode(data: bytes, wanted: int | None) -> tuple[Image.Image, Image.Transpose | None]:
    """Return the picture on white, in 8 bits, and the turn that makes it upright."""
    name = image_format(data)
    try:
        header = scan(data, name)
        _check_limits(FORMATS[name], header)
        image = Image.open(io.BytesIO(header.stream), formats=(name.upper(),))
        if image.size != header.sides:
            raise ValueError("Pillow sees other sides than those that were checked")
        if wanted:  # JPEG decodes at 1/2, 1/4 or 1/8, down to twice what is wanted, so that the filter has its say
            image.draft(None, (2 * wanted, 2 * wanted))
        image.load()
        turn = _read_turn(header.exif or image.info.get("exif", b""))  # WebP keeps its metadata: Pillow only copies it
        return _flatten(image), turn
    except BadImageError:
        raise
    except Exception:
        # Decoders trip over a damaged file wherever they did not expect it: OSError, SyntaxError, ValueError, KeyError,
        # struct.error, zlib.error, MemoryError and more. Pillow's messages hold memory addresses, so none is repeated.
        raise BadImageError(
            f"received a {FORMATS[name]} file ({len(data):,} bytes) that is damaged, cut short or of a rare kind; "
            "only whole pictures are accepted: send it again, or save it anew in an image editor"
        ) from None


def _check_limits(label: str, header: Header) -> None:
    (width, height), limit = header.sides, header.max_pixels
    received = f"received a {label} picture of {width:,} x {height:,} pixels"
    if min(header.sides) < 1:
        raise ValueError("no pixels")
    if width * height > limit:
        raise BadImageError(f"{received}; at most {limit:,} pixels are accepted in such a file: make it smaller")
    if max(header.sides) > MAX_ASPECT * min(header.sides):
        raise BadImageError(f"{received}; one side may be at most {MAX_ASPECT} times the other: crop it")


def _read_turn(exif: bytes) -> Image.Transpose | None:
    """Return the turn that makes the picture upright; None too when EXIF is broken, which never refuses a picture."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = "<" if tiff[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == 0x0112:  # kind 3 is a short, 4 a long
                return _TURNS.get(struct.unpack_from(order + ("I" if kind == 4 else "H"), tiff, entry + 8)[0])
    except struct.error:
        pass
    return None


def _flatten(image: Image.Image) -> Image.Image:
    """Return mode L, LA, RGB or RGBA, its colours as seen on white; an alpha that is left means nothing any more."""
    if image.mode == "I;16":  # the high byte, as Pillow does for colour; for grey it makes all above 255 white
        levels = np.asarray(image)
        narrow = (levels >> 8).astype(np.uint8)
        narrow[levels == image.info.get("transparency", -1)] = 255
        return Image.fromarray(narrow)
    if image.has_transparency_data:
        image = image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
        image.paste("white", mask=ImageChops.invert(image.getchannel("A")))  # in place: saves 160 MB
        return image
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _place(image: Image.Image, turn: Image.Transpose | None, size: int | None) -> Image.Image:
    """Return mode RGB, turned and, when `size` is given, resized."""
    whole = turn is None and image.mode in ("L", "RGB")  # faster; band by band, copies take a quarter of the memory
    parts = [image] if whole else (image.getchannel(band) for band in image.getbands() if band != "A")
    if turn is not None:
        parts = (part.transpose(turn) for part in parts)
    if size:
        parts = (part.resize((size, size), Image.Resampling.BICUBIC) for part in parts)
    first, *rest = parts
    placed = (Image.merge("RGB", (first, *rest)) if rest else first).convert("RGB")
    placed.info.clear()  # a WebP's GPS and a GIF's comment would be saved again with the picture
    return placed
