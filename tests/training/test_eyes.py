"""Tuning the eyes: the last blocks are the graph's own, and what they learn is an encoder like any other."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image, ImageDraw

from lcm.config import PrepareConfig
from lcm.data.dataset import read_dataset
from lcm.data.text import build_vocabulary
from lcm.errors import ConfigError
from lcm.features.cache import PreparedRun, encode_dataset, view_keys
from lcm.features.encoders import Encoder, keep_encoder, load_encoder
from lcm.paths import RunDir
from lcm.training import eyes

LITE = "efficientnet_lite0"


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(LITE, threads=1)


def test_the_blocks_give_what_the_encoder_gives(encoder: Encoder, tmp_path: Path):
    """From what the graph before them makes of two pictures."""
    graph = onnx.load(encoder.path).graph
    blocks = eyes.Blocks(graph)
    below = tmp_path / "below.onnx"
    onnx.utils.extract_model(encoder.path, below, ["image"], [blocks.starts_at])
    pictures = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    seen = eyes.open_session(below).run(None, {"image": pictures})[0].transpose(0, 2, 3, 1)
    assert np.allclose(blocks(seen), encoder.encode(pictures, ["grid"])["grid"], atol=1e-4)


def test_another_network_is_refused():
    with pytest.raises(ConfigError, match="tune_epochs"):
        eyes.Blocks(onnx.helper.make_graph([], "other", [], []))


def test_views_have_another_light_and_stay_pictures():
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    (key,) = view_keys("0" * 64, 1)[1:]
    changed = eyes.recolour(picture, key)
    assert changed.dtype == np.uint8
    assert changed.shape == picture.shape
    assert not np.array_equal(changed, picture)
    assert np.array_equal(changed, eyes.recolour(picture, key))
    grey = np.full((8, 8, 3), 128, np.uint8)
    assert np.ptp(eyes.recolour(grey, key)) == 0


def prepare(folder: Path, encoder: Encoder) -> PreparedRun:
    """Six pictures of a red or a blue thing, with their captions."""
    rows = ["image\tcaption"]
    for number in range(6):
        colour, name = ("red", "blue")[number % 2], f"{number}.png"
        picture = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(picture).ellipse((8 + number, 8, 50, 50), fill=colour)
        picture.save(folder / name)
        rows.append(f"{name}\ta {colour} ball on the left")
    (folder / "captions.tsv").write_text("\n".join(rows) + "\n")
    (folder / "train.txt").write_text("\n".join(f"{number}.png" for number in range(6)) + "\n")
    dataset = read_dataset(folder)
    return PreparedRun(dataset, build_vocabulary(dataset.captions_of("train"), 1), encode_dataset(dataset, encoder))


def test_what_was_tuned_is_an_encoder_of_its_own(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It sees otherwise, is found again without training, and comes with a bundle to a machine that has it not."""
    (folder := tmp_path / "photos").mkdir()
    monkeypatch.setenv("LCM_CACHE", str(tmp_path / "cache"))
    shutil.copytree(encoder.path.parent, tmp_path / "cache" / "encoders" / encoder.path.parent.name)
    prepared = prepare(folder, encoder)
    run = RunDir.at(tmp_path / "run")
    config = PrepareConfig(str(run.path), encoder=LITE, tune_epochs=2)
    assert eyes.tune_eyes(prepared, encoder, replace(config, tune_epochs=0), run) is encoder
    tuned = eyes.tune_eyes(prepared, encoder, config, run)
    assert tuned.identity.weights.startswith("tuned-")
    assert not tuned.matches(encoder.identity)
    monkeypatch.setattr(eyes, "Contrastive", None)
    assert eyes.tune_eyes(prepared, encoder, config, run).identity == tuned.identity
    monkeypatch.setenv("LCM_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(ConfigError, match="of a bundle"):
        load_encoder(LITE, tuned.identity.weights)
    keep_encoder(tuned.identity, tuned.path)
    assert load_encoder(LITE, tuned.identity.weights).matches(tuned.identity)
