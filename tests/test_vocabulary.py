"""Words: standardised in every script, numbered without collisions, and given vectors."""

import unicodedata

import numpy as np
import pytest

from lcm.data.vocabulary import (
    END,
    PAD,
    RESERVED,
    START,
    UNKNOWN,
    Vocabulary,
    build_vocabulary,
    build_word_vectors,
    count_words,
    join_words,
    standardise,
)
from lcm.errors import ConfigError, DataError

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


# Word vectors


def vocabulary_of(*words: str) -> Vocabulary:
    return Vocabulary((*RESERVED, *words))


def test_vectors_of_the_glove_package():
    vectors = build_word_vectors(vocabulary_of("flickrword", "the", "dog", "'s", "t-shirt"), "glove_6b_50d", seed=0)
    assert vectors.matrix.shape == (9, 50)
    assert vectors.matrix.dtype == np.float32
    # The first line of glove.6B.50d.txt, https://nlp.stanford.edu/projects/glove/
    np.testing.assert_allclose(vectors.matrix[5, :5], [0.418, 0.24968, -0.41242, 0.1217, 0.34527])
    assert vectors.without_vector == ("flickrword",)
    assert not vectors.matrix[PAD].any()
    assert vectors.matrix[1:].any(axis=1).all()


def glove_file(folder, text: str, encoding="utf-8") -> str:
    (folder / "glove.txt").write_bytes(text.encode(encoding))
    return str(folder / "glove.txt")


THREE = "a 1 0 0\ncat 0 1 0\nété 0 0 -1e-1\n"


def test_vectors_of_a_text_file(tmp_path):
    vectors = build_word_vectors(vocabulary_of("été", "dog", "a", "wolf"), glove_file(tmp_path, THREE), seed=0)
    np.testing.assert_allclose(vectors.matrix[[4, 6]], [[0, 0, -0.1], [1, 0, 0]])
    assert vectors.matrix.shape == (8, 3)
    assert vectors.matrix.dtype == np.float32
    assert vectors.without_vector == ("dog", "wolf")
    assert not vectors.matrix[PAD].any()


def test_unknown_words_get_seeded_random_vectors(tmp_path):
    vocabulary, file = vocabulary_of("a", "dog", "wolf"), glove_file(tmp_path, THREE)
    first, same, other = (build_word_vectors(vocabulary, file, seed).matrix for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    random = [START, END, UNKNOWN, 5, 6]
    assert (first[random] != other[random]).all()
    assert len(np.unique(first[random], axis=0)) == len(random)  # each its own
    np.testing.assert_array_equal(first[[PAD, 4]], other[[PAD, 4]])


def test_random_vectors_spread_like_the_known_ones(tmp_path):
    known = "".join(f"known{i} {10 * (-1) ** i} {-10 * (-1) ** i}\n" for i in range(4))  # standard deviation 10
    words = [f"known{i}" for i in range(4)] + [f"new{i}" for i in range(2000)]
    vectors = build_word_vectors(vocabulary_of(*words), glove_file(tmp_path, known), seed=0)
    assert vectors.matrix[8:].std() == pytest.approx(10, rel=0.05)
    assert vectors.matrix[8:].mean() == pytest.approx(0, abs=0.6)  # standard error 10 / sqrt(4000) = 0.16


@pytest.mark.parametrize("text", ["a 1 0 0\ncat 0 1\n", "a 1 0\ncat 0 1 0\n", "a 1 0 0\ncat\n"])
def test_ragged_rows(tmp_path, text):
    with pytest.raises(DataError, match=r"glove\.txt line 2 has \d numbers, others \d"):
        build_word_vectors(vocabulary_of("a", "cat"), glove_file(tmp_path, text), seed=0)


def test_words_with_blanks_do_not_stand_for_their_first_part(tmp_path):
    text = "at name@domain.com 0.5 0.5\nat 1 0\n"  # glove.840B.300d.txt has such lines
    vectors = build_word_vectors(vocabulary_of("at"), glove_file(tmp_path, text), seed=0)
    assert vectors.matrix[4].tolist() == [1, 0]


@pytest.mark.parametrize("text", ["", "a dog runs\na cat sleeps\n", "wolf 1 0\n", "a\ncat\n", "a\tb\n", "\x00\x01\n"])
def test_a_file_without_vectors_for_the_vocabulary(tmp_path, text):
    with pytest.raises(DataError, match=r"glove\.txt holds none of the vocabulary's words"):
        build_word_vectors(vocabulary_of("a", "cat"), glove_file(tmp_path, text), seed=0)


def test_a_text_file_that_is_not_utf_8(tmp_path):
    file = glove_file(tmp_path, THREE, encoding="cp1252")
    assert build_word_vectors(vocabulary_of("a", "été"), file, seed=0).without_vector == ("été",)


def test_unknown_word_embedding():
    with pytest.raises(ConfigError, match=r"unknown word embedding .*'word2vec'; choose from glove_6b_50d"):
        build_word_vectors(vocabulary_of("a"), "word2vec", seed=0)
