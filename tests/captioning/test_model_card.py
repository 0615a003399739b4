"""The model card, and how an evaluation is written into a bundle."""

import pytest
import yaml
from huggingface_hub import ModelCard

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
    assert (folder / "MODEL_CARD.md").read_text() == model_card(manifest, ["en"])
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


@pytest.mark.parametrize("name", ["step.onnx", "tag_word_rows.npy"])
def test_an_evaluation_does_not_make_a_damaged_bundle_good(name, whole):
    (whole / name).write_bytes((whole / name).read_bytes()[:-1])
    before = (whole / "bundle.json").read_bytes()
    with pytest.raises(BundleError, match=rf"{name} is not what was exported"):
        add_evaluation(whole, {"cider": 9.0})
    assert (whole / "bundle.json").read_bytes() == before
    assert "9.0" not in (whole / "MODEL_CARD.md").read_text()


def test_the_card_shows_what_was_measured_and_what_was_not(encoder):
    card = model_card(tiny_manifest(encoder, metrics=METRICS), ["en"])
    assert "\n# tiny-1\n" in card
    assert "| CIDEr | 0.522 |" in card
    assert "| METEOR | not measured |" in card
    assert "BLEU" not in card
    assert "Measured on the dev split (12 images)" in card
    assert "image encoder: tiny, frozen, pretrained weights" in card
    assert "squares: 3 train images, 12 captions" in card
    assert "vocabulary of 9 words" in card
    assert "- decoding: beam search of width 2, at most 5 words\n" in card
    assert "- epochs: 7\n- learning_rate: 0.5" in card


def test_model_hubs_read_what_the_card_begins_with(encoder, tmp_path):
    data = {"source": "flickr8k", "train_images": 3, "train_captions": 12}
    metrics = METRICS | {"bleu_4": 0.25}
    manifest = tiny_manifest(encoder, name="a: 'b'", metrics=metrics, training_data=data)
    (tmp_path / "card.md").write_text(model_card(manifest, ["en", "fr"]))
    card = ModelCard.load(tmp_path / "card.md")
    its = card.data
    assert (its.language, its.license, its.license_name) == (["en", "fr"], "other", "research-and-education-only")
    assert (its.pipeline_tag, its.datasets, its.metrics) == ("image-to-text", ["flickr8k"], ["cider", "bleu"])
    (cider, bleu) = its.eval_results
    assert (its.model_name, cider.metric_name, cider.metric_value) == ("a: 'b'", "CIDEr", 0.5219)
    assert (bleu.metric_type, bleu.dataset_name, bleu.dataset_split, bleu.task_type) == (
        *("bleu", "flickr8k", "dev", "image-to-text"),
    )
    assert card.text.lstrip().startswith("# a: 'b'\n")


def test_what_is_not_known_is_not_in_it(encoder):
    data = {"source": "our photos", "train_images": 3, "train_captions": 12}
    card = model_card(tiny_manifest(encoder, metrics={}, training_data=data), ["de"])
    record = yaml.safe_load(card.split("---\n")[1])
    assert record.keys() == {"language", "library_name", "pipeline_tag", "tags"}
