"""The documents are true: their commands run, their names exist, their figures are those of the committed reports."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import adapting
from lcm.captioning.bundle import Manifest
from lcm.captioning.captioner import SHIPPED_BUNDLE, load_captioner
from lcm.captioning.taggers import TAG_SCORERS
from lcm.data.dataset import read_dataset
from lcm.data.sample import generate
from lcm.features.encoders import ENCODERS
from lcm.models import MODELS
from lcm.paths import home
from lcm.pipeline import preset_names

ROOT = Path(__file__).parent.parent
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in ROOT.glob("docs/*.md")}
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICKSTART, RESULTS = PAGES["docs/quickstart.md"], PAGES["docs/results.md"]
COMPARISON = json.loads((ROOT / "reports" / "comparison.json").read_text())
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(text: str, program: str) -> list[str]:
    """Return the lines of a page's shell blocks that call a program, without their comments."""
    lines = [line.split("  #")[0].strip() for block in blocks("bash", text) for line in block.splitlines()]
    return [line for line in lines if line.startswith(f"{program} ")]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """A working folder with the folder `photos` and the labels file that the documents name."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "photos").mkdir()
    images, lines = read_dataset(generate(home() / "raw" / "sample")).images[:30], []
    for image in images:
        shutil.copy(image.path, folder / "photos")
        lines += [f"{image.path.name}\t{caption}\n" for caption in image.captions]
    (folder / "photos" / "captions.tsv").write_text("".join(lines))
    shutil.copy(images[0].path, folder / "photos" / "beach.jpg")
    shutil.copy(ROOT / "reports" / "examples" / "astronaut.jpg", folder / "photo.jpg")
    shutil.copytree(ROOT / "reports" / "examples", folder / "reports" / "examples")
    (folder / "labels.txt").write_text("boat\nforest\nzebra\n")
    return folder


def run(line: str, folder: Path, **environment: str) -> str:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PATH": PATH} | environment
    done = subprocess.run(line, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_make_targets_exist():
    for text in (README, *PAGES.values()):
        for target in {line.split()[1] for line in commands(text, "make")} | set(re.findall(r"`make (\w+)`", text)):
            subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize(("user", "allowed"), [(0, " --allow-root"), (1000, "")])
def test_make_lab_passes_arguments_on_and_works_as_root(user, allowed, tmp_path):
    for name, printed in {"jupyter": '"$@"', "id": str(user)}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\necho {printed}\n")
        (tmp_path / name).chmod(0o755)
    line = f"make -s -o .venv/.lcm-ready lab BIN={tmp_path} ARGS='--no-browser --port 8889'"
    assert run(line, ROOT, PATH=f"{tmp_path}{os.pathsep}{PATH}") == f"lab notebooks{allowed} --no-browser --port 8889\n"


def test_the_quickstart_s_commands_run_as_shown(photos):
    printed = {line: run(line, photos) for line in commands(QUICKSTART, "lcm") if line != "lcm serve"}
    assert len(printed) == 7
    assert set(json.loads(printed["lcm caption --json reports/examples/astronaut.jpg"])) >= {"caption", "tags"}
    assert len((photos / "photos.csv").read_text().splitlines()) == 1 + 31
    labelled = [json.loads(line) for line in (photos / "photos.jsonl").read_text().splitlines()]
    assert len(labelled) == 31
    assert all({word for word, _ in answer["tags"]} == {"boat", "forest", "zebra"} for answer in labelled)
    compared = json.loads((photos / "reports" / "runs" / "compare" / "comparison.json").read_text())
    assert list(compared["models"]) == ["mine", "shipped", "nearest"]
    assert "hf download" in compared["not_run"]["blip"]
    left = {path.name for path in (photos / "reports" / "runs" / "photos").iterdir()}
    table = QUICKSTART[QUICKSTART.index("| file | what") : QUICKSTART.index("## From Python")]
    assert {name.rstrip("/") for name in re.findall(r"`([\w.]+/?)`", table)} <= left


def test_the_python_example_runs(photos):
    (code,) = blocks("python", QUICKSTART)
    *_, found, missing = run(f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}", photos).splitlines()
    assert len(found.removeprefix("photos/beach.jpg ").split()) >= 4
    assert missing.startswith("photos/gone.jpg 'gone.jpg': no such file")


def test_the_service_answers_as_shown(photos, tmp_path):
    """The shell lines of docs/serving.md and its client, while `lcm serve` runs; then the store's lines."""
    port, page = str(free_port()), PAGES["docs/serving.md"]
    serve, *lines = blocks("bash", page)[0].replace("|\n", "| ").strip().splitlines()
    environment = {"LCM_HOME": str(tmp_path / "state"), "LCM_PORT": port}
    service = subprocess.Popen(
        shlex.split(serve), cwd=photos, env=os.environ | environment | {"PATH": PATH}, stderr=subprocess.PIPE, text=True
    )
    try:
        assert any(f"serving on http://127.0.0.1:{port}" in line for line in iter(service.stderr.readline, ""))
        environment |= {
            "http_proxy": "http://127.0.0.1:9",
            "no_proxy": "",
        }  # which many have, and nothing answers there
        printed = [run(line.replace(":8000", f":{port}"), photos, **environment) for line in lines]
        (code,) = blocks("python", page)
        code = shlex.quote(code.replace(":8000", f":{port}"))
        client = run(f"{shlex.quote(sys.executable)} -c {code}", photos, **environment)
    finally:
        service.terminate()
        assert service.wait(30) == 0
    assert client.splitlines()[-1] == "an astronaut before a flag"
    health, description, kept, listed = printed
    assert json.loads(health)["ready"]
    assert set(json.loads(description)) == {"tags", "captions", "english_captions"}
    assert json.loads(kept) == {"status": "success", "id": 1}
    assert listed.startswith("1\t")
    assert "\tŁucja 李\t" in listed
    for line in commands(PAGES["docs/corrections.md"], "lcm contributions"):
        run(line, photos, **environment)


