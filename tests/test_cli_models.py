"""`lcm models`: each action as a user would type it."""

import json
import shutil

import pytest

from lcm.cli import main
from tests.fakes.tiny_graphs import use_tiny_encoder
from tests.fakes.tiny_versions import save_version


@pytest.fixture
def bundles(tmp_path, monkeypatch, capsys):
    """Two bundles, "b" with a CIDEr and "c" without."""
    encoder = use_tiny_encoder(tmp_path, monkeypatch)
    monkeypatch.delenv("LCM_BUNDLE", raising=False)
    save_version(tmp_path / "b", encoder, "b", metrics={"cider": 0.51234})
    save_version(tmp_path / "c", encoder, "c")
    capsys.readouterr()  # that the encoder was made
    return tmp_path


@pytest.fixture
def lcm(capsys):
    """Run an action; returns exit code, what was printed, and what was complained of."""

    def run(*arguments) -> tuple[int, str, str]:
        code = main(["models", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def test_from_publishing_to_rolling_back(lcm, bundles):
    said = "tiny-b is published, shipped stays current; next: lcm models promote tiny-b\n"
    assert lcm("publish", bundles / "b") == (0, said, "")
    assert lcm("publish", bundles / "b")[1].startswith("tiny-b was published before, shipped stays current")
    assert lcm("promote", "tiny-b") == (0, "tiny-b is current; before it was shipped\n", "")
    assert lcm("promote", "tiny-b") == (0, "tiny-b is current; it was so already\n", "")
    said = "tiny-c is current; before it was tiny-b\n"
    assert lcm("publish", bundles / "c", "--promote", "--reason", "new photos") == (0, said, "")
    assert lcm("rollback") == (0, "tiny-b is current; before it was tiny-c\n", "")
    assert lcm("promote", "shipped") == (0, "shipped is current; before it was tiny-b\n", "")


def test_list_marks_the_current_one_and_the_one_before(lcm, bundles):
    lcm("publish", bundles / "b", "--promote", "--reason", "by the gate")
    lcm("publish", bundles / "c", "--promote")
    rows = [line.split("\t") for line in lcm("list")[1].splitlines()]
    assert [row[0] for row in rows] == ["  shipped", "- tiny-b", "* tiny-c"]
    assert rows[1][3:] == ["CIDEr 0.512", "by the gate"]
    assert len(rows[1][1]) == 12
    assert rows[2][4:] == ["by hand"]


def test_list_as_json_holds_everything(lcm, bundles):
    lcm("publish", bundles / "b", "--promote", "--reason", "by the gate")
    shipped, published = (json.loads(line) for line in lcm("list", "--json")[1].splitlines())
    assert (shipped["version"], shipped["current"], shipped["before"]) == ("shipped", False, True)
    assert published.items() >= {"version": "tiny-b", "current": True, "reason": "by the gate", "fault": ""}.items()
    assert published["metrics"] == {"cider": 0.51234}


def test_what_is_damaged_is_shown_and_not_promoted(lcm, bundles):
    lcm("publish", bundles / "b")
    (bundles / "home" / "models" / "tiny-b" / "step.onnx").unlink()
    assert "\tdamaged: the bundle " in lcm("list")[1].splitlines()[1]
    code, printed, complained = lcm("promote", "tiny-b")
    assert (code, printed) == (1, "")
    assert complained.startswith("lcm: tiny-b was not promoted, shipped stays current: ")
    assert "lacks step.onnx" in complained


def test_a_rollback_says_what_it_passes_over(lcm, bundles):
    lcm("publish", bundles / "b", "--promote")
    lcm("publish", bundles / "c", "--promote")
    shutil.rmtree(bundles / "home" / "models" / "tiny-b")
    code, printed, _ = lcm("rollback")
    assert code == 0
    assert printed.startswith("passed over tiny-b: ")
    assert printed.endswith("\nshipped is current; before it was tiny-c\n")


def test_what_cannot_be_done_ends_in_one_line(lcm, bundles):
    assert lcm("rollback")[2].startswith("lcm: shipped is current and none was so before; choose one with: ")
    assert "choose from shipped" in lcm("promote", "tiny-x")[2]
    assert "is no bundle" in lcm("publish", bundles / "nowhere")[2]
    code, _, complained = lcm("prune", "--keep", "-1")
    assert (code, complained) == (1, "lcm: keep is -1; it must be 0 or more\n")


def test_prune_names_what_it_removes(lcm, bundles):
    lcm("publish", bundles / "b")
    lcm("publish", bundles / "c")
    assert lcm("prune") == (0, "0 removed\n", "")
    assert lcm("prune", "--keep", "1") == (0, "1 removed: tiny-b\n", "")


def test_a_service_with_a_folder_of_its_own_is_mentioned(lcm, bundles, monkeypatch):
    monkeypatch.setenv("LCM_BUNDLE", str(bundles / "c"))
    assert "LCM_BUNDLE is set" in lcm("publish", bundles / "b", "--promote")[1]
