"""The `lcm` command: what each action prints, and that whatever stops it ends in one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lcm import __version__
from lcm import cli as cli_module
from lcm.captioning.captioner import SHIPPED_BUNDLE, load_captioner
from lcm.captioning.description import MAX_SAMPLES, SAMPLES
from lcm.cli import main, parse_value
from lcm.config import OF_PARENT
from lcm.paths import home, packaged_file
from lcm.pipeline import preset_names
from lcm.registry import KEEP
from tests.fakes.tiny_graphs import use_tiny_encoder
from tests.fakes.tiny_versions import save_version

FULL = Path("/dev/full")
PHOTOS = sorted(packaged_file("reports/examples").glob("*.jpg"))
PRESETS = ", ".join(preset_names())


@pytest.fixture
def lcm(capsys):
    """Run a command; returns exit code, what was printed, and what was complained of."""

    def run(*arguments) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(map(str, arguments)))
        return code, *capsys.readouterr()

    return run


# The command itself


def test_version_and_help(lcm):
    assert lcm("--version") == (0, f"lcm {__version__}\n", "")
    code, printed, _ = lcm("-h")
    assert code == 0
    assert [name for name in cli_module.lcm.commands if f"\n  {name} " not in printed] == []
    assert lcm()[0] == lcm("models")[0] == 2


@pytest.mark.parametrize(("group", "name"), [("lcm", "caption"), ("models", "prune")])
def test_the_defaults_are_those_of_the_library(group, name):
    command = getattr(cli_module, group).commands[name]
    options = {option.name: option for option in command.params}
    if name == "caption":
        assert (options["samples"].default, options["samples"].type.max) == (SAMPLES, MAX_SAMPLES)
    else:
        assert options["keep"].default == KEEP


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0.5", 0.5), ("1e-3", 0.001), ("true", True), ("null", None)]
    + [(text, text) for text in ("merge", "../shared/flickr8k", "[1]", '{"a": 1}')],
)
def test_values_are_numbers_where_they_look_like_numbers(text, value):
    assert parse_value(text) == value


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("fly", 2, "No such command 'fly'. See: lcm --help"),
        ("models promot", 2, "No such command 'promot'. Did you mean 'promote'? See: lcm models --help"),
        ("models prune --keep -1", 2, "Invalid value for '--keep': -1 is not in the range x>=0. See: lcm models prune"),
        ("serve --loud", 2, "No such option '--loud'. See: lcm serve --help"),
        ("caption", 2, "Missing argument 'PATH...'. See: lcm caption --help"),
        ("caption --jason x.jpg", 2, "No such option '--jason'. Did you mean '--json'? See: lcm caption --help"),
        ("caption --samples 12 x.jpg", 2, "Invalid value for '--samples': 12 is not in the range 0<=x<=10."),
        ("run --params flickr9k", 1, f"unknown preset 'flickr9k'; choose from {PRESETS}"),
        ("run --params sample -p epoch 3", 1, "unknown parameter 'epoch'; did you mean 'epochs'?"),
        (
            "run --params adapt",
            1,
            "data_dir is ''; it must be given; see: lcm run --params adapt --help",
        ),
        (
            "run --params sample -p epochs=three",
            1,
            "epochs is 'three'; it must be a whole number; see: lcm run --params",
        ),
        (f"caption --captioner nearest:nowhere {PHOTOS[0]}", 1, "nowhere/dataset.jsonl is not there; run 01_prepare"),
        (
            f"caption --tagger clap {PHOTOS[0]}",
            1,
            "unknown tagger 'clap'; choose from dual_encoder, text_tower, clip, none",
        ),
        ("caption --labels nowhere.txt x.jpg", 1, "the labels file nowhere.txt cannot be read (No such file"),
        ("caption nosuch", 1, "not captioned: nosuch: no such file, or a folder; give the path of one picture"),
        ("caption --out x.csv --json x.jpg", 1, "--json is for what is printed; with --out, the file's name says"),
    ],
)
def test_bad_arguments_end_in_one_line(arguments, code, said, lcm):
    ended, printed, complained = lcm(*arguments.split())
    assert (ended, printed) == (code, "")
    assert complained.startswith(f"lcm: {said}") or said in complained
    assert len(complained.splitlines()) == 1


def test_presets_and_their_parameters_are_listed(lcm):
    listed = lcm("run", "--list")[1].splitlines()
    assert [line.split()[0] for line in listed] == preset_names()
    assert all(len(line) <= 120 for line in listed)
    shown = " ".join(lcm("run", "--params", "sample", "--help")[1].split())
    assert "epochs passes over the training captions, at most (a whole number, above 0) [default: 25]" in shown
    assert "from the model" not in shown
    adapted = " ".join(lcm("run", "--params", "adapt", "--help")[1].split())
    assert "model a name from lcm.models.MODELS (text) [default: from the model]" in adapted
    assert adapted.count("[default: from the model]") == len(OF_PARENT) + 1, "max_words, of 02_train and of 03_evaluate"
    assert "Parameters of" not in lcm("run", "--help")[1]


def test_in_a_log_a_progress_bar_is_a_line_of_its_own():
    code = (
        "import sys, lcm.cli; lcm.cli.main(['--version']); from tqdm import tqdm; bar = tqdm(range(2), 'encode');"
        "next(iter(bar)); bar.refresh(); print('said', file=sys.stderr)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TQDM_")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert [line.partition(":")[0] for line in done.stderr.splitlines() if line.strip()][:2] == ["encode", "said"]


# lcm caption, with the shipped bundle


def test_the_shipped_model_captions_the_example_photos_one_by_one_or_as_a_folder(lcm, tmp_path):
    code, printed, _ = lcm("caption", "--json", *PHOTOS)
    assert code == 0
    answers = [json.loads(line) for line in printed.splitlines()]
    assert [answer["image"] for answer in answers] == list(map(str, PHOTOS))
    assert len(PHOTOS) >= 3
    name = json.loads((packaged_file(SHIPPED_BUNDLE) / "bundle.json").read_text())["name"]
    for answer in answers:
        assert len(answer["caption"].split()) >= 4
        assert answer["model"].startswith(name)
    assert lcm("caption", PHOTOS[0].parent, "--json")[1] == printed
    out = tmp_path / "photos.jsonl"
    assert lcm("caption", PHOTOS[0].parent, "--out", out)[0] == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert {row.pop("settings").split(", ")[0] for row in rows} == {"samples 5"}
    assert rows == answers


def test_captioning_loads_no_training_framework(tmp_path):
    Image.new("RGB", (64, 48), "green").save(tmp_path / "green.png")
    code = (
        "import sys; from lcm.cli import main; code = main(['caption', sys.argv[1]]); "
        "loaded = {'tensorflow', 'keras', 'torch', 'matplotlib', 'pandas', 'scipy'} & set(sys.modules); "
        "sys.exit(f'loaded {loaded}' if loaded else code)"
    )
    load_captioner()  # converts the encoder where it is not there yet
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "green.png"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_captioning_reports_to_nobody(tmp_path):
    """ONNX Runtime keeps a device id and a data base of its use in the home folder unless told not to."""
    load_captioner()  # converts the encoder where it is not there yet
    if (home() / "cache" / "encoders").is_dir():
        shutil.copytree(home() / "cache" / "encoders", tmp_path / "state" / "cache" / "encoders")
    environment = os.environ | {"HOME": str(tmp_path), "LCM_HOME": str(tmp_path / "state")}
    command = [sys.executable, "-m", "lcm", "caption", str(PHOTOS[0])]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert {path.name for path in tmp_path.iterdir()} <= {"state"}


@pytest.mark.skipif(not FULL.exists(), reason="needs a file that is always full")
def test_a_full_disk_ends_in_one_line():
    with FULL.open("w") as full:
        command = [sys.executable, "-m", "lcm", "models", "list"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "lcm: cannot print (No space left on device); if it goes into a file, make room for it\n"


# lcm models


@pytest.fixture
def bundles(tmp_path, monkeypatch):
    """Two bundles, "b" with a CIDEr and a verdict, and "c" without."""
    encoder = use_tiny_encoder(tmp_path, monkeypatch)
    monkeypatch.delenv("LCM_BUNDLE", raising=False)
    save_version(tmp_path / "b", encoder, "b", metrics={"cider": 0.51234, "verdict": "better"})
    save_version(tmp_path / "c", encoder, "c")
    return tmp_path


def test_from_publishing_to_rolling_back(lcm, bundles):
    said = "tiny-b is published, shipped stays current; next: lcm models promote tiny-b\n"
    assert lcm("models", "publish", bundles / "b") == (0, said, "")
    assert lcm("models", "publish", bundles / "b")[1].startswith("tiny-b is there already, shipped stays current")
    assert lcm("models", "promote", "tiny-b") == (0, "tiny-b is current; before it was shipped\n", "")
    assert lcm("models", "promote", "tiny-b") == (0, "tiny-b is current; it was so already\n", "")
    code, said, _ = lcm("models", "publish", bundles / "c", "--promote", "--reason", "new photos")
    assert code == 0
    assert said.startswith("tiny-c was not measured: nobody knows whether it is better; ")
    assert said.endswith("\ntiny-c is current; before it was tiny-b\n")
    assert lcm("models", "rollback") == (0, "tiny-b is current; before it was tiny-c\n", "")
    assert lcm("models", "promote", "shipped") == (0, "shipped is current; before it was tiny-b\n", "")
    assert lcm("models", "prune", "--keep", "0") == (0, "1 removed: tiny-c\n", "")


def test_list_marks_the_current_one_and_the_one_before(lcm, bundles):
    lcm("models", "publish", bundles / "b", "--promote", "--reason", "by the gate")
    lcm("models", "publish", bundles / "c", "--promote")
    rows = [line.split("\t") for line in lcm("models", "list")[1].splitlines()]
    assert [row[0] for row in rows] == ["  shipped", "- tiny-b", "* tiny-c"]
    assert rows[1][3:] == ["CIDEr 0.512", "by the gate"]
    assert len(rows[1][1]) == 12
    assert rows[2][4:] == ["by hand"]
    shipped, published, _ = (json.loads(line) for line in lcm("models", "list", "--json")[1].splitlines())
    assert (shipped["version"], shipped["current"], shipped["before"]) == ("shipped", False, False)
    assert published.items() >= {"version": "tiny-b", "before": True, "reason": "by the gate", "fault": ""}.items()
    assert published["metrics"] == {"cider": 0.51234, "verdict": "better"}


@pytest.mark.parametrize("arguments", [[], ["--captioner", "current"], ["--captioner", "tiny-b"]])
def test_the_current_version_captions(lcm, bundles, arguments):
    Image.new("RGB", (40, 24), "red").save(bundles / "red.png")
    lcm("models", "publish", bundles / "b", "--promote")
    assert json.loads(lcm("caption", bundles / "red.png", "--json", *arguments)[1])["model"] == "tiny-b"


# lcm contributions


@pytest.fixture
def contributions(lcm, tmp_path):
    """Run an action on a store with two English captions and a German one; `folder` names another store."""
    from lcm.contributions.store import ContributionStore

    store = ContributionStore(tmp_path / "store")
    for photo, caption in zip(PHOTOS, ("an astronaut", "a cat"), strict=False):
        store.add(photo.read_bytes(), caption, source="http:Zoë 李", file_name=photo.name)
    store.add(PHOTOS[0].read_bytes(), "una astronauta", language="es")
    return lambda *arguments, folder="store": lcm("contributions", "--store", tmp_path / folder, *arguments)


def test_contributions_are_listed_revoked_and_backed_up(contributions, tmp_path):
    rows = [line.split("\t") for line in contributions("list")[1].splitlines()]
    assert [(number, *row) for number, _date, *row in rows] == [
        ("1", PHOTOS[0].name, "Zoë 李", "en", "an astronaut"),
        ("2", PHOTOS[1].name, "Zoë 李", "en", "a cat"),
        ("3", "-", "-", "es (waits)", "una astronauta"),
    ]
    why = "captions in es, which the current model does not know: they wait until 200 are there (now 1)"
    assert why in contributions("list")[2]
    assert contributions("language", "fr", "1", "3")[:2] == (0, "1,3: in fr; the next retraining takes them as such\n")
    assert "there is no contribution 9" in contributions("language", "fr", "2,9")[2]
    records = [json.loads(line) for line in contributions("list", "--json")[1].splitlines()]
    assert [record["language"] for record in records] == ["fr", "en", "fr"]
    assert [record["caption"] for record in records] == ["an astronaut", "a cat", "una astronauta"]
    file = tmp_path / "backup.sqlite"
    assert contributions("backup", file)[1].startswith(f"{file}: 3 contributions; to restore them, ")
    assert "give --replace" in contributions("backup", file)[2]
    assert contributions("backup", file, "--replace")[0] == 0
    code, printed, _ = contributions("revoke", 2, "--reason", "asked to")
    assert code == 0
    assert printed.endswith(": asked to\n")
    assert contributions("revoke", 2, "--reason", "again")[1].startswith("2 was revoked before, at ")
    assert [line.split("\t")[0] for line in contributions("list")[1].splitlines()] == ["1", "3"]
    code, _, complained = contributions("revoke", 99, "--reason", "asked to")
    assert code == 1
    assert complained.startswith("lcm: ")


def test_an_export_comes_back_by_import_and_refusals_are_named(contributions, tmp_path):
    out = tmp_path / "out"
    assert contributions("export", out) == (0, f"{out}: 2 images, 3 captions\n", "")
    assert contributions("import", out, folder="other") == (0, "3 added, 0 there already, 0 refused\n", "")
    again = contributions("import", out / "captions.tsv", folder="other")
    assert again == (0, "0 added, 3 there already, 0 refused\n", "")
    (tmp_path / "captions.tsv").write_text("missing.jpg\ta dog\n")
    code, printed, _ = contributions("import", tmp_path / "captions.tsv")
    assert code == 1
    assert printed.startswith("row 1, missing.jpg: ")
    assert printed.endswith("0 added, 0 there already, 1 refused\n")
