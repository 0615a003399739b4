"""Placement: nine to train for each one to test, copies where their original is, nothing that the base holds out."""

from dataclasses import replace

import pytest

from lcm.data.dataset import ReadReport
from lcm.data.splits import BY_HASH
from lcm.errors import DataError
from lcm.retraining.placement import HELD_OUT, TEST, TRAIN, Placement, keep_copies_together, place_images
from tests.fakes.altered import alter
from tests.fakes.tiny_retraining import (
    BASE,
    SmallStore,
    base_dataset,
    encode,
    scene,
    use_colour_encoder,
)

SPLITS = {"one.png": "train", "two.png": "train", "held.png": "dev", "test.png": "test", "none.png": ""}
ALTERED = ("to a half", "corner")  # of the ways in altered.py


class Place:
    """A store beside a base data set."""

    def __init__(self, folder):
        self.dataset = base_dataset(folder / "base", SPLITS)
        self.store = SmallStore(folder / "store")

    def send(self, *pictures: bytes) -> list[int]:
        return [self.store.keep(picture, "a picture") for picture in pictures]

    def placed(self, earlier=None) -> Placement:
        images = self.store.training_images()
        encoded = encode(self.dataset.paths | {image.image_id: image.path for image in images})
        return place_images(images, self.store.revoked(), self.dataset, encoded, earlier or {})


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    use_colour_encoder(tmp_path, monkeypatch)
    return Place(tmp_path)


def every_tenth(count: int) -> list[str]:
    return [TEST if number % 10 == 0 else TRAIN for number in range(1, count + 1)]


def test_nine_train_for_each_one_that_tests_in_the_order_of_arrival(place):
    place.store.send(range(40))
    placed = place.placed()
    assert list(placed.splits) == place.store.names
    assert list(placed.splits.values()) == every_tenth(40)
    assert placed.copies == {}


@pytest.mark.parametrize("how", ALTERED)
def test_f20_a_copy_goes_where_its_original_is_and_takes_no_place(place, how):
    numbers = place.store.send(range(12))
    of_train, of_test = place.send(alter(scene(3), how), alter(scene(9), how))
    place.store.send(range(12, 20))
    placed = place.placed()
    assert placed.splits[place.store.name(of_train)] == TRAIN
    assert placed.splits[place.store.name(of_test)] == TEST
    assert placed.copies == {
        place.store.name(of_train): place.store.name(numbers[3]),
        place.store.name(of_test): place.store.name(numbers[9]),
    }
    distinct = [split for name, split in placed.splits.items() if name not in placed.copies]
    assert distinct == every_tenth(20)


@pytest.mark.parametrize("how", [None, *ALTERED])
@pytest.mark.parametrize("held_out", ["held.png", "test.png"])
def test_j04_a_copy_of_what_the_base_holds_out_takes_no_part(place, how, held_out):
    picture = scene(BASE + list(SPLITS).index(held_out))
    (number,) = place.send(alter(picture, how) if how else picture)
    place.store.send(range(10))
    placed = place.placed()
    assert placed.copies == {place.store.name(number): held_out}
    assert list(placed.splits.values()) == [HELD_OUT, *every_tenth(10)]
    assert list(placed.splits.values()).count(HELD_OUT) == 1


def test_a_copy_of_such_a_copy_takes_no_part_either(place):
    chain = [scene(BASE + 2)]
    for _ in range(4):  # the last shows two thirds of the first, of which it is no copy any more
        chain.append(alter(chain[-1], "centre"))
    sent = place.send(*chain[1:])
    assert list(place.placed().splits.values()).count(HELD_OUT) == 4
    for between in sent[1:3]:
        place.store.revoke(between, "asked")
    assert list(place.placed().splits.values()) == [HELD_OUT, TRAIN], "nothing links the last to the first now"


@pytest.mark.parametrize("how", [None, "corner"])
def test_a_copy_of_what_trains_in_the_base_trains(place, how):
    place.store.send(range(9))
    picture = scene(BASE)
    (number,) = place.send(alter(picture, how) if how else picture)
    place.store.send([9])
    placed = place.placed()
    assert placed.copies == {place.store.name(number): "one.png"}
    assert placed.splits[place.store.name(number)] == TRAIN
    assert list(placed.splits.values())[-1] == TEST, "the tenth distinct image"


