"""The generated data set: what is planned, what is held out, and what lies on the disk."""

import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from lcm.data import sample
from lcm.data.sample import MANIFEST, PLACES, THINGS, Scene, generate, plan_scenes, write_captions

IMAGES = 60
SPLITS = ("train", "dev", "test")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_rows(folder: Path) -> dict[str, list[str]]:
    """Return the captions of each image, as they stand in captions.tsv."""
    header, *lines = (folder / "captions.tsv").read_text().splitlines()
    assert header == "image\tcaption"
    rows = defaultdict(list)
    for line in lines:
        name, caption = line.split("\t")
        rows[name].append(caption)
    return rows


def read_split(folder: Path, split: str) -> list[str]:
    return (folder / f"{split}Images.txt").read_text().splitlines()


@pytest.fixture(scope="module")
def plan() -> list[Scene]:
    """The scenes of the data set at its default size."""
    return plan_scenes()


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return generate(tmp_path_factory.mktemp("samples") / "sample", images=IMAGES)


# The plan, at its full size, without a picture drawn


def test_a_plan_is_a_matter_of_its_arguments(plan):
    assert plan_scenes() == plan
    assert plan_scenes(seed=1) != plan
    assert len(plan) == len(set(plan)) == sample.IMAGES == 1200


def test_captions_are_plain_english():
    lone = Scene("umbrella", "red", "small", "sea", "tree")
    three = Scene("car", "blue", "three", "snow", "")
    assert write_captions(lone) == [
        "a small red umbrella next to a tree on the sea",
        "there is a red umbrella on the sea",
        "at the water we see one small parasol",
        "a single umbrella next to a tree on the sea",
        "a blue ocean with a small umbrella",
    ]
    assert write_captions(three) == [
        "three blue cars in the snow",
        "there are three blue cars in the snow",
        "on a winter day we see a row of vehicles",
        "several cars in the snow",
        "a snowy plain with three cars",
    ]


def test_train_never_shows_a_held_out_combination(plan):
    combinations = {split: {(scene.thing, scene.place) for scene in plan if scene.split == split} for split in SPLITS}
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not combinations[one] & combinations[other]
    for held_out in (combinations["dev"], combinations["test"]):
        assert Counter(thing for thing, _ in held_out) == dict.fromkeys(THINGS, 1)
        assert {place for _, place in held_out} == set(PLACES)


# The folder


def test_the_folder_holds_images_captions_and_splits(small):
    rows = read_rows(small)
    images = sorted(path.name for path in (small / "images").iterdir())
    assert len(images) == IMAGES
    assert sorted(rows) == images
    assert all(len(captions) == 5 for captions in rows.values())
    names = [name for split in SPLITS for name in read_split(small, split)]
    assert sorted(names) == images  # disjoint, and nothing left over


def test_same_arguments_same_bytes_and_another_seed_others(tmp_path):
    folder = generate(tmp_path / "one", images=12)
    whole = contents(folder)
    assert contents(generate(tmp_path / "same", images=12)) == whole
    assert read_rows(generate(tmp_path / "other", images=12, seed=1)) != read_rows(folder)
    (folder / MANIFEST).unlink()
    (folder / "images" / "0003.jpg").unlink()
    assert contents(generate(folder, images=12)) == whole, "a folder without its manifest is made anew"


def test_an_interruption_leaves_no_half_folder(tmp_path, monkeypatch):
    draw, drawn = sample.draw_scene, []

    def interrupted(**scene):
        drawn.append(scene)
        if len(drawn) == 5:
            raise KeyboardInterrupt
        return draw(**scene)

    monkeypatch.setattr(sample, "draw_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "sample", images=10)
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - hidden leftovers count