@pytest.mark.skipif(not find_spec("exiv2"), reason="the extra `photos` is not installed")
def test_the_photo_desk_s_commands_run_as_shown(photos, tmp_path):
    environment = {"LCM_HOME": str(tmp_path / "state")}
    before, photo = {*(photos / "photos").iterdir()}, (photos / "photo.jpg").read_bytes()
    printed = [run(line, photos, **environment) for line in commands(PAGES["docs/photos.md"], "lcm")]
    assert [text.count("\n    w") for text in printed[:4]] == [31, 31, 1, 0], "a second run has nothing to add"
    assert {*(photos / "photos").iterdir()} == before | {
        path.with_suffix(".xmp") for path in before if path.suffix == ".jpg"
    }
    assert printed[4].endswith("/photo.jpg\n")
    assert (photos / "photo.jpg").read_bytes() == photo
    assert re.fullmatch(r"photo.jpg: [A-Z].*\.(?: \(.*\))?\n.*\n", printed[5])
    assert json.loads(printed[6])["language"] == "fr"
    assert (photos / "alt.csv").read_text().splitlines()[0].endswith(",settings,alt_text")


def test_the_searches_run_as_shown(photos, tmp_path):
    environment = {"LCM_HOME": str(tmp_path / "state")}
    printed = [run(line, photos, **environment) for line in commands(PAGES["docs/find.md"], "lcm")]
    assert printed[0].startswith("photos in the index of transformer-")
    assert [len(text.splitlines()) for text in printed[1:5]] == [20, 5, 20, 20]
    assert str(photos / "photos" / "beach.jpg") in printed[5]  # a copy of another one


def test_the_versions_commands_run_as_shown(photos, tmp_path):
    environment = {"LCM_HOME": str(tmp_path / "state")}
    shutil.copytree(ROOT / SHIPPED_BUNDLE, photos / "reports" / "runs" / "photos" / "bundle", dirs_exist_ok=True)
    printed = [run(line, photos, **environment) for line in commands(PAGES["docs/operations.md"], "lcm models")]
    assert "is current" in printed[1]
    assert len(printed) == 5


