"""Speed of answers: a photo's caption and tags, ours and the original's; the first answer, and memory.

Knows how an answer is timed, one photo at a time. Refuses to know how it comes about.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lcm.benchmark.process import Ran, report_first_answer, run_python
from lcm.benchmark.timing import Rates, time_in_turn
from lcm.captioning.bundle import Manifest
from lcm.captioning.captioner import SHIPPED_BUNDLE, load_captioner
from lcm.errors import DataError
from lcm.paths import packaged_file

FEW = 2  # photos that the original gets in a round: it takes seconds for each
CLIENTS = (1, 2, 4)  # that ask at once


@dataclass(frozen=True)
class Latencies:
    """The time of each answer, in seconds, by side."""

    seconds: Mapping[str, Sequence[float]]

    def ms(self, side: str, share: float = 0.5) -> float:
        """Return the time, in milliseconds, below which a share of a side's answers lie."""
        return 1000 * float(np.quantile(self.seconds[side], share))

    def per_second(self, side: str) -> float:
        """Return the answers a second, one at a time."""
        return len(self.seconds[side]) / sum(self.seconds[side])


def time_answers(sides: Mapping[str, tuple[Callable[[Path], object], Sequence[Path]]], rounds: int) -> Latencies:
    """Time a function on each of some photos, for each side, in turn: a part of the photos a round, none twice.

    The first photo of each side warms up, at its every turn, and does not count: the threads of the side before may
    still be waiting for work. Raises DataError without photos.
    """
    if not all(photos for _, photos in sides.values()):
        raise DataError("there are no images to describe; run 01_prepare on a data set with a dev split")
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds):
        for side, (answer, photos) in sides.items():
            answer(photos[0])
            for photo in photos[1 + number :: rounds]:
                started = time.perf_counter()
                answer(photo)
                seconds[side].append(time.perf_counter() - started)
    return Latencies(seconds)


def measure(photos: Sequence[Path], rounds: int) -> Latencies:
    """Time the shipped captioner, with and without samples and tags, and the original's parts, on photos.

    Each side has a captioner of its own: the vectors of captions are kept, and a photo asked for again is answered
    faster.
    """
    from lcm.benchmark.original import Original

    original, few = Original(), photos[: 1 + FEW * rounds]
    ours, sampling, untagged = load_captioner(), load_captioner(), load_captioner(tagger="none")
    sides = {
        "caption and tags": (partial(ours.describe, samples=0), photos),
        "caption, five samples and tags": (sampling.describe, photos),
        "caption and five samples, no tags": (untagged.describe, photos),
        "the original's caption": (original.caption, few),
        "the original's tags": (original.tags, few),
    }
    return time_answers(sides, rounds)


def throughput(photos: Sequence[Path], rounds: int) -> Rates:
    """Return the photos a second that the shipped captioner describes for clients that ask at once.

    As in the service, each call encodes on one core. Each number of clients has a captioner and a part of the photos
    of its own a round, none twice. Raises DataError when there are too few photos.
    """
    turns = rounds + 1  # the first one warms up
    if len(photos) < turns * max(CLIENTS):
        raise DataError(f"{len(photos)} images are too few for {turns} rounds of {max(CLIENTS)} clients; use more")

    def side(clients: int) -> Callable[[], int]:
        captioner, parts = load_captioner(threads=1), iter([photos[number::turns] for number in range(turns)])

        def work() -> int:
            with ThreadPoolExecutor(clients) as pool:
                return len(list(pool.map(partial(captioner.describe, samples=0), next(parts))))

        return work

    return time_in_turn({f"{clients} at once": side(clients) for clients in reversed(CLIENTS)}, rounds)


def first_answers(photo: Path) -> dict[str, Ran]:
    """Return what each side takes from the start of a process to its first caption with tags, and its memory."""
    return {
        "lcm": run_python("-m", "lcm.benchmark.serving", str(photo)),
        "the original's way": run_python("-m", "lcm.benchmark.original", str(photo)),
    }


def quality() -> Mapping[str, Any]:
    """Return the metrics of the shipped captioner: how good what is timed is."""
    return Manifest.load(packaged_file(SHIPPED_BUNDLE)).metrics


if __name__ == "__main__":
    report_first_answer(lambda photo: load_captioner().describe(photo, samples=0), Path(sys.argv[1]))
