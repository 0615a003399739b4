"""Section E of the acceptance list: image files, each through both routes. The case id leads each test's name.

Rows E02 and E10 to E20 are tests/data/test_images.py's, whose files are sent here, and rows that are refused are
test_refusals.py's; here it is what is answered and what is stored.
"""

import hashlib
import struct
import time
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from tests.fakes import image_files as files
from tests.fakes.service_client import (
    ROUTES,
    Caller,
    body_for,
    caption_body,
    question_body,
    text_of,
)

pytestmark = pytest.mark.filterwarnings("error")


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


def accepts(caller: Caller, data: bytes, kind: str = "") -> dict:
    """Both routes take the file; it is kept as it was sent under its hash and its true format."""
    number = caller.answers("/caption", caption_body(image=text_of(data), caption=f"of {len(data)} bytes"))["id"]
    kept = caller.store.get(number)
    assert kept.image_sha256 == hashlib.sha256(data).hexdigest()
    assert caller.store.read_image(kept) == data
    assert kept.image_format == kind or not kind
    return caller.answers("/learning-model", question_body(image=text_of(data)))


@pytest.mark.parametrize("kind", files.SCENES)
def test_every_format_is_accepted(on_disk, kind):
    accepts(on_disk, files.SCENES[kind](), kind.split("-")[0])


@pytest.mark.parametrize("make", [*files.HUGE.values(), *files.POLITE.values()])
def test_e03_e04_bombs(on_disk, make):
    data = make()
    with files.Cost() as cost:
        message = refuses(on_disk, data)
    assert "make it smaller" in message
    assert cost.megabytes < 30


@pytest.mark.parametrize("name", files.MANY_PARTS)
def test_e06_millions_of_parts(on_disk, name):
    refuses(on_disk, files.MANY_PARTS[name](), seconds=10)


@pytest.mark.parametrize("name", files.FOREIGN)
def test_e08_e21_e22_other_formats(on_disk, name, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a process was asked for"))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection was asked for"))
    assert "JPEG, PNG, GIF, WebP are accepted" in refuses(on_disk, files.FOREIGN[name][0])


@pytest.mark.parametrize(
    "error",
    [OSError, SyntaxError, ValueError, MemoryError, struct.error, OverflowError],
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


def test_e17_gps_is_kept_private(on_disk, caplog):
    """The original is kept as it was sent, for the operator; nothing of it is answered or logged."""
    secret = b"GPSLatitude 52,31N"
    data = files.with_segment(files.SCENES["jpeg"](), files.segment(0xFE, secret))
    assert secret.decode() not in str(accepts(on_disk, data))
    assert secret.decode() not in caplog.text


def test_e23_polyglots(on_disk):
    jpeg, picture, script = files.SCENES["jpeg"](), files.SCENES["png"](), b"<script>alert(1)</script>"
    for data, plain, kind in (
        (files.with_segment(jpeg, files.segment(0xFE, script)), jpeg, "jpeg"),
        (jpeg + files.word_document(), jpeg, "jpeg"),
        (picture + script, picture, "png"),
    ):
        assert accepts(on_disk, data, kind) == on_disk.answers("/learning-model", question_body(image=text_of(plain)))


def test_e25_same_bytes_same_answer(on_disk):
    body = question_body(image=text_of(files.SCENES["jpeg"]()))
    texts = {on_disk.post("/learning-model", body, follow_up=False).text for _ in range(20)}
    assert len(texts) == 1


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
