"""Memory that is given back, where the C library can be told."""

import ctypes
import platform
import subprocess
import sys

import pytest

from lcm.service import heap

IS_GLIBC = platform.libc_ver()[0] == "glibc"


def test_the_c_library_takes_both_limits():
    script = "from lcm.service.heap import give_memory_back; print(give_memory_back())"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed == f"{IS_GLIBC}\n"


@pytest.mark.parametrize("error", [OSError, TypeError])
def test_where_there_is_no_such_library_nothing_happens(monkeypatch, error):
    def refuse(_name):
        raise error

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert heap.give_memory_back() is False
    heap.trim()


def test_a_library_without_the_function_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    assert heap.give_memory_back() is False
    heap.trim()


@pytest.mark.skipif(not IS_GLIBC, reason="other C libraries give back by themselves")
def test_what_lies_free_between_what_is_in_use_is_given_back():
    script = """
from pathlib import Path
from lcm.service.heap import trim
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4
small = [bytes(100_000) for _ in range(500)]
last = bytes(100_000)
small.clear()
before = resident()
trim()
print(before - resident())
"""
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert int(printed) > 30_000  # kB
