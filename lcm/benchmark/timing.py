"""Timing: several ways to do the same, in turn in one run, medians with their spread.

Knows how to time fairly on a machine that may have other work: each side goes first as often as any other, and a
disturbed moment hits them all. Refuses to know what is timed.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Rates:
    """What several sides did a second, one entry a round; the unit is each side's own."""

    per_second: Mapping[str, tuple[float, ...]]

    def of(self, side: str) -> float:
        """The median rate of a side."""
        return median(self.per_second[side])

    def spread(self, side: str) -> tuple[float, float]:
        """The lowest and the highest rate of a side."""
        return min(self.per_second[side]), max(self.per_second[side])

    def ratio(self, side: str, reference: str) -> float:
        """How many times faster a side is than the reference: the ratio of the medians."""
        return self.of(side) / self.of(reference)

    def ratio_spread(self, side: str, reference: str) -> tuple[float, float]:
        """The lowest and the highest ratio of a round."""
        pairs = zip(self.per_second[side], self.per_second[reference], strict=True)
        ratios = [ours / theirs for ours, theirs in pairs]
        return min(ratios), max(ratios)

    def extra_ms(self, side: str, reference: str) -> float:
        """How many milliseconds a unit takes a side beyond the reference, by the medians."""
        return 1000 / self.of(side) - 1000 / self.of(reference)

    def as_metrics(self, prefix: str) -> dict[str, float]:
        """Return the medians for metrics.json; the names of the sides are part of the keys."""
        return {f"{prefix}_{_key(side)}_per_second": self.of(side) for side in self.per_second}


def time_in_turn(sides: Mapping[str, Callable[[], float]], rounds: int) -> Rates:
    """Time functions that return how much they did, in turn; the first call of each warms up and does not count."""
    for work in sides.values():
        work()
    rates: dict[str, list[float]] = {side: [] for side in sides}
    names = list(sides)
    for number in range(rounds):
        turn = number % len(names)
        for side in names[turn:] + names[:turn]:
            started = time.perf_counter()
            done = sides[side]()
            rates[side].append(done / (time.perf_counter() - started))
    return Rates({side: tuple(measured) for side, measured in rates.items()})


def _key(side: str) -> str:
    """Return the name of a side as a part of a key."""
    return "_".join("".join(letter if letter.isalnum() else " " for letter in side.lower()).split())
