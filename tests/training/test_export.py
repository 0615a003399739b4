"""The export of any captioning model: tiny ones with caches that grow by each word answer as Keras does."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from lcm.captioning import bundle, taggers
from lcm.captioning.bundle import TAGGER_FILES, Bundle
from lcm.captioning.decoding import decode_beam, decode_nucleus
from lcm.captioning.model_card import model_card
from lcm.captioning.taggers import load_tag_scorer
from lcm.config import TrainConfig
from lcm.data.dataset import Dataset
from lcm.data.text import END, START, build_vocabulary
from lcm.errors import ConfigError
from lcm.features.cache import EncodedImages, LabelledFeatures, PreparedRun
from lcm.features.encoders import EncoderIdentity, open_session
from lcm.models import build_tagger
from lcm.models.transformer import Transformer
from lcm.paths import RunDir
from lcm.retraining.select import ParentVersion
from lcm.training.contrastive import TrainedTagger, build_word_table
from lcm.training.export import LEAST, check_parameters, export_bundle, store_fp16
from lcm.training.loop import History, KerasDecoder
from tests.fakes.attention import attention
from tests.fakes.tiny_graphs import VOCABULARY, use_tiny_encoder
from tests.fakes.toy_world import toy_world, train_toy

POSITIONS, FEATURE_DIM, WIDTH = 5, 7, 6


@pytest.fixture(scope="module")
def transformer() -> Transformer:
    keras.utils.set_random_seed(4)
    made = Transformer((POSITIONS, FEATURE_DIM), len(VOCABULARY), width=16, heads=2)
    made((np.zeros((1, POSITIONS, FEATURE_DIM), np.float32), np.zeros((1, 1, 1), np.int32)))
    random = np.random.default_rng(6)
    for weight in made.weights:
        weight.assign(random.normal(0, 0.5, weight.shape).astype(np.float16))  # which a bundle keeps exactly
    made.word_bias.assign(2 * (np.arange(len(VOCABULARY)) == END))
    return made


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory) -> Iterator[EncoderIdentity]:
    with pytest.MonkeyPatch.context() as patch:
        yield use_tiny_encoder(tmp_path_factory.mktemp("home"), patch)


@pytest.fixture(scope="module")
def folder(transformer, tiny_encoder, tmp_path_factory) -> Path:
    """The transformer's bundle."""
    prepared = PreparedRun(Dataset(()), VOCABULARY, EncodedImages(tiny_encoder, {}, {}))
    run = RunDir.at(tmp_path_factory.mktemp("run"))
    export_bundle(transformer, None, prepared, TrainConfig(run_dir="", model="transformer"), run)
    return run.bundle


def features_of(images: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(images, POSITIONS, FEATURE_DIM)).astype(np.float32)


def merge_world(tagged) -> tuple:
    return tagged.model, Bundle(tagged.run.bundle), tagged.labelled.read(slice(0, 8)), tagged.prepared.vocabulary


@pytest.mark.parametrize("name", ["merge", "transformer"])
def test_a_bundle_decodes_as_keras_does(name, transformer, folder, tagged):
    model, loaded, features, words = transformer, Bundle(folder), features_of(8), VOCABULARY
    if name == "merge":
        model, loaded, features, words = merge_world(tagged)
    decoder = KerasDecoder(model, words)
    for decode in (
        lambda one: decode_beam(one.step, one.start(features), 8, 3),
        lambda one: decode_nucleus(one.step, one.start(features), 8, range(4)),
    ):
        ours, theirs = ([each for of_image in decode(one) for each in of_image] for one in (loaded, decoder))
        assert [one.token_ids for one in ours] == [one.token_ids for one in theirs]
        assert [one.log_prob for one in ours] == pytest.approx([one.log_prob for one in theirs], abs=0.02)


def test_a_model_that_goes_on_names_its_parent_and_what_that_had_learned_from(
    transformer, tiny_encoder, folder, tmp_path
):
    """Also what the parent's parent had: of a source that comes again, the newest counts. The curve of confidence stays
    until it has one of its own.
    """
    prepared = PreparedRun(Dataset(()), VOCABULARY, EncodedImages(tiny_encoder, {}, {}))
    data = {"source": "mine", "train_images": 9, "train_captions": 10}
    data["learned_before"] = {"base": "6000 train images, 30000 captions", "mine": "5 train images, 5 captions"}
    curve = {"slope": 4.5, "intercept": 1.0}
    changed = {"name": "parent-1", "training_data": data, "calibration": curve}
    parent = ParentVersion("shipped", folder, replace(Bundle(folder).manifest, **changed))
    run = RunDir.at(tmp_path)
    run.add_metrics(data_source="new")
    config = TrainConfig(run_dir="", model="transformer")
    manifest = export_bundle(transformer, None, prepared, config, run, parent)
    assert manifest.calibration == curve
    assert (
        "- data: new: 0 train images, 0 captions\n- started from: parent-1 (shipped), which had learned from "
        "base: 6000 train images, 30000 captions; mine: 9 train images, 10 captions\n"
    ) in model_card(manifest, ["en"])
    assert "started from" not in model_card(Bundle(folder).manifest, ["en"])


