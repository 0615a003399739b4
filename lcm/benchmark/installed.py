"""What an installation weighs: the time of an import, the size of each package and who needs it.

Knows the extras of lcm and what their packages bring along. Refuses to know why they are needed.
"""

import re
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from importlib import metadata

from lcm.benchmark.timing import Rates, time_in_turn

STATEMENTS = {"python": "pass", "import lcm": "import lcm", "NumPy": "import numpy", "TensorFlow": "import tensorflow"}


@dataclass(frozen=True)
class Package:
    """One installed distribution."""

    name: str
    megabytes: float  # of its files
    extras: tuple[str, ...]  # of lcm, that need it, directly or not; "" is lcm itself

    @property
    def is_light(self) -> bool:
        """Whether lcm needs it without any extra."""
        return "" in self.extras


def import_seconds(rounds: int) -> Rates:
    """Return how often a second a fresh interpreter runs each of STATEMENTS."""
    return time_in_turn({name: partial(_run, statement) for name, statement in STATEMENTS.items()}, rounds)


def packages() -> list[Package]:
    """Return the installed distributions that lcm needs, the largest first."""
    extras = ["", *(metadata.metadata("lcm").get_all("Provides-Extra") or ())]
    needed = {extra: _closure("lcm", extra) for extra in extras if extra not in ("all",)}
    names = set().union(*needed.values()) - {"lcm"}
    found = [
        Package(name, _megabytes(name), tuple(extra for extra, reached in needed.items() if name in reached))
        for name in sorted(names)
    ]
    return sorted(found, key=lambda one: -one.megabytes)


def _run(statement: str) -> int:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True)
    return int(time.perf_counter() > started)


def _closure(name: str, extra: str) -> set[str]:
    """Return the names of the distributions that `name` with an extra needs, itself among them."""
    reached, waiting = {name}, _requirements(name, extra)
    while waiting:
        one = waiting.pop()
        if one not in reached and _installed(one):
            reached.add(one)
            waiting |= _requirements(one, "")
    return reached


def _requirements(name: str, extra: str) -> set[str]:
    """Return the canonical names of what a distribution asks for; with an extra, beside what it asks for anyway."""
    from packaging.requirements import Requirement

    asked = map(Requirement, metadata.requires(name) or ())
    return {
        re.sub(r"[-_.]+", "-", one.name).lower()
        for one in asked
        if one.marker is None or one.marker.evaluate({"extra": extra})
    }


def _installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _megabytes(name: str) -> float:
    files = metadata.distribution(name).files or ()
    paths = (file.locate() for file in files)
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6
