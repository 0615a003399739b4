"""Text towers: tiny CLIP, SigLIP and SigLIP 2 against transformers itself, what is refused, and a whole run."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lcm.captioning.taggers import TextTower
from lcm.captioning.tagging import SeenImage, rank
from lcm.data.images import open_image
from lcm.errors import BundleError, ConfigError
from lcm.features.encoders import Encoder, keep_encoder, load_encoder
from lcm.features.text_towers import TOWER, find_text_tower
from tests.conftest import ROOT
from tests.fakes.tiny_towers import LONGEST, make_towers
from tests.fakes.tiny_vision import make_vision
from tests.features.test_checkpoints import edit

pytest.importorskip("torch", reason="converting a checkpoint needs torch: pip install 'lcm[encoder,clip]'")

PHOTOS = [ROOT / "reports/examples" / name for name in ("astronaut.jpg", "musicians.jpg")]
TEXTS = ["a dog", "Two men, riding!", "ein Hund läuft", "la plage", "a red square and a blue circle on the beach " * 9]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder for checkpoints, and the state of lcm for the whole module."""
    return tmp_path_factory.mktemp("towers")


@pytest.fixture(autouse=True)
def home(made, monkeypatch) -> None:
    monkeypatch.setenv("LCM_HOME", str(made / "home"))


@pytest.fixture(scope="module", params=LONGEST)
def family(request, made) -> str:
    make_towers(made / request.param, request.param)
    return request.param


def load_tower(encoder: Encoder) -> TextTower:
    folder, facts = find_text_tower(encoder.identity)
    return TextTower(folder, {"name": TOWER} | facts)


def test_vectors_logits_and_sigmoid_are_those_of_transformers(family, made):
    import torch
    import transformers

    folder = made / family
    encoder = load_encoder(str(folder))
    tower = load_tower(encoder)
    tokenizer_class = transformers.Siglip2Tokenizer if family == "siglip2" else transformers.AutoTokenizer
    padding = True if family == "clip" else "max_length"
    tokens = tokenizer_class.from_pretrained(folder)(
        TEXTS, padding=padding, truncation=True, max_length=LONGEST[family], return_tensors="pt"
    )["input_ids"]
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = processor([open_image(path) for path in PHOTOS], return_tensors="pt")["pixel_values"]
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        its = model(input_ids=tokens, pixel_values=pixels)
    pooled = encoder.encode(np.stack([encoder.read(path) for path in PHOTOS]))["pooled"]
    images, texts = tower.image_vectors(pooled), tower.text_vectors(TEXTS)
    logits = tower.scale * images @ texts.T + (tower.sigmoid[2] if tower.sigmoid else 0)
    for ours, theirs in (
        (images, its.image_embeds),
        (texts, its.text_embeds),
        (logits, its.logits_per_image),
    ):
        print(family, np.abs(ours - theirs.numpy()).max())
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert np.ptp(logits, axis=1).min() > 1  # what is compared tells the texts apart

    vector = tower.image_vector(SeenImage(PHOTOS[0], None, {"pooled": pooled[0]}))
    shares = dict(rank(tower, vector, TEXTS))
    np.testing.assert_allclose([shares[text] for text in TEXTS], its.logits_per_image[0].softmax(0), atol=1e-4)
    assert (tower.curves is None) == (family == "clip")
    if tower.curves:
        found = dict(rank(tower, vector, TEXTS, (TEXTS, "probability", 0.0)))
        np.testing.assert_allclose([found[text] for text in TEXTS], its.logits_per_image[0].sigmoid(), atol=1e-4)


def test_a_text_can_be_read_where_its_tokenizer_knows_all_of_it(family, made):
    tower = load_tower(load_encoder(str(made / family)))
    texts = ["dog", "собака", "DOG", "", "狗", "dog 狗", "\ud800"]
    vectors = tower.text_vectors(texts)
    known = [True, family != "siglip", True, False, False, False, False]  # no Russian taught it
    assert vectors.any(1).tolist() == known
    np.testing.assert_array_equal(vectors[0], vectors[2])  # none of the three knows capitals
    np.testing.assert_allclose(np.linalg.norm(vectors[known], axis=1), 1, atol=1e-5)
    assert tower.text_vectors([]).shape == (0, vectors.shape[1])


# What is refused, and what happens to a checkpoint's folder


def test_what_has_no_text_tower_is_refused_before_training(made, tmp_path, monkeypatch):
    def refusal(encoder: Encoder) -> str:
        with pytest.raises((BundleError, ConfigError)) as caught:
            check_parameters(TrainConfig(run_dir="", tagger=TOWER), None, encoder.identity)
        return str(caught.value)

    tiny = replace(load_encoder(str(make_vision(made / "vit", "vit"))))
    assert "it holds a vit model, which reads no text: choose the tagger dual_encoder" in refusal(tiny)


def test_a_folder_that_moved_is_asked_for_and_one_that_changed_refused(made, tmp_path, monkeypatch):
    monkeypatch.setenv("LCM_HOME", str(tmp_path / "home"))
    first = make_towers(tmp_path / "first" / "model", "clip")
    encoder = load_encoder(str(first))
    second = first.rename(tmp_path / "model")
    with pytest.raises(BundleError, match="first/model' as a vision checkpoint: there is no such folder"):
        find_text_tower(encoder.identity)
    assert load_encoder(str(second)).identity == encoder.identity
    tower = load_tower(encoder)
    shutil.rmtree(second)  # all is in the cache by now
    np.testing.assert_array_equal(load_tower(encoder).text_vectors(["dog"]), tower.text_vectors(["dog"]))
