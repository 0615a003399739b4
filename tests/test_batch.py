"""Many images into one file: stopped anywhere and started again, it ends in the same bytes."""

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from lcm.batch import COLUMNS, FAILURES_SHOWN, describe_into_file
from lcm.captioning import captioner as captioner_module
from lcm.captioning.captioner import PART, load_captioner
from lcm.cli import main
from lcm.data.files import IMAGE_SUFFIXES
from lcm.errors import BundleError
from lcm.paths import packaged_file
from tests.fakes.fake_captioner import KNOWN, FakeCaptioner, FakeScorer

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = sorted(packaged_file("reports/examples").glob("*.jpg"))
SUFFIXES_NAMED = ", ".join(IMAGE_SUFFIXES)
SUFFIXES = pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
STRANGE_NAMES = [
    *("x;=1+1;y.jpg", "x;'=1+1;y.jpg", 'x;"=1.jpg', "x, -1.jpg", "=x.jpg"),
    *("=1+1.jpg", " =x.jpg", "\uff1dx.jpg", "'=x.jpg", 'quo"te.jpg', "com,ma.jpg", "new\nline.jpg", "\r.jpg"),
    *("\x1b[31m.jpg", "back\\n.jpg", "back\\\\.jpg", "\\udcff.jpg", "caf\u00e9.jpg", "cafe\u0301.jpg", "😀.JPG"),
    *("\u2028.jpg", "\u0085.jpg", " .jpg", os.fsdecode(b"\xff\xfe.jpg")),
]  # fmt: skip


@pytest.fixture
def fake(monkeypatch) -> FakeCaptioner:
    """The captioner that `lcm caption` loads."""
    captioner = FakeCaptioner()

    def load(_bundle, tagger, _threads):
        captioner.tag_scorer = None if tagger == "none" else captioner.tag_scorer or FakeScorer()
        return captioner

    monkeypatch.setattr(captioner_module, "load_captioner", load)
    return captioner


@pytest.fixture
def caption(capsys):
    """Run `lcm caption`; returns exit code, what was printed, and what was complained of."""

    def run(*arguments) -> tuple[int, str, str]:
        capsys.readouterr()
        return main(["caption", *map(str, arguments)]), *capsys.readouterr()

    return run


def start(*arguments: object, waits_after: int = 1000, file_limit: int = 0) -> subprocess.Popen:
    """Start `lcm caption` with a fake captioner, which waits after some images, in a process of its own."""
    command = [sys.executable, "-m", "tests.fakes.fake_captioner", waits_after, file_limit, "caption", *arguments]
    pipe, environment = subprocess.PIPE, os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        list(map(str, command)), cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def end(process: subprocess.Popen, number: signal.Signals) -> str:
    """Send a signal once the process waits; returns what was complained of."""
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(number)
    return process.communicate(timeout=60)[1]


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


# What is in the file


@pytest.mark.usefixtures("fake")
def test_both_formats_are_as_they_are_documented(tmp_path, caption):
    folder, out = make_files(tmp_path / "photos", 3), tmp_path / "out.csv"
    assert caption(folder, "--samples", 1, "--out", out)[:2] == (0, f"{out}: images captioned: 3\n")
    lines = out.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "image,language,caption,confidence,tags,english_captions,model,settings"
    assert lines[2] == (  # its tags are the softmax of 3 * 1 / 255 and 3 * 7 / 255
        f'"{folder}/0001.jpg","en","picture 3, in it a “dog”","","grass 0.5176; dog 0.4824",'
        f'"picture 3, in it a “dog” | \'{folder}/0000.jpg\' 0","fake-1","samples 1, tagger fake"'
    )
    assert len(lines) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "photos"]
    assert caption(folder, "--samples", 0, "--out", tmp_path / "out.JSONL")[0] == 0
    text = (tmp_path / "out.JSONL").read_text(encoding="utf-8")
    row = json.loads(text.splitlines()[1])
    assert list(row) == ["image", "language", "caption", "confidence", "english_captions", "tags", "model", "settings"]
    assert set(row) == set(COLUMNS)
    assert (row["image"], row["confidence"]) == (f"{folder}/0001.jpg", None)
    assert row["tags"] == [["grass", 0.51764], ["dog", 0.48236]]
    assert "“" in text


