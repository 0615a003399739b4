"""Tiny ONNX graphs whose answers are known by hand: an encoder that sees mean colours, a captioner that names one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lcm.captioning import bundle
from lcm.data.vocabulary import END, RESERVED, START, Vocabulary
from lcm.encoding.encoders import EncoderIdentity, EncoderSpec

SIZE, POSITIONS, WIDTH = 8, 4, 64
VOCABULARY = Vocabulary((*RESERVED, "a", "square", "red", "green", "blue"))
A, SQUARE, RED, GREEN, BLUE = range(4, 9)
IMPOSSIBLE = -30.0  # log-probability of what the captioner does not write


def save_graph(path: Path, nodes: list, inputs: list, outputs: list, constants: dict[str, np.ndarray]) -> None:
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def tensor(name: str, kind: int, *shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["batch", *shape])


def save_encoder(path: Path, seed: int = 0) -> None:
    """Each of four strips of two pixel rows gives 64 numbers: its mean red, green, blue (0 to 1), and mixtures."""
    mixtures = np.random.default_rng(seed).normal(size=(3, WIDTH)).astype(np.float32)
    mixtures[:, :3] = np.eye(3)
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["pixels", "white"], ["shares"]),
        helper.make_node("Reshape", ["shares", "strips"], ["by_strip"]),  # [B, 4, 16, 3]
        helper.make_node("ReduceMean", ["by_strip", "two"], ["colours"], keepdims=0),  # [B, 4, 3]
        helper.make_node("MatMul", ["colours", "mixtures"], ["grid"]),  # [B, 4, 64]
        helper.make_node("ReduceMean", ["grid", "one"], ["pooled"], keepdims=0),  # [B, 64]
    ]
    constants = {
        "white": np.float32(255),
        "strips": np.array([-1, POSITIONS, 2 * SIZE, 3]),
        "mixtures": mixtures,
        "one": np.array([1]),
        "two": np.array([2]),
    }
    outputs = [tensor("pooled", TensorProto.FLOAT, WIDTH), tensor("grid", TensorProto.FLOAT, POSITIONS, WIDTH)]
    save_graph(path, nodes, [tensor("image", TensorProto.UINT8, SIZE, SIZE, 3)], outputs, constants)


class TinyConversion:
    """Stands where an encoder's conversion stands, and counts how often it is asked."""

    def __init__(self, seed: int = 0):
        self.seed, self.calls = seed, 0

    def __call__(self, _name: str, _size: int, _weights: str, onnx_path: Path) -> str:
        self.calls += 1
        save_encoder(onnx_path, self.seed)
        return f"{self.seed:064x}"


def tiny_spec(conversion) -> EncoderSpec:
    return EncoderSpec(SIZE, POSITIONS, WIDTH, conversion)


def log_prob_table() -> np.ndarray:
    """Return log-probabilities [3 colours, V last words, V next words]: "a <colour> square", each word with 0.5."""
    size = len(VOCABULARY)
    table = np.full((3, size, size), IMPOSSIBLE, np.float32)
    for place, colour in enumerate((RED, GREEN, BLUE)):
        for last, following in ((START, A), (A, colour), (colour, SQUARE), (SQUARE, END)):
            table[place, last, following] = np.log(0.5)
    return table


def save_start(path: Path) -> None:
    """The state is the strongest of the first three features: 0 red, 1 green, 2 blue."""
    nodes = [
        helper.make_node("Slice", ["features", "zero", "three", "one"], ["colours"]),
        helper.make_node("ArgMax", ["colours"], ["state"], axis=1, keepdims=1),
    ]
    constants = {"zero": np.array([0]), "three": np.array([3]), "one": np.array([1])}
    inputs, outputs = [tensor("features", TensorProto.FLOAT, WIDTH)], [tensor("state", TensorProto.INT64, 1)]
    save_graph(path, nodes, inputs, outputs, constants)


def save_step(path: Path) -> None:
    """Look the log-probabilities up under colour and last word; the state stays what it is."""
    nodes = [
        helper.make_node("Cast", ["token_ids"], ["ids"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["ids", "one"], ["column"]),
        helper.make_node("Concat", ["state", "column"], ["places"], axis=1),
        helper.make_node("GatherND", ["table", "places"], ["log_probs"]),
        helper.make_node("Identity", ["state"], ["next_state"]),
    ]
    constants = {"one": np.array([1]), "table": log_prob_table()}
    inputs = [tensor("token_ids", TensorProto.INT32), tensor("state", TensorProto.INT64, 1)]
    outputs = [tensor("log_probs", TensorProto.FLOAT, len(VOCABULARY)), tensor("next_state", TensorProto.INT64, 1)]
    save_graph(path, nodes, inputs, outputs, constants)


def tiny_manifest(encoder: EncoderIdentity, **changes) -> bundle.Manifest:
    manifest = bundle.Manifest(
        name="tiny-1",
        model="merge",
        settings={"units": 3},
        training={"epochs": 7, "learning_rate": 0.5},
        training_data={"source": "squares", "train_images": 3, "train_captions": 12},
        vocabulary_size=len(VOCABULARY),
        feature_kind="pooled",
        encoder=encoder,
        beam_width=2,
        max_words=5,
    )
    return replace(manifest, **changes)


def save_bundle(folder: Path, encoder: EncoderIdentity, files: Sequence[tuple[str, bytes]] = (), **changes) -> Path:
    """Write a whole bundle; `files` replace its own before it is sealed, `changes` its manifest's fields."""
    folder.mkdir()
    save_start(folder / bundle.START_GRAPH)
    save_step(folder / bundle.STEP_GRAPH)
    VOCABULARY.save(folder / bundle.VOCABULARY)
    for name, content in files:
        (folder / name).write_bytes(content)
    bundle.seal(folder, tiny_manifest(encoder, **changes))
    return folder
