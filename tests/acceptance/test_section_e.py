"""Section E of the acceptance list: image files, each through both routes. The case id leads each test's name.

What pixels come of a file is held in tests/data/test_images.py; here it is what is answered and what is kept.
"""

import hashlib
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from lcm.captioning.description import Description
from lcm.data.images import read_image
from serve import create_app
from tests.acceptance.service_client import (
    ROUTES,
    Caller,
    DiskStore,
    body_for,
    caption_body,
    question_body,
    settings_for,
    text_of,
)
from tests.fakes import image_files as files

pytestmark = pytest.mark.filterwarnings("error")


class PixelCaptioner:
    """Says what it sees to the bit: only the same picture gets the same caption."""

    name = "pixels-1"

    def describe(self, image, *_) -> Description:
        caption = hashlib.sha256(read_image(image, 24).tobytes()).hexdigest()
        return Description(caption, (caption,), (("dog", 1.0),), self.name)


COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "yellow": (230, 220, 40)}


class QuarterCaptioner:
    """Names the colours of a picture's quarters, from left to right and from top to bottom."""

    name = "quarters-1"

    def describe(self, image, *_) -> Description:
        quarters = read_image(image, 32)[8::16, 8::16].reshape(4, 3).astype(int)
        names = [min(COLOURS, key=lambda name: np.abs(quarter - COLOURS[name]).sum()) for quarter in quarters]
        return Description(" ".join(names), (" ".join(names),), ((names[0], 1.0),), self.name)


def quarters() -> Image.Image:
    colours = np.array(list(COLOURS.values()), np.uint8).reshape(2, 2, 3)
    return Image.fromarray(colours.repeat(48, axis=0).repeat(64, axis=1))


def caller_of(captioner, folder) -> Caller:
    store = DiskStore(folder / "contributions")
    return Caller(create_app(settings_for(folder, memory=False), captioner=captioner, store=store), store)


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> Caller:
    """A caller of a service that tells pictures apart to the bit."""
    return caller_of(PixelCaptioner(), tmp_path_factory.mktemp("pixels"))


@pytest.fixture(scope="module")
def named(tmp_path_factory) -> Caller:
    """A caller of a service that tells how pictures are turned, and whether their colours are right."""
    return caller_of(QuarterCaptioner(), tmp_path_factory.mktemp("quarters"))


def refuses(caller: Caller, data: bytes, seconds: float = 5.0) -> str:
    """Both routes refuse the file in the same words, at once, and I3 holds."""
    messages = []
    for route in ROUTES:
        body = body_for(route, image=text_of(data))
        caller.client.get("/")
        start = time.process_time()
        reply = caller.client.post(route, json=body)
        assert time.process_time() - start < seconds
        assert reply.status_code in (400, 413), reply.text
        messages.append(caller.refuses(route, body, reply.status_code))
    assert messages[0] == messages[1]
    return messages[0]


def accepts(caller: Caller, data: bytes, suffix: str = "") -> dict:
    """Both routes take the file; it is kept as it was sent under its hash and its true format."""
    number = caller.answers("/caption", caption_body(image=text_of(data), caption=f"of {len(data)} bytes"))["id"]
    kept = caller.store.get(number)
    assert kept.image_sha256 == hashlib.sha256(data).hexdigest()
    (path,) = (caller.store.folder / "images").rglob(f"{kept.image_sha256}.*")
    assert path.read_bytes() == data
    assert path.suffix == suffix or not suffix
    return caller.answers("/learning-model", question_body(image=text_of(data)))


def same(caller: Caller, data: bytes, twin: bytes) -> None:
    assert accepts(caller, data) == caller.answers("/learning-model", question_body(image=text_of(twin)))


@pytest.mark.parametrize("kind", files.SCENES)
def test_every_format_is_accepted(on_disk, kind):
    suffix = {"jpeg": ".jpg", "png": ".png", "gif": ".gif", "webp": ".webp"}[kind.split("-")[0]]
    accepts(on_disk, files.SCENES[kind](), suffix)


@pytest.mark.parametrize("name", [name for name in files.NOT_IMAGES if name != "empty"])
def test_e01_no_image(on_disk, name):
    assert "are accepted" in refuses(on_disk, files.NOT_IMAGES[name][0])


@pytest.mark.parametrize("kind", files.SCENES)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_e02_cut_short(on_disk, kind, share):
    data = files.SCENES[kind]()
    refuses(on_disk, data[: int(share * (len(data) - 4))])


@pytest.mark.parametrize("make", [*files.HUGE.values(), *files.POLITE.values()])
def test_e03_e04_bombs(on_disk, make):
    data = make()
    with files.Cost() as cost:
        message = refuses(on_disk, data)
    assert "make it smaller" in message
    assert cost.megabytes < 30


def test_e03_full_bomb(on_disk):
    squeeze = zlib.compressobj(1)
    row = bytes(6251 * 1000)
    packed = b"".join([*(squeeze.compress(row) for _ in range(50)), squeeze.flush()])
    header = files.chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 1, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + files.chunk(b"IDAT", packed) + files.chunk(b"IEND")
    assert "50,000 x 50,000 pixels" in refuses(on_disk, data)


