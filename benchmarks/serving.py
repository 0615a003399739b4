"""Speed of answers: a photo's caption and tags, ours and the original's; clients at once; the first answer, and memory.

`python -m benchmarks.serving PHOTO` answers for one photo and reports the seconds and megabytes it took.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common import number, report, run_module, table, time_in_turn
from lcm.captioning.bundle import Manifest
from lcm.captioning.captioner import SHIPPED_BUNDLE, load_captioner
from lcm.paths import packaged_file

if TYPE_CHECKING:
    from benchmarks.original import OriginalService  # loads TensorFlow, which the first answer must not

FEW = 2  # photos that the original gets in a round: it takes seconds for each
CLIENTS = (4, 2, 1)  # that ask at once


def section(paths: Sequence[Path], rounds: int, original: "OriginalService") -> str:
    """Return the section of the report."""
    if len(paths) < (rounds + 1) * CLIENTS[0]:
        raise SystemExit(f"{len(paths)} images are too few for {rounds} rounds of {CLIENTS[0]} clients; use more")
    few = paths[: 1 + FEW * rounds]
    # A captioner for each side: the vectors of captions are kept, and a photo asked for again is answered faster.
    ours, sampling, untagged = load_captioner(), load_captioner(), load_captioner(tagger="none")
    seconds = time_answers(
        {
            "caption and tags": (partial(ours.describe, samples=0), paths),
            "caption, five samples and tags": (sampling.describe, paths),
            "caption and five samples, no tags": (untagged.describe, paths),
            "the original's caption": (original.caption, few),
            "the original's tags": (original.tags, few),
        },
        rounds,
    )
    answers = [
        [
            side,
            *(number(1000 * float(np.quantile(each, share))) for share in (0.5, 0.95)),
            number(len(each) / sum(each)),
        ]
        for side, each in seconds.items()
    ]
    clients = time_in_turn({f"{count} at once": clients_at_once(count, paths, rounds) for count in CLIENTS}, rounds)
    first = {
        "lcm": run_module("benchmarks.serving", str(paths[0])),
        "the original's way": run_module("benchmarks.original", str(paths[0])),
    }
    started = [
        [side, f"{ran.seconds:.2f}", f"{ran.said['answer_seconds']:.2f}", f"{ran.peak_mb:.0f}"]
        for side, ran in first.items()
    ]
    quality = Manifest.load(packaged_file(SHIPPED_BUNDLE)).metrics
    return "\n\n".join(
        [
            "## Serving",
            "The same photos for each side; none comes twice. How good what is so fast is, as the shipped bundle's dev "
            f"metrics have it: CIDEr {quality['cider']:.3f}; mean average precision of tags {quality['tag_map']:.3f}, "
            f"where the caption's words as they come give {quality['tag_map_caption_order']:.3f} and the best order of "
            f"the same words {quality['tag_map_upper_bound']:.3f}.",
            table(["one photo at a time", "p50, ms", "p95, ms", "photos/s"], answers),
            "Clients that ask at once for caption and tags, a core a call:",
            clients.as_table("photos/s"),
            table(["first answer of a process", "seconds", "of it after imports", "peak memory, MB"], started),
        ]
    )


def time_answers(
    sides: Mapping[str, tuple[Callable[[Path], object], Sequence[Path]]], rounds: int
) -> dict[str, list[float]]:
    """Return the seconds of a function on each of some photos, for each side, in turn: a part a round, none twice.

    The first photo of each side warms up, at its every turn, and does not count: the threads of the side before may
    still be waiting for work.
    """
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(rounds):
        for side, (answer, photos) in sides.items():
            answer(photos[0])
            for photo in photos[1 + turn :: rounds]:
                started = time.perf_counter()
                answer(photo)
                seconds[side].append(time.perf_counter() - started)
    return seconds


def clients_at_once(clients: int, paths: Sequence[Path], rounds: int) -> Callable[[], int]:
    """Return the describing of a part of the photos a call, none twice, for clients that share a captioner.

    As in the service, each call encodes on one core.
    """
    turns = rounds + 1  # the first one warms up
    captioner, parts = load_captioner(threads=1), iter([paths[turn::turns] for turn in range(turns)])

    def work() -> int:
        with ThreadPoolExecutor(clients) as pool:
            return len(list(pool.map(partial(captioner.describe, samples=0), next(parts))))

    return work


if __name__ == "__main__":
    begun = time.perf_counter()
    load_captioner().describe(Path(sys.argv[1]), samples=0)
    report(answer_seconds=time.perf_counter() - begun)
