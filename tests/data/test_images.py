"""Section E of the acceptance list, where images are decoded: the row leads each test's name.

Every file is made here, with Pillow or by hand. Expected pixels are worked out by hand or taken from a lossless twin.
"""

import io
import os
import random
import re
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from lcm.data import images
from lcm.data.images import image_format, open_image, read_image, scan
from lcm.errors import BadImageError
from tests.fakes.image_files import (
    ADOBE_RGB,
    BAD_PNGS,
    BROKEN_EXIF,
    FOREIGN,
    HUGE,
    LEVELS,
    MANY_PARTS,
    METADATA_BOMBS,
    NOT_IMAGES,
    POLITE,
    ROW,
    SCENES,
    UPRIGHT_OF,
    Cost,
    chunk,
    encode,
    frames,
    gif_header,
    icc_profile,
    jpeg_header,
    noted,
    orientation,
    png,
    repeat_gif_frame,
    scene,
    segment,
    with_chunk,
    with_exif,
    with_segment,
    word_document,
)

# A warning is a leak: Pillow warns of bombs, of broken EXIF and of malformed MPO.
pytestmark = pytest.mark.filterwarnings("error")

SIZE = 32  # side of the squares read here
DAMAGED = "damaged, cut short or of a rare kind"


def refusal(source: bytes | str | Path) -> str:
    """Return the message with which both readers refuse `source`; it is in plain words and hides Pillow."""
    with pytest.raises(BadImageError) as caught:
        read_image(source, SIZE)
    with pytest.raises(BadImageError) as full:
        open_image(source)
    message = str(caught.value)
    assert message == str(full.value)
    for leak in ("0x", "PIL", "Pillow", "BytesIO", "object at", "Error"):
        assert leak not in message
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return message


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """Mean absolute difference, in levels of 255."""
    assert first.shape == second.shape
    return float(np.abs(first.astype(int) - second).mean())


def assert_same(first: bytes, second: bytes) -> None:
    np.testing.assert_array_equal(read_image(first, SIZE), read_image(second, SIZE))
    np.testing.assert_array_equal(np.asarray(open_image(first)), np.asarray(open_image(second)))


def pixels(data: bytes) -> list:
    return np.asarray(open_image(data)).tolist()


@pytest.fixture
def no_decoding(monkeypatch):
    """Fail as soon as Pillow is asked for anything; pytest.fail is no Exception, so nothing can swallow it."""
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("a decoder was asked before the check"))