@pytest.mark.parametrize("sides", [(201, 1), (1, 201), (60_000, 1), (30_000, 149)])
def test_e05_extreme_aspect(on_disk, sides):
    assert "crop it" in refuses(on_disk, files.png(*sides))


@pytest.mark.parametrize("name", files.METADATA_BOMBS)
def test_e06_metadata_bombs(seen, name):
    kind, grow = files.METADATA_BOMBS[name]
    plain = files.SCENES[kind]()
    data = grow(plain)
    with files.Cost() as cost:
        answer = seen.answers("/learning-model", question_body(image=text_of(data)))
        seen.answers("/caption", caption_body(image=text_of(data)))
    assert answer == seen.answers("/learning-model", question_body(image=text_of(plain)))
    assert cost.megabytes < 300, "I7"


@pytest.mark.parametrize("name", files.MANY_PARTS)
def test_e06_millions_of_parts(on_disk, name):
    refuses(on_disk, files.MANY_PARTS[name](), seconds=10)


@pytest.mark.parametrize("name", files.BAD_PNGS)
def test_e07_bad_pngs(on_disk, name):
    refuses(on_disk, files.BAD_PNGS[name]())


@pytest.mark.parametrize("name", files.FOREIGN)
def test_e08_e21_e22_other_formats(on_disk, name, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a process was asked for"))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection was asked for"))
    assert "JPEG, PNG, GIF, WebP are accepted" in refuses(on_disk, files.FOREIGN[name][0])


@pytest.mark.parametrize("file_format", ["BMP", "TIFF", "ICO", "TGA", "PPM", "PCX", "DDS", "SGI"])
def test_e21_e22_whole_pictures_of_other_formats(on_disk, file_format):
    refuses(on_disk, files.encode(files.scene(), file_format))


@pytest.mark.parametrize("kind", files.SCENES)
def test_e08_mutated_files(on_disk, kind):
    """Seeded; each is answered at once and with a status of the client's, whatever comes of it."""
    rng, good, statuses = np.random.default_rng(len(kind)), files.SCENES[kind](), set()
    for _ in range(12):
        data = np.frombuffer(good, np.uint8).copy()
        data[rng.integers(0, len(data), 5)] = rng.integers(0, 256, 5)
        for route in ROUTES:
            body = body_for(route, image=text_of(data.tobytes()))
            start = time.process_time()
            reply = on_disk.post(route, body, follow_up=False)
            assert time.process_time() - start < 5
            assert reply.status_code in (200, 400)
            statuses.add(reply.status_code)
    assert 400 in statuses or kind.startswith("jpeg")


@pytest.mark.parametrize(
    "error",
    [OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError],
    ids=lambda error: error.__name__,
)
@pytest.mark.parametrize("where", ["open", "load"])
def test_e09_every_exception_of_a_decoder(on_disk, monkeypatch, where, error):
    def trip(*_, **__):
        raise error("cannot identify <_io.BytesIO object at 0x7f12>")

    target = (Image, "open") if where == "open" else (PngImagePlugin.PngImageFile, "load")
    for route in ROUTES:
        with monkeypatch.context() as patch:
            patch.setattr(*target, trip)
            reply = on_disk.post(route, body_for(route), follow_up=False)
        assert reply.status_code == 400
    on_disk.answers("/learning-model", question_body())


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP"])
def test_e10_first_frame_of_an_animation(seen, file_format):
    first, *rest = files.frames()
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = files.encode(first, file_format, save_all=True, append_images=rest, duration=100, **options)
    same(seen, data, files.encode(first, "PNG"))


def test_e11_gif_of_5000_frames(seen):
    data = files.repeat_gif_frame(files.SCENES["gif"](), 5000)
    start = time.process_time()
    same(seen, data, files.SCENES["gif"]())
    assert time.process_time() - start < 10


def test_e12_cmyk_is_no_negative(named):
    data = files.encode(quarters().convert("CMYK"), "JPEG", quality=95)
    assert accepts(named, data)["captions"] == ["red green blue yellow"]


def test_e13_16_bit_grey(seen):
    deep = files.encode(Image.fromarray(files.LEVELS.astype(np.uint16) * 257), "PNG")
    same(seen, deep, files.encode(Image.fromarray(files.LEVELS), "PNG"))


