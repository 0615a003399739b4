"""The memory by itself: which caption is recalled, and what a description is made of with it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from lcm.captioning.description import Description
from lcm.captioning.memory import Memory, Recalled, Remembered, describe


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


def english(number: int, caption: str) -> Remembered:
    return Remembered(number, caption, True)


def foreign(number: int, caption: str) -> Remembered:
    return Remembered(number, caption, False)


@pytest.fixture
def memory() -> Memory:
    return Memory()


def signatures(copies: dict[str, list[str]], encoder: str = "one") -> SimpleNamespace:
    """What finds given copies, and notes what it is asked to remove."""
    removed = []
    return SimpleNamespace(encoder=encoder, copies=copies.get, remove=removed.extend, removed=removed)


def test_the_highest_number_is_the_newest_in_whichever_order_they_come(memory):
    for number in (3, 1, 2):
        memory.learn("a", english(number, f"caption {number}"))
    assert memory.recall("a") == Recalled(english(3, "caption 3"), "caption 3")
    memory.forget([3, 99])
    assert memory.recall("a").newest.number == 2
    memory.forget([1, 2])
    assert memory.recall("a") is None
    memory.forget([1, 2, 3])


def test_learning_the_same_again_changes_nothing(memory):
    memory.learn("a", english(1, "one"))
    memory.learn("a", english(1, "one"))
    memory.forget([1])
    assert memory.recall("a") is None


def test_the_newest_english_caption_is_kept_apart(memory):
    memory.learn("a", english(1, "a dog"))
    memory.learn("a", foreign(2, "ein Hund"))
    assert memory.recall("a") == Recalled(foreign(2, "ein Hund"), "a dog")
    memory.forget([1])
    assert memory.recall("a") == Recalled(foreign(2, "ein Hund"), None)


def test_copies_share_the_newest(memory):
    memory.use(signatures({"seen": ["a", "b"]}))
    memory.learn("a", english(1, "one"))
    memory.learn("b", english(2, "two"))
    memory.learn("c", english(3, "three"))
    assert memory.recall("unknown", "seen", "one").newest.number == 2
    assert memory.recall("a", "seen", "one").newest.number == 2
    assert memory.recall("unknown", "seen", "of another encoder") is None
    assert memory.recall("a", "seen", "of another encoder").newest.number == 1


def test_a_signature_goes_with_the_last_caption_of_its_image(memory):
    used = signatures({})
    memory.use(used)
    memory.learn("a", english(1, "one"))
    memory.learn("a", english(2, "two"))
    memory.forget([1])
    assert used.removed == []
    memory.forget([2])
    assert used.removed == ["a"]


def test_signatures_that_belong_to_no_contribution_are_forgotten(memory):
    memory.learn("a", english(1, "one"))
    used = signatures({})
    memory.use(used, kept=["a", "b"])
    assert used.removed == ["b"]


def test_an_image_that_was_revoked_meanwhile_gets_no_signature(memory):
    used = signatures({})
    used.add = lambda *_: pytest.fail("it is gone")
    memory.use(used)
    memory.sign("a", "seen", used.encoder)


def test_what_another_encoder_has_seen_gets_no_signature(memory):
    """The model was replaced between the look and the signature."""
    used, added = signatures({}), []
    used.add = lambda *signature: added.append(signature)
    memory.learn("a", english(1, "one"))
    memory.use(used)
    memory.sign("a", "seen by the former", "of another encoder")
    assert added == []
    memory.sign("a", "seen by this one", used.encoder)
    assert added == [("a", "seen by this one")]


def recall(*remembered: Remembered):
    """Return what recalls these of any image."""
    words = [one.caption for one in remembered if one.is_english]
    return lambda *_: Recalled(remembered[-1], words[-1] if words else None) if remembered else None


def test_without_a_contribution_the_captioner_is_asked_alone():
    assert describe(Fake(), recall(), b"x", 1, ["ball"]) == Fake().describe(b"x", 1, ["ball"])


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
