"""The verdict on a run's model, on captions by hand and on runs of the tiny captioner."""

import pytest

from lcm.captioning.bundle import Bundle
from lcm.captioning.captioner import SHIPPED_BUNDLE
from lcm.data.dataset import Dataset, LabelledImage
from lcm.data.text import RESERVED, Vocabulary
from lcm.evaluation.verdict import BETTER, CONSTANT, NEAREST, RIVALS, SAME, STARTED_FROM, judge, judge_run
from lcm.features.cache import PreparedRun, encode_dataset
from lcm.features.encoders import load_encoder
from lcm.paths import RUN_FOLDER, RunDir, packaged_file
from lcm.registry import DEGENERATE, NOT_MEASURED, WORSE
from tests.fakes.tiny_graphs import make_picture, save_bundle, use_tiny_encoder
from tests.fakes.tiny_versions import save_version

ANIMALS = ("dog", "cat", "horse", "bird", "cow")
PEOPLE = [f"a {animal} stands near a {place}" for animal in ANIMALS for place in ("tree", "lake", "house", "road")]
RIGHT = PEOPLE
HALF = [text if place % 2 else "two men sit on chairs" for place, text in enumerate(PEOPLE)]
WRONG = [f"{count} men sit on chairs" for count in ["two", "three", "four", "five"] * 5]
PARENT = "the shipped model (x)"


def judged(ours, parent, nearest=WRONG, constant=WRONG, **more):
    rivals = {STARTED_FROM: parent, NEAREST: nearest, CONSTANT: constant}
    return judge(ours, [[text] for text in PEOPLE], rivals, PARENT, **more)


@pytest.mark.parametrize(
    ("ours", "parent", "nearest", "outcome", "said"),
    [
        (RIGHT, HALF, WRONG, BETTER, f"Better: above {PARENT}, by more than chance, and below none."),
        (HALF, RIGHT, WRONG, WORSE, f"Worse: below {PARENT}, by more than chance."),
        (HALF, WRONG, RIGHT, WORSE, "Worse: below the nearest training image's caption, by more than chance."),
        (HALF, HALF, WRONG, SAME, f"Not distinguishable: the difference to {PARENT} may be chance."),
    ],
)
def test_a_model_is_better_only_where_it_is_above_its_parent_and_below_nobody(ours, parent, nearest, outcome, said):
    verdict = judged(ours, parent, nearest)
    assert (verdict.outcome, verdict.text.splitlines()[0]) == (outcome, said)
    flat = verdict.as_metrics()
    assert flat["verdict"] == outcome
    for rival in RIVALS:
        assert flat[f"cider_{rival}_low"] <= flat[f"cider_{rival}"] <= flat[f"cider_{rival}_high"]
        assert flat[f"cider_over_{rival}"] == pytest.approx(flat["cider"] - flat[f"cider_{rival}"])
        assert f"{flat[f'cider_{rival}']:.3f} (" in verdict.text
    assert "on 20 held-out images" in verdict.text


def test_degenerate_output_is_named_before_scores_that_may_be_good():
    verdict = judged(RIGHT, WRONG, signs=["all are the same"])
    assert (verdict.outcome, verdict.text.splitlines()[0]) == (DEGENERATE, "Degenerate: all are the same.")
    assert "Not measured" not in verdict.text


def test_of_few_images_no_verdict_follows():
    verdict = judge(RIGHT[:9], [[text] for text in PEOPLE[:9]], {STARTED_FROM: WRONG[:9]}, PARENT, unmeasured="9 of 90")
    assert (verdict.outcome, verdict.text) == (NOT_MEASURED, "Not measured: 9 of 90.")
    metrics = judge([], [], {}, PARENT, ["a sign"], "nothing is held out").as_metrics()
    assert metrics["verdict_text"] == "Degenerate: a sign.\nNot measured against others: nothing is held out."
    assert metrics["cider_nearest"] is None
    assert metrics["cider_nearest_reason"]


def test_no_word_becomes_markup():
    text = judged(RIGHT, WRONG, signs=["such as “<b>a* [x](y)</b>”"]).as_markdown()
    assert text.startswith("**Degenerate: such as “")
    assert not any(mark in text.strip("*").partition("**")[0] for mark in ("<", "[", "`"))


# Whole runs


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Make a run's folder: 3 train images, and `held_out` others of dev, each "a COLOUR square", with two bundles."""
    encoder = use_tiny_encoder(tmp_path, monkeypatch)

    def make(held_out: int, **metrics: str) -> tuple[RunDir, PreparedRun]:
        images = []
        for number in range(3 + held_out):
            colour, split = ("red", "green", "blue")[number % 3], "train" if number < 3 else "dev"
            path = make_picture(tmp_path / f"{number}.png", {"green": "lime"}.get(colour, colour))
            said = f"a {colour} square" if split == "dev" else f"some {colour} things near a square"
            images.append(LabelledImage(path.name, path, split, (said,)))
        dataset, folder = Dataset(tuple(images)), RunDir.at(tmp_path / "run")
        prepared = PreparedRun(dataset, Vocabulary(RESERVED), encode_dataset(dataset, load_encoder("tiny")))
        prepared.save(folder)
        folder.add_metrics(**metrics)
        return folder, prepared

    make.good = save_bundle(tmp_path / "good", encoder, name="good")
    make.bad = save_version(tmp_path / "bad", encoder, "b")  # "ab redb squareb"
    return make


