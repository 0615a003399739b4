"""Key words: which words of a caption become candidates for tags, and in which form."""

from pathlib import Path

import pytest

from lcm.data import text
from lcm.data.text import Vocabulary, candidates, content_words, fold, is_content_word

SHIPPED = Path(__file__).resolve().parent.parent / "data" / "models" / "flickr8k" / "vocabulary.txt"


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("Two brown dogs are running through the snow.", ["brown", "dog", "running", "snow"]),
        ("A man in a red shirt stands on a rock .", ["man", "red", "shirt", "stand", "rock"]),
        ("The girl's T-shirt is blue", ["girl", "t-shirt", "blue"]),
        ("Children play while other children watch", ["child", "play", "watch"]),
        ("a little boy in the background of the photo", ["little", "boy"]),
        ("Dogs chase a DOG and another dog", ["dog", "chase"]),
        ("Une chienne à côté d'un café", ["une", "chienne", "à", "côté", "café"]),
        ("женщина с собакой", ["женщина", "с", "собакой"]),
    ],
)
def test_content_words_are_folded_each_once_in_the_order_of_their_appearance(caption, words):
    assert content_words(caption) == words


@pytest.mark.parametrize("caption", ["", " . ", "he is with them", "3 of 10 at 2", "an a 's", "takes pictures"])
def test_a_caption_may_have_no_content_words(caption):
    assert content_words(caption) == []
    assert candidates([caption, "a dog", caption]) == ["dog"]
    assert candidates([caption]) == []


def test_candidates_are_the_words_of_all_captions_those_of_the_first_first():
    captions = ["two dogs run", "a dog runs on grass", "", "the brown dog", "two grasses"]
    assert candidates(captions) == ["dog", "run", "grass", "brown"]
    assert candidates(iter(captions)) == candidates(captions)
    assert candidates([]) == []


@pytest.mark.parametrize(
    ("word", "folded"),
    [
        *[
            ("dogs", "dog"),
            ("dog", "dog"),
            ("men", "man"),
            ("women", "woman"),
            ("children", "child"),
            ("teeth", "tooth"),
        ],
        *[("feet", "foot"), ("geese", "goose"), ("leaves", "leaf"), ("puppies", "puppy"), ("benches", "bench")],
        *[("buses", "bus"), ("bus", "bus"), ("grass", "grass"), ("dress", "dress"), ("dresses", "dress")],
        *[("sheep", "sheep"), ("people", "people"), ("tennis", "tennis"), ("police", "police")],
        *[("glasses", "glasses"), ("glass", "glass"), ("woods", "woods"), ("wood", "wood"), ("pants", "pants")],
        *[("tutus", "tutu"), ("tutu", "tutu"), ("lens", "lens"), ("lenses", "lens"), ("dice", "dice")],
        *[("t-shirts", "t-shirt"), ("jumps", "jump"), ("jumping", "jumping"), ("jumped", "jumped"), ("снег", "снег")],
    ],
)
def test_plurals_become_singulars_where_they_mean_the_same(word, folded):
    assert fold(word) == folded


@pytest.mark.parametrize("word", sorted({*text.ONE_FORM, *text.IRREGULAR.values()}))
def test_words_of_one_form_stay_as_they_are(word):
    assert fold(word) == word


@pytest.mark.parametrize(("plural", "singular"), text.IRREGULAR.items())
def test_irregular_plurals_become_their_singular(plural, singular):
    assert fold(plural) == singular


@pytest.mark.parametrize("word", ["the", "of", "two", "isn", "background", "photo", "7", "2008", "a", "x", "'s", "-"])
def test_words_that_show_nothing_are_no_content_words(word):
    assert not is_content_word(word)


@pytest.mark.parametrize("word", ["dog", "man", "young", "red", "running", "3d", "t-shirt", "犬", "couple", "cans"])
def test_words_that_show_something_are_content_words(word):
    assert is_content_word(word)
    assert content_words(word) == [word]


def test_the_tables_say_nothing_that_holds_without_them():
    """An entry that changes nothing, or two that contradict each other, is one that nobody has looked at."""
    import pluralizer
    import stop_words

    listed, rules = set(stop_words.get_stop_words("en")), pluralizer.Pluralizer()
    assert listed >= text.PICTURED
    assert not text.UNPICTURED & listed
    assert not [word for word in text.ONE_FORM if rules.singular(word) == word or word in listed]
    assert not [plural for plural, singular in text.IRREGULAR.items() if rules.singular(plural) == singular]
    assert not set(text.ONE_FORM) & set(text.IRREGULAR)


def test_the_words_of_the_shipped_vocabulary_fold_in_one_step_into_words():
    words = [word for word in Vocabulary.load(SHIPPED).own_words if is_content_word(word)]
    assert len(words) > 2000
    folded = {word: fold(word) for word in words}
    assert {word for word, form in folded.items() if fold(form) != form} == set()
    # A word that loses more than its -s, -es and -ies, or changes, does so for a reason.
    unusual = {word: form for word, form in folded.items() if not word.startswith(form.removesuffix("y"))}
    assert unusual == {
        **{"men": "man", "women": "woman", "policemen": "policeman", "groomsmen": "groomsman"},
        **{"feet": "foot", "teeth": "tooth", "geese": "goose", "leaves": "leaf", "scarves": "scarf"},
    }
