"""Folders of images into files of answers: stopped anywhere and started again, it ends in the same bytes.

A fake captioner stands where only the file matters; it says which images it saw together. The tiny graphs of
tiny_graphs.py and the shipped bundle stand where answers matter.
"""

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcm.batch import COLUMNS, FAILURES_SHOWN, TOGETHER, AnswerFile, Failures, escape, write_answers
from lcm.captioning import captioner
from lcm.captioning.captioner import load_captioner
from lcm.captioning.description import MAX_SAMPLES, SAMPLES, Description
from lcm.captioning.tagging import rank
from lcm.cli import main
from lcm.data.files import list_images
from lcm.errors import BadImageError, ConfigError
from lcm.features.encoders import ENCODERS, load_encoder
from lcm.paths import packaged_file
from tests.fakes.tiny_graphs import TinyConversion, save_bundle, tiny_spec

TESTS = Path(__file__).resolve().parent
PHOTOS = sorted(packaged_file("reports/examples").glob("*.jpg"))
SUFFIXES = pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
KNOWN = ("dog", "grass", "=1+1")
STRANGE_NAMES = [
    *("=1+1.jpg", "+x.jpg", "-x.jpg", "@x.jpg", " =x.jpg", "\uff1dx.jpg", "'=x.jpg"),
    *('quo"te.jpg', "com,ma.jpg", "semi;colon | pipe.jpg", "new\nline.jpg", "\r.jpg", "\tx.jpg", "\x1b[31m.jpg"),
    *("back\\slash.jpg", "back\\n.jpg", "back\\\\.jpg", "\\udcff.jpg", "caf\u00e9.jpg", "cafe\u0301.jpg", "犬.jpg"),
    *("😀.JPG", "\u2028.jpg", "\u0085.jpg", " .jpg", os.fsdecode(b"\xff\xfe.jpg"), os.fsdecode(b"caf\xe9.jpg")),
]  # fmt: skip


# A captioner that is quick, or as slow as a test wants


class FakeScorer:
    """Knows three words; its scores for an image are all others when one bit of the features is."""

    name, scale = "fake", 3.0

    def image_vector(self, photo) -> np.ndarray:
        digest = hashlib.sha256(photo.features["pooled"].tobytes()).digest()
        vector = np.frombuffer(digest[:3], np.uint8).astype(np.float32)
        return vector / np.linalg.norm(vector)

    def text_vectors(self, texts) -> np.ndarray:
        return np.eye(3, dtype=np.float32)[[KNOWN.index(text) for text in texts]].reshape(len(texts), 3)

    def unknown(self, texts) -> tuple[str, ...]:
        return tuple(text for text in texts if text not in KNOWN)