@SUFFIXES
@pytest.mark.usefixtures("fake")
def test_alternative_texts_are_a_column_or_a_field_more_on_request(suffix, tmp_path, caption):
    folder, out = make_files(tmp_path / "photos", 2), tmp_path / f"out{suffix}"
    assert caption(folder, "--style", "alt", "--out", out)[0] == 0
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file)) if suffix == ".csv" else [json.loads(line) for line in file]
    assert [row["alt_text"] for row in rows] == 2 * ["Picture 3, in it a “dog”."]
    assert rows[0].keys() == {*COLUMNS, "alt_text"}
    assert "all images (2) are there already" in caption(folder, "--style", "alt", "--out", out)[1]
    assert "nothing that lcm caption writes with such options" in caption(folder, "--out", out)[2]
    assert f"{folder}/0000.jpg: Picture 3, in it a “dog”.\n" in caption(folder, "--style", "alt")[1]
    row = json.loads(caption(folder, "--style", "alt", "--json")[1].splitlines()[0])
    assert (row["caption"], row["alt_text"]) == ("picture 3, in it a “dog”", "Picture 3, in it a “dog”.")


@pytest.mark.usefixtures("fake")
def test_probabilities_are_asked_for_by_name(tmp_path, caption):
    folder, out, asked = make_files(tmp_path / "photos", 2), tmp_path / "out.csv", ("--scores", "probability")
    (folder / "0001.jpg").write_bytes(bytes((0, 128, 0)))  # grass 3 * 128 / 255 - 1.5 is just above 0
    caption(folder, *asked, "--out", out)
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["tags"] for row in rows] == ["", "grass 0.5015"]
    assert rows[0]["settings"] == "samples 5, tagger fake, probability from 0.5"
    assert "probability from 0.5 there" in caption(folder, *asked, "--min-score", 0.4, "--out", out)[2]
    assert caption(folder, *asked, "--min-score", 0.6)[1].count("\n    (no tag is probable enough)\n") == 2
    code, printed, complained = caption(folder, *asked, "--tagger", "none")
    assert (code, printed) == (1, "")
    assert complained.startswith("lcm: this model has no probabilities of tags; ")


@pytest.mark.usefixtures("fake")
def test_labels_are_the_tags_and_none_is_a_formula(tmp_path, caption):
    folder, labels = make_files(tmp_path / "photos", 2), tmp_path / "labels.txt"
    labels.write_text("=1+1\ncat\ndog\n")
    out = tmp_path / "out.csv"
    complained = caption(folder, "--labels", labels, "--out", out)[2]
    assert "lcm: the tagger fake does not know cat; 2 of the 3 labels are scored\n" in complained
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["tags"] for row in rows] == ["'=1+1 0.5029; dog 0.4971", "'=1+1 0.5029; dog 0.4971"]
    assert rows[0]["settings"] == "samples 5, tagger fake, labels 770e80b7 (3)"
    (tmp_path / "same.txt").write_text("\ufeff=1+1\r\n\r\ncat\ndog", encoding="utf-8", newline="")
    assert "all images (2) are there already" in caption(folder, "--labels", tmp_path / "same.txt", "--out", out)[1]
    labels.write_text("cat\nbird\n")
    assert "fake does not know cat, bird: none of the 2 labels" in caption(folder, "--labels", labels)[2]
    complained = caption(folder, "--labels", labels, "--tagger", "none")[2]
    assert "fake-1 has no tagger that could score labels" in complained


