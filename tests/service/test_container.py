"""The container's recipe: small, of known parts, and what its last stage installs is enough to serve.

Docker itself is not asked: what the last stage installs is installed into an empty virtual environment, with the
folders and variables that the recipe names.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import venv
from pathlib import Path

import pytest
import yaml

from lcm.paths import cache_dir
from lcm.service.settings import Settings
from tests.fakes.service_process import ASTRONAUT, answers, ask, free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
LAST_STAGE = DOCKERFILE.rpartition("FROM ")[2]


def variables() -> dict[str, str]:
    """Return what the last stage sets with ENV."""
    return dict(re.findall(r"(\w+)=(\S+)", "".join(re.findall(r"^ENV (.*)$", LAST_STAGE, flags=re.MULTILINE))))


def test_it_runs_as_a_user_of_its_own_and_says_how_it_is():
    assert re.search(r"^USER (?!root)\w+$", LAST_STAGE, flags=re.MULTILINE)
    assert "/healthz" in re.search(r"^HEALTHCHECK (.*\n?.*)$", LAST_STAGE, flags=re.MULTILINE)[1]
    assert not re.search("torch|tensorflow", re.sub("#.*", "", LAST_STAGE))


def test_its_variables_are_settings(monkeypatch):
    for name, value in (variables() | {"LCM_TOKEN": "secret"}).items():
        monkeypatch.setenv(name, value)
    settings = Settings.from_environment()
    assert settings.host == "0.0.0.0"
    assert f"EXPOSE {settings.port}" in LAST_STAGE


def test_compose_asks_for_a_token_and_lets_only_the_proxy_be_reached_from_this_machine():
    """G11: after a crash it starts the service again."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    lcm, proxy = services["lcm"], services["proxy"]
    assert lcm["environment"]["LCM_TOKEN"].startswith("${LCM_TOKEN:?")
    assert "ports" not in lcm
    assert [port.split(":")[0] for port in proxy["ports"]] == ["127.0.0.1"]
    assert proxy["volumes"] == ["./deploy/nginx.conf:/etc/lcm/nginx.conf:ro"]
    assert [one["restart"] for one in (lcm, proxy)] == ["unless-stopped"] * 2
    assert lcm["volumes"] == ["state:/data"]
    assert variables()["LCM_HOME"] == "/data"


def test_what_the_package_is_built_from_reaches_the_image():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    included = re.search(r"force-include\]\n((?:\".*\n)+)", project)[1]
    needed = {"lcm", "pyproject.toml", "README.md", "LICENSE", *re.findall(r"^\"(.+?)\"", included, flags=re.MULTILINE)}
    assert kept == needed


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """An empty virtual environment after the last stage's pip install, outside the clone."""
    folder = tmp_path_factory.mktemp("container") / "venv"
    venv.create(folder, with_pip=True)
    (command,) = re.findall(r"^RUN pip (install [^&]*?)(?: &&.*)?$", LAST_STAGE, flags=re.MULTILINE)
    arguments = [word.replace(".[", f"{ROOT}[") for word in shlex.split(command) if not word.startswith("$")]
    pip = [folder / "bin" / "python", "-m", "pip", "-q", *arguments]
    environment = os.environ | {"PIP_NO_COMPILE": "1"}  # of bytecode that no test runs
    done = subprocess.run(pip, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_neither_torch_nor_tensorflow_is_installed(installed):
    command = [installed / "bin" / "python", "-m", "pip", "list", "--format=json"]
    names = {entry["name"].lower() for entry in json.loads(subprocess.check_output(command))}
    assert "lcm" in names
    assert names & {"torch", "tensorflow", "tensorflow-cpu", "keras", "transformers"} == set()


def test_the_last_stage_serves(installed, tmp_path):
    port = free_port()
    own = {"LCM_HOME": str(tmp_path / "data"), "LCM_CACHE": str(cache_dir()), "LCM_PORT": str(port)}
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LCM_", "PYTHON"))}
    environment = clean | variables() | own | {"LCM_HOST": "127.0.0.1", "LCM_TOKEN": "secret"}
    (command,) = re.findall(r"^CMD (\[.*\])$", LAST_STAGE, flags=re.MULTILINE)
    program, *arguments = json.loads(command)
    service = subprocess.Popen(
        [installed / "bin" / program, *arguments], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: service.poll() is not None or answers(port))
        assert service.poll() is None, service.stderr.read()
        wait_until(lambda: ask(port, "GET", "/healthz")[0] == 200)
        _, answer, _ = ask(port, "POST", "/learning-model", {"image": ASTRONAUT})
        assert set(answer) == {"tags", "captions", "english_captions"}
        assert sum(score for _, score in answer["tags"]) == pytest.approx(1)
        contribution = {"image": ASTRONAUT, "caption": "an astronaut before a flag", "fileType": "jpg"}
        assert ask(port, "POST", "/caption", contribution, headers={"Authorization": "Bearer secret"})[0] == 200
        assert (tmp_path / "data" / "contributions" / "contributions.sqlite").exists()
    finally:
        service.send_signal(signal.SIGTERM)
        assert service.wait(30) == 0