# The contract ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SCENES)
def test_reads_every_format_as_a_square_of_bytes(kind):
    data = SCENES[kind]()
    array = read_image(data, SIZE)
    assert array.shape == (SIZE, SIZE, 3)
    assert array.dtype == np.uint8
    assert array.flags.writeable
    expected = np.asarray(scene().resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    assert difference(array, expected) < 15  # sixteen colours differ by 13; a turn or mirror image by 40 and more
    full = open_image(data)
    assert (full.mode, full.size) == ("RGB", (48, 36))
    assert image_format(data) == kind.split("-")[0]


def test_never_crops_and_antialiases():
    """Red at the left, blue at the right, green between: all survive. A checkerboard of pixels becomes an even grey."""
    stripes = np.zeros((10, 90, 3), np.uint8)
    stripes[:, :30, 0], stripes[:, 30:60, 1], stripes[:, 60:, 2] = 255, 255, 255
    array = read_image(encode(Image.fromarray(stripes), "PNG"), 9)
    assert array[4, [1, 4, 7]].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    array = read_image(encode(Image.fromarray(board.astype(np.uint8)), "PNG"), 8)
    assert np.abs(array.astype(int) - 127.5).max() < 8


def test_large_jpeg_decodes_at_reduced_size():
    """At a quarter of its sides, which shows in the memory; what comes out is the same."""
    photo = scene(2400, 1800)
    data = encode(photo, "JPEG", quality=95)
    with Cost() as reduced:
        small = read_image(data, 64)
    with Cost() as whole:
        open_image(data)
    assert reduced.megabytes <= whole.megabytes / 2
    assert difference(small, read_image(encode(photo, "PNG"), 64)) < 1


def test_bad_path_is_refused_by_name(tmp_path, monkeypatch):
    (tmp_path / "folder.jpg").mkdir()
    assert "'gone.jpg': no such file" in refusal(tmp_path / "gone.jpg")
    assert "'folder.jpg': no such file, or a folder" in refusal(str(tmp_path / "folder.jpg"))
    assert "cannot be read" in refusal(tmp_path / ("x" * 5000))  # longer than a file system allows
    assert "no such file" in refusal("nul\0byte.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "no such file" in refusal(tmp_path / "pipe.jpg")  # without waiting for its end
    for address in ("https://here/photo.jpg?key=secret", Path("s3://bucket/a.png")):
        message = refusal(address)
        assert message.startswith(f"received an address ({str(address).partition(':')[0]}://…)")
        assert "download it first, then give the path" in message
        assert "secret" not in message
    (tmp_path / "text.jpg").write_text("hello")
    assert "'text.jpg': received 5 bytes" in refusal(tmp_path / "text.jpg")
    assert str(tmp_path) not in refusal(tmp_path / "text.jpg")
    monkeypatch.setattr(images, "MAX_BYTES", 4)
    assert "over 4 bytes" in refusal(tmp_path / "text.jpg")


# E01 to E09: what is refused ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_decoding")
@pytest.mark.parametrize("name", [*NOT_IMAGES, *FOREIGN])
def test_e01_e08_e21_e22_what_is_no_image_of_ours_is_named(name):
    data, received = (NOT_IMAGES | FOREIGN)[name]
    message = refusal(data)
    assert received in message
    assert "JPEG, PNG, GIF, WebP, TIFF, BMP, AVIF, HEIC, camera raw are accepted" in message


@pytest.mark.parametrize("kind", SCENES)
def test_e02_cut_short(kind):
    """Every beginning of a file is refused that ends before its picture does."""
    data = SCENES[kind]()
    # Code, end of blocks and trailer follow a GIF's last pixel, two bytes a JPEG's.
    whole = len(data) - (4 if kind == "gif" else 2 * kind.startswith("jpeg"))
    for length in range(0, whole, 1 if whole < 1500 else 7):
        with pytest.raises(BadImageError):
            read_image(data[:length], SIZE)
    assert DAMAGED in refusal(data[: whole // 2])


@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 3}, {"progressive": True}], ids=str)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_that_lacks_its_end_alone_is_whole(mode, options):
    """Each of its pixels is there; so it is with one byte of the mark. Zeros in place of what is missing are no end."""
    for picture in (scene(200, 150), Image.new("RGB", (50, 50), "white")):
        data = encode(picture.convert(mode), "JPEG", **options)
        assert_same(data[:-2], data)
        assert_same(data[:-1], data)
        for cut, zeros in ((4, 2), (30, 30), (60, 5000)):
            assert DAMAGED in refusal(data[:-cut] + bytes(zeros))


def behind_header(data: bytes, content: bytes) -> bytes:
    """The tables of a JPEG of one scan, and other bytes in place of its scan."""
    start = data.index(b"\xff\xda")
    return data[: start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")] + content + b"\xff\xd9"


@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}, {"progressive": True}], ids=str)
@pytest.mark.parametrize("length", [100, 3000, 300_000])
def test_e08_random_bytes_behind_a_jpeg_header(options, length):
    """Too few of them for the picture, and too many; libjpeg draws something of all, since no marker is among them."""
    photo = encode(scene(640, 480), "JPEG", **options)
    content = random.Random(length).randbytes(length).replace(b"\xff", b"\xff\0")
    with Image.open(io.BytesIO(behind_header(photo, content))) as drawn:
        drawn.load()
    assert DAMAGED in refusal(behind_header(photo, content))


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}], ids=str)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_picture_that_ends_flat_or_is_mostly_white_or_black_is_no_damaged_one(mode, options):
    page = Image.new("RGB", (200, 300), "white")
    letterbox = Image.new("RGB", (200, 300), "black")
    page.paste("black", (20, 20, 40, 30))
    letterbox.paste(scene(200, 200), (0, 50))
    for picture in (page, letterbox, Image.new("RGB", (50, 50), "white"), Image.new("RGB", (300, 200), "red")):
        read_image(encode(picture.convert(mode), "JPEG", **options), SIZE)


