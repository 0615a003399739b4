"""Work in threads: every result, in order, a few ahead and no more."""

import threading
from collections.abc import Iterator

import pytest

from lcm.features.cache import map_in_order


class Source:
    """Gives 0, 1, 2, … and counts how many were taken."""

    def __init__(self, count: int):
        self.count, self.taken = count, 0

    def __iter__(self) -> Iterator[int]:
        for item in range(self.count):
            self.taken += 1
            yield item


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("count", [0, 1, 4, 5, 23])
@pytest.mark.parametrize("part_size", [1, 4, 100])
def test_all_parts_come_in_order_whole_but_for_the_last(workers, count, part_size):
    parts = list(map_in_order(list, range(count), part_size, workers))
    assert parts == [list(range(count))[start : start + part_size] for start in range(0, count, part_size)]


def test_a_part_that_takes_long_is_not_overtaken():
    done = [threading.Event() for _ in range(12)]

    def work(part):
        if part[0] % 3 == 0:
            assert done[part[0] + 1].wait(60)  # the next one is done before it
        done[part[0]].set()
        return part[0]

    assert list(map_in_order(work, range(12), 1, workers=4)) == list(range(12))


@pytest.mark.parametrize(("workers", "part_size"), [(1, 1), (1, 8), (3, 2)])
def test_no_more_than_a_few_parts_are_read_ahead(workers, part_size):
    source = Source(10_000)
    results = map_in_order(len, source, part_size, workers)
    assert source.taken == 0  # nothing before the reader asks
    ahead = []
    for number in range(1, 50):
        next(results)
        ahead.append(source.taken // part_size - number)
    assert set(ahead) == {2 * workers}
    results.close()
    assert source.taken == (49 + 2 * workers) * part_size


def test_an_error_in_the_work_comes_in_its_place():
    def work(part):
        if part == [2]:
            raise ValueError("two")
        return part[0]

    results = map_in_order(work, range(5), 1, workers=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
    assert list(results) == []