class FakeCaptioner:
    """Takes a file that begins with "bad" for a bad image; a caption names the images that were seen together."""

    def __init__(self, name: str = "fake-1", tag_scorer: FakeScorer | None = None):
        self.name, self.tag_scorer = name, tag_scorer
        self.asked, self.confidence = [], None

    def before(self, image: str) -> None:
        """What happens before an image is described."""

    def unknown_labels(self, labels) -> tuple[str, ...]:
        return self.tag_scorer.unknown(labels)

    def describe_many(self, images, samples=SAMPLES, labels=None, workers=1):  # noqa: ARG002
        images = list(images)
        for place, image in enumerate(images):
            self.asked.append(image)
            self.before(image)
            try:
                content = Path(image).read_bytes()
            except OSError:
                yield image, BadImageError(f"{Path(image).name!r}: no such file")
                continue
            if content.startswith(b"bad"):
                yield image, BadImageError(f"{Path(image).name!r}: it is bad")
                continue
            company = images[place // TOGETHER * TOGETHER]
            captions = (f"picture {len(content)}, in it a “dog”", *(f"{company!r} {n}" for n in range(samples)))
            vector = np.frombuffer((content * 3)[:3], np.uint8) / 255
            tags = rank(self.tag_scorer, vector, labels or KNOWN[:2]) if self.tag_scorer else ()
            yield image, Description(captions[0], captions, tags, self.name, self.confidence)


@pytest.fixture
def fake(monkeypatch) -> FakeCaptioner:
    """The captioner that `lcm caption` loads."""
    captioner = FakeCaptioner()

    def load(_bundle, tagger, _threads):
        captioner.tag_scorer = None if tagger == "none" else captioner.tag_scorer or FakeScorer()
        return captioner

    monkeypatch.setattr(captioner, "load_captioner", load)
    return captioner


class SlowCaptioner(FakeCaptioner):
    """Takes a few milliseconds an image, and does not get beyond some of them within a test."""

    def __init__(self, last: int):
        super().__init__(tag_scorer=FakeScorer())
        self.last = last

    def before(self, image: str) -> None:
        time.sleep(300 if int(Path(image).stem) > self.last else 0.004)


def run_slowly(last: int, file_limit: int, *arguments: str) -> int:
    """`lcm caption` with a slow captioner in a process of its own; `file_limit` bytes are all a file may have."""
    if file_limit:
        import packaged_file as limits

        limits.setrlimit(limits.RLIMIT_FSIZE, (file_limit, file_limit))
    captioner.load_captioner = lambda *_: SlowCaptioner(last)
    return main(["caption", *arguments])


def start(*arguments: object, last: int = 1000, file_limit: int = 0) -> subprocess.Popen:
    code = "import sys, test_folder; sys.exit(test_folder.run_slowly(*map(int, sys.argv[1:3]), *sys.argv[3:]))"
    command = [sys.executable, "-c", code, str(last), str(file_limit), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(process: subprocess.Popen, out: Path, rows: int) -> None:
    while (out.read_bytes().count(b"\n") if out.exists() else 0) < rows:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def make_files(folder: Path, count: int) -> Path:
    """Files that the fake captioner takes for images, each of its own content."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:04}.jpg").write_bytes(bytes([number % 251, 7 * number % 241, 1 + number % 5]))
    return folder


def images_of(out: Path) -> list[str]:
    """Return the image of each row, as another program would read them."""
    if out.suffix == ".jsonl":
        return [json.loads(line)["image"] for line in out.read_text(encoding="utf-8").split("\n")[:-1]]
    with out.open(encoding="utf-8", newline="") as file:
        return [row["image"] for row in csv.DictReader(file)]


# Which images


def make_tree(folder: Path) -> Path:
    names = "b.jpg a.PNG .hidden.jpg ._a.jpg .DS_Store notes.txt sub/d.webp sub/c.gif sub/x/e.jpeg .trash/f.jpg z/g.jpg"
    for name in names.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_a_folder_s_images_are_taken_by_name(tmp_path):
    folder = make_tree(tmp_path / "photos")
    assert list_images([folder]).images == [f"{folder}/a.PNG", f"{folder}/b.jpg"]
    expected = ["a.PNG", "b.jpg", "sub/c.gif", "sub/d.webp", "sub/x/e.jpeg", "z/g.jpg"]
    listing = list_images([folder], recursive=True)
    assert listing.images == [f"{folder}/{name}" for name in expected]
    assert listing.problems == []


def test_paths_are_as_they_were_given(tmp_path, monkeypatch):
    make_tree(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    assert list_images(["./photos/"]).images == ["photos/a.PNG", "photos/b.jpg"]
    assert list_images(["photos/notes.txt", "missing.jpg", ""]).images == ["photos/notes.txt", "missing.jpg", ""]
    monkeypatch.chdir(tmp_path / "photos")
    assert list_images(["."]).images == ["a.PNG", "b.jpg"]


def test_a_file_counts_once(tmp_path, monkeypatch):
    folder = make_tree(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    (folder / "c.jpg").symlink_to(folder / "b.jpg")
    (tmp_path / "other").symlink_to(folder)
    given = ["photos/b.jpg", "photos", folder, "other", folder / "b.jpg", "photos/sub/../b.jpg", "missing.jpg"]
    listing = list_images([*given, "missing.jpg"])
    assert listing.images == ["photos/b.jpg", "photos/a.PNG", "missing.jpg"]
    assert listing.problems == []


def test_links_do_not_lead_round_in_circles(tmp_path):
    folder = make_tree(tmp_path / "photos")
    (folder / "round").symlink_to(folder)
    (folder / "folder.jpg").symlink_to(folder / "sub")
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "itself.jpg").symlink_to("itself.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    listing = list_images([folder], recursive=True)
    assert [Path(image).name for image in listing.images[:4]] == ["a.PNG", "b.jpg", "dangling.jpg", "itself.jpg"]
    assert len(listing.images) == 8


@pytest.mark.parametrize(
    ("names", "said"), [((), "no image"), (("sub/a.jpg", "x.txt"), "1 sub-folders .* --recursive")]
)
def test_a_folder_without_images_is_named(names, said, tmp_path, fake, capsys):
    (tmp_path / "photos").mkdir()
    for name in names:
        (tmp_path / "photos" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "photos" / name).touch()
    assert main(["caption", str(tmp_path / "photos"), "--out", str(tmp_path / "out.csv")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{tmp_path}/photos: the folder holds no image" in captured.err
    assert not (tmp_path / "out.csv").exists()
    assert list_images([tmp_path / "photos"]).problems[0][1].count("--recursive") == ("--recursive" in said)
    (tmp_path / "good.jpg").write_bytes(b"good")
    assert main(["caption", str(tmp_path / "photos"), str(tmp_path / "good.jpg")]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{tmp_path}/good.jpg: picture 4")
    assert "not captioned: 1\n" in captured.err
    assert fake.asked == [f"{tmp_path}/good.jpg"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    folder, scandir = make_tree(tmp_path / "photos"), os.scandir

    def refuse_one(path):
        if path.endswith("/sub"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse_one)
    listing = list_images([folder], recursive=True)
    assert [Path(image).name for image in listing.images] == ["a.PNG", "b.jpg", "g.jpg"]
    reason = "the folder cannot be read (Permission denied); check its permissions"
    assert listing.problems == [(f"{folder}/sub", reason)]


def test_a_listing_takes_little_memory(tmp_path):
    count = 5000
    for number in range(count):
        (tmp_path / f"{number:032}.jpg").touch()
    tracemalloc.start()
    assert len(list_images([tmp_path]).images) == count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / count < 800, "bytes an image: a million images would take gigabytes"


# What is in the file


@pytest.mark.usefixtures("fake")
def test_a_csv_is_as_it_is_documented(tmp_path, capsys):
    folder, out = make_files(tmp_path / "photos", 3), tmp_path / "out.csv"
    assert main(["caption", str(folder), "--samples", "1", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: images captioned: 3\n"
    lines = out.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "image,caption,confidence,tags,english_captions,model,settings"
    tags = "grass 0.5176; dog 0.4824"  # softmax of 3 * 1 / 255 and 3 * 7 / 255
    assert lines[2] == (
        f'{folder}/0001.jpg,"picture 3, in it a “dog”",,{tags},'
        f'"picture 3, in it a “dog” | \'{folder}/0000.jpg\' 0",fake-1,"samples 1, tagger fake"'
    )
    assert len(lines) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "photos"], "no lock is left"


@pytest.mark.usefixtures("fake")
def test_json_lines_hold_the_same(tmp_path):
    folder, out = make_files(tmp_path / "photos", 3), tmp_path / "out.JSONL"
    assert main(["caption", str(folder), "--samples", "0", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert set(rows[0]) == set(COLUMNS)
    caption = "picture 3, in it a “dog”"
    assert rows[1] == {
        "image": f"{folder}/0001.jpg",
        "caption": caption,
        "confidence": None,
        "english_captions": [caption],
        "tags": [["grass", 0.51764], ["dog", 0.48236]],
        "model": "fake-1",
        "settings": "samples 0, tagger fake",
    }
    assert "“" in out.read_text(encoding="utf-8")


@pytest.mark.usefixtures("fake")
def test_labels_are_the_tags_and_none_is_a_formula(tmp_path, capsys):
    folder, labels = make_files(tmp_path / "photos", 2), tmp_path / "labels.txt"
    labels.write_text("=1+1\ncat\ndog\n")
    arguments = ["caption", str(folder), "--labels", str(labels)]
    assert main([*arguments, "--out", str(tmp_path / "out.csv")]) == 0
    err = capsys.readouterr().err
    assert "lcm: the tagger fake does not know cat; 2 of the 3 labels are scored\n" in err
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["tags"] for row in rows] == ["'=1+1 0.5029; dog 0.4971", "'=1+1 0.5029; dog 0.4971"]
    assert rows[0]["settings"] == "samples 5, tagger fake, labels 770e80b7 (3)"
    labels.write_text("cat\nbird\n")
    assert main(arguments) == 1
    assert "the tagger fake does not know cat, bird: none of the 2 labels" in capsys.readouterr().err
    assert main([*arguments, "--tagger", "none"]) == 1
    assert "fake-1 has no tagger that could score labels" in capsys.readouterr().err


def test_tags_that_would_be_zero_are_left_out_of_a_csv(tmp_path):
    description = Description("x", ("x",), (("dog", 0.99996), ("cat", 0.00004), ("cow", 0.0)), "m")
    for suffix, shown in ((".csv", "x,,dog 1.0000,x"), (".jsonl", '[["dog", 0.99996], ["cat", 4e-05], ["cow", 0.0]]')):
        with AnswerFile(tmp_path / f"out{suffix}", "m", "s") as answers:
            answers.append("a.jpg", description)
        assert shown in (tmp_path / f"out{suffix}").read_text()


@SUFFIXES
def test_ten_thousand_tags_fit_into_a_row(suffix, tmp_path):
    tags = tuple((f"{number:0100}", 0.0001) for number in range(10_000))
    for _ in range(2):
        with AnswerFile(tmp_path / f"out{suffix}", "m", "s") as answers:
            if not answers.done:
                answers.append("a.jpg", Description("x", ("x",), tags, "m"))
    assert answers.done == {"a.jpg"}


@SUFFIXES
def test_any_file_name_survives(suffix, tmp_path, monkeypatch, fake, capsys):
    folder, out = tmp_path / "photos", tmp_path / f"out{suffix}"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in STRANGE_NAMES:
        Path(name).write_bytes(b"content")
    assert main(["caption", ".", "--out", str(out)]) == 0
    first = out.read_bytes()
    text = first.decode("utf-8")
    assert text.count("\n") == len(STRANGE_NAMES) + (suffix == ".csv"), "one line a row"
    if suffix == ".jsonl":
        assert images_of(out) == sorted(STRANGE_NAMES)
    else:
        assert all(not cell.strip().startswith(tuple("=+-@\uff1d")) for cell in images_of(out))
        assert all(Path(cell).exists() for cell in images_of(out) if "\\" not in cell)
        assert "./=1+1.jpg" in images_of(out)
    with AnswerFile(out, "fake-1", "samples 5, tagger fake") as answers:
        assert answers.done == set(STRANGE_NAMES)
    fake.asked.clear()
    assert main(["caption", ".", "--out", str(out)]) == 0
    assert fake.asked == []
    for cut in range(len(first) - 1, 0, -97):
        out.write_bytes(first[:cut])
        assert main(["caption", ".", "--out", str(out)]) == 0
        assert out.read_bytes() == first
    capsys.readouterr()
    assert main(["caption", "."]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == 2 * len(STRANGE_NAMES), "a caption and its tags, a line each"
    assert "\x1b" not in shown
    assert main(["caption", ".", "--json"]) == 0
    assert [json.loads(line)["image"] for line in capsys.readouterr().out.split("\n")[:-1]] == sorted(STRANGE_NAMES)


# Stopped and started again


@SUFFIXES
def test_a_file_cut_at_any_byte_is_made_whole(suffix, tmp_path, fake):
    folder, out = make_files(tmp_path / "photos", 4), tmp_path / f"out{suffix}"
    (folder / "0001.jpg").write_bytes(b"bad")
    arguments = ["caption", str(folder), "--samples", "0", "--out", str(out)]
    assert main(arguments) == 1
    whole = out.read_bytes()
    for cut in [*range(80), *range(80, len(whole) - 80, 7), *range(len(whole) - 80, len(whole) + 1)]:
        out.write_bytes(whole[:cut])
        assert main(arguments) == 1
        assert out.read_bytes() == whole, cut
    assert fake.asked


@SUFFIXES
def test_images_are_described_in_the_company_they_would_have_had(suffix, tmp_path, fake):
    count = 2 * TOGETHER + 7
    folder, out = make_files(tmp_path / "photos", count), tmp_path / f"out{suffix}"
    for number in (0, TOGETHER + 6):
        (folder / f"{number:04}.jpg").write_bytes(b"bad")
    arguments = ["caption", str(folder), "--out", str(out)]
    assert main(arguments) == 1
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    for rows in (1, 2, TOGETHER - 1, TOGETHER, TOGETHER + 6, 2 * TOGETHER - 1, 2 * TOGETHER, len(lines) - 1):
        out.write_bytes(b"".join(lines[:rows]))
        assert main(arguments) == 1
        assert out.read_bytes() == whole, rows
    fake.asked.clear()
    assert main(arguments) == 1
    assert len(fake.asked) == 2, "those that are bad are tried again, and no other"


@SUFFIXES
def test_after_real_kills_the_bytes_are_those_of_a_run_without(suffix, tmp_path, fake):
    folder, out, other = make_files(tmp_path / "photos", 300), tmp_path / f"out{suffix}", tmp_path / f"other{suffix}"
    for rows in (30, 170):
        process = start(folder, "--out", out, last=290)
        wait_for_rows(process, out, rows)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert rows <= out.read_bytes().count(b"\n") < 300
    assert (tmp_path / f".out{suffix}.lock").exists(), "what a kill leaves, and what stops nothing"
    assert main(["caption", str(folder), "--out", str(out)]) == 0
    assert 0 < len(fake.asked) < 200
    assert main(["caption", str(folder), "--out", str(other)]) == 0
    assert out.read_bytes() == other.read_bytes()
    assert images_of(out) == [f"{folder}/{number:04}.jpg" for number in range(300)]
    assert not (tmp_path / f".out{suffix}.lock").exists()


def test_an_interrupt_leaves_whole_rows(tmp_path, fake):
    folder, out = make_files(tmp_path / "photos", 300), tmp_path / "out.csv"
    process = start(folder, "--out", out, last=290)
    wait_for_rows(process, out, 20)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("lcm: interrupted\n")
    assert "Traceback" not in err
    assert 20 <= out.read_bytes().count(b"\n") < 300
    assert out.read_bytes().endswith(b"\n")
    assert main(["caption", str(folder), "--out", str(out)]) == 0
    assert len(images_of(out)) == len(set(images_of(out))) == 300
    assert fake.asked


@SUFFIXES
def test_a_finished_file_gets_only_what_is_new(suffix, tmp_path, fake, capsys):
    folder, out = make_files(tmp_path / "photos", 3), tmp_path / f"out{suffix}"
    arguments = ["caption", str(folder), "--out", str(out)]
    main(arguments)
    first = out.read_bytes()
    fake.asked.clear()
    capsys.readouterr()
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{out}: all images (3) are there already\n"
    assert out.read_bytes() == first
    assert fake.asked == []
    (folder / "0000b.jpg").write_bytes(b"new")
    (folder / "0002.jpg").unlink()
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{out}: images captioned: 1; there already: 2\n"
    assert out.read_bytes().startswith(first)
    assert images_of(out) == [f"{folder}/{name}.jpg" for name in ("0000", "0001", "0002", "0000b")]


@SUFFIXES
@pytest.mark.usefixtures("fake")
def test_bad_images_stop_nothing_and_are_tried_again(suffix, tmp_path, capsys):
    folder, out = make_files(tmp_path / "photos", 40), tmp_path / f"out{suffix}"
    for number in range(25):
        (folder / f"{number:04}.jpg").write_bytes(b"bad")
    arguments = ["caption", str(folder), "--out", str(out)]
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == f"{out}: images captioned: 15\n"
    lines = captured.err.splitlines()
    place = lines.index("lcm: not captioned: 25")
    listed = [f"  {folder}/{number:04}.jpg: it is bad" for number in range(FAILURES_SHOWN)]
    assert lines[place + 1 :] == [*listed, "  and 5 more"]
    assert len(images_of(out)) == 15
    (folder / "0003.jpg").write_bytes(b"good now")
    assert main(arguments) == 1
    assert "lcm: not captioned: 24\n" in capsys.readouterr().err
    assert images_of(out)[15:] == [f"{folder}/0003.jpg"]


def test_all_failures_are_listed_while_they_are_few():
    failures = Failures()
    for number in range(FAILURES_SHOWN):
        failures.add(f"a/{number}\n.jpg", "it is bad")
    assert str(failures).splitlines()[-1] == f"  a/{FAILURES_SHOWN - 1}\\n.jpg: it is bad"
    assert len(str(failures).splitlines()) == 1 + FAILURES_SHOWN


# Whose file it is


@SUFFIXES
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--samples", "3"], "samples 5 there, 3 here"),
        (["--tagger", "none"], "tagger fake there, none here"),
        (["--labels", "dog"], "labels none there, cd6357ef (1) here"),
        (["model"], "model fake-1 there, fake-2 here"),
        (["model", "--samples", "0"], "model fake-1 there, fake-2 here; samples 5 there, 0 here"),
    ],
)
def test_other_settings_are_refused(change, said, suffix, tmp_path, fake, capsys):
    folder, out = make_files(tmp_path / "photos", 2), tmp_path / f"out{suffix}"
    main(["caption", str(folder), "--out", str(out)])
    before = out.read_bytes() + b"half a row"
    out.write_bytes(before)
    (folder / "new.jpg").write_bytes(b"new")
    if "model" in change:
        fake.name = "fake-2"
    (tmp_path / "dog").write_text("dog")
    changed = [str(tmp_path / part) if part == "dog" else part for part in change if part != "model"]
    assert main(["caption", str(folder), "--out", str(out), *changed]) == 1
    err = capsys.readouterr().err
    assert f"out{suffix} was made with other settings ({said}); choose another --out, or remove it" in err
    assert out.read_bytes() == before


def test_labels_in_another_file_are_the_same_labels(tmp_path, fake, capsys):
    folder, out = make_files(tmp_path / "photos", 2), tmp_path / "out.csv"
    for name, content in (("one", "dog\ngrass\n"), ("two", "\ufeffdog\r\n\r\ngrass"), ("three", "dog\n=1+1\n")):
        (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    arguments = ["caption", str(folder), "--out", str(out), "--labels"]
    codes = [main([*arguments, str(tmp_path / name)]) for name in ("one", "two", "three")]
    assert codes == [0, 0, 1]
    assert "(labels " in capsys.readouterr().err
    assert len(fake.asked) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.csv", b"image,caption\n1.jpg,a dog\n"),
        ("mine.csv", b"a,b,c,d,e,f\n1,2,3,4,5,6\n"),
        ("mine.csv", b"image,caption,label"),
        ("mine.csv", b"image,caption,tags,english_captions,model,settings,mine"),
        ("mine.csv", b"image,caption,tags,english_captions,model,settings\n1,2\n"),
        ("mine.csv", b'image,caption,tags,english_captions,model,settings\n"x,a,,a,fake-1,"samples 5, tagger fake"\n'),
        ("mine.csv", b"my notes"),
        ("mine.csv", b"\n"),
        ("mine.csv", bytes(range(256))),
        ("mine.csv", b'{"image": "a.jpg"}\n'),
        ("mine.jsonl", b'{"image": "a.jpg", "label": 3}\n'),
        ("mine.jsonl", b'{"image": "a.jpg", "label": 3}'),
        ("mine.jsonl", b'["image"]\n'),
        ("mine.jsonl", b'["image"]'),
        ("mine.jsonl", b'{\n "image": "a.jpg"\n}\n'),
        ("mine.jsonl", b"3"),
        ("mine.jsonl", b"\n"),
        ("mine.jsonl", b"my notes"),
        ("mine.jsonl", b"\xff\xd8\xff"),
        ("mine.jsonl", b"[" * 99_999),
        ("mine.jsonl", b"[" * 99_999 + b"\n"),
        ("mine.jsonl", b"image,caption,tags,english_captions,model,settings\n"),
    ],
)
def test_a_file_of_someone_else_is_left_as_it_is(name, content, tmp_path, fake, capsys):
    folder = make_files(tmp_path / "photos", 2)
    (tmp_path / name).write_bytes(content)
    assert main(["caption", str(folder), "--out", str(tmp_path / name)]) == 1
    assert "nothing that lcm caption writes; it was left as it is: choose another --out" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == content
    assert fake.asked == []


def test_an_endless_line_is_not_read(tmp_path, fake, capsys):
    with (tmp_path / "big.jsonl").open("wb") as file:
        file.truncate(1 << 32)  # takes no room: a hole
    tracemalloc.start()
    assert main(["caption", str(make_files(tmp_path / "photos", 1)), "--out", str(tmp_path / "big.jsonl")]) == 1
    assert tracemalloc.get_traced_memory()[1] < 1 << 28
    tracemalloc.stop()
    assert "its line 1 is nothing that lcm caption writes" in capsys.readouterr().err
    assert fake.asked == []


@SUFFIXES
def test_an_empty_file_and_a_link_are_written_to(suffix, tmp_path, fake):
    folder, out = make_files(tmp_path / "photos", 2), tmp_path / f"out{suffix}"
    out.touch()
    (tmp_path / f"link{suffix}").symlink_to(out)
    assert main(["caption", str(folder), "--out", str(tmp_path / f"link{suffix}")]) == 0
    assert len(images_of(out)) == len(fake.asked) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "out.txt"], "--out is 'out.txt'; its name must end in .csv or .jsonl"),
        (["--out", "out"], "--out is 'out'; its name must end in .csv or .jsonl"),
        (["--out", "folder.csv"], "folder.csv is no file; choose another --out"),
        (["--out", "pipe.csv"], "pipe.csv is no file; choose another --out"),
        (["--out", "nowhere/out.csv"], "there is no folder for nowhere/out.csv; make it, or choose another --out"),
        (["--out", "out.csv", "--json"], "--json is for what is printed"),
        (["--samples", "11"], "--samples is 11; it must be 0 to 10"),
        (["--samples", "-1"], "--samples is -1; it must be 0 to 10"),
        (["--labels", "nowhere.txt"], "the labels file nowhere.txt cannot be read (No such file or directory)"),
    ],
)
def test_wrong_arguments_end_in_one_line(arguments, said, tmp_path, monkeypatch, fake, capsys):
    make_files(tmp_path / "photos", 1)
    monkeypatch.chdir(tmp_path)
    Path("folder.csv").mkdir()
    os.mkfifo("pipe.csv")
    assert main(["caption", "photos", *arguments]) == 1
    err = capsys.readouterr().err
    assert err.startswith("lcm: ")
    assert said in err
    assert len(err.splitlines()) == 1
    assert fake.asked == []


def test_the_help_names_the_numbers_in_force(capsys):
    with pytest.raises(SystemExit):
        main(["caption", "--help"])
    assert f"0 to {MAX_SAMPLES} (default: {SAMPLES})" in " ".join(capsys.readouterr().out.split())


def test_a_file_is_written_by_one_at_a_time(tmp_path, fake, capsys):
    folder, out = make_files(tmp_path / "photos", 100), tmp_path / "out.csv"
    process = start(folder, "--out", out, last=90)
    wait_for_rows(process, out, 5)
    assert main(["caption", str(folder), "--out", str(out)]) == 1
    assert process.poll() is None
    assert f"another lcm caption is writing to {out}; wait for its end" in capsys.readouterr().err
    assert fake.asked == []
    process.kill()
    process.communicate()
    assert main(["caption", str(folder), "--out", str(out)]) == 0


@SUFFIXES
def test_a_full_disk_is_named_and_what_is_written_stays(suffix, tmp_path, fake):
    folder, out, other = make_files(tmp_path / "photos", 60), tmp_path / f"out{suffix}", tmp_path / f"other{suffix}"
    process = start(folder, "--out", out, file_limit=5000)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"lcm: cannot write {out} (File too large); rows that are in it stay: put that right" in err
    assert "Traceback" not in err
    assert out.stat().st_size == 5000
    assert main(["caption", str(folder), "--out", str(out)]) == 0
    assert main(["caption", str(folder), "--out", str(other)]) == 0
    assert out.read_bytes() == other.read_bytes()
    assert fake.asked


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a folder in which not even root can write")
def test_a_folder_that_takes_no_file_is_named(tmp_path, fake, capsys):
    assert main(["caption", str(make_files(tmp_path / "photos", 1)), "--out", "/sys/kernel/out.csv"]) == 1
    assert "lcm: cannot write /sys/kernel/out.csv (" in capsys.readouterr().err
    assert fake.asked == []


def test_an_error_on_the_way_is_not_hidden_and_unlocks(tmp_path):
    def stumble():
        with AnswerFile(tmp_path / "out.csv", "m", "s") as answers:
            answers.append(f"{len(answers.done)}.jpg", Description("x", ("x",), (), "m"))
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            stumble()
    assert images_of(tmp_path / "out.csv") == ["0.jpg", "1.jpg"]
    with pytest.raises(ConfigError, match="name must end in"):
        AnswerFile(tmp_path / "out.xlsx", "m", "s")


# What is printed


def test_tags_are_printed_for_people(tmp_path, fake, capsys):
    folder = make_files(tmp_path / "photos", 2)
    assert main(["caption", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [f"{folder}/0001.jpg: picture 3, in it a “dog”", "    grass 0.52, dog 0.48"]
    assert main(["caption", str(folder), "--tagger", "none"]) == 0
    assert [line.rpartition("/")[2][:8] for line in capsys.readouterr().out.splitlines()] == ["0000.jpg", "0001.jpg"]
    assert main(["caption", str(folder), "--json", "--samples", "1"]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[1])
    assert set(record) == set(COLUMNS) - {"settings"}
    assert len(record["english_captions"]) == 2
    assert fake.asked == [f"{folder}/{number:04}.jpg" for number in (0, 1)] * 3


@pytest.mark.parametrize(
    ("confidence", "printed", "rounded", "cell"),
    [(0.1432117, " (14 % sure)", 0.143212, "0.1432"), (0.0, " (under 1 % sure)", 0.0, "0.0000"), (None, "", None, "")],
)
def test_it_is_said_how_sure_a_caption_is(confidence, printed, rounded, cell, tmp_path, fake, capsys):
    fake.confidence = confidence
    folder = make_files(tmp_path / "photos", 1)
    for suffix in (".csv", ".jsonl"):
        for _ in range(2):
            assert main(["caption", str(folder), "--out", str(tmp_path / f"out{suffix}")]) == 0
        assert "are there already" in capsys.readouterr().out
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [row["confidence"] for row in csv.DictReader(file)] == [cell]
    assert json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8"))["confidence"] == rounded
    assert main(["caption", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["confidence"] == rounded
    assert main(["caption", str(folder), "--tagger", "none"]) == 0
    assert capsys.readouterr().out == f"{folder}/0000.jpg: picture 3, in it a “dog”{printed}\n"


def test_of_many_tags_the_first_are_printed(tmp_path, fake, monkeypatch, capsys):
    description = Description("x", ("x",), tuple((f"w{place}", 1 / 6) for place in range(6)), "m")
    monkeypatch.setattr(fake, "describe_many", lambda images, *_, **__: ((image, description) for image in images))
    assert main(["caption", str(make_files(tmp_path / "photos", 1))]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "    w0 0.17, w1 0.17, w2 0.17, w3 0.17, w4 0.17, …"


def test_a_terminal_without_unicode_and_a_closed_pipe_are_no_accidents(tmp_path):
    folder = make_files(tmp_path / "photos", 400)
    code = "import sys, test_folder; sys.exit(test_folder.run_slowly(1000, 0, *sys.argv[1:]))"
    environment = os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", code]
    done = subprocess.run([*command, folder, "--json"], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[0])["caption"] == "picture 3, in it a “dog”"
    shell = f'"{sys.executable}" -c "{code}" "{folder}" | head -n 1'
    done = subprocess.run(shell, shell=True, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{folder}/0000.jpg: picture 3, in it a \\u201cdog\\u201d\n"
    assert done.stderr == ""


# Real answers


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The captioner of a tiny bundle, with tags."""
    monkeypatch.setenv("LCM_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(ENCODERS, "tiny", tiny_spec(TinyConversion()))
    captioner = load_captioner(save_bundle(tmp_path / "bundle", load_encoder("tiny").identity), threads=1)
    captioner.tag_scorer = FakeScorer()
    monkeypatch.setattr(captioner, "load_captioner", lambda *_: captioner)
    return captioner


def make_pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    numbers = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(numbers.integers(0, 256, (6, 9, 3), np.uint8)).save(folder / f"{number:03}.png")
    return folder


@SUFFIXES
def test_a_tiny_bundle_s_file_is_made_whole_to_the_last_byte(suffix, tmp_path, tiny, capsys):
    folder, out = make_pictures(tmp_path / "photos", TOGETHER + 10), tmp_path / f"out{suffix}"
    (folder / "003.png").write_bytes(b"no picture")
    (tmp_path / "labels").write_text("\n".join(KNOWN))
    arguments = ["caption", str(folder), "--samples", "2", "--labels", str(tmp_path / "labels"), "--out", str(out)]
    assert main(arguments) == 1
    assert f"  {folder}/003.png: received 10 bytes (unknown kind)" in capsys.readouterr().err
    whole = out.read_bytes()
    assert whole.count(b"dog") == TOGETHER + 9
    for cut in (0, 1, 60, len(whole) // 3, len(whole) // 2, len(whole) - 700, len(whole) - 1):
        out.write_bytes(whole[:cut])
        assert main(arguments) == 1
        assert out.read_bytes() == whole, cut
    assert tiny.name == "tiny-1"


def test_an_image_that_vanishes_is_a_bad_one(tmp_path, tiny, monkeypatch, capsys):
    folder, out = make_pictures(tmp_path / "photos", 4), tmp_path / "out.csv"

    def load_late(*_):
        (folder / "001.png").unlink()
        return tiny

    monkeypatch.setattr(captioner, "load_captioner", load_late)
    assert main(["caption", str(folder), "--out", str(out)]) == 1
    assert f"not captioned: 1\n  {folder}/001.png: no such file" in capsys.readouterr().err
    assert [Path(image).stem for image in images_of(out)] == ["000", "002", "003"]


@pytest.mark.parametrize("labels", [None, ("dog", "grass")])
def test_the_shipped_bundle_says_the_same_of_one_and_of_many(labels):
    together = load_captioner(threads=1)
    alone = load_captioner()
    for (photo, among_others), expected in zip(
        together.describe_many(PHOTOS, labels=labels, workers=0), PHOTOS, strict=True
    ):
        single = alone.describe(expected, labels=labels)
        assert photo == expected
        assert among_others.english_captions == single.english_captions
        assert dict(among_others.tags) == pytest.approx(dict(single.tags), abs=1e-4)


def test_the_shipped_bundle_s_file_is_made_whole_to_the_last_byte(tmp_path):
    count = 19  # the last of them is encoded alone when the others are there already
    for number in range(count):
        shutil.copy(PHOTOS[number % len(PHOTOS)], tmp_path / f"{number:02}.jpg")
    captioner = load_captioner(threads=1)
    captioner.tag_scorer = FakeScorer()
    images = list_images([tmp_path]).images

    def run(out: Path) -> bytes:
        with AnswerFile(out, captioner.name, "samples 1") as answers:
            write_answers(captioner, images, answers, Failures(), samples=1, labels=KNOWN)
        return out.read_bytes()

    whole = run(tmp_path / "whole.jsonl")
    (tmp_path / "cut.jsonl").write_bytes(whole[:-9])
    assert run(tmp_path / "cut.jsonl") == whole
    assert len(whole.splitlines()) == count


def test_escapes_can_be_told_from_what_they_stand_for():
    texts = ["a", "\\", "\\n", "\n", "\\\n", "\udcff", "\\udcff", "\x00", "\u2028", "é"]
    escaped = [escape(text) for text in texts]
    assert escaped == ["a", "\\\\", "\\\\n", "\\n", "\\\\\\n", "\\udcff", "\\\\udcff", "\\x00", "\\u2028", "é"]
    assert len(set(escaped)) == len(texts)
