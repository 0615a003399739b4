"""The benchmark's instruments; no speed is asserted, speeds belong into the benchmark."""

import sys
import time

import numpy as np
import pytest

from lcm.benchmark import growth, installed, machine, plots, process, report, serving
from lcm.benchmark.timing import Rates, time_in_turn
from lcm.data.dataset import read_dataset
from lcm.errors import LcmError
from lcm.paths import RunDir


def test_the_ratio_is_of_medians():
    speed = Rates({"ours": (100.0, 300.0, 200.0), "theirs": (10.0, 20.0, 1000.0)})
    assert speed.ratio("ours", "theirs") == 200.0 / 20.0
    assert speed.ratio_spread("ours", "theirs") == (0.2, 15.0)
    assert speed.spread("theirs") == (10.0, 1000.0)
    assert speed.extra_ms("theirs", "ours") == 1000 / 20 - 1000 / 200
    assert speed.as_metrics("training") == {"training_ours_per_second": 200.0, "training_theirs_per_second": 20.0}


@pytest.fixture
def pass_time(monkeypatch):
    """A clock that stands still but for what this function is told to let pass."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_sides_are_timed_in_turn_after_a_warm_up_and_each_goes_first(pass_time):
    calls = []

    def side(name: str, done: int):
        def work() -> int:
            calls.append(name)
            pass_time(0.25)
            return done

        return work

    speed = time_in_turn({"ours": side("ours", 10), "theirs": side("theirs", 1)}, rounds=2)
    assert calls == ["ours", "theirs", "ours", "theirs", "theirs", "ours"]
    assert speed == Rates({"ours": (40.0, 40.0), "theirs": (4.0, 4.0)})


def test_a_process_reports_its_memory_and_what_it_says():
    script = "from lcm.benchmark.process import report; held = bytearray(80_000_000); report(answer=7)"
    ran = process.run_python("-c", script)
    assert ran.said == {"answer": 7}
    assert 80 < ran.peak_mb < 400
    assert ran.seconds > 0


def test_a_process_that_fails_says_why():
    with pytest.raises(LcmError, match="ValueError: no photo"):
        process.run_python("-c", "raise ValueError('no photo')")


def test_the_machine_has_no_name():
    assert f"{machine.os.cpu_count()} cores" in machine.describe()
    assert machine.platform.node() not in machine.describe()


# Growth


def test_generated_folders_are_data_sets_of_different_pictures(tmp_path):
    growth.make_folder(30, tmp_path)
    dataset = read_dataset(tmp_path)
    assert len(dataset.images) == 30
    assert {len(image.captions) for image in dataset.images} == {growth.CAPTIONS}
    assert len({image.path.read_bytes() for image in dataset.images}) == 30


@pytest.mark.parametrize("part", sorted(set(growth.PARTS) - {"prepare_again"}))
def test_every_part_of_growth_runs(part, tmp_path, monkeypatch):
    monkeypatch.setenv("LCM_CACHE", str(tmp_path / "cache"))
    counted, work = growth.PARTS[part](60, tmp_path / "data")
    work()
    assert 0 < counted <= 60
    if part == "prepare":  # a second time, nothing is encoded
        monkeypatch.setattr(growth.NoNetwork, "encode", None)
        _, again = growth.prepare_again(60, tmp_path / "data")
        again()


def test_growth_is_measured_in_processes_of_its_own(monkeypatch):
    monkeypatch.setattr(growth, "PARTS", {"batch": growth.batch})
    (small, large) = growth.measure([10, 20])["batch"]
    assert (small.images, small.counted, large.images) == (10, 10, 20)
    assert small.ms_per_image == 1000 * small.seconds / 10
    assert growth.sizes_up_to(100_000) == [1000, 10_000, 100_000]


# Installation


def test_packages_know_who_needs_them():
    found = {one.name: one for one in installed.packages()}
    assert found["numpy"].is_light
    assert found["numpy"].megabytes > 10
    assert not found["tensorflow-cpu" if "tensorflow-cpu" in found else "tensorflow"].is_light


def test_imports_run_in_fresh_interpreters(monkeypatch):
    monkeypatch.setattr(installed, "STATEMENTS", {"python": "pass", "import lcm": "import lcm"})
    assert set(installed.import_seconds(1).per_second) == {"python", "import lcm"}
    assert "lcm" in sys.modules


# The report


def test_the_report_holds_every_number_and_marks_what_is_missing(tmp_path):
    rates = Rates({"ours": (50.0, 70.0, 60.0), "theirs": (5.0, 6.0, 7.0)})
    losses = report.losses({"ours": [2.0, 1.0], "theirs": [2.0, 1.001]})
    costs = {"batch": [growth.Cost(10, 10, 0.1, 50.0), growth.Cost(20, 20, 0.22, 60.0)]}
    folder = RunDir.at(tmp_path)
    report.save([report.rates("Encoding", "Files.", [rates]), losses, report.growth(costs)], folder)
    text = (tmp_path / "benchmark.md").read_text()
    assert "| ours | 60.0 | 50.0 to 70.0 | 10.0 (8.57 to 11.7) |" in text
    assert "1.0e-03 nats apart" in text
    assert "11.0 (60 MB)" in text
    assert "+10%" in text
    metrics = folder.read_metrics()
    assert metrics["encoding_ours_per_second"] == 60.0
    assert metrics["loss_apart"] == pytest.approx(0.001)
    assert metrics["growth_batch_20_ms"] == pytest.approx(11.0)


def test_the_report_on_answers_tells_their_parts_and_how_good_they_are(tmp_path):
    latencies = serving.Latencies({"caption and tags": [0.02, 0.03, 0.04]})
    clients = Rates({"4 at once": (40.0, 38.0, 41.0)})
    parts = {"encoding it": [0.010, 0.012, 0.011], "beam search": [0.017, 0.016, 0.018]}
    quality = {"cider": 0.6248, "tag_map": 0.353, "tag_map_caption_order": 0.305, "tag_map_upper_bound": 0.49}
    first = {"lcm": process.Ran(0.6, 191.2, {"answer_seconds": 0.27})}
    folder = RunDir.at(tmp_path)
    report.save([report.serving(latencies, first, clients, parts, quality)], folder)
    text = (tmp_path / "benchmark.md").read_text()
    assert "| caption and tags | 30.0 |" in text
    assert "| 4 at once | 40.0 | 38.0 to 41.0 |" in text
    assert "| lcm | 0.60 | 0.27 | 191 |" in text
    assert "CIDEr 0.625" in text
    assert "(benchmark/serving.png)" in text
    assert (tmp_path / "benchmark" / "serving.png").read_bytes().startswith(b"\x89PNG")
    assert folder.read_metrics()["serving_beam_search_ms"] == pytest.approx(17.0)


def test_a_picture_without_anything_measured_says_so():
    assert plots.stacked_parts({}, "Nothing", "ms").axes[0].texts[0].get_text() == "not measured"


def test_parts_of_one_name_have_one_colour_and_small_ones_no_number():
    wholes = {"one": {"products": 60.0, "rest": 40.0}, "other": {"rest": 98.0, "products": 2.0}}
    axes = plots.stacked_parts(wholes, "Parts", "%").axes[0]
    assert [text.get_text() for text in axes.texts] == ["60", "40", "98"]
    bars = [(round(bar.get_width()), bar.get_facecolor()) for bar in axes.patches]
    colours = dict(bars)
    assert colours[60] == colours[2] != colours[40] == colours[98]


def test_numbers_have_three_digits_that_count():
    assert [report._number(one) for one in (None, 0.123, 1.234, 12.34, 1234.5)] == ["", "0.12", "1.23", "12.3", "1,234"]


def test_make_captions_is_the_same_each_time():
    assert growth.make_captions(3) == growth.make_captions(3)
    words = [text.split() for captions in growth.make_captions(50) for text in captions]
    assert np.ptp([len(each) for each in words]) == growth.LENGTHS[1] - 1 - growth.LENGTHS[0]
