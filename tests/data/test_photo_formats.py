"""What scanners, studios, phones and cameras write beside JPEG and PNG: rows E02 to E08, E12, E13, E15, E18, E22."""

import random
import struct
import sys
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, ImageCms

from lcm.data.images import FORMATS, MAX_HEIF_PIXELS, image_format, open_image, read_image, scan
from lcm.errors import BadImageError
from tests.fakes.image_files import UPRIGHT_OF, Cost, encode, raw_file, scene
from tests.fakes.photo_files import SIDES, TWINS, avif, heif, raw

pytestmark = pytest.mark.filterwarnings("error")  # Pillow's would go into the service's log

SIZE = 32
DEEP = np.asarray(scene().convert("L")).astype(np.uint16) * 256 + 255


GREY = {
    "tiff": lambda: encode(Image.fromarray(DEEP), "TIFF"),
    "tiff-big-endian": lambda: encode(Image.fromarray(DEEP), "TIFF", big_endian=True),
    "tiff-lzw": lambda: encode(Image.fromarray(DEEP), "TIFF", compression="tiff_lzw"),
}


def refusal(data: bytes) -> str:
    with pytest.raises(BadImageError) as error:
        read_image(data, SIZE)
    return str(error.value)


@pytest.mark.parametrize("name", TWINS)
def test_each_format_is_seen_as_its_twin(name):
    make, off = TWINS[name]
    data = make()
    kind = image_format(data)
    assert (kind, scan(data, kind).sides) == (name.split("-")[0], SIDES)
    seen, twin = (np.asarray(open_image(one)).astype(int) for one in (data, encode(scene(), "PNG")))
    assert np.abs(seen - twin).max() <= 2 * off
    assert np.abs(seen - twin).mean() <= off


@pytest.mark.parametrize("name", GREY)
def test_e13_grey_of_16_bits_is_its_high_byte(name):
    assert np.array_equal(np.asarray(open_image(GREY[name]()))[..., 0], DEEP >> 8)


@pytest.mark.parametrize("value", UPRIGHT_OF)
@pytest.mark.parametrize("kind", ["tiff", "raw"])
def test_e15_a_turned_one_stands_upright(kind, value):
    if kind == "tiff":
        data, upright = encode(scene(), "TIFF", tiffinfo={274: value}), np.asarray(scene())
    else:
        data, upright = raw(orientation=value), np.asarray(open_image(encode(scene(), "JPEG", quality=95)))
    assert np.array_equal(np.asarray(open_image(data)), UPRIGHT_OF[value](upright))


def test_a_colour_profile_of_a_tiff_counts_and_a_broken_one_does_not_refuse_it():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for icc in (profile, b"no profile"):
        assert np.array_equal(read_image(encode(scene(), "TIFF", icc_profile=icc), SIZE), read_image(scene(), SIZE))


@pytest.mark.parametrize("name", TWINS)
def test_e02_e08_cut_short_and_mutated_files_are_refused_quickly(name):
    """Seeded. What libheif and libavif miss at the end they fill in, so the last eighth is not asked, nor page two."""
    good, chance = TWINS[name][0](), random.Random(name)
    for length in range(0, len(good) * (3 if name == "tiff-pages" else 7) // 8, max(1, len(good) // 50)):
        assert "accepted" in refusal(good[:length])
    for _ in range(100):
        data = bytearray(good)
        for _ in range(chance.choice([1, 1, 4, 20])):
            data[chance.randrange(min(len(data), 600))] = chance.randrange(256)
        with Cost() as cost, suppress(BadImageError):
            assert read_image(bytes(data), SIZE).shape == (SIZE, SIZE, 3)
        assert cost.seconds < 2
        assert cost.megabytes < 300


def enlarged(data: bytes, width: int = 5001, height: int = 5000) -> bytes:
    """A HEIC or AVIF whose header tells of more pixels than are accepted."""
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def tiff(*entries: tuple[int, int, int, int], rest: bytes = b"") -> bytes:
    head = struct.pack("<IH", 8, len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + head + bytes(4) + rest


def page(width: int, height: int, *more: tuple[int, int, int, int], compression: int = 1) -> list:
    known = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1)]
    return [*known, (273, 4, 1, 200), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 8), *more]


