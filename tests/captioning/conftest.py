"""The tiny encoder and a bundle with it, as several modules ask for them."""

from pathlib import Path

import pytest

from lcm.features.encoders import EncoderIdentity
from tests.fakes.tiny_graphs import save_bundle, use_tiny_encoder


@pytest.fixture
def encoder(tmp_path, monkeypatch) -> EncoderIdentity:
    return use_tiny_encoder(tmp_path, monkeypatch)


@pytest.fixture
def folder(tmp_path, encoder) -> Path:
    """A bundle that writes one caption a colour, without tag scorer."""
    return save_bundle(tmp_path / "bundle", encoder)
