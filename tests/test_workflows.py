"""The workflows: well formed, with no more rights than they need, and their steps do what they promise.

F15, J06, J08, J09. The `run:` steps of retrain.yml are executed in order in a clone, on the sample, with a `gh` that
only notes how it was called. What GitHub itself does (`uses:`) is not; the files that it would keep must be there.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lcm.data.dataset import read_dataset
from lcm.data.sample import generate
from lcm.paths import cache_dir, home
from lcm.pipeline import load_preset

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".github" / "workflows"
BIN = Path(sys.executable).parent
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.yml"))}
FLOWS = {name: yaml.load(text, yaml.BaseLoader) for name, text in TEXTS.items()}  # BaseLoader: `on` is no truth value
STARTED_BY = {
    "ci": {"push", "pull_request"},
    "retrain": {"workflow_dispatch", "repository_dispatch"},
    "schedule": {"schedule"},
}
RIGHTS = {  # of each job; all others are none
    ("ci", "check"): {"contents": "read"},
    ("retrain", "train"): {"contents": "read"},
    ("retrain", "publish"): {"contents": "write"},
    ("schedule", "dispatch"): {"contents": "read", "actions": "write"},
}
EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}")


def jobs() -> Iterator[tuple[str, str, dict]]:
    for flow, content in FLOWS.items():
        yield from ((flow, name, job) for name, job in content["jobs"].items())


def steps(flow: str | None = None) -> list[tuple[str, dict]]:
    return [(job, step) for name, job, content in jobs() if flow in (None, name) for step in content["steps"]]


def test_they_are_well_formed():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*command, *FOLDER.glob("*.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_audit_finds_nothing(tmp_path):
    audit = [BIN / "zizmor", "--offline", "--no-config", "--persona", "auditor", "--no-progress"]
    done = subprocess.run([*audit, FOLDER], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    careless = tmp_path / "careless.yml"
    careless.write_text(TEXTS["retrain"].replace("run: make retrain", "run: echo ${{ github.event.client_payload.a }}"))
    assert subprocess.run([*audit, careless], capture_output=True).returncode != 0, "it looks at nothing"


def test_they_are_started_by_what_they_promise_and_have_no_more_rights_than_they_need():
    assert {name: set(flow["on"]) for name, flow in FLOWS.items()} == STARTED_BY
    assert [name for name, flow in FLOWS.items() if flow["permissions"] != {}] == []
    assert {(flow, name): job["permissions"] for flow, name, job in jobs()} == RIGHTS


def test_every_step_runs_a_target_and_nothing_is_filled_in():
    """F15: no text of an event can become part of a command."""
    commands = {step["run"] for _, step in steps() if "run" in step}
    assert [command for command in commands if not re.fullmatch(r"make [a-z]+", command)] == []
    for command in commands:
        subprocess.run([*command.split(), "-n"], cwd=ROOT, check=True, capture_output=True)


def test_forks_get_no_secret():
    """J09: what a pull request starts names none; the others start from the repository itself."""
    assert not re.search(r"secrets\.|github\.token|environment:|pull_request_target|workflow_run", TEXTS["ci"])
    for name in ("retrain", "schedule"):
        assert not {"pull_request", "pull_request_target", "workflow_run", "issue_comment"} & set(FLOWS[name]["on"])
    with_secrets = {(flow, name) for flow, name, job in jobs() if "secrets." in json.dumps(job)}
    assert with_secrets == {("retrain", "train")}
    assert FLOWS["retrain"]["jobs"]["train"]["environment"] == "retraining"


def test_secrets_reach_only_the_steps_that_need_them():
    named = {step["run"] for _, step in steps() if "secrets." in json.dumps(step)}
    assert named == {"make contributions", "make retrain"}
    assert "secrets." not in json.dumps([content.get("env", {}) for _, _, content in jobs()])


def test_only_what_passed_is_published_and_never_to_a_branch():
    """J06: a run that fails or is cancelled leaves no version, and the job that may write does not start."""
    publish = FLOWS["retrain"]["jobs"]["publish"]
    assert publish["needs"] == "train"
    assert publish["if"] == "${{ needs.train.outputs.version != '' }}"  # with the success() that GitHub adds
    recipes = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert not re.search(r"git (push|commit)|contents.*api", recipes + "".join(TEXTS.values()))


# The steps, executed

NASTY = (
    "::add-mask::dog",
    "::set-output name=version::evil",
    "::stop-commands::dog",
    "##[error]a dog",
    "${{ github.token }} dog",
    "$(touch pwned) `touch pwned` dog",
    "a dog | ![x](http://dog.example/x.png) <img src=x onerror=alert(1)> @everyone",
    "'; print('pwned') #",
)
SECRET = "c2VjcmV0LWtleS1vZi10aGUtc3RvcmU="
QUICK = (  # from scratch, so that it takes a minute
    "-p start_from '' -p model merge -p features pooled -p epochs 1 -p batch_size 128 -p learning_rate 0.003 "
    "-p tagger none -p as_bundle false -p beam_width 2 -p dev_beam_width 1 -p timed_photos 2 "
    "-p images 40 -p meteor false -p captioners new=trained,current"
)
GH = """#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word"; done >>"$GH_CALLS"
printf -- '--\\n' >>"$GH_CALLS"
case "$1 $2" in
"release list") cat "$GH_RELEASES" ;;
"release download") mkdir -p "$5" && cp "$GH_ASSETS"/* "$5" ;;
esac
"""


class Runner:
    """A machine of GitHub's: a clone, files for a step's summary and outputs, and a gh that notes its arguments."""

    def __init__(self, folder: Path):
        self.clone, self.printed = folder / "clone", ""
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, self.clone], check=True)
        tools = self.clone / ".venv" / "bin"  # as `make setup` leaves it, with this environment's tools
        tools.mkdir(parents=True)
        for path in BIN.iterdir():
            (tools / path.name).symlink_to(path)
        (self.clone / ".venv" / ".lcm-ready").touch()
        (folder / "gh").mkdir()
        (folder / "gh" / "gh").write_text(GH)
        (folder / "gh" / "gh").chmod(0o755)
        self.summary, self.output, self.calls = folder / "summary", folder / "output", folder / "calls"
        self.releases, self.assets = folder / "releases", folder / "assets"
        self.releases.write_text("")
        (folder / "state").mkdir()
        (folder / "state" / "raw").symlink_to(generate(home() / "raw" / "sample").parent)  # drawn once for all tests
        own = {name: value for name, value in os.environ.items() if not name.startswith(("LCM_", "MAKE", "GITHUB_"))}
        self.environment = own | {
            "PATH": f"{folder / 'gh'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.clone),  # else the tools import lcm from where it was installed
            "LCM_HOME": str(folder / "state"),
            "LCM_CACHE": str(cache_dir()),
            "HF_HUB_OFFLINE": "1",
            "GITHUB_ACTIONS": "true",
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_SHA": "0123456789abcdef0123456789abcdef01234567",
            "GH_CALLS": str(self.calls),
            "GH_RELEASES": str(self.releases),
            "GH_ASSETS": str(self.assets),
        }

    def run(self, step: dict, values: dict[str, str]) -> None:
        """Execute a step; `values` are those of expressions, and of variables that are set whatever the step says."""
        environment = {
            name: EXPRESSION.sub(lambda found: values.get(found[1].strip(), ""), text)
            for name, text in step.get("env", {}).items()
        }
        own = {name: value for name, value in values.items() if name.isupper()}
        done = subprocess.run(
            step["run"],
            shell=True,
            cwd=self.clone,
            env=self.environment | environment | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.printed += done.stdout
        assert done.returncode == 0, f"{step['run']}\n{done.stdout}"

    def gh_calls(self) -> list[list[str]]:
        text = self.calls.read_text() if self.calls.exists() else ""
        return [call.strip().splitlines() for call in text.split("--\n") if call.strip()]


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> str:
    """The address of a copy of thirty contributions, as a service leaves it, of which one is revoked."""
    from lcm.contributions.mirror import Mirror, open_target
    from lcm.contributions.store import ContributionStore

    folder = tmp_path_factory.mktemp("service")
    scenes = read_dataset(generate(folder / "scenes", images=30, seed=77)).images
    store = ContributionStore(folder / "store")
    for number, scene in enumerate(scenes):
        nasty = NASTY[number : number + 1]
        store.add(scene.path.read_bytes(), *(nasty or scene.captions[:1]))
    store.revoke(12, "asked for")
    url = f"file://{folder / 'copy'}"
    Mirror(store, open_target(url)).copy_due()
    return url


@pytest.fixture(scope="module")
def ran(tmp_path_factory, copy) -> Runner:
    """A machine on which every `run:` of the training job was executed."""
    runner = Runner(tmp_path_factory.mktemp("runner"))
    values = {
        "secrets.LCM_STORE_URL": copy,
        "secrets.FSSPEC_GCS || '{}'": "{}",
        "secrets.AWS_SECRET_ACCESS_KEY": SECRET,
        "github.token": SECRET,
        "inputs.approved": "7",
        "ARGS": QUICK,
    }
    for job, step in steps("retrain"):
        if job == "train" and "run" in step:
            runner.run(step, values)
    return runner


def kept_files(runner: Runner) -> list[Path]:
    """Return the files that the artifacts would hold."""
    patterns = [
        line
        for _, step in steps("retrain")
        if step.get("uses", "").startswith("actions/upload-artifact@")
        for line in step["with"]["path"].split()
    ]
    found = {pattern: list(runner.clone.glob(pattern)) for pattern in patterns}
    assert [pattern for pattern, paths in found.items() if not paths] == []
    paths = [path for each in found.values() for path in each]
    return [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]


def test_the_steps_run_to_the_gate_which_refuses_the_sample(ran):
    gate = json.loads((ran.clone / "reports/runs/retrain/gate.json").read_text())
    assert not gate["publish"]
    assert "the generated sample stands in for it" in gate["reason"]
    assert f"\n      gate  {gate['reason']}\n" in ran.printed
    assert "29 contributions are here, 29 of them new; 0 were revoked, 0 left out" in ran.printed
    assert ran.output.read_text() == "version=\n", "so the job that may write does not start"


def test_a_log_holds_a_line_for_each_bar_and_nothing_that_only_programs_read(ran):
    bars = re.findall(r"^(.+): +(\d+)%\|", ran.printed, flags=re.MULTILINE)
    assert {"encode", "new", "current"} < {name for name, _ in bars}
    assert sorted({*bars}) == sorted(bars)
    assert {share for _, share in bars} == {"100"}
    assert re.findall(r".*(?:IPKernelApp|Task was|Warning|None|\(\)|\(['\"]|\[['\"]).*", ran.printed) == []


def test_all_that_is_to_be_kept_is_there_and_the_contributions_took_part(ran):
    names = {path.name for path in kept_files(ran)}
    notebooks = load_preset("retrain").notebooks
    assert {f"{name}.{ending}" for name in notebooks for ending in ("ipynb", "html")} <= names
    assert {"metrics.json", "gate.json", "summary.md", "bundle.json", "step.onnx"} <= names
    metrics = json.loads((ran.clone / "reports/runs/retrain/metrics.json").read_text())
    assert metrics["contributions_new"] == 29
    assert metrics["contributed_train_images"] + metrics["contributed_test_images"] > 20


def test_the_summary_shows_numbers_and_nothing_that_users_sent(ran):
    """F15."""
    text = ran.summary.read_text()
    assert text == (ran.clone / "reports/runs/retrain/summary.md").read_text()
    assert text.startswith("## Retraining\n\n**Refused**: ")
    assert "the generated sample stands in for it" in text.splitlines()[2]
    assert not [caption for caption in NASTY if caption in text]
    assert not re.search(r"::|##\[|<|@|\$", text)


def test_no_output_is_a_command_to_the_runner(ran):
    """F15: the Makefile stops commands before lcm prints anything; after that word nothing else would count anyway."""
    commands = re.findall(r"^\s*::.*|##\[.*", ran.printed, flags=re.MULTILINE)
    assert commands
    assert [line for line in commands if not re.fullmatch(r"::stop-commands::[0-9a-f]{32}", line)] == []
    assert len(set(commands)) == len(commands), "the word that ends it is a new one each time"
    assert not list(ran.clone.rglob("pwned"))


def test_secrets_are_in_nothing_that_is_kept_or_printed(ran, copy):
    """J08."""
    assert SECRET not in ran.printed
    for path in kept_files(ran):
        data = path.read_bytes()
        assert SECRET.encode() not in data, path
        assert copy.encode() not in data, path


def test_the_release_holds_the_bundle_and_the_summary(ran):
    (release,) = [step for job, step in steps("retrain") if job == "publish" and "run" in step]
    ran.calls.unlink(missing_ok=True)
    ran.run(release, {"needs.train.outputs.version": "merge-0123abcd"})
    (call,) = ran.gh_calls()
    assert call[:3] == ["release", "create", "model-merge-0123abcd"]
    assert call[call.index("--target") + 1] == ran.environment["GITHUB_SHA"]
    assert call[call.index("--notes-file") + 1] == "reports/runs/retrain/summary.md"
    bundle = sorted((ran.clone / "reports/runs/retrain/bundle").iterdir())
    assert [ran.clone / name for name in call[3 : 3 + len(bundle)]] == bundle, "single files: nothing is unpacked later"
    done = subprocess.run(["make", "release"], cwd=ran.clone, env=ran.environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "VERSION is not set" in done.stderr


def test_the_newest_released_model_becomes_current(ran):
    ran.releases.write_text("model-merge-0123abcd\n")
    shutil.copytree(ran.clone / "reports/runs/retrain/bundle", ran.assets)
    ran.calls.unlink(missing_ok=True)
    before = ran.printed
    (step,) = [step for _, step in steps("retrain") if step.get("run") == "make current"]
    ran.run(step, {})
    assert [call[:3] for call in ran.gh_calls()] == [
        ["release", "list", "--exclude-drafts"],
        ["release", "download", "model-merge-0123abcd"],
    ]
    assert re.search(r"merge-\w+ is current; before it was shipped", ran.printed.removeprefix(before))


def test_a_released_model_that_is_damaged_stops_the_run(ran):
    with (ran.assets / "step.onnx").open("ab") as file:
        file.write(b"x")
    done = subprocess.run(["make", "current"], cwd=ran.clone, env=ran.environment, capture_output=True, text=True)
    assert done.returncode != 0


def test_the_schedule_starts_the_retraining(ran):
    ran.calls.unlink(missing_ok=True)
    (step,) = [step for _, step in steps("schedule") if "run" in step]
    ran.run(step, {"GITHUB_REF_NAME": "main; touch pwned"})
    assert ran.gh_calls() == [["workflow", "run", "retrain.yml", "--ref", "main; touch pwned"]]
    assert not list(ran.clone.rglob("pwned"))
