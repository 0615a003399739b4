"""Real photos: copies of contributed ones are found, other ones never. reports/memory.md has all 6,000."""

import hashlib

import numpy as np
import pytest

from lcm.captioning.captioner import load_captioner
from lcm.contributions.duplicates import Signatures, is_same
from lcm.data.images import read_image
from tests.fakes.altered import CROPPED, NEXT, RESIZED, SAVED_ANEW, TOUCHED, alter, in_burst

COUNT = 80


def read(flickr8k, split: str) -> list[bytes]:
    names = (flickr8k / f"Flickr_8k.{split}Images.txt").read_text().split()
    return [(flickr8k / "images" / name).read_bytes() for name in names[:: len(names) // COUNT][:COUNT]]


@pytest.fixture(scope="module")
def captioner():
    return load_captioner(threads=1)


@pytest.fixture(scope="module")
def contributed(flickr8k) -> dict[str, bytes]:
    return {hashlib.sha256(data).hexdigest(): data for data in read(flickr8k, "train")}


def test_contributed_photos_are_found_by_their_looks_and_no_others(captioner, contributed, flickr8k):
    signatures = Signatures(captioner.encoder)
    for image, data in contributed.items():
        signatures.add(image, captioner.see(data))
    for ways, least in ((SAVED_ANEW | RESIZED, 0.99), (CROPPED, 0.95)):
        found = []
        for place, (image, data) in enumerate(contributed.items()):
            found.append(signatures.copies(captioner.see(alter(data, list(ways)[place % len(ways)]))))
            assert found[-1] in ([image], []), "another one"
        assert sum(map(bool, found)) >= least * len(contributed)
    assert [one for data in read(flickr8k, "dev") if (one := signatures.copies(captioner.see(data)))] == []


def test_what_was_made_of_a_photo_is_the_same_one_and_the_next_of_its_burst_is_not(contributed):
    """Of patches and what moves, some cannot be seen: sky within sky."""
    photos = list(contributed.values())
    for ways, least in ((SAVED_ANEW | TOUCHED | RESIZED, 1.0), (CROPPED, 0.97)):
        same = [is_same(alter(photo, list(ways)[place % len(ways)]), photo) for place, photo in enumerate(photos)]
        assert sum(same) >= least * len(same)
    taken = []
    for place, photo in enumerate(photos):
        way = list(NEXT)[place % len(NEXT)]
        first, after = (in_burst(photo, one, photos[place - 1], place) for one in ("first", way))
        changes = np.abs(np.int16(read_image(first, 400)) - read_image(after, 400)).max(-1)
        if is_same(after, first) and (changes > 20).mean() > 0.001:
            taken.append(way)
    assert taken == []
