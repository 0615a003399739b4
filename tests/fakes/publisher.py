"""Publishes bundles in a process of its own, killed at a point: python -m tests.fakes.publisher POINT FOLDER…"""

import os
import shutil
import sys
from collections.abc import Callable

from lcm import registry
from lcm.features.encoders import ENCODERS
from tests.fakes.tiny_graphs import TinyConversion, tiny_spec


def dies(place: int, function: Callable) -> Callable:
    """Return the function, the call of which at a place (1: the first) ends the process instead."""
    calls = []

    def call(*arguments, **options):
        calls.append(arguments)
        return os.kill(os.getpid(), 9) if len(calls) == place else function(*arguments, **options)

    return call


POINTS = {  # what is replaced, and which call of it is never made
    "copying": (shutil, "copyfile", 2),
    "tried out": (registry, "load_tested", 1),
    "renamed": (registry, "add_event", 1),
    "before current": (registry, "write_atomic", 2),
    "after current": (registry, "add_event", 2),
}

if __name__ == "__main__":
    ENCODERS["tiny"] = tiny_spec(TinyConversion())
    if sys.argv[1] in POINTS:
        owner, name, place = POINTS[sys.argv[1]]
        setattr(owner, name, dies(place, getattr(owner, name)))
    for folder in sys.argv[2:]:
        registry.publish(folder, "in a process of its own", make_current=True)
