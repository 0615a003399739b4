"""Degeneration of captions, each sign counted by hand."""

from lcm.data.text import BAD_ENDINGS
from lcm.evaluation.metrics import Degeneration, degeneration_of_people, measure_degeneration

NAMES = ("bad_endings", "repeated_words", "most_frequent_caption")


def test_a_caption_that_something_must_follow_ends_badly():
    broken = ["a man in a", "a dog with the", "a man on", "a dog and", "two men are", "a man 's", "of"]
    broken += [f"a dog {word.upper()} ." for word in BAD_ENDINGS]  # as captions are standardised
    assert measure_degeneration(broken).bad_endings == 1
    whole = ["a man follows her", "kids play outside", "a man climbs up", "a bus drives by", "a dog runs behind", ""]
    assert measure_degeneration(whole).bad_endings == 0


def test_what_is_said_again_is_a_repetition_and_one_word_again_is_none():
    repeated = [
        "a dog and a dog",  # "a dog"
        "a crowd crowd",  # a word twice running
        "a a dog",  # any word
        "a black dog and a black cat",  # "a black", "black" being a content word
        "men in red and men in blue",  # "men in"
    ]
    assert measure_degeneration(repeated).repeated_words == 1
    others = [
        "a dog and a cat",
        "a dog in the water in the park",  # "in the" has no content word
        "a dog sees a black dog",  # "dog" again, but in other company
        "dogs and a dog",
        "",
    ]
    assert measure_degeneration(others).repeated_words == 0


def test_shares_are_of_the_captions():
    captions = ["a dog", "A dog .", "a dog and a dog", "a man in a", "a cat cat with"]
    assert measure_degeneration(captions) == Degeneration(
        bad_endings=2 / 5, repeated_words=2 / 5, most_frequent_caption=2 / 5
    )


def test_an_empty_caption_can_only_be_too_frequent():
    assert measure_degeneration(["", "", "...", "a dog"]) == Degeneration(0, 0, 3 / 4)


def test_metrics_are_flat_and_named_for_whom_they_measure():
    references = [("a dog", "a dog with a"), (), ("a cat cat", "a dog"), ("a bird", "a dog"), ("a tree in",)]
    assert measure_degeneration(["a dog"] * 5).as_metrics() == dict(zip(NAMES, (0, 0, 1), strict=True))
    people = degeneration_of_people(references).as_metrics("_people")  # of each image's first caption
    assert people == {f"{name}_people": 1 / 4 for name in NAMES}
    for name in NAMES:
        metrics = measure_degeneration([]).as_metrics("_people")
        assert (metrics[f"{name}_people"], metrics[f"{name}_people_reason"]) == (None, "there are no captions")
