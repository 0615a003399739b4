"""Degeneration of captions, each sign counted by hand."""

import pytest

from lcm.data.text import BAD_ENDINGS
from lcm.evaluation.metrics import DEGENERATION, firsts, measure_degeneration, signs_of_degeneration


def test_a_caption_that_something_must_follow_ends_badly():
    broken = ["a man in a", "a dog with the", "a man on", "a dog and", "two men are", "a man 's", "of"]
    broken += [f"a dog {word.upper()} ." for word in BAD_ENDINGS["en"].split()]  # as captions are standardised
    assert measure_degeneration(broken)["bad_endings"] == 1
    whole = ["a man follows her", "kids play outside", "a man climbs up", "a bus drives by", "a dog runs behind", ""]
    assert measure_degeneration(whole)["bad_endings"] == 0


def test_what_is_said_again_is_a_repetition_and_one_word_again_is_none():
    repeated = [
        "a dog and a dog",  # "a dog"
        "a crowd crowd",  # a word twice running
        "a a dog",  # any word
        "a black dog and a black cat",  # "a black", "black" being a content word
        "men in red and men in blue",  # "men in"
    ]
    assert measure_degeneration(repeated)["repeated_words"] == 1
    others = [
        "a dog and a cat",
        "a dog in the water in the park",  # "in the" has no content word
        "a dog sees a black dog",  # "dog" again, but in other company
        "dogs and a dog",
        "",
    ]
    assert measure_degeneration(others)["repeated_words"] == 0


@pytest.mark.parametrize(
    ("captions", "shares"),
    [
        (["a dog", "A dog .", "a dog and a dog", "a man in a", "a cat cat with"], [2 / 5, 2 / 5, 2 / 5]),
        (["", "", "...", "a dog"], [0, 0, 3 / 4]),  # an empty caption can only be too frequent
    ],
)
def test_shares_are_of_the_captions(captions, shares):
    assert measure_degeneration(captions) == dict(zip(DEGENERATION, shares, strict=True))


def test_metrics_are_named_for_whom_they_measure():
    references = [("a dog", "a dog with a"), (), ("a cat cat", "a dog"), ("a bird", "a dog"), ("a tree in",)]
    people = measure_degeneration(firsts(references), suffix="_people")
    assert people == {f"{name}_people": 1 / 4 for name in DEGENERATION}
    nobody = measure_degeneration([], suffix="_people")
    assert nobody == dict.fromkeys(people) | {f"{name}_reason": "there are no captions" for name in people}


WHOLE = [f"a {animal} runs" for animal in ("dog", "cat", "horse", "bird", "cow", "fox", "bear", "man", "child", "boy")]


@pytest.mark.parametrize(
    ("captions", "said"),
    [
        (WHOLE, []),
        (
            ["a a a"] * 3 + WHOLE[3:],
            ["of 10 images, 3 are empty, break off or repeat words (of people's, 0), such as “a a a”"],
        ),
        (["a a a"] * 2 + WHOLE[2:], []),  # two of ten may be an accident
        (["a dog on a"] * 2, ["of 2 images, 2 are empty, break off"]),  # there are no others
        (["", "a a", "a a"], ["such as “a a”"]),
        ([""] * 3, ["3 are empty, break off or repeat words (of people's, 0)"]),
        (["a man"] * 7 + WHOLE[7:], ["of 10 images, 7 are the same (of people's, 1): “a man”"]),
        (["a man"] * 6 + WHOLE[6:], []),  # photos of one event
        (["a man in a"] * 10, ["10 are empty, break off", "10 are the same"]),
    ],
)
def test_output_is_degenerate_where_it_is_so_more_often_than_people_s(captions, said):
    signs = signs_of_degeneration(captions, [[text, "a a"] for text in WHOLE[: len(captions)]])
    assert len(signs) == len(said)
    assert all(part in sign for part, sign in zip(said, signs, strict=True))


def test_people_are_the_yardstick():
    assert signs_of_degeneration(["a man in a"] * 10, [["two men in"]] * 10) == []
    assert signs_of_degeneration([], []) == []
