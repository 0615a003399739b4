"""Tiny ONNX graphs whose answers are known by hand: an encoder that sees mean colours, a captioner that names one.

And a dual encoder that knows how far a picture is red, green and blue: a word's vector is its colour.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from lcm.captioning import bundle, taggers
from lcm.data.text import END, RESERVED, START, Vocabulary
from lcm.features.encoders import ENCODERS, EncoderIdentity, EncoderSpec, load_encoder

SIZE, POSITIONS, WIDTH = 8, 4, 64
VOCABULARY = Vocabulary((*RESERVED, "a", "square", "red", "green", "blue"))
A, SQUARE, RED, GREEN, BLUE = range(4, 9)
IMPOSSIBLE = -30.0  # log-probability of what the captioner does not write
# The table of the tag scorer: what is red, green and blue of a word's vector, and what is learned beyond that.
TAG_WORDS = {"red": (1, 0, 0, 0), "green": (0, 1, 0, 0), "blue": (0, 0, 1, 0), "square": (0, 0, 0, 1)}
TAG_SCALE = float(np.log(4))  # cosine 1 has four times the share of cosine 0
# By words, the probability of cosine 1 is 4/5 and that of 0 is 1/2; by labels, green must be nearer, as all photos are.
CURVES = {"words": [1.0, 0.0, 0.0], "labels": [2.0, -1.0, 0.0], "mean_image": [0.0, 1.0, 0.0, 0.0]}
TAGGER = {"name": "tiny-tags", "scale": TAG_SCALE, "word_embedding": "not installed", "embedding_dim": 3}
PROBABLE = TAGGER | {"curves": CURVES}


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
        "strips": np.array([-1, POSITIONS, SIZE * SIZE // POSITIONS, 3]),
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
        return f"{self.seed:x}" * 64  # as real hashes, two differ in their first digits


def tiny_spec(conversion) -> EncoderSpec:
    return EncoderSpec(SIZE, POSITIONS, WIDTH, conversion)


def use_tiny_encoder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> EncoderIdentity:
    """Make the tiny encoder the one named "tiny", converted in a cache of its own."""
    monkeypatch.setenv("LCM_HOME", str(folder / "home"))
    monkeypatch.setitem(ENCODERS, "tiny", tiny_spec(TinyConversion()))
    return load_encoder("tiny").identity


def make_picture(path: Path, colour: tuple[int, int, int] | str) -> Path:
    Image.new("RGB", (40, 24), colour).save(path)
    return path


def log_prob_table() -> np.ndarray:
    """Return log-probabilities [3 colours, V last words, V next words]: "a <colour> square", each word with 0.5."""
    size = len(VOCABULARY)
    table = np.full((3, size, size), IMPOSSIBLE, np.float32)
    for place, colour in enumerate((RED, GREEN, BLUE)):
        for last, following in ((START, A), (A, colour), (colour, SQUARE), (SQUARE, END)):
            table[place, last, following] = np.log(0.5)
    return table


def varied_table() -> np.ndarray:
    """As log_prob_table, but of the beginnings "a" and "a <colour>" one in three goes on with "square" and END."""
    table = log_prob_table()
    for place, colour in enumerate((RED, GREEN, BLUE)):
        table[place, A, [colour, SQUARE]] = np.log([0.4, 0.2])
        table[place, colour, [SQUARE, END]] = np.log([0.4, 0.2])
    return table


def save_start(path: Path, feature_kind: str = "pooled") -> None:
    """What is held of an image is the strongest of its first three features: 0 red, 1 green, 2 blue."""
    shape, pool = (WIDTH,), helper.make_node("Identity", ["features"], ["pooled"])
    if feature_kind == "grid":
        shape, pool = (POSITIONS, WIDTH), helper.make_node("ReduceMean", ["features", "one"], ["pooled"], keepdims=0)
    nodes = [
        pool,
        helper.make_node("Slice", ["pooled", "zero", "three", "one"], ["colours"]),
        helper.make_node("ArgMax", ["colours"], ["colour"], axis=1, keepdims=1),
    ]
    constants = {"zero": np.array([0]), "three": np.array([3]), "one": np.array([1])}
    inputs, outputs = [tensor("features", TensorProto.FLOAT, *shape)], [tensor("colour", TensorProto.INT64, 1)]
    save_graph(path, nodes, inputs, outputs, constants)


def save_step(path: Path, table: np.ndarray | None = None) -> None:
    """Look the log-probabilities up under colour and last word; a text's row counts its words."""
    nodes = [
        helper.make_node("Cast", ["token_ids"], ["ids"], to=TensorProto.INT64),
        helper.make_node("Shape", ["ids"], ["texts"]),
        helper.make_node("Expand", ["image_0", "texts"], ["colours"]),  # [B, W]
        helper.make_node("Unsqueeze", ["colours", "last"], ["colour_column"]),
        helper.make_node("Unsqueeze", ["ids", "last"], ["id_column"]),
        helper.make_node("Concat", ["colour_column", "id_column"], ["places"], axis=2),
        helper.make_node("GatherND", ["table", "places"], ["log_probs"]),
        helper.make_node("Add", ["row_0", "one"], ["next_row"]),
    ]
    table = log_prob_table() if table is None else table
    constants = {"last": np.array([2]), "one": np.float32(1), "table": table}
    inputs = [
        tensor("token_ids", TensorProto.INT32, "texts"),
        tensor("image_0", TensorProto.INT64, 1),
        tensor("row_0", TensorProto.FLOAT, "texts", 1),
    ]
    outputs = [
        tensor("log_probs", TensorProto.FLOAT, "texts", table.shape[2]),
        tensor("next_row", TensorProto.FLOAT, "texts", 1),
    ]
    save_graph(path, nodes, inputs, outputs, constants)