@pytest.mark.parametrize(
    "make",
    [*HUGE.values(), *POLITE.values()],
    ids=[*(f"e03-{name}" for name in HUGE), *(f"e04-{name}" for name in POLITE)],
)
def test_bomb_is_refused_before_decoding(make):
    data = make()
    with Cost() as cost:
        message = refusal(data)
    assert "pixels are accepted in such a file: make it smaller" in message
    assert cost.seconds < 5
    assert cost.megabytes < 10


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        (lambda: png(8000, 5000), 40_000_000),
        (lambda: gif_header(8000, 5000, (8000, 5000)), 40_000_000),
        (lambda: jpeg_header(8000, 8000), 64_000_000),
        (lambda: jpeg_header(8000, 5000, frame=0xC2, scans=2), 40_000_000),
    ],
    ids=["png", "gif", "jpeg", "jpeg-progressive"],
)
def test_e04_the_limit_itself_is_allowed(make, limit):
    header = scan(make(), image_format(make()))
    assert header.sides[0] * header.sides[1] == limit == header.max_pixels


@pytest.mark.usefixtures("no_decoding")
@pytest.mark.parametrize("sides", [(201, 1), (1, 201), (60_000, 1), (30_000, 149)])
def test_e05_extreme_aspect(sides):
    message = refusal(png(*sides))
    assert f"{sides[0]:,} x {sides[1]:,} pixels; one side may be at most 200 times the other" in message


@pytest.mark.parametrize("name", METADATA_BOMBS)
def test_e06_metadata_bomb_costs_nothing(name):
    kind, grow = METADATA_BOMBS[name]
    data = grow(SCENES[kind]())
    read_image(SCENES[kind](), SIZE)
    with Cost() as cost:
        array = read_image(data, SIZE)
    np.testing.assert_array_equal(array, read_image(SCENES[kind](), SIZE))
    assert cost.seconds < 5
    assert cost.megabytes < 40  # the file itself, at most 16 MB, may be held twice


@pytest.mark.usefixtures("no_decoding")
@pytest.mark.parametrize("name", MANY_PARTS)
def test_e06_millions_of_parts(name):
    data = MANY_PARTS[name]()
    with Cost() as cost:
        assert DAMAGED in refusal(data)
    assert cost.seconds < 10  # for two readings
    assert cost.megabytes < 40


@pytest.mark.usefixtures("no_decoding")
def test_e06_progressive_jpeg_of_many_scans():
    """Each scan of 23 bytes makes the decoder go over the whole picture: 240 kB would keep it busy for minutes."""
    assert DAMAGED in refusal(jpeg_header(6000, 6000, frame=0xC2, scans=51))
    assert scan(jpeg_header(6000, 6000, frame=0xC2, scans=50), "jpeg").sides == (6000, 6000)


@pytest.mark.parametrize("name", BAD_PNGS)
def test_e07_bad_png(name):
    assert pixels(png(1, 1, rows=ROW)) == [[[128, 128, 128]]]  # the same file without the fault
    refusal(BAD_PNGS[name]())


@pytest.mark.parametrize(
    "bad",
    [
        chunk(b"tEXt", b"key\0value", checksum=1),
        chunk(b"iCCP", b"name\0\7not compressed"),
        chunk(b"gAMA", b"\0"),
        chunk(b"cHRM", b"\0"),
        chunk(b"pHYs", b"\0"),
        chunk(b"acTL", b"\0"),
        chunk(b"fcTL", bytes(26)),
        chunk(b"\xc3\xa9XY"),
    ],
    ids=["text-checksum", "profile", "gamma", "colours", "density", "animation", "frame", "name"],
)
def test_e07_bad_metadata_never_refuses_a_good_png(bad):
    assert_same(with_chunk(SCENES["png"](), bad), SCENES["png"]())


