"""Word vectors: from the GloVe package and from text files, random ones where there is none."""

import numpy as np
import pytest

from lcm.data.text import END, PAD, RESERVED, START, UNKNOWN, Vocabulary
from lcm.data.word_vectors import build_word_vectors
from lcm.errors import ConfigError, DataError


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
    with pytest.raises(ConfigError, match=r"unknown word embedding .*'word2vec'; choose from glove_6b_50d"):
        build_word_vectors(vocabulary_of("a"), "word2vec", seed=0)


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


@pytest.mark.parametrize("text", ["a 1 0 0\ncat 0 1\n", "a 1 0\ncat 0 1 0\n", "a 1 0 0\ncat\n"])
def test_ragged_rows(tmp_path, text):
    with pytest.raises(DataError, match=r"glove\.txt line 2 has \d numbers, others \d"):
        build_word_vectors(vocabulary_of("a", "cat"), glove_file(tmp_path, text), seed=0)


@pytest.mark.parametrize("text", ["", "a dog runs\na cat sleeps\n", "wolf 1 0\n", "a\ncat\n", "a\tb\n", "\x00\x01\n"])
def test_a_file_without_vectors_for_the_vocabulary(tmp_path, text):
    with pytest.raises(DataError, match=r"glove\.txt holds none of the vocabulary's words"):
        build_word_vectors(vocabulary_of("a", "cat"), glove_file(tmp_path, text), seed=0)
