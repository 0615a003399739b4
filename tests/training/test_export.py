"""The export of any captioning model: tiny ones with caches that grow by each word answer as Keras does."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import ops
from onnx import TensorProto, helper, numpy_helper

from lcm.captioning import bundle, taggers
from lcm.captioning.bundle import TAGGER_FILES, Bundle, Manifest
from lcm.captioning.decoding import decode_beam, decode_nucleus
from lcm.captioning.taggers import load_tag_scorer
from lcm.captioning.tagging import Photo
from lcm.config import TrainConfig
from lcm.data.dataset import Dataset
from lcm.data.text import END, START, build_vocabulary
from lcm.errors import BundleError, ConfigError
from lcm.features.cache import EncodedImages, LabelledFeatures, PreparedRun
from lcm.features.encoders import EncoderIdentity, open_session
from lcm.models import build_tagger
from lcm.models.transformer import Transformer
from lcm.paths import RunDir
from lcm.training.batches import build_word_table
from lcm.training.contrastive import TrainedTagger
from lcm.training.export import LEAST, check_parameters, export_bundle, store_fp16
from lcm.training.loop import History, KerasDecoder
from tests.fakes.attention import attention
from tests.fakes.tiny_graphs import VOCABULARY, use_tiny_encoder
from tests.fakes.toy_world import toy_world, train_toy

POSITIONS, FEATURE_DIM, WIDTH = 5, 7, 6


class Remembering(keras.Model):
    """Looks at all words so far and at all positions of a grid; counts its words in a row that does not grow."""

    feature_shape, feature_kind = (POSITIONS, FEATURE_DIM), "grid"
    settings: ClassVar = {}
    row_shapes = ((None, WIDTH), (1,))

    def __init__(self):
        super().__init__()
        self.keys = keras.layers.Dense(WIDTH, name="keys")
        self.words = keras.layers.Embedding(len(VOCABULARY), WIDTH, keras.initializers.RandomNormal(), name="words")
        self.output_dense = keras.layers.Dense(len(VOCABULARY), name="output_dense")

    def start(self, features):
        keys = self.keys(features)
        return keys, ops.mean(keys, axis=1)

    def step(self, token_ids, images, rows):
        (keys, mean), (cache, count) = images, rows
        shape = (*ops.shape(token_ids), WIDTH)
        cache = ops.concatenate([cache, self.words(token_ids)[:, :, None]], axis=2)  # [B, W, T, D]
        query = _look(cache[:, :, -1:], cache)[:, :, 0] / ops.cast(ops.shape(cache)[2], "float32")  # [B, W, D]
        seen = _look(query, keys) / POSITIONS + ops.reshape(ops.repeat(mean, shape[1], axis=0), shape)
        return ops.log_softmax((1 + count) * self.output_dense(seen)), (cache, count + 0.1)


def _look(queries, keys):
    return ops.matmul(ops.sigmoid(ops.matmul(queries, ops.swapaxes(keys, -1, -2))), keys)


@pytest.fixture(scope="module")
def remembering() -> Remembering:
    keras.utils.set_random_seed(4)
    made = Remembering()
    random = np.random.default_rng(0)
    images = made.start(np.zeros((1, POSITIONS, FEATURE_DIM), np.float32))
    made.step(np.array([[START]]), images, [np.zeros((1, 1, 0, WIDTH), np.float32), np.zeros((1, 1, 1), np.float32)])
    made.set_weights([random.normal(size=array.shape).astype(np.float16) for array in made.get_weights()])
    return made


@pytest.fixture(scope="module")
def transformer() -> Transformer:
    keras.utils.set_random_seed(4)
    made = Transformer((POSITIONS, FEATURE_DIM), len(VOCABULARY), width=16, heads=2)
    made((np.zeros((1, POSITIONS, FEATURE_DIM), np.float32), np.zeros((1, 1, 1), np.int32)))
    random = np.random.default_rng(6)
    for weight in made.weights:
        if len(weight.shape) > 1:  # biases stay zero: tf2onnx leaves such additions out
            weight.assign(random.normal(0, 0.5, weight.shape).astype(np.float16))  # which a bundle keeps exactly
    made.word_bias.assign(2 * (np.arange(len(VOCABULARY)) == END))
    return made


@pytest.fixture(scope="module")
def biased(transformer) -> Transformer:
    """The same with biases: with and without them, tf2onnx writes other graphs."""
    made, random = keras.models.clone_model(transformer), np.random.default_rng(7)
    made((np.zeros((1, POSITIONS, FEATURE_DIM), np.float32), np.zeros((1, 1, 1), np.int32)))
    for weight, other in zip(made.weights, transformer.weights, strict=True):
        noise = random.normal(0, 0.5, weight.shape) if len(weight.shape) == 1 else 0
        weight.assign((other.numpy() + noise).astype(np.float16))
    return made


@dataclass
class Exported:
    """A model, and the bundle that was made of it."""

    model: keras.Model
    folder: Path
    loaded: bundle.Bundle


def export(model: keras.Model, folder: Path, encoder: EncoderIdentity, **parameters) -> Exported:
    prepared, run = PreparedRun(Dataset(()), VOCABULARY, EncodedImages(encoder, {}, {})), RunDir.at(folder)
    export_bundle(model, None, prepared, TrainConfig(run_dir="", **parameters), run)
    return Exported(model, run.bundle, bundle.Bundle(run.bundle))


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory) -> Iterator[EncoderIdentity]:
    with pytest.MonkeyPatch.context() as patch:
        yield use_tiny_encoder(tmp_path_factory.mktemp("home"), patch)


@pytest.fixture(scope="module")
def exported(remembering, transformer, biased, tiny_encoder, tmp_path_factory) -> dict[str, Exported]:
    """All by name."""
    folder = tmp_path_factory.mktemp("runs")
    models = {"remembering": remembering, "transformer": transformer, "biased": biased}
    return {name: export(model, folder / name, tiny_encoder) for name, model in models.items()}


def features_of(images: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(images, POSITIONS, FEATURE_DIM)).astype(np.float32)


def test_a_row_that_grows_begins_empty_and_grows_by_each_word(exported):
    loaded = exported["remembering"].loaded
    state = loaded.start(features_of(3))
    assert [array.shape for array in state.images] == [(3, POSITIONS, WIDTH), (3, WIDTH)]
    assert [array.shape for array in state.rows] == [(3, 1, 0, WIDTH), (3, 1, 1)]
    state = state.of_texts(np.zeros((3, 4), int))
    for words in (1, 2, 3):
        log_probs, state = loaded.step(np.full((3, 4), START), state)
        assert log_probs.shape == (3, 4, len(VOCABULARY))
        assert [array.shape for array in state.rows] == [(3, 4, words, WIDTH), (3, 4, 1)]
        np.testing.assert_allclose(state.rows[1], 0.1 * words, rtol=1e-6)


@pytest.mark.parametrize("images", [1, 8])
@pytest.mark.parametrize("name", ["remembering", "transformer", "biased"])
def test_a_bundle_decodes_as_keras_does(exported, name, images):
    model, loaded = exported[name].model, exported[name].loaded
    features, decoder = features_of(images), KerasDecoder(model, VOCABULARY)
    written = set()
    for decode in (
        lambda one: decode_beam(one.step, one.start(features), 8, 3),
        lambda one: decode_nucleus(one.step, one.start(features), 8, range(4)),
    ):
        ours, theirs = ([each for of_image in decode(one) for each in of_image] for one in (loaded, decoder))
        assert [one.token_ids for one in ours] == [one.token_ids for one in theirs]
        assert [one.log_prob for one in ours] == pytest.approx([one.log_prob for one in theirs], abs=1e-3)
        written |= {one.token_ids for one in ours}
    assert len(written) > 3  # not all the same
    assert len({len(ids) for ids in written}) > 1  # nor of one length


def test_a_step_is_little_besides_its_products(exported, tmp_path):
    """What ONNX Runtime makes of the transformer's step: at one photo, each operation beyond these costs its time."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3  # that the file is for this computer is meant
    onnxruntime.InferenceSession(exported["biased"].folder / bundle.STEP_GRAPH, options)
    operations = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert operations["LayerNormalization"] == 2 * 3 + 1  # three in each of two layers, and one at the end
    assert operations["Gemm"] + operations["FusedGemm"] + operations["MatMul"] + operations["FusedMatMul"] == 25
    assert operations.total() < 100