@pytest.mark.parametrize("kind", SCENES)
def test_e08_mutated_files_are_read_or_refused_quickly(kind):
    """Seeded: bytes changed, dropped or doubled anywhere in a good file."""
    chance = random.Random(kind)
    good = SCENES[kind]()
    refused = 0
    for _ in range(150):
        data = bytearray(good)
        for _ in range(chance.choice([1, 1, 4, 20])):
            at = chance.randrange(len(data))
            data[at : at + chance.choice([1, 1, 0])] = chance.randbytes(chance.choice([0, 1, 1, 4]))
        start = time.process_time()
        try:
            assert read_image(bytes(data), SIZE).shape == (SIZE, SIZE, 3)
        except BadImageError:
            refused += 1
        assert time.process_time() - start < 5
    assert refused > 10


FAMILY = [OSError, ValueError, SyntaxError, struct.error, MemoryError, RecursionError, Image.DecompressionBombError]


@pytest.mark.parametrize("error", FAMILY, ids=lambda error: error.__name__)
@pytest.mark.parametrize("where", ["open", "load"])
def test_e09_every_exception_of_a_decoder(monkeypatch, where, error):
    def trip(*_, **__):
        raise error("cannot identify <_io.BytesIO object at 0x7f12>")

    monkeypatch.setattr(*((Image, "open") if where == "open" else (PngImagePlugin.PngImageFile, "load")), trip)
    message = refusal(SCENES["png"]())
    assert message.startswith("received a PNG file (")
    assert DAMAGED in message
    assert "send it again" in message


# E10 to E19: what is read, and as what --------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP"])
def test_e10_first_frame_of_an_animation(file_format):
    first, *rest = frames()
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encode(first, file_format, save_all=True, append_images=rest, duration=100, **options)
    with Image.open(io.BytesIO(data)) as animation:
        assert animation.n_frames == 3
    assert_same(data, encode(first, "PNG"))


def test_e11_only_the_first_frame_is_looked_at():
    """Of 5,000 frames of a GIF, the last of which is a bomb, and of 30,000 of a PNG."""
    frame = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 1, 48, 36, 0, 0, 1, 9, 0, 0))
    frame += chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(bytes(1 << 20)))
    control = chunk(b"acTL", struct.pack(">II", 30_001, 0))
    control += chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 48, 36, 0, 0, 1, 9, 0, 0))
    good = SCENES["png"]()
    png_frames = with_chunk(good, control)[:-12] + frame * 30_000 + chunk(b"IEND")
    gif_frames = repeat_gif_frame(SCENES["gif"](), 5000)
    with Cost() as cost:
        assert_same(gif_frames, SCENES["gif"]())
        assert_same(png_frames, good)
    assert cost.seconds < 5
    assert cost.megabytes < 10


def test_e12_cmyk_jpeg_is_no_negative():
    picture = scene()
    array = read_image(encode(picture.convert("CMYK"), "JPEG", quality=95), SIZE)
    assert difference(array, read_image(encode(picture, "PNG"), SIZE)) < 3  # the negative differs by 100


@pytest.mark.parametrize("low", [0, 1], ids=["low-byte-0", "low-byte-same"])
def test_e13_16_bit_grey_equals_its_8_bit_twin(low):
    deep = LEVELS.astype(np.uint16) * (256 + low)
    data = encode(Image.fromarray(deep), "PNG")
    assert data[24] == 16
    assert_same(data, encode(Image.fromarray(LEVELS), "PNG"))
    assert 120 < read_image(data, SIZE).mean() < 135


def clear(content: bytes) -> bytes:
    return chunk(b"tRNS", content)


