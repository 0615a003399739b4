"""The tiny encoder and a bundle with it, as several modules ask for them."""

from pathlib import Path

import pytest

from lcm.captioning.model_card import add_evaluation
from lcm.features.encoders import EncoderIdentity
from tests.fakes.tiny_graphs import TAGGER, save_bundle, use_tiny_encoder


@pytest.fixture
def encoder(tmp_path, monkeypatch) -> EncoderIdentity:
    return use_tiny_encoder(tmp_path, monkeypatch)


@pytest.fixture
def folder(tmp_path, encoder) -> Path:
    """A bundle that writes one caption a colour, without tag scorer."""
    return save_bundle(tmp_path / "bundle", encoder)


METRICS = {"split": "dev", "images": 12, "cider": 0.5219, "meteor": None, "meteor_reason": "Java is missing"}


@pytest.fixture
def whole(tmp_path, encoder) -> Path:
    """A bundle with everything: a tag scorer and a model card of METRICS."""
    folder = save_bundle(tmp_path / "whole", encoder, tagger=TAGGER)
    add_evaluation(folder, METRICS)
    return folder
