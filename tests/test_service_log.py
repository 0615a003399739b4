"""The log of the service: I10 of the acceptance list, and that a mistake is told without what was sent."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from lcm.service import request_log
from lcm.service.request_log import escape, log_mistake, log_request, set_up, stack_of

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a dog", "a dog"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("é\U0001f415\ud800", "\\xe9\\U0001f415\\ud800"),
        ("a\\nb", "a\\\\nb"),
        ("x" * 3000, "x" * 2000 + "…"),
    ],
    ids=ascii,
)
def test_i10_nothing_moves_the_cursor_or_hides(text, shown):
    assert escape(text) == shown


@pytest.mark.parametrize(("status", "level"), [(200, "INFO"), (404, "INFO"), (500, "ERROR"), (503, "WARNING")])
def test_one_line_a_request(caplog, status, level):
    caplog.set_level(logging.INFO, "lcm.service")
    log_request("0123", "POST", "/caption", status, 0.01234, "StoreError: no\nspace")
    (record,) = caplog.records
    assert record.levelname == level
    assert record.getMessage() == f"0123 POST /caption {status} 12.3 ms StoreError: no\\nspace"


def test_a_mistake_is_told_without_its_message(caplog):
    def read(caption):
        return {"known": 1}[caption]

    try:
        try:
            read("s3cr3t")
        except KeyError as error:
            raise ValueError("s3cr3t too") from error
    except ValueError as error:
        log_mistake("0123", error)
    text = caplog.records[0].getMessage()
    assert text.startswith("0123 ValueError\n")
    assert "KeyError" in text
    assert "in read" in text
    assert "s3cr3t" not in text.replace('read("s3cr3t")', "").replace('ValueError("s3cr3t too")', "")


def test_errors_without_end_are_cut():
    error = ValueError()
    error.__cause__ = error
    assert stack_of(error).count("ValueError") == 5


def test_lines_go_to_stderr_unless_the_process_has_a_log_already():
    code = "from lcm.service.request_log import *; {}; set_up(); set_up(); log_request('0123', 'GET', '/', 200, 0.001)"
    run = [sys.executable, "-c"]
    done = subprocess.run([*run, code.format("0")], cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert line.endswith(" INFO 0123 GET / 200 1.0 ms")
    handled = "import logging, io; logging.basicConfig(stream=io.StringIO())"
    done = subprocess.run([*run, code.format(handled)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert request_log.LOG.name == "lcm.service"
    set_up()
