"""The CLIP scorer against transformers itself, on a tiny CLIP made here."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcm.captioning.taggers import ClipScorer
from tests.fakes.tiny_clip import LONGEST, SIDE, WIDTH, make_clip

TEXTS = ["dog", "a dog runs", "the cat sat on a mat by the sea", "a photo of a cat", "s"]


@dataclass
class Picture:
    """What the scorer is given: something that opens."""

    image: Image.Image

    def open(self) -> Image.Image:
        return self.image


def noise(width: int, height: int, seed: int = 0) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Picture(Image.fromarray(pixels))


PICTURES = [noise(SIDE, SIDE), noise(40, 90, 1), noise(200, 50, 2), noise(7, 3, 3), noise(1, 1, 4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def scorer(folder) -> ClipScorer:
    return ClipScorer(str(folder))


def test_scores_are_those_of_transformers(folder, scorer):
    import torch
    import transformers

    model = transformers.CLIPModel.from_pretrained(folder)
    processor = transformers.CLIPProcessor(
        transformers.CLIPImageProcessorPil.from_pretrained(folder),
        transformers.CLIPTokenizer.from_pretrained(folder),
    )
    cut = {"padding": True, "truncation": True, "max_length": LONGEST}
    inputs = processor(text=TEXTS, images=[each.open() for each in PICTURES], return_tensors="pt", **cut)
    with torch.inference_mode():
        expected = model(**inputs).logits_per_image.softmax(-1)
    images = np.stack([scorer.image_vector(picture) for picture in PICTURES])
    logits = torch.tensor(scorer.scale * images @ scorer.text_vectors(TEXTS).T)
    np.testing.assert_allclose(logits.softmax(-1), expected, atol=1e-5)
    assert expected.std(-1).min() > 0.05, "the texts must differ for this to mean anything"
    assert expected.std(0).max() > 0.01


def test_a_scorer_says_what_it_is(scorer, folder, monkeypatch):
    assert scorer.name == "tiny"
    assert scorer.scale == pytest.approx(10)
    assert scorer.unknown(["dog", "ξ€", ""]) == ()
    monkeypatch.chdir(folder)
    assert ClipScorer(".").name == "tiny"


def test_texts_keep_their_order_and_may_repeat(scorer):
    vectors = scorer.text_vectors(TEXTS)
    order = [3, 0, 0, 4, 3]
    np.testing.assert_array_equal(scorer.text_vectors([TEXTS[number] for number in order]), vectors[order])
    assert scorer.text_vectors([]).shape == (0, WIDTH)
    assert scorer.text_vectors([]).dtype == np.float32
