"""Files of the formats that scanners, studios, phones and cameras write beside JPEG and PNG."""

import struct

import numpy as np
import pytest
from PIL import Image, features

from tests.fakes.image_files import encode, raw_file, scene

SIDES = (48, 36)


def heif(picture: Image.Image = None, **options) -> bytes:
    pytest.importorskip("pillow_heif", reason="the extra `photos` is not installed").register_heif_opener()
    return encode(picture or scene(), "HEIF", **options)


def avif(picture: Image.Image = None, **options) -> bytes:
    if not features.check("avif"):
        pytest.skip("this machine's Pillow was built without AVIF")
    return encode(picture or scene(), "AVIF", **options)


def raw(**options) -> bytes:
    pytest.importorskip("exiv2", reason="the extra `photos` is not installed")
    return raw_file(encode(scene(), "JPEG", quality=95), **options)


def sixteen_bits() -> bytes:
    """An RGB TIFF of 16 bits a colour, which Pillow reads and does not write."""
    pixels = (np.asarray(scene()).astype("<u2") * 257).tobytes()
    entries = [(256, 48), (257, 36), (258, 16), (259, 1), (262, 2), (273, 130), (277, 3), (278, 36), (279, len(pixels))]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return (b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory).ljust(130, b"\0") + pixels


SECOND = Image.new("RGB", SIDES, "red")
TWINS = {  # each holds the scene: how it is made, its grey twin or not, how far its levels may be off
    "tiff": (lambda: encode(scene(), "TIFF"), 0),
    "tiff-lzw": (lambda: encode(scene(), "TIFF", compression="tiff_lzw"), 0),
    "tiff-deflate": (lambda: encode(scene(), "TIFF", compression="tiff_adobe_deflate"), 0),
    "tiff-jpeg": (lambda: encode(scene(), "TIFF", compression="jpeg", quality=95), 4),
    "tiff-big-endian": (lambda: encode(scene(), "TIFF", big_endian=True), 0),
    "tiff-pages": (lambda: encode(scene(), "TIFF", save_all=True, append_images=[SECOND]), 0),
    "tiff-cmyk": (lambda: encode(scene().convert("CMYK"), "TIFF"), 1),
    "tiff-cmyk-lzw": (lambda: encode(scene().convert("CMYK"), "TIFF", compression="tiff_lzw"), 1),
    "tiff-alpha": (lambda: encode(scene().convert("RGBA"), "TIFF"), 0),
    "tiff-16-bit": (sixteen_bits, 0),
    "bmp": (lambda: encode(scene(), "BMP"), 0),
    "avif": (lambda: avif(quality=95), 6),
    "heif": (lambda: heif(quality=95), 6),
    "raw": (raw, 4),
}