PALETTE = chunk(b"PLTE", bytes([0, 0, 0, 255, 0, 0, 0, 0, 255]))  # black, red, blue
INDICES = bytes([0, 0, 1, 2])
RGBA_ROW = bytes([0, *(0, 0, 0, 0), *(0, 0, 0, 51), *(0, 0, 0, 128), *(0, 0, 0, 255), *(255, 0, 0, 102)])
WHITE, BLACK, RED, BLUE = [255] * 3, [0] * 3, [255, 0, 0], [0, 0, 255]
# A row of pixels as stored, and as seen: of 16 bits the high byte; on white, through which 255 - alpha of it shines;
# PNG names one transparent level or colour, in the file's own depth. The first byte of each row is its filter's.
PIXELS = {
    "e13-colour": (
        png(2, 1, depth=16, colour=2, rows=bytes([0, 18, 255, 52, 255, 86, 255, 254, 255, 220, 255, 186, 255])),
        [[18, 52, 86], [254, 220, 186]],
    ),
    "e13-alpha": (
        png(2, 1, depth=16, colour=4, rows=bytes([0, 18, 255, 255, 255, 18, 255, 0, 0])),
        [[18, 18, 18], WHITE],
    ),
    "e14-rgba": (png(5, 1, colour=6, rows=RGBA_ROW), [WHITE, [204] * 3, [127] * 3, BLACK, [255, 153, 153]]),
    "e14-one-clear": (png(3, 1, colour=3, rows=INDICES, before=PALETTE + clear(b"\0")), [WHITE, RED, BLUE]),
    "e14-graded": (
        png(3, 1, colour=3, rows=INDICES, before=PALETTE + clear(bytes([51, 102]))),
        [[204] * 3, [255, 153, 153], BLUE],
    ),
    "e14-opaque": (png(3, 1, colour=3, rows=INDICES, before=PALETTE), [BLACK, RED, BLUE]),
    "e14-level": (png(2, 1, rows=b"\0\x0a\x14", before=clear(b"\0\x0a")), [WHITE, [20] * 3]),
    "e14-deep-level": (
        png(2, 1, depth=16, rows=b"\0\x0a\x01\x0a\x02", before=clear(b"\x0a\x01")),
        [WHITE, [10] * 3],
    ),
    "e14-colour": (
        png(2, 1, colour=2, rows=bytes([0, 1, 2, 3, 4, 5, 6]), before=clear(bytes([0, 1, 0, 2, 0, 3]))),
        [WHITE, [4, 5, 6]],
    ),
    "e14-two-bits": (png(4, 1, depth=2, rows=b"\0\x1b", before=clear(b"\0\2")), [BLACK, [85] * 3, WHITE, WHITE]),
    "e14-four-bits": (png(2, 1, depth=4, rows=b"\0\x50", before=clear(b"\0\5")), [WHITE, BLACK]),
    "e14-deep-colour": (
        png(
            *(3, 1, 16, 2),
            bytes([0, 18, 52, *bytes(4), 18, 153, *bytes(4), 18, 52, *bytes(3), 1]),
            clear(bytes([18, 52, *bytes(4)])),
        ),
        [WHITE, [18, 0, 0], [18, 0, 0]],
    ),
    "e14-bit": (png(2, 1, depth=1, rows=b"\0\x40", before=clear(b"\0\0")), [WHITE, WHITE]),
    "e18-bits": (png(4, 1, depth=1, rows=b"\0\xb0"), [WHITE, BLACK, WHITE, WHITE]),
    "e18-two-bits": (png(4, 1, depth=2, rows=b"\0\x1b"), [BLACK, [85] * 3, [170] * 3, WHITE]),
    "e18-grey": (png(4, 1, rows=b"\0\x00\x07\xc8\xff"), [BLACK, [7] * 3, [200] * 3, WHITE]),
}


# Once Pillow has decoded these, they hold no longer which pixels were transparent.
DEPTH_LOST = ("e14-two-bits", "e14-four-bits", "e14-deep-colour")


@pytest.mark.parametrize("name", PIXELS)
def test_pixels_are_seen_as_stored_and_on_white(name):
    data, expected = PIXELS[name]
    assert pixels(data) == [expected]


