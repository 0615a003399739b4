"""Versions of the tiny captioner that can be told apart by what they write, whole and broken ones.

Version "b" says "ab redb squareb" where the tiny captioner says "a red square": every word, and so every tag, tells
which one it is from.
"""

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from lcm.captioning import taggers
from lcm.captioning.bundle import STEP_GRAPH, Manifest, seal
from lcm.data.text import RESERVED, Vocabulary
from lcm.features.encoders import EncoderIdentity
from tests.fakes.tiny_graphs import (
    END,
    IMPOSSIBLE,
    START,
    TAG_WORDS,
    TAGGER,
    VOCABULARY,
    WIDTH,
    A,
    save_bundle,
    save_graph,
    save_step,
    save_tag_files,
    tensor,
    varied_table,
)


def red_picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 24), "red").save(file, "PNG")
    return file.getvalue()


def words_of(letters: str) -> tuple[str, ...]:
    return tuple(word + letters for word in VOCABULARY.own_words)


def letters_of(captions: list[str], tags: list) -> set[str]:
    """Return which versions the words of an answer are from."""
    words = " ".join([*captions, *(word for word, _ in tags)]).split()
    return {re.sub("^(square|red|green|blue|a)", "", word) for word in words}


def save_version(folder: Path, encoder: EncoderIdentity, letters: str, ballast_mb: int = 0, **changes) -> Path:
    """Write the bundle of a version; its name is "tiny-" and the letters, `ballast_mb` are weights that do nothing."""
    changes = {"name": f"tiny-{letters}", "tagger": TAGGER} | changes
    save_bundle(folder, encoder, **changes)
    save_step(folder / STEP_GRAPH, varied_table())
    save_tag_files(folder, {word + letters: vector for word, vector in TAG_WORDS.items()})
    if ballast_mb:
        add_to_log_probs(folder / STEP_GRAPH, *_ballast(ballast_mb))
    for path in folder.glob("*.onnx"):  # so that no two versions share a file
        graph = onnx.load(path)
        graph.doc_string = letters
        path.write_bytes(graph.SerializeToString())
    Vocabulary((*RESERVED, *words_of(letters))).save(folder / "vocabulary.txt")
    reseal(folder)
    return folder


BILINGUAL = Vocabulary((*VOCABULARY.words, "<fr>", "un", "carré", "rouge", "vert", "bleu"))


def save_bilingual(folder: Path, encoder: EncoderIdentity, **changes) -> Path:
    """Write the bundle of a captioner that writes "un carré rouge" in French, and its tag scorer reads that."""
    save_bundle(folder, encoder, **{"tagger": TAGGER, "vocabulary_size": len(BILINGUAL)} | changes)
    table = np.full((3, len(BILINGUAL), len(BILINGUAL)), IMPOSSIBLE, np.float32)
    table[:, : len(VOCABULARY), : len(VOCABULARY)] = varied_table()
    fr, un, carre = BILINGUAL.starts["fr"], BILINGUAL.ids["un"], BILINGUAL.ids["carré"]
    for place, colour in enumerate(range(carre + 1, carre + 4)):
        for last, following in ((fr, un), (un, carre), (carre, colour), (colour, END)):
            table[place, last, following] = np.log(0.5)
    save_step(folder / STEP_GRAPH, table)
    BILINGUAL.save(folder / "vocabulary.txt")
    in_french = zip(("rouge", "vert", "bleu", "carré"), TAG_WORDS.values(), strict=True)
    save_tag_files(folder, TAG_WORDS | dict(in_french))
    reseal(folder)
    return folder


def reseal(folder: Path, **changes) -> None:
    """Give a bundle the hashes of what its files hold now."""
    seal(folder, replace(Manifest.load(folder), **changes))


def add_to_log_probs(path: Path, nodes: list, constants: dict[str, np.ndarray]) -> None:
    """Add `extra`, which the nodes compute, perhaps from `plain`, to what a step graph gives."""
    model = onnx.load(path)
    plain, extra = (f"{name}_{len(model.graph.node)}" for name in ("plain", "extra"))  # it may be done twice
    for node in model.graph.node:
        node.output[:] = [plain if name == "log_probs" else name for name in node.output]
    for node in nodes:
        node.input[:] = [plain if name == "plain" else name for name in node.input]
        node.output[:] = [extra if name == "extra" else name for name in node.output]
    model.graph.node.extend([*nodes, helper.make_node("Add", [plain, extra], ["log_probs"])])
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _ballast(megabytes: int) -> tuple[list, dict[str, np.ndarray]]:
    """Return nodes that read one row of a large table, depending on the last word, and make 0 of it."""
    weights = np.ones((megabytes << 17, 2), np.float32)
    nodes = [
        helper.make_node("Gather", ["weights", "ids"], ["rows"], axis=0),  # [B, W, 2]
        helper.make_node("ReduceSum", ["rows", "last"], ["sums"], keepdims=1),  # [B, W, 1]
        helper.make_node("Mul", ["sums", "nothing"], ["extra"]),
    ]
    return nodes, {"weights": weights, "nothing": np.float32(0)}


def _other_input(folder: Path) -> None:
    """The graph takes one feature more than the encoder gives."""
    nodes = [
        helper.make_node("Slice", ["features", "zero", "three", "one"], ["colours"]),
        helper.make_node("ArgMax", ["colours"], ["colour"], axis=1, keepdims=1),
    ]
    constants = {"zero": np.array([0]), "three": np.array([3]), "one": np.array([1])}
    inputs, outputs = [tensor("features", TensorProto.FLOAT, WIDTH + 1)], [tensor("colour", TensorProto.INT64, 1)]
    save_graph(folder / "start.onnx", nodes, inputs, outputs, constants)
    reseal(folder)


def _longer_vocabulary(folder: Path) -> None:
    words = Vocabulary.load(folder / "vocabulary.txt").words
    Vocabulary((*words[:5], "between", *words[5:])).save(folder / "vocabulary.txt")
    reseal(folder, vocabulary_size=len(words) + 1)


def _table(change: Callable[[np.ndarray], None]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        table = varied_table()
        change(table)
        save_step(folder / STEP_GRAPH, table)
        reseal(folder)

    return write


def _always_ends(table: np.ndarray) -> None:
    table[:, START] = -30
    table[:, START, END] = 0


def _half_nan(table: np.ndarray) -> None:
    table[:, A, 8] = np.nan  # one word that is never the best one


def _nan_tags(folder: Path) -> None:
    rows = np.load(folder / taggers.WORD_ROWS)
    np.save(folder / taggers.WORD_ROWS, np.full_like(rows, np.nan))
    reseal(folder)


def _by_chance(folder: Path) -> None:
    """Which words are likely changes from one time to the next."""
    noise = helper.make_node("RandomUniformLike", ["plain"], ["extra"], low=-40.0, high=0.0)
    add_to_log_probs(folder / STEP_GRAPH, [noise], {})
    reseal(folder)


# Broken versions whose hashes are right: each is loaded, or nearly so, and does not work.
BROKEN: dict[str, Callable[[Path], None]] = {
    "other-input": _other_input,
    "longer-vocabulary": _longer_vocabulary,
    "nan": _table(lambda table: table.fill(np.nan)),
    "half-nan": _table(_half_nan),
    "empty-captions": _table(_always_ends),
    "nan-tags": _nan_tags,
    "by-chance": _by_chance,
    "no-graph": lambda folder: (folder / STEP_GRAPH).write_bytes(b"no graph") and reseal(folder),
    "no-table": lambda folder: (folder / taggers.WORD_ROWS).write_bytes(b"no array") and reseal(folder),
}
