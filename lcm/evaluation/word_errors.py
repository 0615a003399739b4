"""Word errors: how many words of a reference a hypothesis gets wrong.

Knows jiwer, and how to keep its alignments from filling the memory: those of 50,000 pairs would take 140 MB. Refuses to
know how the numbers of many pairs become a score.
"""

from collections.abc import Iterable
from itertools import islice

from lcm.errors import require

PAIRS_AT_ONCE = 4096


def count_edits(pairs: Iterable[tuple[str, str]]) -> list[int]:
    """Return how many words are changed, added or missing, of each (reference, hypothesis) as words with blanks."""
    edits, pairs = [], iter(pairs)
    while part := list(islice(pairs, PAIRS_AT_ONCE)):
        output = require("jiwer", "evaluate").process_words(*map(list, zip(*part, strict=True)))
        edits += [sum(map(_size, alignment)) for alignment in output.alignments]
    return edits


def _size(chunk) -> int:
    """Return the words that a piece of an alignment concerns, none where both say the same."""
    longer = max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
    return 0 if chunk.type == "equal" else longer
