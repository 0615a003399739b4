"""The ways to train that are timed: the same loss and the same gradients, and arithmetic counted by hand."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from lcm.benchmark import training
from lcm.benchmark.arithmetic import merge_gflop, product_rate, step_gflop, transformer_gflop
from lcm.benchmark.losses import compare_losses
from lcm.benchmark.plain import PlainTraining
from lcm.benchmark.profile import OTHER, kind_of, profile
from lcm.data.dataset import LabelledImage
from lcm.data.text import build_vocabulary
from lcm.errors import DataError
from lcm.features.cache import LabelledFeatures
from lcm.models import build_model
from lcm.models.transformer import Transformer
from lcm.training.batches import CaptionBatches
from lcm.training.loop import caption_loss

CAPTIONS = (("a dog", "a brown dog runs"), ("two cats sleep on a red sofa", "cats"), ("a boat", "one white boat"))


def toy(images: int, shape: tuple[int, ...] = (4,)) -> tuple[LabelledFeatures, object, np.ndarray]:
    """Return labelled features, their vocabulary and word vectors."""
    labelled = [LabelledImage(str(at), Path(), "train", CAPTIONS[at % 3]) for at in range(images)]
    features = np.random.default_rng(0).normal(size=(images, *shape)).astype(np.float32)
    words = build_vocabulary([text for image in labelled for text in image.captions], 1)
    vectors = np.random.default_rng(1).normal(size=(len(words), 5)).astype(np.float32)
    return LabelledFeatures(labelled, np.arange(images), features), words, vectors


def test_all_ways_come_to_the_same_loss_by_the_same_steps():
    losses = compare_losses(*toy(15), steps=3)
    assert [len(each) for each in losses.values()] == [3, 3, 3]
    assert losses["ours"][-1] < losses["ours"][0]
    np.testing.assert_allclose(losses["plain"], losses["ours"], atol=1e-5)
    np.testing.assert_allclose(losses["original"], losses["ours"], atol=1e-5)


@pytest.mark.parametrize(("name", "shape"), [("merge", (4,)), ("transformer", (3, 4))])
def test_plain_keras_has_our_loss_and_our_gradients(name, shape):
    """A batch padded and spread over rows is the same batch."""
    labelled, words, vectors = toy(3, shape)
    model = build_model(name, labelled.shape, vectors, seed=0)
    (batch,) = CaptionBatches(labelled, words, 6, together=True).epoch(0, 0)
    plain = PlainTraining.of(model, [batch], longest=12)
    assert plain.inputs.shape == (6, 1, 12)
    variables = model.trainable_variables
    with tf.GradientTape(persistent=True) as tape:
        ours = caption_loss(model, batch.features, batch.inputs, batch.targets, False)
        loss = keras.losses.SparseCategoricalCrossentropy()
        theirs = loss(plain.targets, model((plain.features, plain.inputs)), sample_weight=plain.weights())
    assert float(ours) == pytest.approx(float(theirs), abs=1e-5)
    pairs = zip(tape.gradient(ours, variables), tape.gradient(theirs, variables), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(*map(tf.convert_to_tensor, (one, other)), atol=1e-5)


# Arithmetic


def test_arithmetic_of_merge_by_hand():
    """Three features, two numbers a word, one wide, five words: 4 rows of 6 positions, 10 of them real."""
    settings = {"feature_shape": [3], "embedding_dim": 2, "width": 1, "vocabulary_size": 5}
    image, words, recurrent = 2 * 4 * 3 * 1 * 2, 2 * 24 * 2 * 4 * 2, 2 * 24 * 1 * 4 * 3
    written = 2 * 10 * (1 * 1 + 1 * 5) * 3
    assert merge_gflop(settings, 4, 6, 10) * 1e9 == pytest.approx(image + words + recurrent + written)


def test_arithmetic_of_the_transformer_agrees_with_tensorflow_s_count():
    """Of one pass forwards: a third of a step, for the features' gradient is the one product that is not taken."""
    labelled, _, vectors = toy(2, (3, 4))
    model = build_model("transformer", labelled.shape, vectors, seed=0)
    ids = np.ones((2, 2, 6), np.int32)
    run = tf.function(lambda: model((labelled.store, ids))).get_concrete_function()
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    counted = tf.compat.v1.profiler.profile(run.graph, options=options | {"output": "none"})
    products = {one.name: one.total_float_ops for one in _leaves(counted) if "MatMul" in one.name.rpartition("/")[2]}
    ours = transformer_gflop(model.settings, 2, 2, 6, 2 * 2 * 6) * 1e9
    features = 2 * 2 * 3 * 4 * model.settings["width"]
    assert sum(products.values()) == pytest.approx((ours + features) / 3, rel=1e-6)