def verdict_on(made: tuple[RunDir, PreparedRun], bundle, captions, split="dev"):
    folder, prepared = made
    return judge_run(folder, prepared, Bundle(bundle), split, captions)


GOOD = [f"a {colour} square" for colour in ("red", "green", "blue")] * 4


def test_a_run_s_model_is_compared_with_the_one_it_started_from(run):
    better = verdict_on(run(12, start_from=str(run.bad)), run.good, GOOD)
    assert better.outcome == BETTER
    assert "above the model that it started from (tiny-b)" in better.text
    assert better.text.endswith(f"\nNext: lcm models publish {RUN_FOLDER} --promote.")
    assert better.numbers["cider_started_from"] == 0 < better.numbers["cider_nearest"] < better.numbers["cider"]

    worse = verdict_on(run(12, start_from=str(run.good)), run.bad, ["ab redb squareb"] * 4 + ["ab blueb squareb"] * 8)
    assert worse.outcome == WORSE
    assert worse.text.endswith("keep the model that it started from (good), add photos and train again. "
                               "lcm models publish takes this one only with --force.")  # fmt: skip


def test_without_a_parent_it_is_the_shipped_model_and_without_held_out_images_training_ones_are_looked_at(run):
    none = verdict_on(run(0), run.good, [])
    assert none.outcome == NOT_MEASURED
    assert none.text.startswith(
        "Not measured: none of 3 images is held out for dev, and a verdict needs 10.\nNext: add"
    )
    assert none.text.endswith("; until then, keep the shipped model.")
    empty = verdict_on(run(1), run.good, [""])
    assert empty.outcome == NOT_MEASURED, "the captions of training images are whole"
    broken = save_version(run.bad.parent / "broken", Bundle(run.good).manifest.encoder, "", max_words=1)
    made = run(0)
    found = verdict_on(made, broken, [])
    assert found.outcome == DEGENERATE
    assert found.text.startswith("Degenerate: of the captions of 3 training images, 3 are empty, break off or repeat")
    assert "lcm run --params adapt -p data_dir photos goes on from the shipped model" in found.text
    trained = verdict_on(run(12), run.good, GOOD[:3], split="train")
    assert trained.text.startswith("Not measured: the model has learned from these images; evaluate with -p split dev.")
    started = verdict_on(run(0, start_from=str(packaged_file(SHIPPED_BUNDLE)), start_version="shipped"), run.good, [])
    assert started.text == none.text, "one name for one model"


def test_photos_show_what_was_said_before_and_after_by_change_and_of_few_all(run):
    """Of 12 squares, "ab redb squareb" and the like, all become right but for the last."""
    made = run(12, start_from=str(run.bad))
    *_, last = made[1].dataset.of("dev")
    said = {card.image: card.lines for card in verdict_on(made, run.good, [*GOOD[:11], "some wall"]).photos}
    assert len(said) == 12
    before, after = said[last.path]
    assert (before.caption, after.caption) == ("ab blueb squareb", "some wall")
    assert before.label == "before: CIDEr 0.00"
    assert after.label == "after: CIDEr 0.00, worst change"
    assert next(iter(said.values()))[1].label.endswith("best change")
    few = verdict_on(run(9, start_from=str(run.bad)), run.good, GOOD[:9]).photos
    assert [[line.label for line in card.lines] for card in few] == [["before", "after"]] * 9, "unscored"
    assert [card.references for card in few[:2]] == [("a red square",), ("a green square",)]
    made = run(0, start_from=str(run.bad))
    none = verdict_on(made, run.good, []).photos
    assert [card.image for card in none] == [image.path for image in made[1].dataset.of("train")]
    assert [line.caption for line in none[0].lines] == ["ab redb squareb", "a red square"]
    assert verdict_on(run(12), run.good, GOOD[:3], split="train").photos == []


def test_where_contributions_take_part_the_gate_decides(run):
    verdict = verdict_on(run(12, start_from=str(run.bad), contributions_new="3"), run.good, GOOD)
    assert verdict.text.endswith("Next: the gate (06_publish) decides whether it is published.")


def test_nobody_is_told_to_publish_what_was_learned_from_the_generated_sample(run):
    text = verdict_on(run(12, start_from=str(run.bad), generated_data=1), run.good, GOOD).text
    assert text.startswith("Better: ")
    assert text.endswith("teaches the shipped model your photos; this one knows generated scenes alone.")