# Where the model looked


def several_texts() -> np.ndarray:
    return np.array([[[START, 4, 6], [START, 5, 5]], [[START, 4, 8], [START, 7, 4]]], np.int32)


def test_a_bundle_looks_where_keras_does(exported):
    model, loaded = exported["transformer"].model, exported["transformer"].loaded
    features, token_ids = features_of(2), several_texts()
    expected = attention(model, features, token_ids)
    for given in (features, features.astype(np.float64)):
        weights = loaded.attention(given, token_ids.astype(np.int64))
        assert weights.shape == (2, 2, 3, POSITIONS)
        np.testing.assert_allclose(weights, expected, atol=1e-5)
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    assert np.ptp(expected, axis=-1).max() > 0.05
    alone = loaded.attention(features[:1], token_ids[:1, :1, :1])
    np.testing.assert_allclose(alone, expected[:1, :1, :1], atol=1e-5)


def test_a_model_that_looks_at_no_grid_says_so(exported):
    loaded = exported["remembering"].loaded
    assert not loaded.has_attention
    with pytest.raises(BundleError, match=r"merge-\w+ cannot tell where its model looked.* -p model transformer"):
        loaded.attention(features_of(2), several_texts())


# Before training


def test_what_can_be_exported_may_be_asked_for():
    for parameters in ({}, {"tagger": "none"}, {"model": "transformer"}):
        check_parameters(TrainConfig(run_dir="", **parameters))