def test_e14_webp_and_gif_with_transparency():
    data, expected = PIXELS["e14-rgba"]
    with Image.open(io.BytesIO(data)) as picture:
        assert pixels(encode(picture, "WEBP", lossless=True, exact=True)) == [expected]
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.putpixel((1, 0), 1)
    assert pixels(encode(picture, "GIF", transparency=0)) == [[WHITE, RED]]
    assert pixels(encode(picture, "GIF")) == [[BLACK, RED]]


def test_e14_white_is_there_before_the_resize():
    """Half clear (over hidden black), half opaque white: all of it is white, with no dark seam."""
    halves = np.zeros((16, 16, 4), np.uint8)
    halves[:, 8:] = 255
    assert read_image(encode(Image.fromarray(halves), "PNG"), 5).min() == 255


@pytest.mark.parametrize("kind", ["png", "webp-lossless", "png-alpha", "png-grey"])
@pytest.mark.parametrize("value", UPRIGHT_OF)
def test_e15_orientation_equals_the_upright_picture(kind, value):
    stored = scene()
    if kind == "png-alpha":
        stored.putalpha(Image.fromarray(LEVELS))
    elif kind == "png-grey":
        stored = Image.fromarray(LEVELS)
    twin = Image.fromarray(np.ascontiguousarray(UPRIGHT_OF[value](np.asarray(stored))))
    plain = encode(stored, "WEBP", lossless=True) if kind == "webp-lossless" else encode(stored, "PNG")
    for tiff in (orientation(value), orientation(value, ">"), orientation(value, kind=4), orientation(value, ">", 4)):
        assert_same(with_exif(plain, tiff), encode(twin, "PNG"))


@pytest.mark.parametrize("value", [*UPRIGHT_OF, 0, 9])
@pytest.mark.parametrize(
    "how",
    [
        *("jpeg xmp", "jpeg xmp element", "png xmp", "png xmp element", "png xmp packed", "webp-lossless xmp"),
        *("png raw profile", "png raw profile packed"),
    ],
)
def test_e15_orientation_outside_exif_equals_the_upright_picture(how, value):
    plain = SCENES[how.split()[0]]()
    data = noted(plain, how, value)
    turned = np.ascontiguousarray(UPRIGHT_OF.get(value, UPRIGHT_OF[1])(np.asarray(open_image(plain))))
    assert_same(data, encode(Image.fromarray(turned), "PNG"))
    with Image.open(io.BytesIO(data)) as picture:
        np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(picture)), turned)
        np.testing.assert_array_equal(np.asarray(open_image(picture)), turned)
    with_both = with_exif(data, orientation(1))
    assert_same(with_both, plain)  # EXIF counts


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp-lossless"])
@pytest.mark.parametrize("name", BROKEN_EXIF)
def test_e16_broken_exif_never_refuses_a_good_picture(kind, name):
    data = SCENES[kind]()
    if kind == "jpeg":  # without JFIF's density Pillow would look for one in EXIF
        data = data[:2] + data[4 + struct.unpack(">H", data[4:6])[0] :]
    assert_same(with_exif(data, BROKEN_EXIF[name]), data)


WIDE = icc_profile(ADOBE_RGB, 563 / 256)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_colours_of_a_profile_become_those_of_srgb(file_format):
    """In Adobe RGB (200, 40, 90) of sRGB is (172, 44, 89), by ICC's own formulas; what is in sRGB stays as it is."""
    options = {"lossless": True} if file_format == "WEBP" else {"quality": 100}
    picture, srgb = Image.new("RGB", (16, 16), (172, 44, 89)), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    plain = encode(picture, file_format, **options)
    data = encode(picture, file_format, icc_profile=WIDE, **options)
    assert difference(np.asarray(open_image(plain)), np.full((16, 16, 3), (172, 44, 89))) < 1
    for source in (data, Image.open(io.BytesIO(data))):
        for pixels in (read_image(source, 16), np.asarray(open_image(source))):
            assert difference(pixels, np.full((16, 16, 3), (200, 40, 90))) < 1.5
    assert_same(encode(picture, file_format, icc_profile=srgb.tobytes(), **options), plain)


