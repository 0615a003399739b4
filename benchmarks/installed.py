"""What an installation weighs: the time of an import, the size of each package and which extra of lcm needs it."""

import re
import subprocess
import sys
from functools import partial
from importlib import metadata

from packaging.requirements import Requirement

from benchmarks.common import table, time_in_turn

STATEMENTS = {"import lcm": "import lcm", "NumPy": "import numpy", "TensorFlow": "import tensorflow", "python": "pass"}
PACKAGES_SHOWN = 12


def section(rounds: int) -> str:
    """Return the section of the report."""
    extras = ["", *(extra for extra in metadata.metadata("lcm").get_all("Provides-Extra") or () if extra != "all")]
    needed = {extra: closure("lcm", extra) - {"lcm"} for extra in extras}
    sizes = {name: megabytes(name) for name in set().union(*needed.values())}
    rows = [
        [name, f"{size:.0f}", ", ".join(extra or "lcm itself" for extra in extras if name in needed[extra])]
        for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:PACKAGES_SHOWN]
    ]
    rates = time_in_turn({name: partial(run, statement) for name, statement in STATEMENTS.items()}, rounds)
    light = sum(sizes[name] for name in needed[""])
    return "\n\n".join(
        [
            f"## Installation\n\nAll packages: {sum(sizes.values()):,.0f} MB in {len(sizes)}; what captioning alone "
            f"needs: {light:,.0f} MB.",
            table(["a fresh interpreter", "ms"], [[name, f"{1000 / rates.of(name):.0f}"] for name in STATEMENTS]),
            table(["package", "MB", "needed by"], rows),
        ]
    )


def run(statement: str) -> int:
    """Run a statement in a fresh interpreter; returns 1, for it is done once."""
    subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True)
    return 1


def closure(name: str, extra: str) -> set[str]:
    """Return the names of the installed distributions that `name` with an extra needs, itself among them."""
    reached, waiting = {name}, _requirements(name, extra)
    while waiting:
        one = waiting.pop()
        if one not in reached and list(metadata.distributions(name=one)):
            reached.add(one)
            waiting |= _requirements(one, "")
    return reached


def megabytes(name: str) -> float:
    """Return the size of a distribution's files."""
    paths = (file.locate() for file in metadata.distribution(name).files or ())
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def _requirements(name: str, extra: str) -> set[str]:
    """Return the canonical names of what a distribution asks for; with an extra, beside what it asks for anyway."""
    return {
        re.sub(r"[-_.]+", "-", one.name).lower()
        for one in map(Requirement, metadata.requires(name) or ())
        if one.marker is None or one.marker.evaluate({"extra": extra})
    }
