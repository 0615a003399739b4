"""How graphs are opened."""

import os

import pytest

from lcm.captioning.bundle import START_GRAPH
from lcm.captioning.captioner import SHIPPED_BUNDLE
from lcm.features import encoders
from lcm.paths import packaged_file


@pytest.mark.parametrize(
    ("threads", "cores", "expected"), [(1, 4, 1), (3, 4, 3), (0, 4, 4), (0, 64, encoders.MOST_THREADS), (0, None, 1)]
)
def test_threads_are_counted_out_for_else_they_would_be_tied_to_cores(threads, cores, expected, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    session = encoders.open_session(packaged_file(SHIPPED_BUNDLE) / START_GRAPH, threads)
    assert session.get_session_options().intra_op_num_threads == expected


@pytest.mark.parametrize(("alone", "spinning"), [(False, "0"), (True, "1")])
def test_only_who_is_alone_waits_by_spinning(alone, spinning):
    options = encoders.open_session(packaged_file(SHIPPED_BUNDLE) / START_GRAPH, 2, alone).get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == spinning
