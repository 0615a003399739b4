"""Edits are counted in parts, and parts change nothing."""

import pytest

from lcm.evaluation import metrics
from lcm.evaluation.metrics import count_edits

PAIRS = [("the dog runs fast", "a dog runs"), ("a dog runs", "a dog runs"), ("cat", "a dog runs"), ("two cats", "")]


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_edits_by_hand(at_once, monkeypatch):
    monkeypatch.setattr(metrics, "PAIRS_AT_ONCE", at_once)
    assert count_edits(PAIRS) == [2, 0, 3, 2]  # one changed, one missing; none; one changed, two too many; all missing


def test_nothing_has_no_edits():
    assert count_edits([]) == []
