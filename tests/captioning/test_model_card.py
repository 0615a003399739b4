"""The model card, and how an evaluation is written into a bundle."""

import pytest

from lcm.captioning.bundle import Bundle
from lcm.captioning.description import PlattScaler
from lcm.captioning.model_card import add_evaluation, model_card
from lcm.errors import BundleError
from tests.captioning.conftest import METRICS
from tests.fakes.tiny_graphs import CURVES, PROBABLE, tiny_manifest


def test_an_evaluation_keeps_the_bundle_whole(folder, encoder):
    add_evaluation(folder, METRICS)
    manifest = Bundle(folder).manifest
    assert manifest == tiny_manifest(encoder, metrics=METRICS, files=manifest.files)
    assert set(manifest.files) == {"encoder.onnx", "start.onnx", "step.onnx", "vocabulary.txt", "MODEL_CARD.md"}
    assert (folder / "MODEL_CARD.md").read_text() == model_card(manifest)
    add_evaluation(folder, {"cider": 0.75})
    assert Bundle(folder).manifest.metrics == {"cider": 0.75}
    assert "0.750" in (folder / "MODEL_CARD.md").read_text()
    assert len(list(folder.iterdir())) == 6


def test_a_bundle_captions_as_it_was_measured(whole):
    decoding = {"beam_width": 4, "max_words": 7, "rerank_weight": 0.5}
    add_evaluation(whole, METRICS | decoding, PlattScaler(4.5, 3.0), curves=CURVES)
    manifest = Bundle(whole).manifest
    assert manifest.tagger == PROBABLE
    assert (manifest.beam_width, manifest.max_words, manifest.rerank_weight) == (4, 7, 0.5)
    assert manifest.calibration == {"slope": 4.5, "intercept": 3.0}
    assert "width 4, at most 7 words, chosen by" in (whole / "MODEL_CARD.md").read_text()


def test_notes_are_on_the_card_and_stay_until_there_are_others(whole):
    add_evaluation(whole, METRICS, notes="Made of *cats* alone.\n")
    add_evaluation(whole, METRICS)
    assert "\n## Notes\n\nMade of *cats* alone.\n\n## Limits\n" in (whole / "MODEL_CARD.md").read_text()
    add_evaluation(whole, METRICS, notes="Of dogs.")
    card = (whole / "MODEL_CARD.md").read_text()
    assert "Of dogs." in card
    assert "cats" not in card
    Bundle(whole)


@pytest.mark.parametrize("name", ["step.onnx", "tag_vectors.npy"])
def test_an_evaluation_does_not_make_a_damaged_bundle_good(name, whole):
    (whole / name).write_bytes((whole / name).read_bytes()[:-1])
    before = (whole / "bundle.json").read_bytes()
    with pytest.raises(BundleError, match=rf"{name} is not what was exported"):
        add_evaluation(whole, {"cider": 9.0})
    assert (whole / "bundle.json").read_bytes() == before
    assert "9.0" not in (whole / "MODEL_CARD.md").read_text()


def test_the_card_shows_what_was_measured_and_what_was_not(encoder):
    card = model_card(tiny_manifest(encoder, metrics=METRICS))
    assert card.startswith("# tiny-1\n")
    assert "| CIDEr | 0.522 |" in card
    assert "| METEOR | not measured |" in card
    assert "BLEU" not in card
    assert "Measured on the dev split (12 images)" in card
    assert "image encoder: tiny, frozen, pretrained weights" in card
    assert "squares: 3 train images, 12 captions" in card
    assert "vocabulary of 9 words" in card
    assert "- decoding: beam search of width 2, at most 5 words\n" in card
    assert "- epochs: 7\n- learning_rate: 0.5" in card
