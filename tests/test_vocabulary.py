"""Words: standardised in every script, and numbered without collisions."""

import unicodedata

import numpy as np
import pytest

from lcm.data.text import (
    END,
    PAD,
    RESERVED,
    START,
    UNKNOWN,
    Vocabulary,
    build_vocabulary,
    count_words,
    join_words,
    standardise,
)
from lcm.errors import DataError

# Standardisation

STANDARDISED = [
    ("", []),
    (" \t\n", []),
    ("A dog runs .", ["a", "dog", "runs"]),
    ("Two dogs,one CAT!(really)", ["two", "dogs", "one", "cat", "really"]),
    # The possessive is a word of its own, whichever apostrophe is typed.
    ("A man's hat", ["a", "man", "'s", "hat"]),
    ("A MAN\u2019S hat.", ["a", "man", "'s", "hat"]),
    ("the boys' hats", ["the", "boys", "hats"]),
    ("'s", ["s"]),
    ("the 'sun'", ["the", "sun"]),
    ("don't", ["don", "t"]),
    ("O'Sullivan", ["o", "sullivan"]),
    ("Hind\u093f's", ["hind\u093f", "'s"]),  # after a combining mark
    # Hyphens inside a word stay, those around it do not.
    ("a T-shirt - well-to-do -- ok-", ["a", "t-shirt", "well-to-do", "ok"]),
    ("t\u2011shirt t\u2010shirt", ["t-shirt", "t-shirt"]),  # typographic hyphens
    ("2 dogs at 10:30, no. 3-4", ["2", "dogs", "at", "10", "30", "no", "3-4"]),
    ("snake_case", ["snake", "case"]),
    # French: letters with accents; an elided article is a word.
    ("L'été, un garçon ÉTOURDI s\u2019élance", ["l", "été", "un", "garçon", "étourdi", "s", "élance"]),
    # German: case folding writes ß as ss, so that STRASSE and Straße are one word.
    ("Straße STRASSE STRA\u1e9eE", ["strasse", "strasse", "strasse"]),
    ("Một chú chó đang chạy", ["một", "chú", "chó", "đang", "chạy"]),  # Vietnamese
    ("एक कुत्ता दौड़ रहा है।", ["एक", "कुत्ता", "दौड़", "रहा", "है"]),  # Hindi: vowel signs and viramas are marks
    ("Собака бежит; ΣΊΣΥΦΟΣ σίσυφος", ["собака", "бежит", "σίσυφοσ", "σίσυφοσ"]),  # both sigmas fold to one
    ("كلب يركض", ["كلب", "يركض"]),
    ("\u01f0 J\u030c", ["\u01f0", "\u01f0"]),  # case folding takes apart what NFC had put together
    # Joiners that no one sees spell Persian and Sinhala words.
    ("می\u200cدود", ["می\u200cدود"]),
    ("ශ්\u200dරී", ["ශ්\u200dරී"]),
    ("\u200ca\u200d", ["a"]),
    # Emoji are no words, nor are the marks and joiners inside them.
    ("😀", []),
    ("❤\ufe0f 👩\u200d👩\u200d👧 👍🏽 🇫🇷", []),
    ("a dog ❤\ufe0f", ["a", "dog"]),
    ("\u0301", []),
    ("<start> a <pad> <end>", ["start", "a", "pad", "end"]),
]


@pytest.mark.parametrize(("text", "words"), STANDARDISED)
def test_standardise(text, words):
    words = [unicodedata.normalize("NFC", word) for word in words]
    assert standardise(text) == words
    assert standardise(unicodedata.normalize("NFD", text)) == words  # as macOS writes it
    assert standardise(text.upper()) == standardise(text.lower()) == words


@pytest.mark.parametrize("text", [text for text, _ in STANDARDISED])
def test_join_words_is_the_inverse(text):
    assert standardise(join_words(standardise(text))) == standardise(text)


def test_join_words():
    assert join_words(["a", "man", "'s", "t-shirt"]) == "a man's t-shirt"
    assert join_words([]) == ""


# Vocabulary

CAPTIONS = ["A dog's ball .", "A dog runs", "a cat runs", "Zebra"]  # a 3, dog 2, runs 2, 's 1, ball 1, cat 1, zebra 1


def test_count_words():
    assert count_words(CAPTIONS) == {"a": 3, "dog": 2, "runs": 2, "'s": 1, "ball": 1, "cat": 1, "zebra": 1}


@pytest.mark.parametrize(
    ("min_count", "words"),
    [
        (1, ["a", "dog", "runs", "'s", "ball", "cat", "zebra"]),
        (2, ["a", "dog", "runs"]),  # inclusive
        (3, ["a"]),
    ],
)
def test_min_count_is_inclusive(min_count, words):
    assert build_vocabulary(CAPTIONS, min_count).own_words == tuple(words)


