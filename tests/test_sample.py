"""The main job: the preset `sample` as `make run` runs it."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

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


# The whole sample


def test_the_sample_is_captioned_as_people_would(sample_run):
    """Held-out combinations of colour and shape: WER at most 0.15, and far worse with the images shuffled."""
    metrics = sample_run.read_metrics()
    assert metrics["wer_best"] <= 0.15
    assert metrics["wer_best_shuffled"] >= metrics["wer_best"] + 0.25


def test_metrics_are_flat_numbers_and_strings(sample_run):
    metrics = sample_run.read_metrics()
    assert all(value is None or isinstance(value, int | float | str) for value in metrics.values())
    captions = ("cider", "bleu_1", "bleu_4", "rouge_l", "wer", "wer_best", "length_ratio")
    tags = ("tagger_loss", "tag_map", "tag_precision_5", "recall_1_image_to_text", "recall_10_text_to_image")
    for name in (*captions, *tags):
        assert isinstance(metrics[name], float), name
    assert metrics["meteor"] is not None or metrics["meteor_reason"]
    assert metrics["split"] == "dev"
    assert metrics["data_source"] == "sample"
    assert metrics["generated_data"] == 1, "or the gate would publish what was trained on it"


def test_a_run_leaves_notebooks_html_and_figures(sample_run):
    for notebook in NOTEBOOKS:
        executed = json.loads((sample_run.path / f"{notebook}.ipynb").read_text())
        assert all(cell.get("execution_count") for cell in executed["cells"] if cell["cell_type"] == "code")
        assert "<html" in (sample_run.path / f"{notebook}.html").read_text()
    for figure in ("learning_curves", "caption_lengths", "word_frequencies", "comparison"):
        with Image.open(sample_run.figures / f"{figure}.png") as image:
            assert min(image.size) > 200


def test_the_training_notebook_shows_the_model(sample_run):
    html = (sample_run.path / "02_train.html").read_text()
    assert "word_embedding" in html
    assert "Total params" in html


def test_the_bundle_knows_its_data_and_metrics(sample_run):
    manifest = Manifest.load(sample_run.bundle)
    verify(sample_run.bundle, manifest)
    metrics = sample_run.read_metrics()
    assert manifest.metrics["cider"] == metrics["cider"]
    assert manifest.training_data["source"] == "sample"
    assert manifest.training_data["train_images"] == metrics["train_images"]
    assert f"{metrics['cider']:.3f}" in (sample_run.bundle / "MODEL_CARD.md").read_text()


def test_the_run_s_captioner_says_what_03_evaluate_wrote(sample_run):
    results = [json.loads(line) for line in sample_run.results.read_text().splitlines()]
    captioner = load_captioner(sample_run.bundle)
    for result in results[:5]:
        assert captioner.describe(result["path"]).caption == result["caption"]


def test_captions_hold_no_reserved_word(sample_run):
    captions = [json.loads(line)["caption"] for line in sample_run.results.read_text().splitlines()]
    assert all(captions)
    assert not any(re.search(r"<\w+>", caption) for caption in captions)


# The comparison


def test_the_trained_model_is_better_than_the_shipped_one_and_the_nearest_image(sample_run):
    """Of scenes it has learned from, against a model of photos; and things in new places have no near neighbour."""
    record = json.loads((sample_run.path / "comparison.json").read_text())
    models = record["models"]
    assert list(models) == ["trained", "shipped", "nearest"]
    assert models["trained"]["wer_high"] < min(models["shipped"]["wer_low"], models["nearest"]["wer_low"])
    metrics = sample_run.read_metrics()
    assert models["trained"]["cider"] == pytest.approx(metrics["cider"], abs=5e-3)
    assert metrics["cider_nearest"] == models["nearest"]["cider"]
    assert (record["data"], record["split"], record["not_run"]) == ("sample", "dev", {})


def test_the_report_opens_alone_and_shows_where_they_differ(sample_run):
    report = (sample_run.path / "04_compare.html").read_text()
    assert report.count("<figure") == 12
    assert "<strong>trained</strong> leads with" in report
    assert "run_captioners(" not in report, "the report shows code"
    columns = parquet.read_table(sample_run.path / "comparison.parquet").to_pydict()
    assert len(columns["caption"]) == 3 * sample_run.read_metrics()["images"]


def test_the_sample_lies_where_raw_data_do(sample_run):
    assert generate(home() / "raw" / "sample").is_dir()
    paths = {json.loads(line)["path"] for line in sample_run.dataset.read_text().splitlines()}
    assert all(path.startswith(str(home() / "raw" / "sample")) for path in paths)
    assert np.load(sample_run.embedding).shape == (sample_run.read_metrics()["vocabulary_size"], 50)
