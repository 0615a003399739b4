"""The pins of pyproject.toml are those of environment.yml and of the pre-commit hooks, which do what they say."""

import json
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
CUDA = EXTRAS.pop("train-cuda")  # in place of "train": the same TensorFlow, not to be installed beside it
PINNED = {  # every requirement; `lcm[...]`, which only groups extras, is none
    line for lines in (PROJECT["dependencies"], *EXTRAS.values()) for line in lines if not line.startswith("lcm[")
}
HOOKS = {
    hook["id"]: hook
    for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    for hook in repo["hooks"]
}


def test_everything_is_pinned_exactly_and_all_names_every_extra_but_dev():
    assert [line for line in PINNED if "==" not in line.split(";")[0]] == []
    assert {line.split(";")[0].replace("[and-cuda]", "") for line in CUDA} <= {
        line.split(";")[0] for line in EXTRAS["train"]
    }
    (group,) = EXTRAS["all"]
    assert sorted(group.removeprefix("lcm[").removesuffix("]").split(",")) == sorted(EXTRAS.keys() - {"all", "dev"})


def test_environment_holds_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *of_conda, from_pip = environment["dependencies"]
    *requirements, lcm_itself = from_pip["pip"]
    assert (environment["name"], environment["channels"]) == ("lcm", ["conda-forge"])
    assert of_conda == ["python=3.11", "pip", "openjdk"]
    assert lcm_itself == "-e ."
    assert sorted(requirements) == sorted(PINNED)


def test_hooks_run_the_pinned_tools():
    assert set(HOOKS) == {"nbstripout", "ruff-check", "ruff-format"}
    for hook in HOOKS.values():
        (requirement,) = hook["additional_dependencies"]
        assert requirement in EXTRAS["dev"]
        assert shlex.split(hook["entry"])[0] == requirement.split("==")[0]


def test_output_stripper_keeps_cell_tags(tmp_path):
    cell = {"cell_type": "code", "id": "a", "metadata": {"tags": ["parameters"]}, "source": ["epochs = 1"]}
    ran = {"execution_count": 1, "outputs": [{"output_type": "stream", "name": "stdout", "text": ["noise"]}]}
    notebook = tmp_path / "one.ipynb"
    notebook.write_text(json.dumps({"cells": [cell | ran], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    tool, *options = shlex.split(HOOKS["nbstripout"]["entry"])
    subprocess.run([Path(sys.executable).with_name(tool), *options, notebook], check=True, cwd=tmp_path)
    (stripped,) = json.loads(notebook.read_text())["cells"]
    assert stripped["metadata"] == {"tags": ["parameters"]}
    assert (stripped["outputs"], stripped["execution_count"]) == ([], None)