@SUFFIXES
def test_any_file_name_survives(suffix, tmp_path, monkeypatch, fake, caption):
    folder, out = tmp_path / "photos", tmp_path / f"out{suffix}"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in STRANGE_NAMES:
        Path(name).write_bytes(b"content")
    assert caption(".", "--out", out)[0] == 0
    text = out.read_text(encoding="utf-8")
    assert text.count("\n") == len(STRANGE_NAMES) + (suffix == ".csv"), "one line a row"
    if suffix == ".jsonl":
        assert images_of(out) == sorted(STRANGE_NAMES)
    else:
        for separator in ",;":  # of a spreadsheet, which may be another than the file's
            with out.open(encoding="utf-8", newline="") as file:
                cells = {cell.strip(' "') for row in csv.reader(file, delimiter=separator) for cell in row}
            assert not [cell for cell in cells if cell.startswith(tuple("=+-@\uff1d"))]
        assert "'=1+1.jpg" in images_of(out)
        assert len(set(images_of(out))) == len(STRANGE_NAMES), "an escape can be told from what it stands for"
    fake.asked.clear()
    assert caption(".", "--out", out)[0] == 0
    assert fake.asked == []
    shown = caption(".")[1]
    assert len(shown.splitlines()) == 2 * len(STRANGE_NAMES), "a caption and its tags, a line each"
    assert "\x1b" not in shown
    rows = caption(".", "--json")[1].split("\n")[:-1]
    assert [json.loads(line)["image"] for line in rows] == sorted(STRANGE_NAMES)


@pytest.mark.parametrize("out", [[], ["--out", "out.csv"]])
def test_a_language_that_the_model_does_not_write_is_named_before_anything_is_captioned(
    out, tmp_path, monkeypatch, fake, caption
):
    monkeypatch.chdir(tmp_path)
    folder = make_files(Path("photos"), 2)
    code, printed, complained = caption(folder, "--language", "pt_BR", *out)
    assert (code, printed, complained.count("\n")) == (1, "", 1)
    assert complained.startswith("lcm: language is 'pt_BR'; choose from en, fr, or name a Marian checkpoint")
    assert (fake.asked, Path("out.csv").exists()) == ([], False)
    assert caption(folder, "--language", "fr_CA", *out)[0] == 0
    row = caption(folder, "--language", "fr", "--json")[1].splitlines()[0]
    assert json.loads(row)["language"] == "fr"


# Stopped and started again


@SUFFIXES
def test_after_kills_and_interrupts_the_bytes_are_those_of_a_run_without(suffix, tmp_path, fake, caption):
    folder, out, other = make_files(tmp_path / "photos", 60), tmp_path / f"out{suffix}", tmp_path / f"other{suffix}"
    process = start(folder, "--out", out, waits_after=10)
    end(process, signal.SIGKILL)
    process = start(folder, "--out", out, waits_after=20)
    complained = end(process, signal.SIGINT)
    assert process.returncode == 130
    assert complained.endswith("lcm: interrupted\n")
    assert "Traceback" not in complained
    assert 20 <= len(images_of(out)) < 60
    assert caption(folder, "--out", out)[0] == 0
    assert 0 < len(fake.asked) < 50
    assert caption(folder, "--out", other)[0] == 0
    assert out.read_bytes() == other.read_bytes()
    assert images_of(out) == [f"{folder}/{number:04}.jpg" for number in range(60)]


@pytest.mark.parametrize("becomes", [None, ImportError("initialization failed"), BundleError("it is damaged")])
def test_an_interrupt_that_an_import_has_swallowed_or_turned_into_an_error_ends_it_all_the_same(
    becomes, tmp_path, monkeypatch, caption
):
    def load(*_):
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        if becomes:
            raise becomes
        return FakeCaptioner()

    monkeypatch.setattr(captioner_module, "load_captioner", load)
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        ended = caption(make_files(tmp_path / "photos", 3), "--out", tmp_path / "out.csv")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert ended == (130, "", "\nlcm: interrupted\n")
    assert not (tmp_path / "out.csv").exists()


