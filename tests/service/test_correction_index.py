"""The memory by itself: which caption is recalled, and what a description is made of with it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from lcm.captioning.description import Description
from lcm.service.recall import Correction, CorrectionIndex, Recalled, describe


class Fake:
    """A captioner with three captions, whose tag scorer knows four words."""

    name, tag_scorer = "fake-1", "words"
    known = ("dog", "grass", "ball", "frisbee")

    def describe(self, image, samples=5, labels=None):
        assert isinstance(image, bytes)
        words = [word for word in (labels or ["dog", "grass"]) if word in self.known]
        captions = ("a dog", "a dog on the grass", "two dogs")[: 1 + samples]
        return Description("a dog", captions, tuple((word, 1 / len(words)) for word in words), self.name, 0.5)

    def unknown_labels(self, labels):
        return tuple(label for label in labels if label not in self.known)


def english(number: int, caption: str) -> Correction:
    return Correction(number, caption, True)


def foreign(number: int, caption: str) -> Correction:
    return Correction(number, caption, False)


@pytest.fixture
def index() -> CorrectionIndex:
    return CorrectionIndex()


def signatures(copies: dict[str, list[str]], encoder: str = "one") -> SimpleNamespace:
    """What finds given copies, and notes what it is asked to remove."""
    removed = []
    return SimpleNamespace(encoder=encoder, copies=copies.get, remove=removed.extend, removed=removed)


def test_the_highest_number_is_the_newest_in_whichever_order_they_come(index):
    for number in (3, 1, 2):
        index.add("a", english(number, f"caption {number}"))
    assert index.find("a") == Recalled(english(3, "caption 3"), "caption 3")
    index.keep({1, 2}, last=3)
    assert index.find("a").newest.number == 2
    index.keep(set(), last=1)
    assert index.find("a").newest.number == 2, "what came after the last one read is kept"
    index.keep(set(), last=3)
    assert index.find("a") is None


def test_the_newest_english_caption_is_kept_apart(index):
    index.add("a", english(1, "a dog"))
    index.add("a", foreign(2, "ein Hund"))
    assert index.find("a") == Recalled(foreign(2, "ein Hund"), "a dog")
    index.keep({2}, last=2)
    assert index.find("a") == Recalled(foreign(2, "ein Hund"), None)


def test_copies_share_the_newest(index):
    index.use(signatures({"seen": ["a", "b"]}))
    index.add("a", english(1, "one"))
    index.add("b", english(2, "two"))
    index.add("c", english(3, "three"))
    assert index.find("unknown", "seen", "one").newest.number == 2
    assert index.find("a", "seen", "one").newest.number == 2
    assert index.find("unknown", "seen", "of another encoder") is None
    assert index.find("a", "seen", "of another encoder").newest.number == 1


def test_a_signature_goes_with_the_last_caption_of_its_image(index):
    used = signatures({})
    index.use(used)
    index.add("a", english(1, "one"))
    index.add("a", english(2, "two"))
    index.keep({2}, last=2)
    assert used.removed == []
    index.keep(set(), last=2)
    assert used.removed == ["a"]


def test_signatures_that_belong_to_no_contribution_are_forgotten(index):
    index.add("a", english(1, "one"))
    used = signatures({})
    index.use(used, on_file=["a", "b"])
    assert used.removed == ["b"]


def test_what_another_encoder_has_seen_gets_no_signature(index):
    """The model was replaced between the look and the signature."""
    used, added = signatures({}), []
    used.add = lambda *signature: added.append(signature)
    index.add("a", english(1, "one"))
    index.use(used)
    index.sign("a", "seen by the former", "of another encoder")
    assert added == []
    index.sign("a", "seen by this one", used.encoder)
    assert added == [("a", "seen by this one")]


def recall(*remembered: Correction):
    """Return what recalls these of any image."""
    words = [one.caption for one in remembered if one.is_english]
    return lambda *_: Recalled(remembered[-1], words[-1] if words else None) if remembered else None


def test_with_one_its_caption_and_its_words_are_given():
    found = describe(Fake(), recall(english(7, "A zeppelin with a ball and a frisbee")), b"x", 5, None)
    assert found.caption == found.english_captions[0] == "A zeppelin with a ball and a frisbee"
    assert found.english_captions[1:] == ("a dog", "a dog on the grass", "two dogs")
    assert found.tags == (("ball", 0.5), ("frisbee", 0.5))
    assert (found.model, found.confidence, found.contribution) == ("fake-1", None, 7)


@pytest.mark.parametrize("caption", ["this is it", "a zeppelin", "42", "😀"])
def test_without_words_that_are_known_the_tags_are_the_model_s(caption):
    assert describe(Fake(), recall(english(1, caption)), b"x", 5, None).tags == Fake().describe(b"x").tags


def test_the_model_s_captions_that_say_the_same_are_left_out():
    found = describe(Fake(), recall(english(1, "Two dogs.")), b"x", 5, None)
    assert found.english_captions == ("Two dogs.", "a dog", "a dog on the grass")
    assert describe(Fake(), recall(english(1, "Two dogs.")), b"x", 0, None).english_captions == ("Two dogs.",)


def test_a_foreign_caption_leaves_the_english_ones_to_the_model():
    found = describe(Fake(), recall(foreign(1, "ein ball")), b"x", 1, None)
    said = Fake().describe(b"x", 1)
    assert found == replace(said, caption="ein ball", confidence=None, contribution=1)