def _leaves(node) -> list:
    return [leaf for child in node.children for leaf in _leaves(child)] or [node]


def test_bare_products_say_how_much_they_did():
    assert product_rate("bfloat16")() == product_rate("float32")() > 1


# Ways and profiles


@pytest.fixture
def _short(monkeypatch):
    """One step a round, of one graph: compiling takes seconds."""
    monkeypatch.setattr(training, "STEPS", 1)
    monkeypatch.setattr(training, "OTHER_STEPS", 1)
    monkeypatch.setattr(training, "GRID_POSITIONS", 2)


def small_transformer(_name, shape, vectors, seed) -> Transformer:
    keras.utils.set_random_seed(seed)
    model = Transformer(shape, len(vectors), width=8, heads=1, encoder_layers=0, decoder_layers=1)
    model((np.zeros((1, *shape), np.float32), np.zeros((1, 1, 1), np.int32)))
    return model


@pytest.mark.usefixtures("_short")
def test_every_way_to_train_merge_is_timed_beside_the_limit():
    ways = training.merge_ways(*toy(5), batch_size=100)
    speed = training.measure(ways, 1, [training.OURS])
    assert set(speed.rates.per_second) == {*ways, "matrix products, float32", "matrix products, bfloat16"}
    rate, limit = speed.rates.of(training.HALF), speed.rates.of("matrix products, bfloat16")
    assert speed.share(training.HALF) == pytest.approx(rate * ways[training.HALF].gflop_per_image / limit)
    assert ways[training.OURS].gflop_per_image < ways[training.PLAIN].gflop_per_image
    assert ways[training.PLAIN].gflop_per_image < ways[training.ORIGINAL].gflop_per_image
    assert sum(speed.profiles[training.OURS].values()) == pytest.approx(1)


@pytest.mark.usefixtures("_short")
def test_every_way_to_train_the_transformer_is_timed(monkeypatch):
    monkeypatch.setattr(training, "build_model", small_transformer)
    ways = training.transformer_ways(*toy(5), batch_size=100)
    speed = training.measure(ways, 1)
    assert set(ways) == {training.OURS, training.PLAIN, training.SELF_CRITICAL}
    assert speed.share(training.SELF_CRITICAL) is None
    assert speed.profiles == {}


def test_the_arithmetic_of_a_step_is_that_of_its_batch():
    labelled, words, vectors = toy(3)
    model = build_model("merge", labelled.shape, vectors, seed=0)
    (batch,) = CaptionBatches(labelled, words, 6).epoch(0, 0)
    rows, _, length = batch.inputs.shape
    assert step_gflop(model, batch) == merge_gflop(model.settings, rows, length, batch.positions)


def test_too_little_data_is_refused():
    with pytest.raises(DataError, match="3 images are too few to measure"):
        training.merge_ways(*toy(3), batch_size=8)


def test_a_profile_tells_products_from_the_rest():
    matrix = tf.random.normal((256, 256))
    shares = profile(tf.function(lambda: tf.reduce_sum(matrix @ matrix @ matrix)), repeats=3)
    assert sum(shares.values()) == pytest.approx(1)
    assert next(iter(shares)) == "matrix products"


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("MatMul", "matrix products"),
        ("_MklNativeFusedMatMul", "matrix products"),
        ("_MklSoftmax", "softmax and loss"),
        ("AssignSubVariableOp", "weights and their steps"),
        ("ConcatV2", "moved about"),
        ("Tanh", OTHER),
    ],
)
def test_operations_have_kinds(operation, kind):
    assert kind_of(operation) == kind
