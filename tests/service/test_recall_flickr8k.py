"""Real photos: copies of contributed ones are found, other ones never. reports/memory.md has all 6,000."""

import hashlib

import pytest

from lcm.captioning.captioner import load_captioner
from lcm.contributions.duplicates import Signatures
from lcm.service.recall import Correction, CorrectionIndex, describe
from tests.fakes.altered import CROPPED, RESIZED, SAVED_ANEW, alter

CONTRIBUTED = OTHERS = 80


def read(flickr8k, split: str) -> list[bytes]:
    names = (flickr8k / f"Flickr_8k.{split}Images.txt").read_text().split()
    return [(flickr8k / "images" / name).read_bytes() for name in names[:: len(names) // CONTRIBUTED][:CONTRIBUTED]]


@pytest.fixture(scope="module")
def captioner():
    return load_captioner(threads=1)


@pytest.fixture(scope="module")
def contributed(flickr8k) -> list[bytes]:
    return read(flickr8k, "train")


@pytest.fixture(scope="module")
def memory(captioner, contributed) -> CorrectionIndex:
    """Of the train images, each with its number as its caption."""
    memory = CorrectionIndex()
    memory.use(Signatures(None, captioner.encoder))
    for number, data in enumerate(contributed):
        image = hashlib.sha256(data).hexdigest()
        memory.add(image, Correction(number, f"number {number}", True))
        memory.sign(image, captioner.see(data), captioner.encoder)
    return memory


def numbers(captioner, memory, images) -> list[int | None]:
    """Return whose caption each image gets, by its looks alone."""
    found = (memory.find("", captioner.see(image), captioner.encoder) for image in images)
    return [one.newest.number if one else None for one in found]


def share_found(captioner, memory, contributed, ways) -> float:
    """Return how many of the images are found, each altered in one of some ways; none may be taken for another one."""
    asked = [alter(data, list(ways)[place % len(ways)]) for place, data in enumerate(contributed)]
    found = numbers(captioner, memory, asked)
    assert all(number in (place, None) for place, number in enumerate(found))
    return 1 - found.count(None) / len(found)


def test_contributed_photos_are_found_by_their_looks(captioner, memory, contributed):
    assert numbers(captioner, memory, contributed) == list(range(CONTRIBUTED))
    assert share_found(captioner, memory, contributed, SAVED_ANEW | RESIZED) >= 0.99
    assert share_found(captioner, memory, contributed, CROPPED) >= 0.95


def test_no_other_photo_is_taken_for_one(captioner, memory, flickr8k):
    assert numbers(captioner, memory, read(flickr8k, "dev")) == [None] * OTHERS


@pytest.mark.parametrize("how", [None, "corner"])
def test_the_description_of_a_found_photo(captioner, memory, contributed, how):
    data = alter(contributed[5], how) if how else contributed[5]
    memory.add(hashlib.sha256(contributed[5]).hexdigest(), Correction(1000, "Our mayor opens the new skatepark", True))
    plain, found = captioner.describe(data), describe(captioner, memory.find, data, 5, None)
    assert found.caption == found.english_captions[0] == "Our mayor opens the new skatepark"
    assert found.english_captions[1:] == plain.english_captions[: len(found.english_captions) - 1]
    assert {word for word, _ in found.tags} <= {"mayor", "new", "skatepark"}
    assert sum(score for _, score in found.tags) == pytest.approx(1)
    assert len(found.english_captions) <= 6
    assert describe(captioner, lambda *_: None, data, 5, None) == plain, "what was seen before says the same"
    memory.keep(set(range(1000)), last=1000)
