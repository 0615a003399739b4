"""What every benchmark shares: timing in turn, fresh processes, tables, and a line about the machine.

Sides are timed in turn within one run, and each goes first as often as any other, so that a disturbed moment hits them
all; medians count, with the lowest and the highest.
"""

import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

EXTENSIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # what matrix products in 32 and in 16 bits gain by


@dataclass(frozen=True)
class Rates:
    """What several sides did a second, one entry a round; the last side is the reference."""

    per_second: Mapping[str, Sequence[float]]

    def of(self, side: str) -> float:
        """Return the median rate of a side."""
        return median(self.per_second[side])

    def as_table(self, unit: str) -> str:
        """Return rates with their spread, and how many times the reference each is, by medians and round by round."""
        *_, reference = self.per_second
        rows = []
        for side, rates in self.per_second.items():
            ratios = [ours / theirs for ours, theirs in zip(rates, self.per_second[reference], strict=True)]
            times = f"{number(self.of(side) / self.of(reference))} ({spread(ratios)})" if side != reference else ""
            rows.append([side, number(self.of(side)), spread(rates), times])
        return table(["", unit, "lowest to highest", f"times {reference}"], rows)


def time_in_turn(sides: Mapping[str, Callable[[], float]], rounds: int) -> Rates:
    """Time functions that return how much they did, in turn; the first call of each warms up and does not count."""
    for work in sides.values():
        work()
    rates: dict[str, list[float]] = {side: [] for side in sides}
    names = list(sides)
    for number_of_round in range(rounds):
        turn = number_of_round % len(names)
        for side in names[turn:] + names[:turn]:
            started = time.perf_counter()
            done = sides[side]()
            rates[side].append(done / (time.perf_counter() - started))
    return Rates(rates)


@dataclass(frozen=True)
class ProcessCost:
    """What a process took."""

    seconds: float  # from its start to its end, the interpreter's own time among them
    peak_mb: float  # resident, at most, in MB of 1,000,000 bytes
    said: dict[str, Any]  # what else it reported


def run_module(module: str, *arguments: str) -> ProcessCost:
    """Run a module in a fresh process of this Python; the module ends with `report`."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed: {done.stderr}")
    said = json.loads(done.stdout.strip().rpartition("\n")[2])
    return ProcessCost(seconds, said.pop("peak_mb"), said)


def report(**said: Any) -> None:
    """Print what `run_module` reads, as the last line of a process."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss is at least that of the parent's at the fork
        peak = int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) * 1024
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    print(json.dumps(said | {"peak_mb": peak / 1e6}), flush=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def number(value: float) -> str:
    """Return three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(values: Sequence[float]) -> str:
    """Return the lowest and the highest."""
    return f"{number(min(values))} to {number(max(values))}"


def machine() -> str:
    """Return processor, cores and memory, and which of EXTENSIONS it has, where the system tells; never its name."""

    def read(path: str) -> str:
        return Path(path).read_text() if Path(path).exists() else ""

    told = read("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", told)
    flags = set(" ".join(re.findall(r"^flags\s*:(.*)$", told, flags=re.MULTILINE)[:1]).split())
    memory = re.search(r"MemTotal:\s*(\d+) kB", read("/proc/meminfo"))
    parts = [model[1] if model else platform.machine(), f"{os.cpu_count()} cores"]
    parts += [f"{int(memory[1]) / 1e6:.0f} GB of memory"] if memory else []
    return ", ".join([*parts, *(name for name in EXTENSIONS if name in flags)])
