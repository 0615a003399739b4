"""The benchmarks run, and all ways to train learn the same; no speed is asserted, speeds belong into the report."""

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import adapting, common, encoding, growth, installed, serving, training
from benchmarks.__main__ import main
from benchmarks.original import TAGS, VOCABULARY, WORDS, OriginalService
from lcm.data.dataset import LabelledImage
from lcm.data.text import build_vocabulary
from lcm.features.cache import LabelledFeatures
from lcm.features.encoders import load_encoder
from lcm.paths import cache_dir

CAPTIONS = (("a dog", "a brown dog runs"), ("two cats sleep on a red sofa", "cats"), ("a boat", "one white boat"))
TOWER = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1}
TINY_CLIP = {
    "text_config": TOWER,
    "vision_config": TOWER | {"image_size": 16, "patch_size": 8},
    "projection_dim": 4,
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0).integers(0, 256, (8, 40, 60, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return sorted(folder.iterdir())


def test_sides_are_timed_in_turn_after_a_warm_up_and_each_goes_first(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def side(name: str, done: int):
        def work() -> int:
            calls.append(name)
            now[0] += 0.25
            return done

        return work

    rates = common.time_in_turn({"ours": side("ours", 10), "theirs": side("theirs", 1)}, rounds=2)
    assert calls == ["ours", "theirs", "ours", "theirs", "theirs", "ours"]
    assert rates.per_second == {"ours": [40.0, 40.0], "theirs": [4.0, 4.0]}
    assert "| ours | 40.0 | 40.0 to 40.0 | 10.0 (10.0 to 10.0) |" in rates.as_table("images/s")


def test_all_ways_to_train_are_timed_and_learn_the_same(monkeypatch):
    sizes = {"BATCH_SIZE": 6, "STEPS": 2, "OTHER_STEPS": 1, "REINFORCED": 2, "GRID_POSITIONS": 3, "LOSS_STEPS": 3}
    for name, size in sizes.items():
        monkeypatch.setattr(training, name, size)
    images = [LabelledImage(str(at), Path(), "train", CAPTIONS[at % 3]) for at in range(15)]
    features = np.random.default_rng(0).normal(size=(15, 4)).astype(np.float32)
    words = build_vocabulary({"en": [text for image in images for text in image.captions]}, 1)
    vectors = np.random.default_rng(1).normal(size=(len(words), 5)).astype(np.float32)
    labelled = LabelledFeatures(images, np.arange(15), features)
    losses = training.compare_losses(labelled, words, vectors, steps=3)
    assert losses["lcm"][-1] < losses["lcm"][0]
    np.testing.assert_allclose(losses["Keras"], losses["lcm"], atol=1e-5)
    np.testing.assert_allclose(losses["the original"], losses["lcm"], atol=1e-5)
    section = training.section(labelled, words, vectors, rounds=1)
    assert section.count("| Keras compile and fit |") == 2
    assert "lcm, self-critical stage" in section


def test_encoding_leaves_the_own_cache_alone(photos):
    encoder, before = load_encoder("efficientnet_lite0", "random", threads=1), cache_dir()
    assert encoding.fill_cache(photos, encoder) == encoding.fill_cache(photos, encoder) == 8
    assert cache_dir() == before
    assert encoding.read_all(photos, 16) == encoding.keras_one_by_one(photos)() == 8


def test_answers_are_timed_and_no_photo_counts_twice(photos, monkeypatch):
    asked = []
    seconds = serving.time_answers({"ours": (asked.append, "abcde"), "theirs": (asked.append, "xyz")}, rounds=2)
    assert "".join(asked) == "abd" + "xy" + "ace" + "xz"
    assert [len(times) for times in seconds.values()] == [4, 2]
    first = common.run_module("benchmarks.serving", str(photos[0]))
    assert 0 < first.said["answer_seconds"] < first.seconds
    monkeypatch.setattr(serving, "run_module", lambda *_: first)
    section = serving.section(photos, 1, service := OriginalService(TINY_CLIP))
    assert section.count("| the original's") == 3
    assert "| 4 at once |" in section
    written, scores = service.caption(photos[0]), service.tags(photos[0])
    assert len(written) == WORDS
    assert all(0 <= word < VOCABULARY for word in written)
    assert scores.shape == (TAGS,)
    assert scores.sum() == pytest.approx(1, abs=1e-5)


def test_the_report_tells_what_growth_and_an_installation_cost(tmp_path, monkeypatch):
    monkeypatch.setattr(installed, "STATEMENTS", {"import lcm": "import lcm", "python": "pass"})
    monkeypatch.setattr(growth, "PARTS", {name: growth.PARTS[name] for name in ("prepare", "prepare_again")})
    options = ["--largest", "60", "--rounds", "1", "--out", str(tmp_path / "benchmark.md")]
    main(["growth", "installed", *options])
    report = (tmp_path / "benchmark.md").read_text()
    rows = [line.split("|")[1].strip() for line in report.splitlines() if line.startswith("| ")]
    assert set(growth.PARTS) <= {row.replace(" ", "_") for row in rows}
    assert "## Installation" in report
    assert "cores" in report.splitlines()[2]
    with pytest.raises(SystemExit):
        main(["speed"])


def test_what_adapting_changes_is_said_of_gains_losses_and_what_was_not_measured(tmp_path):
    """Hand-made: 0.5 before; 4 % less is no change, 10 % less and 20 % more are said; a time that is empty."""
    measured = tmp_path / "adapting.csv"
    measured.write_text(
        "learned,photos,model,measured_on,images,cider,low,high,seconds\n"
        ",0,shipped,COCO,475,0.500,0.400,0.600,\n,0,shipped,Flickr8k,300,0.700,0.600,0.800,\n"
        "COCO,20,adapt,COCO,475,0.480,0.380,0.580,18\nCOCO,20,scratch,COCO,475,0.100,0.090,0.110,30\n"
        "COCO,20,adapt,Flickr8k,300,0.690,0.590,0.790,\n"
        "COCO,300,adapt,COCO,475,0.450,0.350,0.550,\nCOCO,1000,adapt,COCO,475,0.600,0.500,0.700,119\n"
    )
    first, *lines = adapting.in_words(figures := adapting.read(measured))
    assert "475 photos of another world (COCO)" in first
    assert "0.500 now" in first
    assert [line.split("that world")[1] for line in lines] == [
        ", in 18 s: no change to notice",
        ": 10 % worse",
        ", in 2.0 min: 20 % better",
    ]
    rows = adapting.table(figures, "COCO").splitlines()
    assert rows[0].endswith("| nearest photo | `adapt`, on 300 of Flickr8k |")
    assert rows[2] == "| none: the shipped model | 0.500 (0.400 to 0.600) | – | – | – | 0.700 (0.600 to 0.800) |"
    assert rows[3] == "| 20 | 0.480 (0.380 to 0.580) | 18 s | 0.100 | – | 0.690 (0.590 to 0.790) |"
    assert rows[4] == "| 300 | 0.450 (0.350 to 0.550) | – | – | – | – |"