def bmp(width: int, height: int, bits: int = 24, compression: int = 0) -> bytes:
    sizes = struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + sizes + bytes(2048)


HOSTILE = {  # what is said of it
    "e03-avif": (lambda: enlarged(avif(), 16_000, 16_000), "pixels are accepted"),
    "e03-heif": (lambda: enlarged(heif(scene(64, 64)), 16_000, 16_000), "pixels are accepted"),
    "e03-tiff": (lambda: tiff(*page(50_000, 50_000)), "pixels are accepted"),
    "e03-bmp": (
        lambda: bmp(50_000, -50_000),
        "pixels are accepted",
    ),
    "e04-tiff": (lambda: tiff(*page(8000, 5001, compression=8), rest=bytes(90)), "pixels are accepted"),
    "e04-bmp": (lambda: bmp(8000, 5001), "pixels are accepted"),
    "e04-avif": (lambda: enlarged(avif()), "pixels are accepted"),
    "e04-heif": (lambda: enlarged(heif(scene(64, 64))), "pixels are accepted"),
    "e05-bmp": (
        lambda: bmp(201, 1),
        "at most 200 times the other",
    ),
    "e06-tiff-tags": (
        lambda: tiff(*[(273, 4, 1 << 18, 0)] * 60_000, *page(8, 8), rest=bytes(4 << 20)),
        "",
    ),
    "e06-tiff-texts": (
        lambda: tiff(*page(8, 8, *[(n, 2, 8 << 20, 0) for n in range(340, 840)]), rest=bytes(9 << 20)),
        "",
    ),
    "e06-tiff-tile": (
        lambda: tiff(
            *page(8, 8, (322, 4, 1, 65536), (323, 4, 1, 65536), (324, 4, 1, 8), compression=5), rest=bytes(99)
        ),
        "damaged",
    ),
    "e06-tiff-samples": (
        lambda: tiff(*[(277, 3, 1, 65535) if one[0] == 277 else one for one in page(8, 8)]),
        "damaged",
    ),
    "e21-film": (lambda: b"\0\0\0\x18ftypisom" + bytes(100), "MP4, MOV or another film"),
    "e22-heif": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "HEIC"),
    "e22-avif": (lambda: b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf" + bytes(100), "AVIF"),
    "e22-looping-tiff": (lambda: b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 256, 3, 1, 9, 8), "TIFF"),
    "e22-bmp-of-runs": (lambda: bmp(99, 99, bits=8, compression=1), "damaged"),
    "raw-without-preview": (lambda: raw_file(b""), "camera raw"),
    "raw-of-fujifilm": (lambda: b"FUJIFILMCCD-RAW " + bytes(300), "camera raw"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_e03_to_e08_and_e22_hostile_files_are_refused_at_once(name):
    make, said = HOSTILE[name]
    data = make()
    with Cost() as cost:
        assert said in (refusal(data) if said else str(read_image(data, SIZE).shape))
    assert (cost.seconds < 1, cost.megabytes < 60) == (True, True), (cost.seconds, cost.megabytes)


@pytest.mark.parametrize("make", [avif, heif])
def test_the_largest_picture_of_a_phone_costs_what_the_limit_says(make):
    data = make(Image.new("RGB", (5712, 4284), "teal"))
    assert MAX_HEIF_PIXELS >= 5712 * 4284
    with Cost() as cost:
        read_image(data, 260)
    assert (cost.megabytes < 300, cost.seconds < 10) == (True, True), (cost.megabytes, cost.seconds)


@pytest.mark.parametrize(("kind", "module"), [("heif", "pillow_heif"), ("raw", "exiv2")])
def test_without_the_extra_it_is_named(kind, module, monkeypatch):
    data = TWINS[kind][0]()
    monkeypatch.setitem(sys.modules, module, None)
    message = refusal(data)
    assert message == (
        f"received a {FORMATS[kind]} file ({len(data):,} bytes); install what reads it (pip install 'lcm[photos]'), or "
        "save it as JPEG"
    )
