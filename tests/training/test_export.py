"""The export of any captioning model: tiny ones with caches that grow by each word answer as Keras does."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import ops

from lcm.captioning import bundle
from lcm.captioning.decoding import decode_beam, decode_greedy, decode_nucleus
from lcm.config import TrainConfig
from lcm.data.dataset import Dataset
from lcm.data.text import END, START
from lcm.errors import BundleError, ConfigError
from lcm.features.cache import EncodedImages, PreparedRun
from lcm.features.encoders import load_encoder
from lcm.models.transformer import Transformer
from lcm.paths import RunDir
from lcm.training.export import check_parameters, export_bundle
from lcm.training.loop import KerasDecoder
from tests.fakes.attention import attention
from tests.fakes.tiny_graphs import VOCABULARY, use_tiny_encoder

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


def export(model: keras.Model, folder: Path, **parameters) -> Exported:
    encoder = load_encoder("tiny").identity
    prepared, run = PreparedRun(Dataset(()), VOCABULARY, EncodedImages(encoder, {}, {})), RunDir.at(folder)
    export_bundle(model, None, prepared, TrainConfig(run_dir="", **parameters), run)
    return Exported(model, run.bundle, bundle.Bundle(run.bundle))


@pytest.fixture(scope="module")
def exported(remembering, transformer, biased, tmp_path_factory) -> dict[str, Exported]:
    """All by name."""
    folder = tmp_path_factory.mktemp("runs")
    models = {"remembering": remembering, "transformer": transformer, "biased": biased}
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_encoder(folder, patch)
        return {name: export(model, folder / name) for name, model in models.items()}


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
        lambda one: [[best] for best in decode_greedy(one.step, one.start(features), 8)],
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