@SUFFIXES
def test_a_finished_file_gets_only_what_is_new(suffix, tmp_path, fake, caption):
    folder, out = make_files(tmp_path / "photos", 3), tmp_path / f"out{suffix}"
    out.touch()
    caption(folder, "--out", out)
    first = out.read_bytes()
    fake.asked.clear()
    assert caption(folder, "--out", out)[:2] == (0, f"{out}: all images (3) are there already\n")
    assert (out.read_bytes(), fake.asked) == (first, [])
    (folder / "0000b.jpg").write_bytes(b"new")
    (folder / "0002.jpg").unlink()
    assert caption(folder, "--out", out)[:2] == (0, f"{out}: images captioned: 1; there already: 2\n")
    assert out.read_bytes().startswith(first)
    assert images_of(out) == [f"{folder}/{name}.jpg" for name in ("0000", "0001", "0002", "0000b")]


@pytest.mark.usefixtures("fake")
def test_bad_images_stop_nothing_and_are_tried_again(tmp_path, caption):
    folder, out = make_files(tmp_path / "photos", 40), tmp_path / "out.csv"
    for number in range(25):
        (folder / f"{number:04}.jpg").write_bytes(b"bad")
    code, printed, complained = caption(folder, "--out", out)
    assert (code, printed) == (1, f"{out}: images captioned: 15\n")
    lines = complained.splitlines()
    listed = [f"  {folder}/{number:04}.jpg: it is bad" for number in range(FAILURES_SHOWN)]
    assert lines[lines.index("lcm: not captioned: 25") + 1 :] == [*listed, "  and 5 more"]
    (folder / "0003.jpg").write_bytes(b"good now")
    assert "lcm: not captioned: 24\n" in caption(folder, "--out", out)[2]
    assert images_of(out)[15:] == [f"{folder}/0003.jpg"]


# Whose file it is


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--samples", "3"], "fake-1: samples 5, tagger fake there, en: fake-1: samples 3, tagger fake here"),
        (["--language", "fr-CA"], "(en: fake-1: samples 5, tagger fake there, fr: fake-1: samples 5, tagger fake here"),
        (["--tagger", "none"], "samples 5, tagger fake there, en: fake-1: samples 5, tagger none here"),
        (["--labels", "dog"], "tagger fake there, en: fake-1: samples 5, tagger fake, labels cd6357ef (1) here"),
        (["model", "--samples", "0"], "fake-1: samples 5, tagger fake there, en: fake-2: samples 0, tagger fake here"),
    ],
)
def test_other_settings_are_refused(change, said, tmp_path, fake, caption):
    folder, out = make_files(tmp_path / "photos", 2), tmp_path / "out.csv"
    caption(folder, "--out", out)
    before = out.read_bytes() + b"half a row"
    out.write_bytes(before)
    fake.name = "fake-2" if "model" in change else fake.name
    (tmp_path / "dog").write_text("dog")
    changed = [tmp_path / part if part == "dog" else part for part in change if part != "model"]
    code, _, complained = caption(folder, "--out", out, *changed)
    assert code == 1
    assert "out.csv was made with other settings (" in complained
    assert f"{said}); choose another --out, or remove it" in complained
    assert out.read_bytes() == before