@pytest.mark.parametrize("photo", ["musicians.jpg", "astronaut.jpg"])
def test_the_readme_s_captions_are_the_model_s(photo):
    (caption,) = re.findall(rf"`lcm caption reports/examples/{photo}` → \*(.+?)\*", README)
    assert load_captioner("shipped").describe(ROOT / "reports" / "examples" / photo).caption == caption


def test_every_preset_encoder_model_and_tagger_is_named():
    for name in (*preset_names(), *ENCODERS, *MODELS):
        assert f"`{name}`" in PAGES["docs/training.md"], name
    for name in TAG_SCORERS:
        assert f"`{name}`" in PAGES["docs/tags.md"], name


def figures(row: str) -> list[str]:
    return re.findall(r"\d+\.\d+", row)


def test_the_results_are_those_of_the_committed_comparison():
    """The shipped bundle is the one that was compared; every captioner's row has its scores and intervals."""
    manifest = Manifest.load(ROOT / SHIPPED_BUNDLE)
    assert COMPARISON["models"]["transformer"]["cider"] == pytest.approx(manifest.metrics["cider"], abs=1e-3)
    assert {"transformer", "merge", "nearest"} <= set(COMPARISON["models"])
    names = (
        "cider",
        "cider_low",
        "cider_high",
        "bleu_4",
        "meteor",
        "rouge_l",
        "wer",
        "wer_low",
        "wer_high",
        "wer_best",
    )
    for name, scores in COMPARISON["models"].items():
        (row,) = re.findall(rf"^\| (?:{name}|{name} training image)\b.*", RESULTS, flags=re.MULTILINE)
        assert figures(row) == [f"{scores[key]:.3f}" for key in names]


def test_the_readme_s_numbers_are_those_of_the_results():
    table = README[README.index("## Three numbers") : README.index("## Where to read on")]
    assert set(figures(table)) <= set(figures(RESULTS))
    assert len(figures(table)) >= 12


def test_what_adapting_gives_is_as_measured_in_the_documents_and_at_the_end_of_make_run():
    figures = adapting.read()
    assert all(adapting.table(figures, world) in PAGES["docs/training.md"] for world in ("COCO", "Flickr8k"))
    assert len(adapting.in_words(figures)) == 4


def test_the_numbers_of_tags_are_the_shipped_model_s():
    metrics = Manifest.load(ROOT / SHIPPED_BUNDLE).metrics
    rows = {
        "dual_encoder": "",
        "as the captions": "_caption_order",
        "the best possible": "_upper_bound",
    }
    for beginning, order in rows.items():
        (row,) = re.findall(rf"^\| {beginning}.*", RESULTS, flags=re.MULTILINE)
        assert figures(row) == [f"{metrics[f'tag_{score}{order}']:.3f}" for score in ("map", "precision_5")]
    for name in ("recall_10_image_to_text", "recall_10_text_to_image"):
        assert f"{metrics[name]:.3f}" in RESULTS, name


def test_the_speeds_are_those_of_the_report():
    report = (ROOT / "reports" / "benchmark.md").read_text(encoding="utf-8")
    rows = [
        line.split("|")[2:-1] for line in RESULTS[RESULTS.index("## Speed") :].splitlines()[2:] if line.startswith("| ")
    ]
    speeds = {number for row in rows[1:] for cell in row for number in re.findall(r"\d[\d.]*", cell)}
    assert len(speeds) >= 10
    assert speeds <= set(re.findall(r"\d[\d.]*", report.replace(",", "")))


def test_the_committed_comparison_holds_no_caption_and_no_path():
    strings = re.findall(r'"([^"]*)"', json.dumps(COMPARISON["models"]))
    assert max(map(len, strings)) < 200
    assert not [text for text in strings if re.search(r"\.jpg|^/", text)]


@pytest.mark.parametrize("page", ["README.md", *sorted(PAGES)])
def test_links_lead_somewhere(page):
    text = README if page == "README.md" else PAGES[page]
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)]*)\)", text):
        if target.startswith("https://"):
            continue
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, anchor


def test_every_page_is_in_the_readme_s_map():
    assert {page for page in PAGES if f"]({page})" not in README} == set()
