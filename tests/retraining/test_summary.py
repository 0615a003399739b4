"""The summary of a retraining: numbers and words of our own, whatever is in the files."""

import json

import pytest

from lcm.cli import main
from lcm.evaluation.bootstrap import Interval
from lcm.paths import RunDir
from lcm.retraining.gate import Check, Decision, published_version, summarise

NUMBERS = {"base_cider_current": 0.62, "base_cider_new": 0.631, "base_wer_current": 0.7, "base_wer_new": 0.69}


@pytest.fixture
def run(tmp_path) -> RunDir:
    folder = RunDir.at(tmp_path / "run")
    folder.add_metrics(cider=0.63149, images=1000, meteor=None, contributions_new=1250, data_source="photos")
    return folder


def judged(run: RunDir, passed: bool, version: str = "") -> RunDir:
    checks = (Check("CIDEr on the base", passed, "the lower bound is above −0.01", Interval(0.011, 0.002, 0.02)),)
    decision = Decision(checks, NUMBERS)
    (run.path / "gate.json").write_text(json.dumps(decision.as_record() | {"version": version}))
    run.add_metrics(gate_reason=decision.reason)
    return run


def test_a_model_that_was_published_is_named_with_its_numbers(run):
    text = summarise(judged(run, passed=True, version="transformer-0123abcd"))
    assert text.startswith("## Retraining\n\n**Published as transformer-0123abcd**: all checks passed\n")
    for row in (
        "- CIDEr on the base, +0.011 (+0.002 to +0.020): the lower bound is above −0.01: holds",
        "- base cider current: 0.620",
        "- base cider new: 0.631",
        "- cider: 0.631",
        "- images: 1,000",
        "- contributions new: 1,250",
    ):
        assert row in text.splitlines()
    assert text.endswith("\nBase data set: photos\n")
    assert published_version(run) == "transformer-0123abcd"


def test_a_refusal_says_why(run):
    text = summarise(judged(run, passed=False))
    assert f"**Refused**: {run.read_metrics()['gate_reason']}\n" in text
    assert "CIDEr on the base: the lower bound" in text
    assert "**does not hold**" in text
    assert published_version(run) == ""


def test_what_failed_or_has_no_version_s_name_is_not_published(run):
    assert "**Nothing is published**: the run ended before the gate" in summarise(run)
    assert published_version(run) == ""
    for version in ("a\nversion=evil", "../evil", "", "::set-output::"):
        assert published_version(judged(run, passed=True, version=version)) == ""
    assert published_version(judged(run, passed=False, version="transformer-0123abcd")) == ""


@pytest.mark.parametrize(
    "text",
    [
        "a | b\n| c",
        "<img src=x onerror=alert(1)>",
        "![x](http://dog.example/x)",
        "::error::x",
        "##[error]x",
        "@everyone",
        "`a` *b* _c_ ~d~ ${{ x }} \\",
        "http://dog.example",
        "\u2028# a\u202e",
        "&lt;b&gt;",
    ],
)
def test_no_text_becomes_markup_or_a_command(run, text):
    run.add_metrics(data_source=text)
    line = summarise(run).splitlines()[-1]
    assert line.startswith("Base data set: ")
    shown = line.removeprefix("Base data set: ")
    for piece in ("|", "<", "[", "::", "#[", "@", "`", "*", "_", "~", "$", "\\", "://", "&lt", "\u202e", "\u2028"):
        assert piece not in shown


def test_the_command_writes_what_a_step_is_asked_for(run, tmp_path, monkeypatch, capsys):
    judged(run, passed=True, version="transformer-0123abcd")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    (tmp_path / "summary").write_text("before\n")
    assert main(["summary", str(run.path), "--out", str(tmp_path / "notes.md")]) == 0
    text = summarise(run)
    assert capsys.readouterr().out == text
    assert (tmp_path / "notes.md").read_text() == text
    assert (tmp_path / "summary").read_text() == f"before\n{text}"
    assert (tmp_path / "output").read_text() == "version=transformer-0123abcd\n"