def test_e14_transparency_is_seen_on_white(seen):
    red = Image.new("RGBA", (20, 20), (255, 0, 0, 102))
    same(seen, files.encode(red, "PNG"), files.encode(Image.new("RGB", (20, 20), (255, 153, 153)), "PNG"))
    clear = Image.new("LA", (20, 20), (0, 0))
    same(seen, files.encode(clear, "PNG"), files.encode(Image.new("L", (20, 20), 255), "PNG"))
    palette = Image.new("P", (20, 20))
    palette.putpalette([0, 0, 0, 255, 0, 0])
    same(
        seen,
        files.encode(palette, "GIF", transparency=0),
        files.encode(Image.new("RGB", (20, 20), (255, 255, 255)), "PNG"),
    )


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("value", files.UPRIGHT_OF)
def test_e15_orientation(named, value, file_format):
    upright = Image.fromarray(np.ascontiguousarray(files.UPRIGHT_OF[value](np.asarray(quarters()))))
    data = files.with_exif(files.encode(quarters(), file_format, quality=95), files.orientation(value))
    same(named, data, files.encode(upright, "PNG"))


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp-lossless"])
@pytest.mark.parametrize("name", files.BROKEN_EXIF)
def test_e16_broken_exif(seen, kind, name):
    data = files.SCENES[kind]()
    same(seen, files.with_exif(data, files.BROKEN_EXIF[name]), data)


def test_e17_gps_is_kept_private(on_disk, caplog):
    """The original is kept as it was sent, for the operator; nothing of it is answered or logged."""
    secret = b"GPSLatitude 52,31N"
    data = files.with_segment(files.SCENES["jpeg"](), files.segment(0xFE, secret))
    assert secret.decode() not in str(accepts(on_disk, data))
    assert secret.decode() not in caplog.text


@pytest.mark.parametrize("sides", [(1, 1), (13, 1), (1, 13), (200, 1)])
@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "LA", "RGBA"])
def test_e18_small_pictures(on_disk, mode, sides):
    accepts(on_disk, files.encode(Image.new(mode, sides), "PNG"), ".png")


def test_e19_mpo_and_ultra_hdr(seen):
    first, *rest = files.frames()
    data = files.encode(first, "MPO", save_all=True, append_images=rest)
    same(seen, data, files.encode(first, "JPEG"))
    assert next(reversed(list(seen.store.contributions()))).image_format == "jpeg"
    gain_map = files.segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x hdrgm:Version="1.0"/>')
    plain = files.SCENES["jpeg"]()
    same(seen, files.with_segment(plain, gain_map) + files.encode(Image.new("L", (9, 9)), "JPEG"), plain)


@pytest.mark.parametrize("frame", [0xC3, 0xC5, 0xC9, 0xCB])
def test_e20_rare_jpegs(on_disk, frame):
    refuses(on_disk, files.jpeg_header(8, 8, frame=frame))
    refuses(on_disk, files.jpeg_header(8, 8, frame=0xC1, bits=12))


def test_e23_polyglots(seen):
    jpeg, picture, script = files.SCENES["jpeg"](), files.SCENES["png"](), b"<script>alert(1)</script>"
    for data, plain, suffix in (
        (files.with_segment(jpeg, files.segment(0xFE, script)), jpeg, ".jpg"),
        (jpeg + files.word_document(), jpeg, ".jpg"),
        (picture + script, picture, ".png"),
    ):
        assert accepts(seen, data, suffix) == seen.answers("/learning-model", question_body(image=text_of(plain)))


def test_e24_same_picture_in_three_formats(named):
    formats = (("PNG", {}), ("JPEG", {"quality": 95}), ("WEBP", {"lossless": True}))
    answers = [accepts(named, files.encode(quarters(), name, **options)) for name, options in formats]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["tags"] == [["red", 1.0]]


def test_e25_same_bytes_same_answer(on_disk):
    body = question_body(image=text_of(files.SCENES["jpeg"]()))
    texts = {on_disk.post("/learning-model", body, follow_up=False).text for _ in range(20)}
    assert len(texts) == 1


def test_e26_labels_and_samples_keep_the_contract(on_disk):
    """The contract itself is checked on every reply of every test here."""
    for samples in (0, 1, 10):
        for labels in (["red"], ["red", "green", "blue", "zebra"], ["no", "word"], ["red square", "blue"]):
            on_disk.answers("/learning-model", question_body(samples=samples, labels=labels))


def test_e_no_temporary_files_and_no_open_files(on_disk, tmp_path, monkeypatch):
    """I11: what is open and what lies in the folder of temporary files is as before."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = open_files()
    for data in (files.SCENES["jpeg"](), b"no image", files.encode(files.scene(900, 700), "PNG", compress_level=0)):
        for route in ROUTES:
            on_disk.client.post(route, json=body_for(route, image=text_of(data)))
    assert list(tmp_path.iterdir()) == []
    assert open_files() <= before


def open_files() -> int:
    try:
        return len(list(Path("/proc/self/fd").iterdir()))
    except OSError:
        pytest.skip("open files cannot be counted here")


def test_e_image_is_decoded_once(on_disk, monkeypatch):
    decoded = []
    opener = Image.open
    monkeypatch.setattr(Image, "open", lambda file, **options: decoded.append(1) or opener(file, **options))
    for route in ROUTES:
        on_disk.client.post(route, json=body_for(route, image=text_of(files.encode(files.scene(), "PNG"))))
        assert decoded == [1]
        decoded.clear()