def test_a_step_is_little_besides_its_products(folder, tmp_path):
    """What ONNX Runtime makes of the transformer's step: at one photo, each operation beyond these costs its time."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3  # that the file is for this computer is meant
    onnxruntime.InferenceSession(folder / bundle.STEP_GRAPH, options)
    operations = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert operations["LayerNormalization"] == 2 * 3 + 1  # three in each of two layers, and one at the end
    assert operations["Gemm"] + operations["FusedGemm"] + operations["MatMul"] + operations["FusedMatMul"] == 25
    assert operations.total() < 100


# Where the model looked


def several_texts() -> np.ndarray:
    return np.array([[[START, 4, 6], [START, 5, 5]], [[START, 4, 8], [START, 7, 4]]], np.int32)


def test_a_bundle_looks_where_keras_does(transformer, folder):
    loaded, features, token_ids = Bundle(folder), features_of(2), several_texts()
    expected = attention(transformer, features, token_ids)
    for given in (features, features.astype(np.float64)):
        weights = loaded.attention(given, token_ids.astype(np.int64))
        assert weights.shape == (2, 2, 3, POSITIONS)
        np.testing.assert_allclose(weights, expected, atol=1e-5)
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    assert np.ptp(expected, axis=-1).max() > 0.05
    alone = loaded.attention(features[:1], token_ids[:1, :1, :1])
    np.testing.assert_allclose(alone, expected[:1, :1, :1], atol=1e-5)


def test_a_model_that_looks_at_no_grid_has_no_attention(tagged):
    assert not Bundle(tagged.run.bundle).has_attention


# Before training


def test_only_what_can_be_exported_is_trained():
    for parameters in ({}, {"tagger": "none"}, {"model": "transformer"}):
        check_parameters(TrainConfig(run_dir="", **parameters))
    for parameters, message in (
        ({"tagger": "clip"}, "unknown tagger 'clip'; choose from dual_encoder, text_tower, adapted, kept, none"),
        ({"tagger": "kept"}, "tagger is 'kept', and training is from scratch; choose dual_encoder or none"),
        ({"model": "gru"}, "unknown model 'gru'; choose from merge, transformer"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_parameters(TrainConfig(run_dir="", **parameters))


# A bundle with a tagger

CAPTIONER_FILES = ["bundle.json", "encoder.onnx", "start.onnx", "step.onnx", "vocabulary.txt", "weights.npz"]
HALF = 2e-3  # how far a number near 1 may be off in float16


@pytest.fixture(scope="module")
def tagged(tiny_encoder, tmp_path_factory) -> SimpleNamespace:
    """A bundle with a tagger, and the models that it was made from."""
    folder = tmp_path_factory.mktemp("tagged")
    model, _, labelled, _ = train_toy(folder / "checkpoint", epochs=2)
    _, prepared = toy_world(tiny_encoder)
    tagger, run = make_tagger(labelled, prepared), RunDir.at(folder / "run")
    manifest = export_bundle(model, tagger, prepared, TrainConfig(run_dir=str(run.path)), run)
    scorer = load_tag_scorer(None, run.bundle, manifest)
    made = {"model": model, "tagger": tagger, "labelled": labelled, "prepared": prepared}
    return SimpleNamespace(run=run, manifest=manifest, scorer=scorer, **made)


def make_tagger(labelled: LabelledFeatures, prepared: PreparedRun, word_embedding: str = "glove_6b_50d"):
    """A tagger as it is before training, but for its scales."""
    table = build_word_table(labelled, prepared.vocabulary, word_embedding)
    model = build_tagger(labelled.read(slice(None)), table.vectors, table.learned, seed=0)
    model.log_scales.assign(np.log([20.0, 30.0]))
    return TrainedTagger(model, table, History(), 0)


def test_the_bundle_s_towers_answer_as_keras_does(tagged):
    table, model, scorer = tagged.tagger.table, tagged.tagger.model, tagged.scorer
    features = np.random.default_rng(0).normal(size=(7, *tagged.labelled.shape)).astype(np.float32)
    np.testing.assert_allclose(scorer.image_vectors(features), model.image_tower(features), atol=HALF)
    texts = [*table.words[: table.learned], "red dog", "There is a WHITE tree, a blue boat in the picture!"]
    expected = np.concatenate([model.read(np.array([table.encode(text)])) for text in texts])
    np.testing.assert_allclose(scorer.text_vectors(texts), expected, atol=HALF)
    assert scorer.text_vectors(texts).any(1).all()


def test_the_manifest_tells_of_the_tagger(tagged):
    assert tagged.manifest.tagger == {
        "name": "dual_encoder",
        "scale": pytest.approx(30),  # of single words: they are what is tagged with
        "sentence_scale": pytest.approx(20),
        "word_embedding": "glove_6b_50d",
        "embedding_dim": 50,
        "width": 512,
        "words": tagged.tagger.table.learned,
        "languages": ["en"],
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
    prepared = replace(tagged.prepared, vocabulary=build_vocabulary({"en": ["dogs"]}, 1))
    tagger, run = make_tagger(labelled, prepared), RunDir.at(tmp_path)
    manifest = export_bundle(tagged.model, tagger, prepared, TrainConfig(run_dir=""), run)
    scorer = load_tag_scorer(None, run.bundle, manifest)
    assert (run.bundle / taggers.WORDS).read_text().split() == ["dogs", "dog"]
    assert tagger.table.words == ("dogs", "dog", "run", "two")
    expected = tagger.model.read(np.array([[1], [2]]))
    np.testing.assert_allclose(scorer.text_vectors(["dogs", "dog"]), expected, atol=HALF)


def test_the_same_model_exported_again_is_the_same_bytes(tagged, transformer, tiny_encoder, folder, tmp_path):
    """The names that Keras and tf2onnx give are other ones each time, and so is the order of what they write."""
    config = TrainConfig(run_dir=str(tmp_path))
    again = export_bundle(tagged.model, tagged.tagger, tagged.prepared, config, RunDir.at(tmp_path / "merge"))
    assert again == tagged.manifest
    assert again.files.keys() >= {bundle.STEP_GRAPH, bundle.TEXT_TOWER}
    prepared = PreparedRun(Dataset(()), VOCABULARY, EncodedImages(tiny_encoder, {}, {}))
    config = TrainConfig(run_dir="", model="transformer")
    again = export_bundle(transformer, None, prepared, config, RunDir.at(tmp_path / "transformer"))
    assert again == Bundle(folder).manifest


def test_a_bundle_without_a_tagger_holds_no_file_of_one(tagged, tmp_path):
    run = RunDir.at(tmp_path / "run")
    manifest = export_bundle(tagged.model, None, tagged.prepared, TrainConfig(run_dir=str(run.path)), run)
    assert sorted(path.name for path in run.bundle.iterdir()) == CAPTIONER_FILES
    assert manifest.tagger == {}
    assert Bundle(run.bundle).manifest == manifest
    assert load_tag_scorer(None, run.bundle, manifest) is None


# Weights in 16 bits


def make_product(*weights: np.ndarray) -> onnx.ModelProto:
    """A graph that multiplies its input [B, F] by all `weights`, [F, D] and so on."""
    names = ["features", *(f"product_{place}" for place in range(len(weights)))]
    ends = [(names[0], weights[0].shape[0]), (names[-1], weights[-1].shape[1])]
    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, size]) for name, size in ends)
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(len(weights))]
    arrays = [numpy_helper.from_array(array, f"w{place}") for place, array in enumerate(weights)]
    graph = helper.make_graph(nodes, "product", [given], [made], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def test_large_arrays_take_half_the_space_a_transposed_copy_none_and_it_computes_the_same(tmp_path):
    weights = np.random.default_rng(0).normal(size=(128, 64)).astype(np.float32)
    features = np.random.default_rng(1).normal(size=(5, 128)).astype(np.float32)
    model = make_product(weights, weights.T)
    size = model.ByteSize()
    store_fp16(model)
    assert len(model.graph.initializer) == 1
    assert model.ByteSize() < 0.27 * size
    onnx.save(model, tmp_path / "graph.onnx")
    (made,) = open_session(tmp_path / "graph.onnx").run(None, {"features": features})
    half = weights.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(made, features @ half @ half.T, atol=1e-2)
    assert made.dtype == np.float32


@pytest.mark.parametrize(
    "weights",
    [np.full((LEAST - 1, 1), 0.1, np.float32), np.full((LEAST, 1), 1e5, np.float32), np.ones((LEAST, 1), np.float64)],
    ids=["small", "beyond 16 bits", "not float32"],
)
def test_other_arrays_stay_as_they_are(weights):
    model = helper.make_model(helper.make_graph([], "g", [], [], [numpy_helper.from_array(weights, "weights")]))
    store_fp16(model)
    (kept,) = model.graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(kept), weights)
    assert not model.graph.node
