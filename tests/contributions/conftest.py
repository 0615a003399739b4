"""What tests of contributions share."""

from pathlib import Path

import pytest

from lcm.contributions import store as store_module
from lcm.contributions.store import ContributionStore


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """The cache, where training images are written."""
    monkeypatch.setenv("LCM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _no_flushes(monkeypatch) -> None:
    """Leave the disk alone: a flush outlasts a power cut, and none happens here; kills need none."""
    pragmas = [one.replace("synchronous = FULL", "synchronous = OFF") for one in store_module.PRAGMAS]
    monkeypatch.setattr(store_module, "PRAGMAS", tuple(pragmas))


@pytest.fixture
def store(tmp_path) -> ContributionStore:
    return ContributionStore(tmp_path / "contributions")