def test_an_unknown_tagger_or_model_is_refused():
    with pytest.raises(ConfigError, match="unknown tagger 'clip'; choose from dual_encoder, kept, none"):
        check_parameters(TrainConfig(run_dir="", tagger="clip"))
    with pytest.raises(ConfigError, match="unknown model 'gru'; choose from merge, transformer"):
        check_parameters(TrainConfig(run_dir="", model="gru"))


# A bundle with a tagger

CAPTIONER_FILES = ["bundle.json", "encoder.onnx", "start.onnx", "step.onnx", "vocabulary.txt", "weights.npz"]
HALF = 2e-3  # how far a number near 1 may be off in float16


@dataclass(frozen=True)
class WithTagger:
    """A bundle with a tagger, and the models that it was made from."""

    run: RunDir
    model: object
    tagger: TrainedTagger
    labelled: LabelledFeatures
    prepared: PreparedRun
    manifest: Manifest

    @property
    def scorer(self) -> taggers.DualEncoder:
        return load_tag_scorer(None, self.run.bundle, self.manifest)


@pytest.fixture(scope="module")
def tagged(tiny_encoder, tmp_path_factory) -> WithTagger:
    folder = tmp_path_factory.mktemp("tagged")
    model, _, labelled, _ = train_toy(folder / "checkpoint")
    _, prepared = toy_world(tiny_encoder)
    tagger = make_tagger(labelled, prepared)
    run = RunDir.at(folder / "run")
    manifest = export_bundle(model, tagger, prepared, TrainConfig(run_dir=str(run.path)), run)
    return WithTagger(run, model, tagger, labelled, prepared, manifest)


def make_tagger(labelled: LabelledFeatures, prepared: PreparedRun, word_embedding: str = "glove_6b_50d"):
    """A tagger as it is before training, but for its scales."""
    table = build_word_table(labelled, prepared.vocabulary, word_embedding)
    model = build_tagger("dual_encoder", labelled.read(slice(None)), table.vectors, table.learned, seed=0)
    model.log_scales.assign(np.log([20.0, 30.0]))
    return TrainedTagger(model, table, History(), 0)


