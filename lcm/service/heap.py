"""The heap: memory that is given back to the system.

Knows how the C library keeps what was freed, and how to make it keep less. Refuses to know what the memory was for.
"""

import ctypes
from contextlib import suppress

# Of mallopt(3), glibc. By itself glibc keeps a heap for each of up to eight threads a core, and learns to take ever
# larger blocks from them, so that the bodies of some megabytes that come and go here leave holes that stay.
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
LARGE_BLOCK = 1 << 20  # bytes; from here on a block is a mapping of its own, gone when it is freed
ARENAS = 2


def give_memory_back() -> bool:
    """Set both limits for this process, before its threads start; returns whether its C library has them."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # macOS, musl, Windows: they keep less by themselves
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK) and mallopt(M_ARENA_MAX, ARENAS))


def trim() -> None:
    """Give back at once what lies free between what is in use, such as the small parts of a model that is gone."""
    with suppress(OSError, AttributeError, TypeError):  # another C library, as above
        ctypes.CDLL(None).malloc_trim(0)
