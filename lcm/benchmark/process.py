"""Processes of their own: what starting takes, and how much memory.

Knows how to run a module in a fresh process and what it reports as its last line. Refuses to know what it does.
"""

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcm.errors import LcmError

PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss


@dataclass(frozen=True)
class Ran:
    """What a process took."""

    seconds: float  # from its start to its end, the interpreter's own time among them
    peak_mb: float  # resident, at most, in MB of 1,000,000 bytes
    said: dict[str, Any]  # what else it reported


def peak_mb() -> float:
    """Return the most resident memory that this process ever had, in MB of 1,000,000 bytes.

    Linux tells it of the program that runs; the resource module's number is at least that of the parent's at the fork.
    """
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return int(found[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT / 1e6


def report(**said: Any) -> None:
    """Print what `run_python` reads, as the last line of a process."""
    print(json.dumps(said | {"peak_mb": peak_mb()}), flush=True)


def report_first_answer(answer: Callable, *arguments: Any) -> None:
    """Answer, and report how long that took without the interpreter's start."""
    started = time.perf_counter()
    answer(*arguments)
    report(answer_seconds=time.perf_counter() - started)


def run_python(*arguments: str) -> Ran:
    """Run this Python with some arguments, such as ("-m", "lcm.benchmark.original", photo), whose end `report`s.

    Raises LcmError with the last line of its complaints when it fails.
    """
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise LcmError(f"{' '.join(arguments)} failed: {done.stderr.strip().rpartition(chr(10))[2]}")
    said = json.loads(done.stdout.strip().rpartition("\n")[2])
    return Ran(seconds, said.pop("peak_mb"), said)