CSV_HEADER = b"image,language,caption,confidence,tags,english_captions,model,settings"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.csv", b"image,caption\n1.jpg,a dog\n"),
        ("mine.csv", CSV_HEADER),
        ("mine.csv", CSV_HEADER + b"\n1,2\n"),
        ("mine.csv", CSV_HEADER + b'\n"x,en,a,,,a,fake-1,"samples 5, tagger fake"\n'),
        ("mine.csv", bytes(range(256))),
        ("mine.jsonl", b'{"image": "a.jpg", "label": 3}\n'),
        ("mine.jsonl", b'{"image": "a.jpg", "label": 3}'),
        ("mine.jsonl", b"my notes"),
        ("mine.jsonl", b"\xff\xd8\xff\n"),
        ("mine.jsonl", CSV_HEADER + b"\n"),
    ],
)
def test_a_file_of_someone_else_is_left_as_it_is(name, content, tmp_path, fake, caption):
    folder, out = make_files(tmp_path / "photos", 2), tmp_path / name
    out.write_bytes(content)
    code, _, complained = caption(folder, "--out", out)
    assert code == 1
    assert "nothing that lcm caption writes with such options; it was left as it is: choose another --out" in complained
    assert (out.read_bytes(), fake.asked) == (content, [])


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("out", "--out is 'out'; its name must end in .csv or .jsonl"),
        ("folder.csv", "cannot write folder.csv (Is a directory); rows that are in it stay: put that right and give"),
        ("pipe.csv", "cannot write pipe.csv (File or stream is not seekable"),
        ("nowhere/out.csv", "cannot write nowhere/out.csv (No such file or directory)"),
        pytest.param(
            "/sys/kernel/out.csv",
            "cannot write /sys/kernel/out.csv (",
            marks=pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a folder that takes no file"),
        ),
    ],
)
def test_a_file_that_cannot_be_is_named(out, said, tmp_path, monkeypatch, fake, caption):
    make_files(tmp_path / "photos", 1)
    monkeypatch.chdir(tmp_path)
    Path("folder.csv").mkdir()
    os.mkfifo("pipe.csv")
    code, _, complained = caption("photos", "--out", out)
    assert code == 1
    assert complained.startswith(f"lcm: {said}")
    assert fake.asked == []


def test_a_file_is_written_by_one_at_a_time(tmp_path, fake, caption):
    folder, out = make_files(tmp_path / "photos", 10), tmp_path / "out.csv"
    process = start(folder, "--out", out, waits_after=5)
    assert process.stdout.readline() == "waiting\n"
    assert f"another lcm caption is writing to {out}; wait for its end" in caption(folder, "--out", out)[2]
    assert fake.asked == []
    process.kill()
    process.communicate()
    assert caption(folder, "--out", out)[0] == 0


def test_a_full_disk_is_named_and_what_is_written_stays(tmp_path, fake, caption):
    folder, out, other = make_files(tmp_path / "photos", 60), tmp_path / "out.csv", tmp_path / "other.csv"
    process = start(folder, "--out", out, file_limit=5000)
    complained = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert f"lcm: cannot write {out} (File too large); rows that are in it stay: put that right" in complained
    assert "Traceback" not in complained
    assert out.stat().st_size == 5000
    for path in (out, other):
        assert caption(folder, "--out", path)[0] == 0
    assert out.read_bytes() == other.read_bytes()
    assert fake.asked


# What is printed


def test_captions_and_tags_are_printed_for_people_and_as_json(tmp_path, fake, caption):
    folder = make_files(tmp_path / "photos", 2)
    code, printed, _ = caption(folder)
    assert (code, printed.splitlines()[2:]) == (
        0,
        [f"{folder}/0001.jpg: picture 3, in it a “dog”", "    grass 0.52, dog 0.48"],
    )
    assert len(caption(folder, "--tagger", "none")[1].splitlines()) == 2
    record = json.loads(caption(folder, "--json", "--samples", 1)[1].splitlines()[1])
    assert set(record) == set(COLUMNS) - {"settings"}
    assert len(record["english_captions"]) == 2
    assert fake.asked == [f"{folder}/{number:04}.jpg" for number in (0, 1)] * 3


