"""The `lcm` command: what it prints, and that bad input ends in one line and exit code 1."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from lcm import __version__
from lcm.captioning.captioner import SHIPPED_BUNDLE, load_captioner
from lcm.cli import main
from lcm.cli.run import parse_value
from lcm.paths import home, packaged_file

PHOTOS = sorted(packaged_file("reports/examples").glob("*.jpg"))


def test_values_are_numbers_where_they_look_like_numbers():
    texts = ["3", "0.5", "1e-3", "true", "null", "merge", "../shared/flickr8k", "[1]", '{"a": 1}', "nan"]
    assert [parse_value(text) for text in texts[:-1]] == [
        3,
        0.5,
        0.001,
        True,
        None,
        "merge",
        "../shared/flickr8k",
        "[1]",
        '{"a": 1}',
    ]


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == f"lcm {__version__}"


def test_the_shipped_model_captions_the_example_photos(capsys):
    assert main(["caption", "--json", *map(str, PHOTOS)]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["image"] for answer in answers] == list(map(str, PHOTOS))
    assert len(PHOTOS) >= 3
    for answer in answers:
        assert len(answer["caption"].split()) >= 4
        assert answer["model"].startswith(
            json.loads((packaged_file(SHIPPED_BUNDLE) / "bundle.json").read_text())["name"]
        )


def test_the_same_photo_always_gets_the_same_caption(capsys):
    shown = []
    for others in ([], PHOTOS[1:]):
        main(["caption", str(PHOTOS[0]), str(PHOTOS[0]), *map(str, others)])
        shown.append([line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{PHOTOS[0]}: ")])
    assert shown[0] == shown[1]
    assert len(shown[0]) == 1, "given twice, it is captioned once"


def test_a_folder_is_captioned_as_its_photos_are(tmp_path, capsys):
    assert main(["caption", str(PHOTOS[0].parent), "--json"]) == 0
    whole = capsys.readouterr().out
    assert main(["caption", *map(str, PHOTOS), "--json"]) == 0
    assert capsys.readouterr().out == whole
    out = tmp_path / "photos.jsonl"
    assert main(["caption", str(PHOTOS[0].parent), "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert {row.pop("settings").split(", ")[0] for row in rows} == {"samples 5"}
    assert rows == [json.loads(line) for line in whole.splitlines()]


def test_a_bad_image_is_named_and_the_others_are_captioned(tmp_path, capsys):
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    missing = tmp_path / "missing.jpg"
    assert main(["caption", str(tmp_path / "broken.jpg"), str(missing), str(PHOTOS[0])]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{PHOTOS[0]}: ")
    assert "broken.jpg" in captured.err
    assert "missing.jpg" in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["run", "--params", "flickr9k"],
            "unknown preset 'flickr9k'; choose from compare, flickr30k, flickr8k, flickr8k-best, original, "
            "retrain, retrain-anew, sample",
        ),
        (["run", "--params", "sample", "-p", "epoch", "3"], "did you mean 'epochs'?"),
        (["run", "--params", "sample", "-p", "run_dir", "x"], "unknown parameter 'run_dir'"),
        (["caption", "--captioner", "./nowhere", "x.jpg"], "nowhere is no bundle"),
        (["caption", "--captioner", "nowhere", "x.jpg"], "unknown captioner 'nowhere'; choose from bundle"),
        (["caption", "--captioner", "nearest:nowhere", "x.jpg"], "nowhere is no folder; give the folder of a run"),
        (["caption", "--tagger", "clap", "x.jpg"], "unknown tagger 'clap'; choose from dual_encoder, clip, none"),
        (["caption", "--samples", "12", "x.jpg"], "--samples is 12; it must be 0 to 10"),
        (["caption", "--labels", "nowhere.txt", "x.jpg"], "the labels file nowhere.txt cannot be read"),
        (["caption", "--out", "x.xlsx", "x.jpg"], "--out is 'x.xlsx'; its name must end in .csv or .jsonl"),
    ],
)
def test_bad_arguments_end_in_one_line(arguments, said, capsys):
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("lcm: ")
    assert said in captured.err
    assert len(captured.err.strip().splitlines()) == 1


def test_captioning_loads_no_training_framework(tmp_path):
    Image.new("RGB", (64, 48), "green").save(tmp_path / "green.png")
    code = (
        "import sys; from lcm.cli import main; code = main(['caption', sys.argv[1]]); "
        "loaded = {'tensorflow', 'keras', 'torch', 'matplotlib', 'pandas'} & set(sys.modules); "
        "sys.exit(f'loaded {loaded}' if loaded else code)"
    )
    load = [sys.executable, "-c", code, str(tmp_path / "green.png")]
    subprocess.run(load, check=True, capture_output=True)  # converts the encoder where it is not there yet
    assert subprocess.run(load, check=False, capture_output=True, text=True).returncode == 0


def test_captioning_reports_to_nobody(tmp_path):
    """ONNX Runtime keeps a device id and a data base of its use in the home folder unless told not to."""
    load_captioner()  # converts the encoder where it is not there yet
    shutil.copytree(home() / "cache" / "encoders", tmp_path / "state" / "cache" / "encoders")
    environment = os.environ | {"HOME": str(tmp_path), "LCM_HOME": str(tmp_path / "state")}
    command = [sys.executable, "-m", "lcm", "caption", str(PHOTOS[0])]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
