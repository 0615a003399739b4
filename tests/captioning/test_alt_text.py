"""Alternative text: what a screen reader says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcm.captioning.alt_text import MAX_CHARS, USUAL_CHARS, alt_text

CLAUSES = "a long row of people in yellow vests walks down a street"
WORDS = " ".join(["word"] * 100)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a dog runs through the grass", "A dog runs through the grass."),
        ("A dog runs.", "A dog runs."),
        ("is that a dog?", "Is that a dog?"),
        ("an image of a dog", "A dog."),
        ("This is a black-and-white photo of two dogs", "Two dogs."),
        ("the picture shows a dog", "A dog."),
        ("a man takes a picture of a dog", "A man takes a picture of a dog."),
        ("a photo album on a table", "A photo album on a table."),
        ("image of", "Image of."),
        ("une photo d'un chien dans l'herbe", "Un chien dans l'herbe."),
        ("l'image montre deux chiens", "Deux chiens."),
        ("un homme prend une photo d'un chien", "Un homme prend une photo d'un chien."),
        ("ein Bild von einem Hund im Schnee", "Ein Hund im Schnee."),
        ("das Foto zeigt einen Hund", "Ein Hund."),
        ("ein Bild von den Alpen", "Ein Bild von den Alpen."),
        ("ein Hund", "Ein Hund."),
        ("The dean opens St. Mary's library. Students wait.", "The dean opens St. Mary's library."),
        ("two\n lines ", "Two lines."),
        ("狗在草地上。", "狗在草地上。"),
        ("", ""),
        (f"{CLAUSES}, while others watch from the windows of the houses, and it rains on all of them",
         f"A{CLAUSES[1:]}, while others watch from the windows of the houses."),
        (f"{CLAUSES} and {CLAUSES} and {CLAUSES}", f"A{CLAUSES[1:]} and {CLAUSES} and {CLAUSES}."),
    ],
)  # fmt: skip
def test_one_sentence_with_a_capital_and_a_full_stop(caption, expected):
    assert alt_text(caption) == expected
    assert alt_text(expected) == expected


def test_what_has_no_clause_is_cut_at_a_word():
    text = alt_text(WORDS)
    assert text.endswith("word…")
    assert USUAL_CHARS < len(text) <= MAX_CHARS


@given(st.text(max_size=400))
def test_any_text_stays_within_the_limit(caption):
    text = alt_text(caption)
    assert len(text) <= MAX_CHARS
    assert "\n" not in text