def test_the_bundle_answers_as_keras_does(tagged):
    model, manifest, bundle = tagged.model, tagged.manifest, Bundle(tagged.run.bundle)
    assert bundle.manifest == manifest
    assert manifest.name.startswith("merge-")
    features = tagged.labelled.read(slice(None))
    decoder = KerasDecoder(model, tagged.prepared.vocabulary)
    ours, theirs = bundle.start(features), decoder.start(features)
    token_ids = np.full((len(features), 1), START)
    for _ in range(4):
        for a, b in zip((*ours.images, *ours.rows), (*theirs.images, *theirs.rows), strict=True):
            np.testing.assert_allclose(a, b, atol=HALF)
        our_log_probs, ours = bundle.step(token_ids, ours)
        their_log_probs, theirs = decoder.step(token_ids, theirs)
        np.testing.assert_allclose(our_log_probs, their_log_probs, atol=HALF)
        token_ids = our_log_probs.argmax(2)


def test_the_image_tower_answers_as_keras_does(tagged):
    features = np.random.default_rng(0).normal(size=(7, *tagged.labelled.shape)).astype(np.float32)
    expected = tagged.tagger.model.image_tower(features)
    for part in (slice(0, 1), slice(0, 7)):
        np.testing.assert_allclose(tagged.scorer.image_vectors(features[part]), expected[part], atol=HALF)
    np.testing.assert_allclose(
        tagged.scorer.image_vector(Photo("a.jpg", {"pooled": features[3]})), expected[3], atol=HALF
    )


