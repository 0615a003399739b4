"""Sets of contribution numbers as short texts: which ones a model has learned from stays readable in its manifest.

Knows "1-9,11". Refuses to know contributions.
"""

from collections.abc import Iterable

from lcm.errors import ConfigError

MOST = 10_000_000  # numbers in one text; more are a slip, or meant to fill the memory


def as_text(numbers: Iterable[int]) -> str:
    """Return numbers as ascending ranges, such as "1-9,11"; empty for none."""
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def from_text(text: str) -> set[int]:
    """Return what `as_text` wrote, or a person: spaces are allowed. Raises ConfigError for anything else."""
    numbers: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = part.partition("-")
        try:
            found = range(int(first), int(last if dash else first) + 1)
        except ValueError:
            found = range(0)
        if not 0 < found.stop - found.start <= MOST - len(numbers):
            raise ConfigError(f"{part[:60]!r} is no number and no range of contributions; write 3,7-9")
        numbers.update(found)
    return numbers
