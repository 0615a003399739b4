"""The whole loop, end to end, as benchmarks/loop_demo.py shows it."""

from math import inf

from benchmarks.loop_demo import ASKED_AGAIN, show
from lcm.paths import cache_dir


def test_a_model_learns_what_users_send_and_takes_the_old_one_s_place(tmp_path, monkeypatch):
    """250 contributions of a new kind of image: learned at once, retrained, judged, published, taken up, better."""
    monkeypatch.setenv("LCM_CACHE", str(cache_dir()))  # the encoder that other tests have converted
    shown = show(home=tmp_path)
    metrics = shown.metrics
    assert shown.failures == []
    assert shown.learned_at_once == ASKED_AGAIN
    assert metrics["gate"] == "passed", metrics["gate_reason"]
    assert (metrics["contributed_train_images"], metrics["contributed_test_images"]) == (225, 25)
    assert shown.picked_up_s < inf
    assert len(shown.versions) == 2
    assert shown.after["cider"] > shown.before["cider"]
    assert shown.after["wer"] < shown.before["wer"] - 0.1