def save_image_tower(path: Path) -> None:
    """The first three features, mean red, green and blue, and a 0, as a unit vector [B, 4]."""
    nodes = [helper.make_node("MatMul", ["features", "first_three"], ["colours"]), *_normalise("colours", "vectors")]
    first_three = np.zeros((WIDTH, 4), np.float32)
    first_three[:3, :3] = np.eye(3)
    constants = {"first_three": first_three, "axis": np.array([1]), "tiny": np.float32(1e-6)}
    inputs, outputs = [tensor("features", TensorProto.FLOAT, WIDTH)], [tensor("vectors", TensorProto.FLOAT, 4)]
    save_graph(path, nodes, inputs, outputs, constants)


def save_text_tower(path: Path) -> None:
    """The sum of the rows [B, T, 4] that count [B, T], as a unit vector [B, 4]."""
    nodes = [
        helper.make_node("Unsqueeze", ["counted", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axis"], ["sums"], keepdims=0),
        *_normalise("sums", "vectors"),
    ]
    inputs = [tensor("rows", TensorProto.FLOAT, "words", 4), tensor("counted", TensorProto.FLOAT, "words")]
    constants = {"last": np.array([2]), "axis": np.array([1]), "tiny": np.float32(1e-6)}
    save_graph(path, nodes, inputs, [tensor("vectors", TensorProto.FLOAT, 4)], constants)


def _normalise(name: str, result: str) -> list:
    """Divide [B, 4] by its length; needs the constants `axis` and `tiny`, for black has no length."""
    return [
        helper.make_node("ReduceL2", [name, "axis"], ["length"]),
        helper.make_node("Max", ["length", "tiny"], ["divisor"]),
        helper.make_node("Div", [name, "divisor"], [result]),
    ]


def save_tag_files(folder: Path, words: Mapping[str, Sequence[float]] = TAG_WORDS) -> None:
    """Write the files of a tag scorer whose table gives each word its vector; its rows are the same."""
    save_image_tower(folder / taggers.IMAGE_TOWER)
    save_text_tower(folder / taggers.TEXT_TOWER)
    (folder / taggers.WORDS).write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    rows = np.array(list(words.values()), np.float16).reshape(len(words), 4)
    np.save(folder / taggers.WORD_ROWS, rows)


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
    """Write a whole bundle; `files` replace its own before it is sealed, `changes` its manifest's fields.

    With tagger=TAGGER it has a tag scorer.
    """
    folder.mkdir()
    save_encoder(folder / bundle.ENCODER_GRAPH)
    save_start(folder / bundle.START_GRAPH, changes.get("feature_kind", "pooled"))
    save_step(folder / bundle.STEP_GRAPH)
    VOCABULARY.save(folder / bundle.VOCABULARY)
    if changes.get("tagger"):
        save_tag_files(folder)
    for name, content in files:
        (folder / name).write_bytes(content)
    bundle.seal(folder, tiny_manifest(encoder, **changes))
    return folder
