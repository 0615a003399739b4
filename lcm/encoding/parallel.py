"""Work in parallel, in order and in constant memory.

Knows how to keep all cores busy a little ahead of the reader. Refuses to know what the work is.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    work: Callable[[Sequence[Item]], Result], items: Iterable[Item], part_size: int, workers: int = 0
) -> Iterator[Result]:
    """Yield `work(part)` of parts of `part_size` items, in order, a few parts ahead of the reader.

    `workers` threads (0: one a core) share the work; memory stays flat however many items there are.
    """
    workers = workers or os.cpu_count() or 1
    items = iter(items)
    pool, ahead = ThreadPoolExecutor(workers), deque()
    try:
        while part := list(islice(items, part_size)):
            ahead.append(pool.submit(work, part))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # a reader that stops waits for the work under way, not for all ahead