@pytest.mark.parametrize("texts", [1, 3])
@pytest.mark.parametrize("words", [1, 2, 9, 30])
def test_the_text_tower_answers_as_keras_does(tagged, texts, words):
    random = np.random.default_rng(words)
    width = tagged.tagger.model.rows(np.array([[1]])).shape[-1]
    rows = random.normal(size=(texts, words, width)).astype(np.float32)
    counted = np.ones((texts, words), np.float32)
    counted[-1, max(1, words // 2) :] = 0
    tower = open_session(tagged.run.bundle / taggers.TEXT_TOWER)
    names = [entry.name for entry in tower.get_inputs()]
    (vectors,) = tower.run(None, dict(zip(names, (rows, counted), strict=True)))
    np.testing.assert_allclose(vectors, tagged.tagger.model.text_tower(rows, counted), atol=HALF)


def test_the_bundle_s_scorer_reads_words_and_sentences_as_keras_does(tagged):
    table = tagged.tagger.table
    texts = [*table.words[: table.learned], "red dog", "There is a WHITE tree, a blue boat in the picture!"]
    vectors = tagged.scorer.text_vectors(texts)
    expected = np.concatenate([tagged.tagger.model.read(np.array([table.encode(text)])) for text in texts])
    np.testing.assert_allclose(vectors, expected, atol=HALF)
    assert tagged.scorer.unknown(texts) == ()


def test_the_manifest_tells_of_the_tagger(tagged):
    assert tagged.manifest.tagger == {
        "name": "dual_encoder",
        "scale": pytest.approx(30),  # of single words: they are what is tagged with
        "sentence_scale": pytest.approx(20),
        "word_embedding": "glove_6b_50d",
        "embedding_dim": 50,
        "width": 512,
        "words": tagged.tagger.table.learned,
    }
    assert tagged.scorer.scale == pytest.approx(30)
    assert sorted(tagged.manifest.files) == sorted({*CAPTIONER_FILES, *TAGGER_FILES} - {"bundle.json"})
    assert json.loads((tagged.run.bundle / "bundle.json").read_text())["vocabulary_size"] == len(
        tagged.prepared.vocabulary
    )


def test_key_words_outside_the_vocabulary_are_in_the_bundle_s_table(tagged, tmp_path):
    """ "dogs" is in the vocabulary, "dog" is what images are tagged with."""
    images = [replace(image, captions=("two dogs run",)) for image in tagged.labelled.images]
    labelled = replace(tagged.labelled, images=images)
    prepared = replace(tagged.prepared, vocabulary=build_vocabulary(["dogs"], 1))
    tagger, run = make_tagger(labelled, prepared), RunDir.at(tmp_path)
    manifest = export_bundle(tagged.model, tagger, prepared, TrainConfig(run_dir=""), run)
    scorer = load_tag_scorer(None, run.bundle, manifest)
    assert (run.bundle / taggers.WORDS).read_text().split() == ["dogs", "dog"]
    assert tagger.table.words == ("dogs", "dog", "run", "two")
    expected = tagger.model.read(np.array([[1], [2]]))
    np.testing.assert_allclose(scorer.text_vectors(["dogs", "dog"]), expected, atol=HALF)


def test_an_export_takes_the_place_of_the_old_one_and_leaves_nothing_else(tagged, tmp_path):
    """First without a tagger, in place of one with a tagger and a stray file; then with one again."""
    run = RunDir.at(tmp_path / "run")
    run.bundle.mkdir()
    (run.bundle / "old.onnx").write_text("old")
    shutil.copytree(tagged.run.bundle, run.bundle, dirs_exist_ok=True)
    manifest = export_bundle(tagged.model, None, tagged.prepared, TrainConfig(run_dir=str(run.path)), run)
    assert sorted(path.name for path in run.bundle.iterdir()) == CAPTIONER_FILES
    assert {path.name for path in run.path.iterdir()} == {"bundle", "figures"}
    assert manifest.tagger == {}
    assert Bundle(run.bundle).manifest == manifest
    assert load_tag_scorer(None, run.bundle, manifest) is None
    export_bundle(tagged.model, tagged.tagger, tagged.prepared, TrainConfig(run_dir=str(run.path)), run)
    assert sorted(path.name for path in run.bundle.iterdir()) == sorted([*CAPTIONER_FILES, *TAGGER_FILES])


# Weights in 16 bits


def save_product(path, weights: np.ndarray) -> None:
    """Write a graph that multiplies its input [B, F] by `weights` [F, D]."""
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, weights.shape[0]])
    product = helper.make_tensor_value_info("product", TensorProto.FLOAT, [None, weights.shape[1]])
    node = helper.make_node("MatMul", ["features", "weights"], ["product"])
    graph = helper.make_graph([node], "product", [features], [product], [numpy_helper.from_array(weights, "weights")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)


def run(path, features: np.ndarray) -> np.ndarray:
    return open_session(path).run(None, {"features": features})[0]


def test_a_large_array_takes_half_the_space_and_computes_the_same(tmp_path):
    path, random = tmp_path / "graph.onnx", np.random.default_rng(0)
    weights = random.normal(size=(128, 64)).astype(np.float32)
    features = random.normal(size=(5, 128)).astype(np.float32)
    save_product(path, weights)
    before, size = run(path, features), path.stat().st_size
    store_fp16(path)
    assert path.stat().st_size < 0.55 * size
    after = run(path, features)
    assert after.dtype == np.float32
    np.testing.assert_allclose(after, features @ weights.astype(np.float16).astype(np.float32), atol=1e-4)
    np.testing.assert_allclose(after, before, atol=0.02)
    assert not np.array_equal(after, before)


@pytest.mark.parametrize(
    "weights",
    [np.full((LEAST - 1, 1), 0.1, np.float32), np.full((LEAST, 1), 1e5, np.float32), np.ones((LEAST, 1), np.float64)],
    ids=["small", "beyond 16 bits", "not float32"],
)
def test_other_arrays_stay_as_they_are(weights, tmp_path):
    path = tmp_path / "graph.onnx"
    onnx.save(
        helper.make_model(helper.make_graph([], "g", [], [], [numpy_helper.from_array(weights, "weights")])), path
    )
    store_fp16(path)
    (kept,) = onnx.load(path).graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(kept), weights)
    assert not onnx.load(path).graph.node
