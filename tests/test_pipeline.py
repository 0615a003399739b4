"""Runs on small data sets, presets, and what users get wrong."""

import errno
import json
import os
from pathlib import Path

import papermill
import pytest
from PIL import Image

from lcm.captioning.bundle import Bundle, Manifest
from lcm.captioning.captioner import load_captioner
from lcm.cli import main
from lcm.data.text import RESERVED
from lcm.errors import ConfigError, LcmError
from lcm.paths import OUTPUTS, RunDir, lock
from lcm.pipeline import Preset, load_preset, preset_names, run
from tests.fakes.tiny_blip import make_blip

QUICK = {  # a run of some seconds, without anything pretrained
    "encoder": "efficientnet_lite0",
    "encoder_weights": "random",
    "min_count": 1,
    "epochs": 2,
    "epoch_steps": 1,
    "batch_size": 4,
    "tagger_epochs": 2,
    "meteor": False,  # ten seconds each time; test_sample has it
}


def make_data_set(
    folder: Path, images: int, captions: int = 5, colours=("red", "blue", "green"), said: str = "a {} square"
) -> Path:
    """Squares of some colours; of nine, the last three are dev."""
    folder.mkdir()
    lines = []
    for number in range(images):
        name, colour = f"{number}.png", colours[number % len(colours)]
        Image.new("RGB", (32 + number, 32), colour).save(folder / name)  # the same bytes would share a split
        lines += [f"{name}\t{said.format(colour)}" for _ in range(captions)]
    (folder / "captions.tsv").write_text("image\tcaption\n" + "\n".join(lines) + "\n")
    if images == 9:
        for split, numbers in {"train": range(6), "dev": range(6, 9)}.items():
            (folder / f"{split}.txt").write_text("".join(f"{number}.png\n" for number in numbers))
    return folder


# Small data sets


def test_two_images_train_and_what_cannot_be_measured_is_null_with_a_reason(tmp_path, capsys):
    data, folder = make_data_set(tmp_path / "photos", 2), RunDir(tmp_path / "run")
    given = [("-p", name, json.dumps(value).strip('"')) for name, value in QUICK.items()]
    given += [("-p", "data_dir", str(data)), ("-p", "captioners", "trained")]
    assert main(["run", "--params", "sample", "--out", str(folder.path), *(word for one in given for word in one)]) == 0
    metrics = folder.read_metrics()
    assert capsys.readouterr().out.endswith(f"{folder.path}\n{metrics['verdict_text']}\n")
    assert "none of 2 images is held out for dev, and a verdict needs 10" in metrics["verdict_text"]
    assert "none of 2 images is held out (photos, dev)" in (folder.path / "04_compare.html").read_text()
    page = (folder.path / "03_evaluate.html").read_text()
    assert "none of 2 images is held out for dev" in page
    assert "Before and after" in page
    assert page.count("<figure>") == 2, "both photos, though they were learned"
    assert not [part for part in ("<table", 'id="Numbers"', 'id="Confidence"') if part in page]
    assert not (folder.figures / "reliability.png").exists()
    assert metrics["train_images"] == 2
    assert metrics["generated_data"] == 0
    for name in ("cider", "wer", "bleu_4", "meteor", "tag_map"):
        assert metrics[name] is None
        assert metrics[f"{name}_reason"]
    assert isinstance(metrics["tagger_loss"], float)
    manifest = Bundle(folder.bundle).manifest
    assert manifest.metrics["cider"] is None
    assert manifest.tagger["words"] == metrics["vocabulary_size"] - len(RESERVED)

    run(PREPARE, {"data_dir": str(make_data_set(tmp_path / "others", 9))}, folder.path)
    assert folder.read_metrics()["train_images"] == 6
    assert "wer" not in folder.read_metrics(), "it was of the model of the two"
    prepared = {*OUTPUTS["01_prepare"], "01_prepare.ipynb", "01_prepare.html"}
    names = {str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith("checkpoint/")} == {*prepared, "metrics.json", ".lock"}