@pytest.mark.parametrize("twin", ["png", "jpeg 75"])
def test_what_the_base_has_in_two_splits_is_held_out(tmp_path, place, twin):
    picture = scene(5)
    pictures = {"a.png": picture if twin == "png" else alter(picture, twin), "z.png": picture}
    place.dataset = base_dataset(tmp_path / "twins", {"a.png": "train", "z.png": "dev"}, pictures)
    (number,) = place.send(pictures["a.png"] if twin == "png" else alter(pictures["a.png"], "jpeg 75"))
    assert place.placed().splits == {place.store.name(number): HELD_OUT}


# Copies in the base


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("how", ["jpeg 30", "webp 70", "to a half", "to the double"])
@pytest.mark.parametrize(("rule", "split"), [("official lists", "test"), (f"{BY_HASH}; …", "train")])
def test_copies_that_were_saved_anew_share_a_split(tmp_path, how, rule, split):
    wanted = {"first.png": split, "a.png": "train", "b.png": "dev", "copy.jpg": split, "c.png": "train"}
    given = wanted | {"first.png": "train", "copy.jpg": "test"}
    copy = alter(scene(BASE), how)
    dataset = base_dataset(tmp_path / "copies", given, {"copy.jpg": copy})
    dataset = replace(dataset, report=ReadReport(split_rule=rule, moved_copies=("earlier.jpg",)))
    kept = keep_copies_together(dataset, encode(dataset.paths))
    assert {image.image_id: image.split for image in kept.images} == wanted
    assert kept.report.copies == ("copy.jpg",)
    assert kept.report.moved_copies == ("earlier.jpg", "first.png" if split == "test" else "copy.jpg")


@pytest.mark.usefixtures("place")
def test_copies_of_copies_share_a_split_too_and_two_images_must_be_left_to_train(tmp_path):
    picture = scene(BASE)
    chain = {"a.png": alter(picture, "jpeg 75"), "b.png": alter(picture, "to a half"), "c.png": picture}
    given = dict.fromkeys(chain, "train") | {"c.png": "test", "d.png": "train", "none.png": ""}
    dataset = base_dataset(tmp_path / "chain", given, chain)
    with pytest.raises(DataError, match="fewer than two train images"):
        keep_copies_together(dataset, encode(dataset.paths))
    dataset = base_dataset(tmp_path / "longer", given | {"e.png": "train"}, chain)
    kept = keep_copies_together(dataset, encode(dataset.paths))
    assert [image.split for image in kept.images] == ["test", "test", "test", "train", "", "train"]


# Revoked, unreadable


@pytest.mark.parametrize("revoked", [1, 10, 11, 30])
def test_a_revocation_moves_no_other_image(place, revoked):
    place.store.send(range(31))
    before = place.placed().splits
    gone = place.store.name(revoked)
    place.store.revoke(revoked, "asked")
    after = place.placed().splits
    assert after == {name: split for name, split in before.items() if name != gone}


def test_an_image_keeps_its_place_when_its_first_caption_is_revoked(place):
    (first,) = place.store.send([0], "first")
    place.store.send(range(1, 21))
    place.store.send([0], "second")
    before = place.placed().splits
    place.store.revoke(first, "asked")
    assert place.placed().splits == before


def test_a_copy_of_what_is_held_out_takes_no_part_whatever_it_did_before(place):
    (number,) = place.send(alter(scene(BASE + 2), "corner"))
    name = place.store.name(number)
    assert place.placed({name: TRAIN}).splits == {name: HELD_OUT}


def test_j05_an_unreadable_image_keeps_its_place(place):
    place.store.send(range(12))
    before = place.placed().splits
    for image in place.store.training_images()[4:6]:
        image.path.unlink()
    place.store.damage(5)
    place.store.damage(6)
    gone = place.store.names[4:6]
    assert place.placed().splits == {name: split for name, split in before.items() if name not in gone}