def test_order_does_not_depend_on_that_of_the_captions():
    assert build_vocabulary(reversed(CAPTIONS), 1) == build_vocabulary(CAPTIONS, 1)


def test_no_word_is_frequent_enough():
    with pytest.raises(DataError, match=r"no word occurs 4 times .*'a', occurs 3 times.*lower min_count"):
        build_vocabulary(CAPTIONS, 4)
    with pytest.raises(DataError, match="there are no words at all"):
        build_vocabulary(["😀", "..."], 1)


def test_words_that_are_known_keep_their_ids_and_new_ones_follow():
    known = build_vocabulary(["a dog a dog", "a cat"], 1)
    grown = build_vocabulary(["the zebra the zebra the dog", "zoo zoo dog"], 2, known)
    assert grown.words == (*known.words, "the", "zebra", "zoo")
    assert all(grown.ids[word] == known.ids[word] for word in known.words)
    assert grown.encode("a cat and the dog")[1:-1] == [
        *known.encode("a cat")[1:-1],
        UNKNOWN,
        len(known),
        known.ids["dog"],
    ]


def test_without_a_frequent_word_those_that_are_known_stay():
    known = build_vocabulary(["a dog"], 1)
    assert build_vocabulary([], 5, known) == build_vocabulary(["<pad> zebra"], 5, known) == known


def test_reserved_ids_come_first_and_no_word_takes_them():
    assert (PAD, START, END, UNKNOWN) == (0, 1, 2, 3)
    vocabulary = build_vocabulary(["<start> <pad> <end> <unknown> start pad end unknown"] * 2, 1)
    assert vocabulary.words == (*RESERVED, "end", "pad", "start", "unknown")
    assert len(vocabulary) == 8
    assert vocabulary.encode("<start> <PAD> <unknown>") == [START, 6, 5, 7, END]


def test_encode_and_decode():
    vocabulary = build_vocabulary(CAPTIONS, 1)  # a 4, dog 5, runs 6, 's 7, ball 8, cat 9, zebra 10
    ids = vocabulary.encode("A dog\u2019s ball!")
    assert ids == [START, 4, 5, 7, 8, END]
    assert vocabulary.decode(ids) == "a dog's ball"
    assert vocabulary.encode("a wolf runs") == [START, 4, UNKNOWN, 6, END]
    assert vocabulary.decode([START, 4, UNKNOWN, 6, END, PAD, PAD]) == "a runs"
    assert vocabulary.encode("") == [START, END]
    assert vocabulary.decode([]) == ""
    assert vocabulary.decode(np.array([10])) == "zebra"  # the last word


@pytest.mark.parametrize("caption", ["a dog's ball", "zebra", "a cat runs a dog's dog's", ""])
def test_round_trip(caption):
    vocabulary = build_vocabulary(CAPTIONS, 1)
    assert vocabulary.decode(vocabulary.encode(caption)) == caption


def test_save_and_load(tmp_path):
    texts = [text for text, _ in STANDARDISED]
    vocabulary = build_vocabulary(texts, 1)
    vocabulary.save(tmp_path / "vocabulary.txt")
    assert Vocabulary.load(tmp_path / "vocabulary.txt") == vocabulary
    lines = (tmp_path / "vocabulary.txt").read_bytes().split(b"\n")
    assert lines[:4] == [b"<pad>", b"<start>", b"<end>", b"<unknown>"]
    assert lines[-1] == b""  # the last line is a whole one


def test_load_with_the_line_ends_of_windows(tmp_path):
    (tmp_path / "vocabulary.txt").write_bytes("\r\n".join([*RESERVED, "a", "dog", ""]).encode())
    assert Vocabulary.load(tmp_path / "vocabulary.txt").own_words == ("a", "dog")


HEAD = "\n".join(RESERVED).encode() + b"\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it must begin with <pad>, <start>, <end>, <unknown>"),
        (b"a\ndog\n", "it must begin with"),
        (b"<pad>\n<start>\n<end>\n", "it must begin with"),
        (b"<start>\n<pad>\n<end>\n<unknown>\na\n", "it must begin with"),
        (b"\x80\x04\x95 a pickle", "it must begin with"),
        (HEAD + b"a\n\ndog\n", "is damaged"),
        (HEAD + b"a\ndog\na\n", "is damaged"),
        (HEAD + b"a\n<pad>\n", "is damaged"),
        (HEAD + "été".encode("cp1252") + b"\n", "is damaged"),
    ],
)
def test_load_of_a_damaged_file(tmp_path, content, message):
    (tmp_path / "vocabulary.txt").write_bytes(content)
    with pytest.raises(DataError, match=f"vocabulary.txt .*{message}"):
        Vocabulary.load(tmp_path / "vocabulary.txt")