def test_the_preset_of_the_shipped_model_runs_whole_and_again_without_a_tagger(tmp_path):
    """Grid features, views, both stages, chosen captions and confidence, from captions to the bundle's answer."""
    data = make_data_set(tmp_path / "photos", 56, captions=2)
    parameters = QUICK | {"data_dir": str(data), "views": 1, "reinforce_epochs": 1}
    for split, numbers in {"train": range(6), "dev": range(6, 56)}.items():  # 50: enough for a curve
        (data / f"{split}.txt").write_text("".join(f"{number}.png\n" for number in numbers))
    folder = run(load_preset("flickr8k-best"), parameters, tmp_path / "run")
    metrics = folder.read_metrics()
    assert (metrics["model"], metrics["reinforce_epochs"]) == ("transformer", 1)
    assert metrics["rerank_weight"] == Manifest.load(folder.bundle).rerank_weight > 0
    for name in ("recall_1_image_to_text", "recall_10_text_to_image", "tag_map", "tag_map_over_caption_order"):
        assert isinstance(metrics[name], float), name
    captioner = load_captioner(folder.bundle)
    for result in map(json.loads, folder.results.read_text().splitlines()):
        description = captioner.describe(result["path"])
        assert description.caption == result["caption"]
        assert 0 < description.confidence == pytest.approx(result["confidence"], abs=1e-4)
        assert [word for word, _ in result["tags"]] == [word for word, _ in description.tags]
        shares = [score for _, score in description.tags]
        assert [score for _, score in result["tags"]] == pytest.approx(shares, abs=1e-5)
    with pytest.raises(ConfigError, match="no probabilities of tags"):  # two of three captions are empty
        captioner.describe(result["path"], scores="probability")
    figures = {path.name for path in folder.figures.iterdir()}
    assert {"learning_curves.png", "reinforce_curves.png", "reliability.png"} <= figures

    adapted = adapt_to(folder.bundle, make_data_set(tmp_path / "purple", 9, colours=("purple",)))
    assert adapted.read_metrics()["train_images"] == 6
    manifest = Manifest.load(adapted.bundle)
    assert manifest.training_data["started_from"] == Manifest.load(folder.bundle).name
    assert manifest.tagger["words"] == Manifest.load(folder.bundle).tagger["words"] + 1
    learned = load_captioner(adapted.bundle).describe(tmp_path / "purple" / "0.png", labels=["purple", "red"])
    assert "purple" in learned.caption
    assert [word for word, _ in learned.tags] == ["purple", "red"]

    french = adapt_to(adapted.bundle, make_data_set(tmp_path / "rouge", 9, colours=("red",), said="un carré est rouge"))
    captioner = load_captioner(french.bundle)
    assert captioner.languages == ("en", "fr")
    assert captioner.describe(tmp_path / "rouge" / "0.png", language="fr").caption == "un carré est rouge"
    assert "3 of 9 images are held out for dev, and a verdict needs 10" in french.read_metrics()["verdict_text"]
    its, parents = Manifest.load(french.bundle).tagger, Manifest.load(adapted.bundle).tagger
    assert its == parents, "its text side reads no French"
    assert its["languages"] == ["en"]

    again = Preset("again", ("02_train", "03_evaluate"), {"tagger": "none", "model": "merge"})
    without = run(again, {name: QUICK[name] for name in ("epochs", "batch_size", "meteor")}, folder.path)
    assert Bundle(without.bundle).manifest.tagger == {}
    assert without.read_metrics()["tag_map_reason"] == "the bundle has no tag scorer"
    assert all(json.loads(line)["tags"] == [] for line in without.results.read_text().splitlines())


def adapt_to(bundle: Path, data: Path) -> RunDir:
    """Let a model learn a folder of photos of a colour that it has not seen, in words that it does not know."""
    own = {"data_dir": str(data), "start_from": str(bundle), "encoder_weights": "random", "meteor": False}
    quick = {"epochs": 40, "learning_rate": 0.003, "parent_images": 0.3}
    return run(load_preset("adapt"), own | quick, data.with_name(f"adapted to {data.name}"))


def test_blip_is_compared_and_one_that_is_not_there_is_named(tmp_path):
    """A tiny checkpoint of BLIP, made here; without 02_train there is no bundle of this run."""
    data, blip = make_data_set(tmp_path / "photos", 9, captions=2), make_blip(tmp_path / "blip")
    prepare = {"data_dir": str(data), "encoder": "efficientnet_lite0", "encoder_weights": "random"}
    captioners = {"captioners": f"trained, nearest, tiny=blip:{blip}, gone=blip:{tmp_path}/gone", "timed_photos": 1}
    folder = run(load_preset("compare"), prepare | captioners | {"images": 2, "meteor": False}, tmp_path / "run")
    metrics = folder.read_metrics()
    compared = (metrics["compared"], metrics["not_run"], metrics["compared_images"])
    assert compared == ("nearest, tiny", "trained, gone", 2)
    record = json.loads((folder.path / "comparison.json").read_text())
    assert record["models"]["tiny"]["wer"] > 0
    assert record["models"]["tiny"]["seconds_photos"] == 1
    assert f"{tmp_path}/gone" in record["not_run"]["gone"]


def test_one_image_is_a_clear_error(tmp_path):
    data = make_data_set(tmp_path / "photos", 1)
    with pytest.raises(LcmError, match=r"01_prepare stopped: .*1 image with captions, and training needs two"):
        run(load_preset("sample"), QUICK | {"data_dir": str(data)}, tmp_path / "run")
    page = (tmp_path / "run" / "01_prepare.html").read_text()
    assert "training needs two" in page
    assert "from_notebook" not in page.partition("Traceback")[0], "the report shows no code"


