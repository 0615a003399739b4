"""The main job: the preset `sample` as `make run` runs it."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from lcm.captioning.bundle import Manifest, verify
from lcm.captioning.captioner import load_captioner
from lcm.data.sample import generate
from lcm.paths import RunDir, home
from lcm.pipeline import load_preset, run

NOTEBOOKS = ("01_prepare", "02_train", "03_evaluate", "04_compare")


@pytest.fixture(scope="module")
def sample_run(tmp_path_factory) -> RunDir:
    """The embedded default, whole: generated images, real encoder, trained and evaluated."""
    return run(load_preset("sample"), {}, tmp_path_factory.mktemp("runs") / "sample")


def results_of(folder: RunDir) -> list[dict]:
    return [json.loads(line) for line in folder.results.read_text().splitlines()]


def test_the_sample_is_captioned_as_people_would(sample_run):
    """Held-out combinations of colour and shape: WER at most 0.15, and far worse with the images shuffled."""
    metrics = sample_run.read_metrics()
    assert metrics["wer_best"] <= 0.15
    assert metrics["wer_best_shuffled"] >= metrics["wer_best"] + 0.25
    captions = [result["caption"] for result in results_of(sample_run)]
    assert all(captions)
    assert not any(re.search(r"<\w+>", caption) for caption in captions), "a reserved word"


def test_metrics_are_flat_numbers_and_strings(sample_run):
    metrics = sample_run.read_metrics()
    assert all(value is None or isinstance(value, int | float | str) for value in metrics.values())
    captions = ("cider", "bleu_1", "bleu_4", "rouge_l", "wer", "wer_best", "length_ratio")
    tags = ("tagger_loss", "tag_map", "tag_precision_5", "recall_1_image_to_text", "recall_10_text_to_image")
    for name in (*captions, *tags):
        assert isinstance(metrics[name], float), name
    assert metrics["meteor"] is not None or metrics["meteor_reason"]
    assert (metrics["split"], metrics["data_source"]) == ("dev", "sample")
    assert metrics["generated_data"] == 1, "or the gate would publish what was trained on it"


def test_a_run_leaves_notebooks_reports_and_figures(sample_run):
    for notebook in NOTEBOOKS:
        executed = json.loads((sample_run.path / f"{notebook}.ipynb").read_text())
        assert all(cell.get("execution_count") for cell in executed["cells"] if cell["cell_type"] == "code")
        assert "<html" in (sample_run.path / f"{notebook}.html").read_text()
    page = (sample_run.path / "02_train.html").read_text()
    assert "word_embedding" in page, "the model's layers"
    assert "Total params" in page
    for figure in ("learning_curves", "caption_lengths", "comparison"):
        with Image.open(sample_run.figures / f"{figure}.png") as image:
            assert min(image.size) > 200


def test_the_bundle_knows_its_data_and_says_what_was_evaluated(sample_run):
    manifest, metrics = Manifest.load(sample_run.bundle), sample_run.read_metrics()
    verify(sample_run.bundle, manifest)
    assert manifest.metrics["cider"] == metrics["cider"]
    assert manifest.training_data["source"] == "sample"
    assert manifest.training_data["train_images"] == metrics["train_images"]
    assert f"{metrics['cider']:.3f}" in (sample_run.bundle / "MODEL_CARD.md").read_text()
    captioner = load_captioner(sample_run.bundle)
    for result in results_of(sample_run)[:5]:
        assert captioner.describe(result["path"]).caption == result["caption"]


def test_the_trained_model_is_better_than_the_shipped_one_and_the_nearest_image(sample_run):
    """Of scenes it has learned from, against a model of photos; and things in new places have no near neighbour."""
    record, metrics = json.loads((sample_run.path / "comparison.json").read_text()), sample_run.read_metrics()
    models = record["models"]
    assert list(models) == ["trained", "shipped", "nearest"]
    others = models["shipped"]["wer_best_low"], models["nearest"]["wer_best_low"]
    assert models["trained"]["wer_best_high"] < min(others)
    assert models["trained"]["cider"] == pytest.approx(metrics["cider"], abs=5e-3)
    assert metrics["best_by_wer"] == "trained"
    assert metrics["verdict"] == "better", metrics["verdict_text"]
    assert (record["data"], record["split"], record["not_run"]) == ("sample", "dev", {})


def test_the_sample_lies_where_raw_data_do(sample_run):
    assert generate(home() / "raw" / "sample").is_dir()
    paths = {json.loads(line)["path"] for line in sample_run.dataset.read_text().splitlines()}
    assert all(path.startswith(str(home() / "raw" / "sample")) for path in paths)
    assert np.load(sample_run.embedding).shape == (sample_run.read_metrics()["vocabulary_size"], 50)
