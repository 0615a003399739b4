"""Metadata in XMP: read back by ExifTool, what people wrote is kept, and all can be undone to the last byte."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from lcm.captioning import captioner as captioner_module
from lcm.captioning.description import Description
from lcm.cli import main
from lcm.data.images import open_metadata
from lcm.errors import ConfigError, DataError, NothingToDo
from tests.fakes.fake_captioner import FakeCaptioner
from tests.fakes.image_files import encode, raw_file, scene, segment, with_segment

pytest.importorskip("exiv2", reason="the extra `photos` is not installed")

from lcm.metadata import Writer, undo

needs_exiftool = pytest.mark.skipif(not shutil.which("exiftool"), reason="ExifTool is not installed")
ROOT = Path(__file__).resolve().parents[1]
# A sidecar with Lightroom's settings, masks and history, and one with digiKam's tags and faces.
FOREIGN = {name: (Path(__file__).parent / "fakes" / f"{name}.xmp").read_bytes() for name in ("lightroom", "digikam")}
SECOND = Image.new("RGB", (48, 36), "red")
PHOTOS = {
    "jpg": lambda: encode(scene(), "JPEG", quality=90),
    "mpo": lambda: encode(scene(), "MPO", save_all=True, append_images=[SECOND.copy()]),
    "png": lambda: encode(scene(), "PNG"),
    "apng": lambda: encode(scene(), "PNG", save_all=True, append_images=[SECOND.copy()]),
    "webp": lambda: encode(scene(), "WEBP", quality=90),
    "tif": lambda: encode(scene(), "TIFF"),
    "tiff": lambda: encode(scene(), "TIFF", compression="tiff_lzw", save_all=True, append_images=[SECOND.copy()]),
}


def said(caption: str, *tags: str, language: str = "en") -> Description:
    return Description(caption, (), tuple((tag, 0.9) for tag in tags), "m", language=language, scores="probability")


DOG = said("a dog runs through the grass", "dog", "animals > pets", "grass")
CHIEN = said("un chien court", "chien", language="fr")
OURS = {
    "XMP-dc:Description": "A dog runs through the grass.",
    "XMP-dc:Description-en": "A dog runs through the grass.",
    "XMP-iptcCore:AltTextAccessibility": "A dog runs through the grass.",
    "XMP-iptcCore:AltTextAccessibility-en": "A dog runs through the grass.",
    "XMP-dc:Subject": ["dog", "pets", "grass"],
    "XMP-lr:HierarchicalSubject": ["dog", "animals|pets", "grass"],
    "XMP-digiKam:TagsList": ["dog", "animals/pets", "grass"],
}


@pytest.fixture(autouse=True)
def state(tmp_path_factory, monkeypatch) -> Path:
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("LCM_HOME", str(folder))
    return folder


@pytest.fixture
def photo(tmp_path) -> Path:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "photo.jpg").write_bytes(PHOTOS["jpg"]())
    return tmp_path / "photos" / "photo.jpg"


def exiftool(path: Path) -> dict:
    command = ["exiftool", "-j", "-struct", "-a", "-G1", "-XMP:all", "-IPTC:all", str(path)]
    (found,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {key: value for key, value in found.items() if key not in ("SourceFile", "XMP-x:XMPToolkit")}


def everything_in(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def frames(data: Path) -> list[np.ndarray]:
    with Image.open(data) as image:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]


# What is written


@needs_exiftool
@pytest.mark.parametrize("kind", ["sidecar", *PHOTOS])
def test_exiftool_reads_what_is_written_and_neither_a_second_run_nor_undo_leaves_a_trace(kind, photo):
    embed = kind != "sidecar"
    if embed:
        photo.unlink()
        photo = photo.with_suffix(f".{kind}")
        photo.write_bytes(PHOTOS[kind]())
    photo.chmod(0o640)
    target, before, pixels = (photo if embed else photo.with_suffix(".xmp")), everything_in(photo.parent), frames(photo)
    assert Writer(embed, dry_run=True).write(photo, DOG).startswith(f"would write to {target.name}: description, ")
    assert everything_in(photo.parent) == before
    done = Writer(embed).write(photo, DOG)
    assert done == f"written to {target.name}: description, alternative text, keywords"
    assert exiftool(target) == OURS
    assert photo.stat().st_mode & 0o777 == 0o640
    assert all(np.array_equal(*pair) for pair in zip(pixels, frames(photo), strict=True))
    after = everything_in(photo.parent)
    assert Writer(embed).write(photo, DOG) == f"nothing to add to {target.name}"
    assert everything_in(photo.parent) == after
    assert undo() == ([str(target)], [])
    assert everything_in(photo.parent) == before
    with pytest.raises(NothingToDo, match="nothing to undo"):
        undo()


@needs_exiftool
@pytest.mark.parametrize("embed", [False, True])
@pytest.mark.parametrize("program", FOREIGN)
def test_what_other_programs_wrote_is_kept(program, embed, photo):
    sidecar = photo.with_suffix(".xmp")
    sidecar.write_bytes(FOREIGN[program])
    target = photo if embed else sidecar
    if embed:  # as the other program would have written it into the photo
        sidecar.write_bytes(FOREIGN[program].removeprefix(b'<?xml version="1.0" encoding="UTF-8"?>\n'))
        subprocess.run(["exiftool", "-q", "-overwrite_original", f"-XMP<={sidecar}", photo], check=True)
        sidecar.unlink()
    theirs, before = exiftool(target), everything_in(photo.parent)
    writer = Writer(embed)
    writer.write(photo, DOG)
    merged = exiftool(target)
    for key, value in theirs.items():
        if not isinstance(merged[key], list) or not key.endswith(("Subject", "TagsList")):
            assert merged[key] == value, key
    added = {"lightroom": ["dog", "pets", "grass"], "digikam": ["pets", "grass"]}[program]  # "Dog" is there
    assert merged["XMP-dc:Subject"] == theirs["XMP-dc:Subject"] + added
    if program == "lightroom":  # digiKam looks into its own list alone, so it gets what people have in the others
        assert merged["XMP-digiKam:TagsList"] == ["Places/Campus", "library", "dog", "animals/pets", "grass"]
    assert merged["XMP-iptcCore:AltTextAccessibility"] == "A dog runs through the grass."
    after = everything_in(photo.parent)
    assert Writer(embed).write(photo, DOG) == f"nothing to add to {target.name}"
    assert everything_in(photo.parent) == after
    undo()
    assert everything_in(photo.parent) == before


def test_languages_stand_side_by_side_and_overwriting_replaces_one(photo):
    def texts() -> dict[str, str]:
        return dict(open_metadata(photo.with_suffix(".xmp").read_bytes()).xmpData()["Xmp.dc.description"].value())

    for description in (DOG, CHIEN):
        Writer(False).write(photo, description)
    expected = {"x-default": "A dog runs through the grass.", "en": "A dog runs through the grass."}
    assert texts() == expected | {"fr": "Un chien court."}
    cat = said("a cat", "cat")
    assert Writer(False).write(photo, cat) == "written to photo.xmp: keywords"
    assert texts() == expected | {"fr": "Un chien court."}
    Writer(False, overwrite=True).write(photo, cat)
    assert texts() == {"x-default": "A cat.", "en": "A cat.", "fr": "Un chien court."}
    assert Writer(False, overwrite=True).write(photo, cat) == "nothing to add to photo.xmp"


@needs_exiftool
@pytest.mark.parametrize("charset", ["Latin", "UTF8"])
def test_what_people_wrote_into_the_photo_counts_beside_it_too_in_iim_too(charset, photo):
    texts = ["-IPTC:Caption-Abstract=Le café ferme", "-IPTC:Keywords=Café", "-IPTC:City=Köln"]
    options = ["-codedcharacterset=utf8"] if charset == "UTF8" else []
    subprocess.run(["exiftool", "-q", "-overwrite_original", *options, *texts, photo], check=True)
    done = Writer(False, line="[{names}, ][{city}: ]{caption}").write(photo, said("a closed café", "café", "door"))
    assert done == "written to photo.xmp: alternative text, keywords"
    written = exiftool(photo.with_suffix(".xmp"))
    assert "XMP-dc:Description" not in written
    assert written["XMP-dc:Subject"] == ["Café", "door"]


@needs_exiftool
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[{names} in {city}: ]{caption}[ ({credit})]", "Ann Example in Utrecht: A dog. (Jane Roe/Campus Press)"),
        ("{city} – {caption}", "Utrecht – A dog."),
        ("{caption}", "A dog."),
    ],
)
def test_a_line_is_led_by_what_the_photo_has(line, expected, photo):
    photo.with_suffix(".xmp").write_bytes(FOREIGN["lightroom"])
    Writer(False, overwrite=True, line=line).write(photo, said("a dog"))
    assert exiftool(photo.with_suffix(".xmp"))["XMP-dc:Description"] == expected
    photo.with_suffix(".xmp").unlink()
    Writer(False, line=f"[{{names}}: ]{line}").write(photo, said("a dog"))
    assert exiftool(photo.with_suffix(".xmp"))["XMP-dc:Description"].removeprefix("– ") == "A dog."


@pytest.mark.parametrize("line", ["", "{city}", "[{caption}]", "{caption} {country}", "{caption.__class__} {}"])
def test_a_line_that_cannot_be_is_named(line):
    with pytest.raises(ConfigError, match=r"must hold {caption} and may hold {names}, {city}, {credit}"):
        Writer(False, line=line)


def test_shares_say_not_how_many_tags_fit_so_the_best_are_written(photo):
    tags = tuple((str(number), 0.1) for number in range(10))
    Writer(False).write(photo, Description("a", (), tags, "m"))
    keywords = open_metadata(photo.with_suffix(".xmp").read_bytes()).xmpData()["Xmp.dc.subject"].value()
    assert list(keywords) == ["0", "1", "2", "3", "4"]


# Where


@pytest.mark.parametrize(
    ("there", "photo_name", "sidecar"),
    [
        ([], "a.jpg", "a.xmp"),
        (["a.txt", "a.mp4"], "a.jpg", "a.xmp"),
        (["a.png"], "a.jpg", "a.jpg.xmp"),
        (["A.png"], "a.jpg", "a.jpg.xmp"),
        (["a.jpg.xmp"], "a.jpg", "a.jpg.xmp"),
        (["a.XMP"], "a.jpg", "a.XMP"),
        (["a.NEF"], "a.jpg", "a.jpg.xmp"),
        (["a.jpg"], "a.nef", "a.xmp"),
        (["a.jpg", "a.dng"], "a.nef", "a.nef.xmp"),
    ],
)
def test_sidecars_that_would_clash_have_longer_names(there, photo_name, sidecar, tmp_path):
    for name in (*there, photo_name):
        (tmp_path / name).write_bytes(FOREIGN["digikam"] if name.lower().endswith("xmp") else PHOTOS["jpg"]())
    assert Writer(False).write(str(tmp_path / photo_name), DOG).startswith(f"written to {sidecar}: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({*there, photo_name, sidecar})


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.gif", lambda: encode(scene(), "GIF"), "is of a format that is only read; use --write sidecar"),
        ("a.bmp", lambda: encode(scene(), "BMP"), "is of a format that is only read"),
        ("a.nef", lambda: raw_file(PHOTOS["jpg"]()), "is of a format that is only read"),
        ("a.jpg", lambda: b"no picture", "is of a format that is only read"),
    ],
)
def test_what_cannot_be_embedded_is_named(name, content, reason, tmp_path):
    (tmp_path / name).write_bytes(content())
    before = everything_in(tmp_path)
    with pytest.raises(DataError, match=reason):
        Writer(True).write(str(tmp_path / name), DOG)
    assert everything_in(tmp_path) == before
    assert Writer(False).write(str(tmp_path / name), DOG).startswith("written to a.xmp")


@pytest.mark.parametrize("content", [b"notes of mine", b"<x:xmpmeta", FOREIGN["digikam"][:900], b""])
def test_a_sidecar_that_is_no_xmp_is_left_as_it_is(content, photo):
    photo.with_suffix(".xmp").write_bytes(content)
    before = everything_in(photo.parent)
    with pytest.raises(
        DataError, match=r"the XMP in 'photo.xmp' cannot be read|metadata of 'photo.jpg' cannot be written"
    ):
        Writer(False).write(photo, DOG)
    assert everything_in(photo.parent) == before


def test_damaged_xmp_in_a_photo_is_left_as_it_is(photo):
    photo.write_bytes(with_segment(photo.read_bytes(), segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><a")))
    before = everything_in(photo.parent)
    with pytest.raises(DataError, match=r"the XMP in 'photo.jpg' cannot be read, so it was left"):
        Writer(True).write(photo, DOG)
    assert everything_in(photo.parent) == before
    assert Writer(False).write(photo, DOG).startswith("written to photo.xmp")


def test_a_link_stays_one(photo, tmp_path):
    (tmp_path / "link.jpg").symlink_to(photo)
    Writer(True).write(str(tmp_path / "link.jpg"), DOG)
    assert (tmp_path / "link.jpg").is_symlink()
    assert b"A dog runs" in photo.read_bytes()


# What goes wrong


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="changes the user, which only root may")
@pytest.mark.parametrize("embed", [False, True])
def test_a_read_only_folder_is_named(embed, photo, monkeypatch):
    place = Path(tempfile.mkdtemp(dir="/tmp")) / "photos"  # pytest's own folders are closed to others
    shutil.copytree(photo.parent, place)
    monkeypatch.setenv("LCM_HOME", str(place.parent / "state"))
    for path in (place.parent, place, *place.iterdir()):
        os.chown(path, 65534, 65534)
    place.chmod(0o500)
    os.seteuid(65534)
    try:
        before = everything_in(place)
        with pytest.raises(
            DataError, match=r"cannot write metadata of 'photo.jpg' .Permission denied.; it is as it was"
        ):
            Writer(embed).write(str(place / "photo.jpg"), DOG)
        assert everything_in(place) == before
        place.chmod(0o700)
        assert Writer(embed).write(str(place / "photo.jpg"), DOG).startswith("written")
        place.chmod(0o500)
        (path,), ((_, reason),) = (str(place / "photo.jpg"),), undo()[1]
        assert "put that right and undo again" in str(reason)
        place.chmod(0o700)
        assert undo()[1] == []
        assert everything_in(place) == before
        assert path
    finally:
        os.seteuid(0)
        shutil.rmtree(place.parent)


@pytest.mark.parametrize("limit", [0, 2000])
def test_a_full_disk_is_named_and_nothing_is_lost(limit, photo):
    """At first there is no room for the journal, then for the photo."""
    before, usual = everything_in(photo.parent), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard[1]))
    try:
        with pytest.raises(DataError, match=r"cannot write .*too large.; it is as it was; put that right"):
            Writer(True).write(photo, DOG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, hard)
        signal.signal(signal.SIGXFSZ, usual)
    assert everything_in(photo.parent) == before
    assert undo()[1] == []
    assert everything_in(photo.parent) == before


# Back


def test_runs_are_undone_one_by_one_and_what_was_changed_since_is_left(photo, state):
    other = photo.with_name("other.png")
    other.write_bytes(PHOTOS["png"]())
    first = Writer(True)
    assert undo_or_nothing() is None
    for path in (photo, other):
        first.write(path, DOG)
    middle = everything_in(photo.parent)
    Writer(True).write(photo, CHIEN)
    assert undo() == ([str(photo)], [])
    assert everything_in(photo.parent) == middle
    edited = photo.read_bytes() + b"edited since"
    photo.write_bytes(edited)
    files, ((path, reason),) = undo()
    assert (files, path) == ([str(other)], str(photo))
    assert "changed or moved since, and stays so; to undo the rest: rm " in str(reason)
    assert (photo.read_bytes(), other.read_bytes()) == (edited, PHOTOS["png"]())
    photo.write_bytes(edited.removesuffix(b"edited since"))
    assert undo() == ([str(photo)], [])
    assert photo.read_bytes() == PHOTOS["jpg"]()
    assert [*(state / "metadata").iterdir()] == []


def undo_or_nothing() -> object:
    try:
        return undo()
    except NothingToDo:
        return None


def test_a_kill_between_the_note_and_the_change_leaves_nothing_to_do(photo, monkeypatch, state):
    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    before = everything_in(photo.parent)
    with monkeypatch.context() as patched:
        patched.setattr("lcm.metadata._replace", kill)
        with pytest.raises(KeyboardInterrupt):
            Writer(True).write(photo, DOG)
    (run,) = (state / "metadata").iterdir()
    (run / ".half-a-note.json.tmp").write_text('["half a li')
    assert undo() == ([str(photo)], [])
    assert everything_in(photo.parent) == before


# By the command


def test_the_command_writes_says_so_and_undoes(photo, monkeypatch, capsys):
    monkeypatch.setattr(captioner_module, "load_captioner", lambda *_: FakeCaptioner())
    gif = photo.with_name("b.gif")
    gif.write_bytes(encode(scene(), "GIF"))
    before, call = everything_in(photo.parent), ["caption", str(photo.parent), "--write", "embed"]
    assert main([*call, "--dry-run"]) == 1
    assert everything_in(photo.parent) == before
    assert main([*call, "--json"]) == 1
    printed, complained = capsys.readouterr()
    rows = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert [row["metadata"].partition(":")[0] for row in rows] == ["", "written to photo.jpg"]
    assert "    would write to photo.jpg: description, alternative text" in printed
    expected = f"lcm: not written: {gif}: 'b.gif' is of a format that is only read; use --write sidecar\n"
    assert complained == 2 * expected.replace(f"{gif}: 'b.gif'", f"{gif}: 'b.gif'")
    assert main(["metadata", "undo"]) == 0
    assert capsys.readouterr().out == f"as before: {photo}\n"
    assert everything_in(photo.parent) == before
    assert main(["metadata", "undo"]) == 0
    for wrong in (["--out", "a.csv"], ["--line", "{}"]):
        assert main([*call, *wrong]) == 1
    assert main(["caption", str(photo), "--overwrite"]) == 1
    assert "give one too" in capsys.readouterr().err


def test_without_the_extra_the_command_names_it(photo):
    code = "import sys; sys.modules['exiv2'] = None; from lcm.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "caption", str(photo), "--write", "sidecar"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "lcm: exiv2 is not installed; install it with: pip install 'lcm[photos]'\n"