@pytest.mark.parametrize(
    "profile",
    [
        *(b"", b"x", WIDE[:100], WIDE[:-30], WIDE[:-30] + bytes(30), bytes(500), WIDE * 800),
        *(icc_profile(ADOBE_RGB, 1.8, space) for space in (b"GRAY", b"CMYK", b"Lab ", b"none")),
    ],
    ids=["empty", "one-byte", "cut", "cut-at-the-end", "no-curve", "zeros", "large", "grey", "cmyk", "lab", "none"],
)
def test_a_profile_that_cannot_be_used_never_refuses_a_good_picture(profile):
    for mode, formats in {"RGB": ("JPEG", "PNG", "WEBP"), "L": ("JPEG", "PNG"), "CMYK": ("JPEG",)}.items():
        for file_format in formats:
            picture = scene().convert(mode)
            plain, data = encode(picture, file_format), encode(picture, file_format, icc_profile=profile)
            if profile != WIDE * 800 or mode != "RGB":  # what follows a profile is nothing of it
                assert_same(data, plain)
            read_image(data, SIZE)


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "webp-lossless"])
def test_e17_nothing_but_pixels_is_handed_on(kind):
    """GPS, XMP, comment and profile go in; neither pixels nor what is saved from them show any of it."""
    secret = b"GPSLatitude 52,31N"
    tiff = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x8825, 4, 1, 26) + bytes(4)
    tiff += b"\x01\0" + struct.pack("<HHII", 2, 2, len(secret), 44) + bytes(4) + secret
    plain = SCENES[kind]()
    data = plain if kind == "gif" else with_exif(plain, tiff)
    if kind == "jpeg":
        xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + secret)
        data = with_segment(data, xmp, segment(0xFE, secret), segment(0xE2, b"ICC_PROFILE\0\1\1" + secret))
    elif kind == "png":
        profile = chunk(b"iCCP", b"name\0\0" + zlib.compress(secret))
        data = with_chunk(data, profile, chunk(b"tEXt", b"Comment\0" + secret), chunk(b"iTXt", b"k\0\0\0\0\0" + secret))
    elif kind == "gif":
        data = data[:61] + b"!\xfe" + bytes([len(secret)]) + secret + b"\0" + data[61:]
    assert secret in data
    assert_same(data, plain)
    picture = open_image(data)
    assert not picture.info
    assert not picture.getexif()
    for file_format in ("JPEG", "PNG", "GIF", "WEBP"):
        assert secret not in encode(picture, file_format)


def test_e18_smallest_and_grey_pictures():
    one = Image.new("RGB", (1, 1), (9, 99, 199))
    for data in (encode(one, "PNG"), encode(one, "WEBP", lossless=True), encode(one.quantize(2), "GIF")):
        assert np.unique(read_image(data, SIZE).reshape(-1, 3), axis=0).tolist() == [[9, 99, 199]]
    assert set(read_image(encode(Image.new("L", (20, 10), 77), "JPEG"), SIZE).ravel().tolist()) == {77}


def test_e19_mpo_is_a_jpeg():
    first, *rest = frames()
    data = encode(first, "MPO", save_all=True, append_images=rest)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "MPO"
    assert image_format(data) == "jpeg"
    assert_same(data, encode(first, "JPEG"))


# E20 to E24: rare kinds, disguises, stability -------------------------------------------------------------------------


@pytest.mark.usefixtures("no_decoding")
@pytest.mark.parametrize("frame", [0xC3, 0xC5, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCF, 0xDE])
def test_e20_rare_jpeg_is_refused(frame):
    """Lossless, hierarchical and arithmetic ones; browsers show none of them."""
    assert DAMAGED in refusal(jpeg_header(8, 8, frame=frame))


def test_e23_polyglots_are_the_picture():
    jpeg, picture = SCENES["jpeg"](), SCENES["png"]()
    script = b"<script>alert(1)</script>"
    assert_same(with_segment(jpeg, segment(0xFE, script)), jpeg)
    assert_same(jpeg + word_document(), jpeg)
    assert_same(jpeg + SCENES["png"](), jpeg)
    assert_same(picture + script, picture)
    assert_same(with_chunk(picture, chunk(b"tEXt", b"k\0" + script)), picture)
    assert image_format(jpeg + word_document()) == "jpeg"
    assert image_format(picture + script) == "png"


