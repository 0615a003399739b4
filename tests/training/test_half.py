"""Half precision: large weights in 16 bits, what is computed all but the same."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lcm.features.encoders import open_session
from lcm.training.export import LEAST, halve_weights


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
    halve_weights(path)
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
    halve_weights(path)
    (kept,) = onnx.load(path).graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(kept), weights)
    assert not onnx.load(path).graph.node


def test_halving_twice_changes_nothing_more(tmp_path):
    path = tmp_path / "graph.onnx"
    save_product(path, np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32))
    halve_weights(path)
    once = path.read_bytes()
    halve_weights(path)
    assert path.read_bytes() == once
