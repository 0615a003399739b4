"""The machine at hand, as far as speed depends on it.

Knows its processor, cores and memory. Refuses to know its name, its folders and its user.
"""

import os
import platform
import re
from pathlib import Path

EXTENSIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # what matrix products in 32 and in 16 bits gain by


def describe() -> str:
    """Return one line: processor, cores, memory, and which of EXTENSIONS it has, where the system tells."""
    told = _read("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", told)
    flags = set(" ".join(re.findall(r"^flags\s*:(.*)$", told, flags=re.MULTILINE)[:1]).split())
    memory = re.search(r"MemTotal:\s*(\d+) kB", _read("/proc/meminfo"))
    parts = [model[1] if model else platform.machine(), f"{os.cpu_count()} cores"]
    parts += [f"{int(memory[1]) / 1e6:.0f} GB of memory"] if memory else []
    return ", ".join([*parts, *(name for name in EXTENSIONS if name in flags)])


def load() -> float:
    """Return how many processes wanted a core over the last minute, as the system counts; 0 where it does not."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
