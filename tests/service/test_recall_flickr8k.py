"""Real photos: copies of contributed ones are found, other ones never. reports/memory.md has all 6,000."""

import hashlib
from types import SimpleNamespace

import pytest
from werkzeug.datastructures import Accept

from lcm.captioning.captioner import load_captioner
from lcm.contributions.duplicates import Signatures
from lcm.contributions.store import ContributionStore
from lcm.service.model_loader import Model
from lcm.service.recall import Recall
from lcm.service.schemas import DescribeRequest, Wish
from tests.fakes.altered import CROPPED, RESIZED, SAVED_ANEW, alter

COUNT = 80
ANY = Wish("", Accept(), "en")


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


@pytest.mark.parametrize("how", [None, "corner"])
def test_the_description_of_a_found_photo(captioner, contributed, how, tmp_path):
    store = ContributionStore(tmp_path)
    recall, photo = Recall(SimpleNamespace(model=Model(captioner)), store), [*contributed.values()][5]
    data = alter(photo, how) if how else photo
    plain, asked = captioner.describe(data), DescribeRequest.model_construct(image=data)
    assert recall.describe(captioner, asked, "en", ANY) == plain, "what was seen before says the same"
    store.add(photo, "Our mayor opens the new skatepark")
    recall.learn(photo)
    found = recall.describe(captioner, asked, "en", ANY)
    assert found.caption == found.english_captions[0] == "Our mayor opens the new skatepark"
    assert found.english_captions[1:] == plain.english_captions[: len(found.english_captions) - 1]
    assert {word for word, _ in found.tags} <= {"mayor", "new", "skatepark"}
    assert sum(score for _, score in found.tags) == pytest.approx(1)
