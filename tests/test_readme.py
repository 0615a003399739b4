"""The README is true: its commands run, its names exist, its numbers are those of the shipped model."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lcm.captioning.bundle import Manifest
from lcm.captioning.captioner import SHIPPED_BUNDLE, load_captioner
from lcm.captioning.taggers import TAG_SCORERS
from lcm.data.dataset import read_dataset
from lcm.data.sample import generate
from lcm.features.encoders import ENCODERS
from lcm.models import MODELS
from lcm.paths import cache_dir, home
from lcm.pipeline import load_preset, notebook_parameters, preset_names
from lcm.service.settings import settings_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMPARISON = ROOT / "reports" / "comparison.json"
NUMBERED = ("01_prepare", "02_train", "03_evaluate", "04_compare", "06_publish")


OWN_IMAGES, SERVICE = README[: README.index("## The service")], README[README.index("## The service") :]


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(program: str) -> list[list[str]]:
    lines = (shlex.split(line, comments=True) for block in blocks("bash", OWN_IMAGES) for line in block.splitlines())
    return [words for words in lines if words and words[0] == program]


def test_make_targets_exist():
    named = {words[1] for words in commands("make")} | set(re.findall(r"`make (\w+)`", README))
    assert {"run", "test", "setup", "lab"} <= named
    for target in named:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_the_commands_for_one_s_own_images_run_as_shown(tmp_path):
    """A folder `photos` as a user would have it; every `lcm` line of the first sections, in order."""
    sample = generate(home() / "raw" / "sample")
    (tmp_path / "photos").mkdir()
    lines = []
    for image in read_dataset(sample).images[:30]:
        shutil.copy(image.path, tmp_path / "photos")
        lines += [f"{image.path.name}\t{caption}\n" for caption in image.captions]
    (tmp_path / "photos" / "captions.tsv").write_text("".join(lines))
    shutil.copy(read_dataset(sample).images[0].path, tmp_path / "photos" / "beach.jpg")
    shown = commands("lcm")
    assert [words[1] for words in shown] == ["run", "caption", "caption", "caption", "caption", "run", "caption"]
    (tmp_path / "labels.txt").write_text("boat\nforest\nzebra\n")
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    printed = []
    for words in shown:
        line = " ".join(shlex.quote(word) if "*" not in word else word for word in words)
        done = subprocess.run(line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        printed.append(done.stdout)
    answers = [json.loads(line) for line in printed[2].splitlines()]
    assert len(answers) == 31
    assert len((tmp_path / "photos.csv").read_text().splitlines()) == 1 + 31
    labelled = [json.loads(line) for line in (tmp_path / "photos.jsonl").read_text().splitlines()]
    assert len(labelled) == 31
    assert all({word for word, _ in answer["tags"]} == {"boat", "forest", "zebra"} for answer in labelled)
    compared = json.loads((tmp_path / "reports" / "runs" / "compare" / "comparison.json").read_text())
    assert list(compared["models"]) == ["mine", "shipped", "nearest"]
    assert "hf download" in compared["not_run"]["blip"]
    left = {path.name for path in (tmp_path / "reports" / "runs" / "photos").iterdir()}
    promised = set(re.findall(r"`([\w.]+/?)`", README[README.index("| file | what") : README.index("From Python")]))
    assert {name.rstrip("/") for name in promised} <= left


def test_the_service_answers_as_shown(tmp_path):
    """The lines of the service's section, each in a shell, while `lcm serve` runs."""
    shutil.copy(ROOT / "reports" / "examples" / "astronaut.jpg", tmp_path / "photo.jpg")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    block = blocks("bash", SERVICE)[0]  # the other one starts the dashboard: test_dashboard_browser
    serve, *lines = block.replace("|\n", "| ").strip().splitlines()
    assert serve == "lcm serve"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LCM_")} | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LCM_HOME": str(tmp_path / "state"),
        "LCM_CACHE": str(cache_dir()),
        "LCM_PORT": port,
    }
    service = subprocess.Popen(serve.split(), cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert any(f"serving on http://127.0.0.1:{port}" in line for line in iter(service.stderr.readline, ""))
        printed = [
            subprocess.run(
                line.replace(":8000", f":{port}"),
                shell=True,
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
            ).stdout
            for line in lines
        ]
        (code,) = blocks("python", SERVICE)
        client = subprocess.run(
            [sys.executable, "-c", code.replace(":8000", f":{port}")], cwd=tmp_path, capture_output=True, text=True
        )
    finally:
        service.terminate()
        assert service.wait(30) == 0
    assert client.returncode == 0, client.stderr
    assert client.stdout.splitlines()[-1] == "an astronaut before a flag"
    health, description, kept, listed = printed
    assert json.loads(health)["ready"]
    assert set(json.loads(description)) == {"tags", "captions", "english_captions"}
    assert json.loads(kept) == {"status": "success", "id": 1}
    assert listed.startswith("1\t")
    assert listed.endswith("\tan astronaut before a flag\n")


def test_every_setting_of_the_service_is_in_the_table():
    rows = re.findall(r"^\| `(LCM_\w+)` \| (.*) \| (.*) \|$", SERVICE, flags=re.MULTILINE)
    assert [row for row in rows if row[0] not in ("LCM_CACHE", "LCM_DATASET_URL")] == settings_table()


@pytest.mark.parametrize("command", ["contributions", "models"])
def test_every_action_is_named(command):
    shown = subprocess.run([sys.executable, "-m", "lcm", command, "--help"], capture_output=True, text=True)
    title = {"contributions": "Contributions", "models": "Versions"}[command]
    section = SERVICE[SERVICE.index(f"\n### {title}\n") :].split("\n###")[1]
    for action in re.findall(r"^    (\w+) ", shown.stdout, flags=re.MULTILINE):
        assert re.search(rf"`[^`]*\b{action}\b[^`]*`", section), action


def test_the_python_example_runs():
    (code,) = blocks("python", OWN_IMAGES)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert len(done.stdout.split()) >= 4


def test_the_captioned_photo_is_captioned_so():
    photo, caption = re.search(r"`lcm caption (\S+)` → \*(.+?)\*", README).groups()
    assert load_captioner().describe(ROOT / photo).caption == caption


def test_every_preset_encoder_model_and_tagger_is_named():
    for name in (*preset_names(), *ENCODERS, *MODELS, *TAG_SCORERS):
        assert f"`{name}`" in README, name


def test_the_parameter_table_is_that_of_the_notebooks():
    table = README[README.index("| parameter |") : README.index("Encoders: ")]
    rows = dict(re.findall(r"^\| `(\w+)` \| `?(.*?)`? \|", table, flags=re.MULTILINE))
    expected = {}
    for notebook in NUMBERED:
        expected |= {name: value for name, value in notebook_parameters(notebook).items() if name != "run_dir"}
    assert {name: value.strip('"') for name, value in rows.items()} == {
        name: str(value).strip('"') for name, value in expected.items()
    }


def test_the_numbers_are_the_shipped_model_s():
    metrics = Manifest.load(ROOT / SHIPPED_BUNDLE).metrics
    table = README[README.index("## Numbers") : README.index("## How it works")]
    row = next(line for line in table.splitlines() if line.startswith("| transformer, shipped"))
    shown = [float(value) for value in re.findall(r"\d+\.\d+", re.sub(r"\(.*?\)", "", row))]
    expected = [metrics[name] for name in ("cider", "bleu_4", "meteor", "rouge_l", "wer", "wer_best")]
    assert shown == [round(value, 3) for value in expected]


def test_the_compared_numbers_are_those_of_the_committed_comparison():
    """The shipped bundle is the one that was compared; every captioner's row has its scores and intervals."""
    record, manifest = json.loads(COMPARISON.read_text()), Manifest.load(ROOT / SHIPPED_BUNDLE)
    assert record["models"]["transformer"]["note"] == manifest.name
    assert record["models"]["transformer"]["cider"] == pytest.approx(manifest.metrics["cider"], abs=1e-3)
    table = README[README.index("## Numbers") : README.index("## How it works")]
    interval = [("cider", "cider_low", "cider_high"), ("wer", "wer_low", "wer_high")]
    for name, scores in record["models"].items():
        row = next(line for line in table.splitlines() if re.match(rf"\| ({name}|{name} training image)\b", line))
        names = (*interval[0], "bleu_4", "meteor", "rouge_l", *interval[1], "wer_best")
        assert re.findall(r"\d+\.\d+", row) == [f"{scores[name]:.3f}" for name in names]
    assert {"transformer", "merge", "nearest"} <= set(record["models"])


def test_the_speeds_are_those_of_the_report():
    report = (ROOT / "reports" / "benchmark.md").read_text(encoding="utf-8")
    speed = README[README.index("### Speed") : README.index("## How it works")]
    rows = [line.split("|")[2:-1] for line in speed.splitlines() if line.startswith("| ") and "---" not in line][1:]
    figures = [figure for row in rows for cell in row for figure in re.findall(r"\d[\d,.]*", cell)]
    assert len(figures) >= 10
    assert set(figures) <= set(re.findall(r"\d[\d,.]*", report))
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", report):
        assert (ROOT / "reports" / picture).is_file()


def test_the_committed_comparison_holds_no_caption_and_no_path():
    strings = re.findall(r'"([^"]*)"', json.dumps(json.loads(COMPARISON.read_text())["models"]))
    assert max(map(len, strings)) < 200
    assert not [text for text in strings if re.search(r"\.jpg|^/", text)]


def test_the_numbers_of_tags_are_the_shipped_model_s():
    metrics = Manifest.load(ROOT / SHIPPED_BUNDLE).metrics
    table = README[README.index("## Numbers") : README.index("## How it works")]
    rows = {
        "| dual_encoder": "",
        "| how many of": "_votes",
        "| as the captions": "_caption_order",
        "| how often": "_frequency",
        "| the best possible": "_upper_bound",
    }
    for beginning, order in rows.items():
        row = next(line for line in table.splitlines() if line.startswith(beginning))
        expected = [metrics[f"tag_map{order}"], metrics[f"tag_precision_5{order}"]]
        assert [float(value) for value in re.findall(r"\d+\.\d+", row)] == [round(value, 3) for value in expected]
    for name in ("recall_10_image_to_text", "recall_10_text_to_image", "unseen_words_auc"):
        assert f"{metrics[name]:.3f}" in table, name
    assert f"({metrics['unseen_words']} words" in table


@pytest.mark.parametrize("name", preset_names())
def test_presets_name_notebooks_that_are_there(name):
    for notebook in load_preset(name).notebooks:
        assert (ROOT / "notebooks" / f"{notebook}.ipynb").exists()


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