def test_j01_a_run_that_finds_nothing_to_do_ends_well(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("LCM_HOME", str(tmp_path / "home"))
    RunDir.at(tmp_path / "run")
    (tmp_path / "run" / "gate.json").touch()
    arguments = ["-p", "approved=7"]  # text that looks like a number
    assert main(["run", "--params", "retrain", "--out", str(tmp_path / "run"), *arguments]) == 0
    printed, said = capfd.readouterr()
    assert "there is no contribution that can train; nothing is trained" in said
    assert said.endswith(f"; see {tmp_path}/run/01_prepare.ipynb\n")
    assert printed == "", "what an earlier run has found is not of this one"
    assert "[1/5] 01_prepare" in said
    assert "[2/5]" not in said
    assert not (tmp_path / "run" / "gate.json").exists(), "it was of an earlier run"
    assert not (tmp_path / "run" / "bundle").exists()


# The folder of a run

PREPARE = Preset("prepare", ("01_prepare",), {name: QUICK[name] for name in list(QUICK)[:3]})


def contents(folder: Path) -> dict[str, bytes]:
    """What files hold, but for the lock that every run leaves."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_second_run_into_a_folder_is_refused_while_the_first_goes_on(tmp_path):
    folder = RunDir.at(tmp_path / "run")
    folder.add_metrics(cider=0.5, verdict="better")
    before, parameters = contents(folder.path), {"data_dir": str(tmp_path / "none")}
    with (folder.path / ".lock").open("ab") as first:
        lock(first, "")
        with pytest.raises(ConfigError, match=r"another lcm run is writing to .*/run; wait for its end, or choose"):
            run(PREPARE, parameters, folder.path)
        assert contents(folder.path) == before
    with pytest.raises(LcmError, match="01_prepare stopped: "):
        run(PREPARE, parameters, folder.path)


def test_names_with_braces_are_no_templates(tmp_path):
    data = make_data_set(tmp_path / "{run_dir} {{y", 2)
    folder = run(PREPARE, {"data_dir": str(data)}, data / "100% a}")
    assert folder.path == data / "100% a}"
    assert folder.read_metrics()["train_images"] == 2
    assert (folder.path / "01_prepare.html").is_file()


def no_space(*_) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def stopped_by(said: str):
    def raise_for_execution_errors(*_) -> None:
        raise papermill.PapermillExecutionError(0, 1, "", "OSError", said, [])

    return raise_for_execution_errors


@pytest.mark.parametrize(
    ("place", "full"),
    [
        ("os.fsync", no_space),
        ("papermill.execute.raise_for_execution_errors", stopped_by("[Errno 28] No space left on device: 'x'")),
        ("papermill.execute.raise_for_execution_errors", stopped_by("7200 requested and 3600 written")),
    ],
    ids=["of the page", "of a notebook's file", "of an array"],
)
def test_a_full_disk_is_one_line_and_what_was_there_stays(place, full, tmp_path, monkeypatch, capfd):
    folder = RunDir.at(tmp_path / "run")
    for name in ("dataset.jsonl", "01_prepare.ipynb", "01_prepare.html", "03_evaluate.html"):
        (folder.path / name).write_text("what was there")
    folder.add_metrics(cider=0.5)
    before = contents(folder.path)
    (tmp_path / "prepare.yaml").write_text("notebooks: [01_prepare]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(place, full)
    assert main(["run", "--params", "prepare.yaml", "-p", "data_dir", "nowhere", "--out", "run"]) == 1
    complained = capfd.readouterr().err
    assert complained.splitlines()[-1].startswith("lcm: no space left in run; no file is half written: ")
    assert "Traceback" not in complained
    after = contents(folder.path)
    if place != "os.fsync":  # there is room for the page: it is of this run
        assert json.loads(after["01_prepare.ipynb"])["cells"]
        before |= {name: after[name] for name in ("01_prepare.ipynb", "01_prepare.html")}
    assert after == before


# Presets and parameters


def test_every_preset_says_what_it_runs_and_sets_what_notebooks_know():
    for preset in map(load_preset, preset_names()):
        assert preset.about.endswith(".")
        assert set(preset.values({"data_dir": "photos"})) == set(preset.notebooks), "all is known and right"


def test_a_preset_can_be_a_file_of_one_s_own(tmp_path):
    (tmp_path / "mine.yaml").write_text("notebooks: [03_evaluate]\nparameters: {split: test}\n")
    assert load_preset(str(tmp_path / "mine.yaml")) == Preset("mine", ("03_evaluate",), {"split": "test"})


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "parameters: {}\n", "notebooks: [\n", "notebooks: 3\n"])
def test_a_file_that_is_no_preset_is_refused(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match="is no preset; it needs"):
        load_preset(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("preset", "overrides", "said"),
    [
        (load_preset("sample"), {"epoch": 3}, r"unknown parameter 'epoch'; did you mean 'epochs'\? choose from"),
        (Preset("mine", ("09_fly",), {}), {}, "unknown notebook '09_fly'; choose from 01_prepare"),
        (load_preset("sample"), {"epochs": "three"}, "epochs is 'three'; it must be a whole number; see: lcm run"),
        (load_preset("retrain"), {"text_share": 1.5}, "text_share is 1.5; it must be 0 to 1; see: lcm run --params"),
    ],
)
def test_what_is_unknown_or_wrong_stops_the_run_before_it_starts(preset, overrides, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        run(preset, overrides, tmp_path / "run")
    assert not (tmp_path / "run").exists()
