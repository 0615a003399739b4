"""The sides of encoding and answering that are timed; no speed is asserted, speeds belong into the benchmark."""

import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcm.benchmark import answer_parts, encoding, original, process, serving
from lcm.captioning.captioner import load_captioner
from lcm.errors import DataError
from lcm.features.cache import open_store
from lcm.features.encoders import load_encoder
from lcm.paths import cache_dir

TINY_CLIP = {
    "text_config": {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1},
    "vision_config": {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_attention_heads": 1,
        "num_hidden_layers": 1,
        "image_size": 16,
        "patch_size": 8,
    },
    "projection_dim": 4,
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0).integers(0, 256, (5, 40, 60, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return sorted(folder.iterdir())


def test_the_cache_is_filled_anew_each_time_and_the_own_one_is_left_alone(photos):
    encoder = load_encoder("efficientnet_lite0", "random", threads=1)
    before, folder = len(open_store(encoder.identity, "pooled").rows([])[0]), cache_dir()
    assert encoding.fill_cache(photos, encoder) == encoding.fill_cache(photos, encoder) == 5
    assert cache_dir() == folder
    assert len(open_store(encoder.identity, "pooled").rows([])[0]) == before


def test_pictures_are_read_and_encoded_in_parts(photos):
    encoder = load_encoder("efficientnet_lite0", "random", threads=1)
    pictures = np.zeros((5, 224, 224, 3), np.uint8)
    assert encoding.encode_parts(pictures, encoder, 2, 2) == 5
    assert encoding.read_whole(photos[0], 16).shape == (16, 16, 3)
    assert encoding.in_parts(photos, partial(encoding.read_whole, size=16), 2) == 5


def test_no_photos_are_refused():
    with pytest.raises(DataError, match="no images to encode"):
        encoding.ways([])
    with pytest.raises(DataError, match="no images to describe"):
        serving.time_answers({"ours": (print, [])}, 1)


def test_answers_are_timed_in_turn_after_a_warm_up_and_no_photo_counts_twice():
    asked = []

    def answer(photo: str) -> None:
        asked.append(photo)
        time.sleep(0.01)

    latencies = serving.time_answers({"ours": (answer, "abcde"), "theirs": (answer, "xyz")}, rounds=2)
    assert "".join(asked) == "abd" + "xy" + "ace" + "xz"
    assert [len(times) for times in latencies.seconds.values()] == [4, 2]
    assert latencies.ms("ours") >= 10
    assert latencies.ms("ours", 0.95) >= latencies.ms("ours")
    assert latencies.per_second("theirs") <= 100


def test_clients_share_a_captioner_and_too_few_photos_are_refused(photos):
    with pytest.raises(DataError, match="5 images are too few for 2 rounds of 4 clients"):
        serving.throughput(photos, 1)
    rates = serving.throughput(photos * 2, 1).per_second
    assert list(rates) == ["4 at once", "2 at once", "1 at once"]
    assert all(rate > 0 for (rate,) in rates.values())


def test_the_parts_of_an_answer_are_all_there(photos):
    seconds = answer_parts.measure(photos[:3])
    assert list(seconds) == [
        *("reading the photo", "encoding it", "reading the grid", "beam search", "choosing a caption", "tags")
    ]
    assert all(len(each) == 2 and min(each) > 0 for each in seconds.values())


def test_the_parts_of_an_answer_come_to_the_captioner_s_caption(photos):
    parts = answer_parts.Parts()
    chosen = []
    parts._tags = lambda _pooled, caption: chosen.append(caption)
    parts.time(photos[0])
    assert chosen == [load_captioner().describe(photos[0], samples=0).caption]


def test_the_original_s_way_answers(photos):
    service = original.Original(TINY_CLIP, features=3)
    written = service.caption(photos[0])
    assert len(written) == original.WORDS
    assert all(0 <= word < original.VOCABULARY for word in written)
    scores = service.tags(photos[0])
    assert scores.shape == (original.TAGS,)
    assert scores.sum() == pytest.approx(1, abs=1e-5)


def test_a_first_answer_is_timed_in_a_process_of_its_own(photos):
    ran = process.run_python("-m", "lcm.benchmark.serving", str(photos[0]))
    assert 0 < ran.said["answer_seconds"] < ran.seconds
    assert ran.peak_mb > 50