@pytest.mark.parametrize("sides", [(48, 36), (1300, 900)], ids=["small", "reduced"])
def test_e24_same_picture_in_three_formats(sides):
    picture = scene(*sides)
    expected = read_image(encode(picture, "PNG"), SIZE)
    np.testing.assert_array_equal(read_image(encode(picture, "WEBP", lossless=True, method=0), SIZE), expected)
    assert difference(read_image(encode(picture, "JPEG", quality=95), SIZE), expected) < 1


# Other ways to give a picture -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SCENES, *(name for name in PIXELS if name not in DEPTH_LOST)])
def test_what_is_opened_already_is_the_same_picture_and_stays_as_it_is(name):
    """As Pillow opens it and as its pixels, in every mode and turn; but for a JPEG that is decoded at reduced size."""
    data = SCENES[name]() if name in SCENES else PIXELS[name][0]
    expected, picture = open_image(data), Image.open(io.BytesIO(data))
    for _ in range(2):  # not loaded yet, and loaded
        before = None if picture.tile else (picture.mode, picture.size, picture.tobytes())
        np.testing.assert_array_equal(read_image(picture, SIZE), read_image(data, SIZE))
        np.testing.assert_array_equal(np.asarray(open_image(picture)), np.asarray(expected))
    assert before == (picture.mode, picture.size, picture.tobytes())
    pixels = np.array(expected)[::-1]  # not contiguous
    np.testing.assert_array_equal(read_image(pixels[::-1], SIZE), read_image(data, SIZE))


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (4, 5, 4), (2, 4, 5, 3), (0, 5, 3)])
def test_an_array_of_another_form_is_refused(shape):
    kind = "float32" if shape == (4, 5, 3) else "uint8"
    received = re.escape(f"an array of shape {list(shape)} and type {kind}")
    with pytest.raises(BadImageError, match=rf"{received}; \[H, W, 3\] of uint8 is accepted.* 255"):
        read_image(np.zeros(shape, kind), SIZE)


def test_an_opened_picture_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(SCENES["jpeg"]())
    with Image.open(tmp_path / "photo.jpg") as closed:
        pass
    half = Image.open(io.BytesIO(SCENES["png"]()[:200]))
    unreadable = r"of mode RGB and 48 x 36 pixels that cannot be read; leave its file open"
    for picture, message in (
        (closed, unreadable),
        (half, unreadable),
        (Image.new("F", (4, 5)), "of mode F and 4 x 5 pixels, in which no value is known to be white; make it one of"),
        (Image.new("I", (4, 5)), "of mode I and 4 x 5 pixels, in which no value is known to be white"),
        (Image.new("RGB", (0, 5)), "of mode RGB and 0 x 5 pixels that cannot be read"),
        (Image.new("RGB", (1, 201)), "a decoded picture of 1 x 201 pixels; one side may be at most 200 times"),
    ):
        with pytest.raises(BadImageError, match=message):
            read_image(picture, SIZE)


def test_a_file_object_is_read_from_its_position(tmp_path):
    data, path = SCENES["jpeg"](), tmp_path / "photo.txt"
    path.write_bytes(b"before" + data)
    with path.open("rb") as file:
        file.seek(6)
        np.testing.assert_array_equal(read_image(file, SIZE), read_image(data, SIZE))
        with pytest.raises(BadImageError, match=r"at its end; .*seek\(0\)"):
            read_image(file, SIZE)
    path.write_bytes(data)
    for same in (path, str(path)):  # the content decides, not the name
        np.testing.assert_array_equal(read_image(same, SIZE), read_image(data, SIZE))
    with path.open(encoding="utf-8") as text:
        for unreadable in (file, text, io.StringIO("a photo")):  # closed, not UTF-8, text
            with pytest.raises(
                BadImageError, match=r"gives no bytes; open it in binary mode \('rb'\), and leave it open"
            ):
                read_image(unreadable, SIZE)
