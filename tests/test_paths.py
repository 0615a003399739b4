"""Where things lie, files that are written whole, and the folder of a run."""

import json
import sys
from pathlib import Path

import pytest

from lcm import paths
from lcm.paths import RunDir, cache_dir, home, packaged_file, write_atomic

ROOT = Path(__file__).resolve().parents[1]


def test_home_is_what_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.delenv("LCM_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for given in (str(tmp_path / "state"), "~/state", "state"):
        monkeypatch.setenv("LCM_HOME", given)
        assert home() == tmp_path / "state"
    assert cache_dir() == tmp_path / "state" / "cache"
    monkeypatch.setenv("LCM_CACHE", "~/cache")
    assert cache_dir() == tmp_path / "cache"
    assert list(tmp_path.iterdir()) == []


def test_home_of_a_clone_is_its_data_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LCM_HOME", "")
    assert home() == ROOT / "data"


@pytest.mark.skipif(sys.platform != "linux", reason="XDG folders are Linux's")
def test_home_of_an_installed_package_is_the_user_s_data_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("LCM_HOME", raising=False)
    monkeypatch.setattr(paths, "PACKAGE_DIR", tmp_path / "site-packages" / "lcm")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    assert home() == tmp_path / "user" / "lcm"


def test_what_lcm_ships_lies_beside_the_package_in_a_clone_and_in_it_when_installed(tmp_path, monkeypatch):
    assert packaged_file("notebooks/params") == ROOT / "notebooks" / "params"
    monkeypatch.setattr(paths, "PACKAGE_DIR", tmp_path / "lcm")
    (tmp_path / "lcm" / "shipped" / "notebooks").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()  # what another package may have put there
    assert packaged_file("notebooks") == tmp_path / "lcm" / "shipped" / "notebooks"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "one.txt"
    write_atomic(path, "été\n")
    assert path.read_bytes() == "été\n".encode()
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "half \udcff")
    assert path.read_bytes() == "été\n".encode()
    write_atomic(path, b"\xff")
    assert path.read_bytes() == b"\xff"
    assert [one.name for one in tmp_path.iterdir()] == ["one.txt"], "nothing temporary stays"


@pytest.mark.parametrize(
    ("called_in", "made"),
    [("clone", "clone/reports/x"), ("clone/notebooks", "clone/reports/x"), ("elsewhere", "elsewhere/reports/x")],
)
def test_a_notebook_that_is_run_by_hand_writes_where_its_default_says(called_in, made, tmp_path, monkeypatch):
    for folder in ("clone/notebooks", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "clone" / "pyproject.toml").touch()
    monkeypatch.setattr(paths, "PACKAGE_DIR", tmp_path / "clone" / "lcm")
    monkeypatch.chdir(tmp_path / called_in)
    assert RunDir.at("reports/x").path == tmp_path / made
    assert RunDir.at(tmp_path / "y").path == tmp_path / "y"


def every_notebook_s(folder: RunDir) -> set[str]:
    """Let a folder hold all that notebooks write; returns what is in it."""
    for notebook, names in paths.OUTPUTS.items():
        for path in (folder.path / name for name in (*names, f"{notebook}.ipynb", f"{notebook}.html")):
            if path.name != "bundle":
                path.write_text(notebook)
        folder.add_metrics(**{notebook: "then", f"of_{notebook}": 1})
    folder.bundle.mkdir()
    folder.add_metrics(gate="passed")
    return files_in(folder)


def files_in(folder: RunDir) -> set[str]:
    return {str(path.relative_to(folder.path)) for path in folder.path.rglob("*")}


@pytest.mark.parametrize("notebook", list(paths.OUTPUTS)[:-1])
def test_what_a_notebook_writes_replaces_what_that_and_later_ones_have_written(notebook, tmp_path):
    folder = RunDir.at(tmp_path)
    before, metrics = every_notebook_s(folder), folder.read_metrics()
    with pytest.raises(OSError, match="no space"), folder.made_anew(notebook) as new:  # noqa: PT012
        new.add_metrics(found=2)
        raise OSError("no space")
    assert (files_in(folder), folder.read_metrics()) == (before, metrics), "an error leaves all as it was"

    first, *others = paths.OUTPUTS[notebook]
    with folder.made_anew(notebook) as new:
        (new.path / first).write_text("new")
        new.add_metrics(found=2)
        assert files_in(folder) > before, "what is there stays until the end"
    later = [name for name in paths.OUTPUTS if name > notebook]
    gone = {*others, *(one for name in later for one in (*paths.OUTPUTS[name], f"{name}.ipynb", f"{name}.html"))}
    assert files_in(folder) == before - gone | {first}
    assert (tmp_path / first).read_text() == "new"
    earlier = {name: value for name, value in metrics.items() if name.removeprefix("of_") < notebook}
    found = folder.read_metrics()
    assert found.pop(notebook) > "2026"
    assert found == earlier | {"found": 2}


def test_metrics_are_merged(tmp_path):
    folder = RunDir.at(tmp_path)
    assert folder.read_metrics() == {}
    folder.add_metrics(cider=0.5, split="dev", meteor=None, meteor_reason="no Java")
    folder.add_metrics(cider=0.75, data_source="été")
    expected = {"cider": 0.75, "split": "dev", "meteor": None, "meteor_reason": "no Java", "data_source": "été"}
    assert json.loads(folder.metrics.read_text(encoding="utf-8")) == folder.read_metrics() == expected
    for bad in ({1, 2}, float("nan")):
        with pytest.raises((TypeError, ValueError)):
            folder.add_metrics(cider=bad)
    assert folder.read_metrics() == expected