def test_it_is_said_how_sure_a_caption_is(tmp_path, fake, caption):
    folder = make_files(tmp_path / "photos", 1)
    for confidence, said in ((0.1432117, " (14 % sure)"), (0.08, " (unsure, please look)"), (None, "")):
        fake.confidence = confidence
        assert caption(folder, "--tagger", "none")[1] == f"{folder}/0000.jpg: picture 3, in it a “dog”{said}\n"
    fake.confidence = 0.1432117
    caption(folder, "--out", tmp_path / "out.csv")
    assert ',"0.1432",' in (tmp_path / "out.csv").read_text(encoding="utf-8")
    assert json.loads(caption(folder, "--json")[1])["confidence"] == 0.143212


@pytest.mark.usefixtures("fake")
def test_a_folder_without_images_is_named_and_stops_no_other(tmp_path, caption):
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    (tmp_path / "photos" / "sub" / "a.jpg").touch()
    code, printed, complained = caption(tmp_path / "photos", "--out", tmp_path / "out.csv")
    assert (code, printed) == (1, "")
    assert f"{tmp_path}/photos: the folder holds no image" in complained
    assert not (tmp_path / "out.csv").exists()
    (tmp_path / "good.jpg").write_bytes(b"good")
    code, printed, complained = caption(tmp_path / "photos", tmp_path / "good.jpg")
    assert code == 1
    assert printed.startswith(f"{tmp_path}/good.jpg: picture 4")
    assert complained.splitlines() == [
        f"lcm: not captioned: {tmp_path}/photos: the folder holds no image, nothing that ends in {SUFFIXES_NAMED}",
        f"sub-folders left out: 1 ({tmp_path}/photos/sub); add --recursive, or give them by their own paths",
    ]


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("out", [[], ["--out", "out.csv"]])
def test_what_is_left_out_is_counted_and_named_and_the_captions_beside_are_not(out, tmp_path, monkeypatch, caption):
    monkeypatch.chdir(tmp_path)
    folder = make_files(Path("photos"), 2)
    (folder / "captions.tsv").write_text("0000.jpg\ta dog\n")
    assert caption("photos", *out)[0] == 0
    for number in range(7):
        (folder / f"IMG_{number}.PSD").touch()
    code, printed, complained = caption("photos", *out)
    assert code == 1
    assert printed
    assert complained.splitlines()[-1] == (
        "lcm: files left out: 7 (photos/IMG_0.PSD, photos/IMG_1.PSD, photos/IMG_2.PSD, photos/IMG_3.PSD, "
        f"photos/IMG_4.PSD and 2 more); names that do not end in {SUFFIXES_NAMED}: convert them, or give images "
        "without a suffix by their own paths"
    )


def test_a_terminal_without_unicode_and_a_closed_pipe_are_no_accidents(tmp_path):
    folder = make_files(tmp_path / "photos", 400)
    command = [sys.executable, "-m", "tests.fakes.fake_captioner", "1000", "0", "caption", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    options = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "check": True}
    done = subprocess.run([*command, "--json"], **options)
    assert json.loads(done.stdout.splitlines()[0])["caption"] == "picture 3, in it a “dog”"
    done = subprocess.run(f"{shlex.join(command)} | head -n 1", shell=True, **options)
    assert done.stdout == f"{folder}/0000.jpg: picture 3, in it a \\u201cdog\\u201d\n"
    assert done.stderr == ""


# Real answers


def test_the_shipped_bundle_s_file_is_made_whole_to_the_last_byte(tmp_path):
    count = PART + 3  # the last of them is encoded alone when the others are there already
    images = [str(tmp_path / f"{number:02}.jpg") for number in range(count)]
    for number, image in enumerate(images):
        shutil.copy(PHOTOS[number % len(PHOTOS)], image)
    captioner = load_captioner(threads=1)
    captioner.tag_scorer = FakeScorer()
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    describe_into_file(whole, captioner, images, [], 1, KNOWN)
    cut.write_bytes(whole.read_bytes()[:-9])
    describe_into_file(cut, captioner, images, [], 1, KNOWN)
    assert cut.read_bytes() == whole.read_bytes()
    assert len(images_of(whole)) == count
