"""From trained Keras models to a bundle: ONNX graphs with 16-bit weights, beside their encoder's file."""

import hashlib
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lcm.captioning import bundle, taggers
from lcm.config import TrainConfig
from lcm.data.text import comparison_form
from lcm.errors import ConfigError, choose
from lcm.features.cache import PreparedRun
from lcm.features.encoders import find_encoder, open_session
from lcm.features.text_towers import TOWER, find_text_tower
from lcm.models import ADAPTED, KEPT, MODELS, TAGGERS
from lcm.paths import RunDir
from lcm.retraining.select import CONTRIBUTIONS, ParentVersion
from lcm.training.adapt import AdaptedTagger
from lcm.training.contrastive import TrainedTagger
from lcm.training.loop import NOT_LEARNED, save_weights

LEAST = 1024  # numbers of an array that is worth it; small ones are scales, biases and constants


def put_in_order(model: onnx.ModelProto) -> None:
    """Order and name what a graph holds as its outputs need it, in place, so that equal models are equal bytes.

    tf2onnx numbers its names through the whole process, and its order is that of sets. Inputs and outputs keep theirs.
    """
    graph, ordered = model.graph, {}  # by id
    makers = {array.name: array for array in graph.initializer}
    makers |= {name: node for node in graph.node for name in node.output}
    names = {entry.name: entry.name for entry in (*graph.input, *graph.output)}

    def place(name: str) -> None:
        maker = makers.pop(name, None)
        if maker is not None and id(maker) not in ordered:
            for read in getattr(maker, "input", ()):
                place(read)
            ordered[id(maker)] = maker

    for entry in graph.output:
        place(entry.name)
    for number, one in enumerate(ordered.values()):
        if isinstance(one, onnx.NodeProto):
            names = {made: f"value_{number}_{output}" for output, made in enumerate(one.output)} | names
            one.input[:], one.output[:] = ([names.get(name, name) for name in each] for each in (one.input, one.output))
            one.name = f"node_{number}"
        else:
            names[one.name] = one.name = f"array_{number}"
    for field in ("value_info", "doc_string", "node", "initializer"):
        graph.ClearField(field)
    for one in ordered.values():
        (graph.node if isinstance(one, onnx.NodeProto) else graph.initializer).append(one)
    for size in (size for entry in (*graph.input, *graph.output) for size in entry.type.tensor_type.shape.dim):
        size.ClearField("dim_param")  # numbered, too


def store_fp16(model: onnx.ModelProto) -> None:
    """Store the large float32 arrays of a graph as float16, in place, and a transposed copy not at all.

    ONNX Runtime widens and transposes them when it loads the graph and computes in 32 bits as before; a weight of 16
    bits has a relative error of at most 0.05 %. An array with a number beyond what 16 bits hold (65,504) is left as it
    is.
    """
    nodes = []
    stored: dict[bytes, str] = {}  # content -> name
    for array in list(model.graph.initializer):
        values, name = numpy_helper.to_array(array), array.name
        if values.dtype != np.float32 or values.size < LEAST or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        half = values.astype(np.float16)
        twin = stored.get(half.T.tobytes()) if half.ndim == 2 else None
        if twin:  # the transformer's words, which it reads and, transposed, writes with
            model.graph.initializer.remove(array)
            nodes.append(helper.make_node("Transpose", [twin], [name], name=f"{name}_transposed", perm=[1, 0]))
        else:
            array.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
            nodes.append(helper.make_node("Cast", [f"{name}_half"], [name], name=f"{name}_widen", to=TensorProto.FLOAT))
            stored[half.tobytes()] = name
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


def check_parameters(config: TrainConfig, parent: ParentVersion | None = None, run: PreparedRun | None = None) -> None:
    """Raise ConfigError or BundleError, before any training, for what could not be exported after it."""
    choose(MODELS, config.model, "model")
    choose(TAGGERS, config.tagger, "tagger")
    if config.tagger in (KEPT, ADAPTED) and parent is None:
        raise ConfigError(f"tagger is {config.tagger!r}, and training is from scratch; choose dual_encoder or none")
    if config.tagger == TOWER and run:
        find_text_tower(run.encoded.encoder)


def export_bundle(
    model,
    tagger: TrainedTagger | AdaptedTagger | None,
    prepared: PreparedRun,
    config: TrainConfig,
    run: RunDir,
    parent: ParentVersion | None = None,
) -> bundle.Manifest:
    """Write `model` with its tag scorer as the bundle of a run that has none yet.

    `parent` is the model that training continued from; with the tagger "kept", its tag scorer stays as it is, and so
    does a text tower. Returns the manifest. Raises BundleError when the encoder of the run's features is not here any
    more.
    """
    folder = run.bundle
    folder.mkdir()
    shutil.copyfile(find_encoder(prepared.encoded.encoder).path, folder / bundle.ENCODER_GRAPH)
    start, step = _graphs(model)
    _export_graph(start, folder / bundle.START_GRAPH)
    _export_graph(step, folder / bundle.STEP_GRAPH, bundle.ATTENTION if model.feature_kind == "grid" else "")
    prepared.vocabulary.save(folder / bundle.VOCABULARY)
    save_weights(model, folder / bundle.WEIGHTS)
    settings, source = {}, None  # of the tag scorer, and where its files are already
    if isinstance(tagger, TrainedTagger):
        settings = _export_tagger(tagger, config.word_embedding, folder)
        settings["languages"] = [*prepared.vocabulary.starts]
    elif config.tagger == TOWER:
        source, facts = find_text_tower(prepared.encoded.encoder)
        settings = {"name": TOWER, **facts, "languages": [*prepared.vocabulary.starts]}
    elif parent and config.tagger in (KEPT, ADAPTED):
        source, settings = parent.folder, dict(parent.manifest.tagger)
    for name in bundle.tagger_files(settings) if source else ():
        shutil.copyfile(source / name, folder / name)
    if isinstance(tagger, AdaptedTagger):
        settings |= tagger.change(folder, settings)
    return bundle.seal(folder, _describe(model, tagger, settings, prepared, config, run, parent))


def _describe(model, tagger, settings, prepared, config, run, parent) -> bundle.Manifest:
    """Return the manifest of what export_bundle writes, with a tag scorer of these `settings`.

    The metrics of 01_prepare say where the captions came from, and which contributions are among them. A model with a
    parent chooses captions as that does.
    """
    weights = [*model.get_weights(), *(tagger.weights if tagger else ())]
    digest = hashlib.sha256(b"".join(array.tobytes() for array in weights)).hexdigest()
    metrics = run.read_metrics()
    data = prepared.sizes() | {"source": metrics.get("data_source")}
    data |= {name: metrics[name] for name in CONTRIBUTIONS if name in metrics}
    choice = {}
    if parent:
        data |= {"started_from": parent.manifest.name, "start_version": parent.version}
        before = dict(parent.manifest.training_data)
        learned = f"{before.get('train_images')} train images, {before.get('train_captions')} captions"
        data["learned_before"] = before.get("learned_before", {}) | {str(before.get("source")): learned}
        choice["rerank_weight"] = parent.manifest.rerank_weight if settings else 0.0
        choice["length_power"] = parent.manifest.length_power
        choice["calibration"] = parent.manifest.calibration  # until 03_evaluate has enough images for its own curve
    return bundle.Manifest(
        name=f"{config.model}-{digest[:8]}",
        model=config.model,
        settings=model.settings,
        training={name: value for name, value in asdict(config).items() if name not in NOT_LEARNED},
        training_data=data,
        vocabulary_size=len(prepared.vocabulary),
        feature_kind=model.feature_kind,
        encoder=prepared.encoded.encoder,
        beam_width=config.dev_beam_width,
        max_words=config.max_words,
        tagger=settings,
        **choice,
    )


def _graphs(model) -> tuple[keras.Model, keras.Model]:
    """Return `model.start` and `model.step` as models that share its weights; bundle.py names the inputs.

    The step of a model that looks at a grid gives where it looked as its last output.
    """
    features = keras.Input(model.feature_shape, name="features")
    start = keras.Model([features], list(_Method(model, model.start)((features,))))
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    images = tuple(
        keras.Input(array.shape[1:], dtype=array.dtype, name=f"image_{place}")
        for place, array in enumerate(start.outputs)
    )
    rows = tuple(keras.Input((None, *shape), name=f"row_{place}") for place, shape in enumerate(model.row_shapes))
    log_probs, next_rows, *attention = _Method(model, model.step)((token_ids, images, rows))
    return start, keras.Model([token_ids, *images, *rows], [log_probs, *next_rows, *attention])


class _Method(keras.layers.Layer):
    """A model's method as a layer: within it the numbers of images and texts can be asked for, as whenever it runs."""

    def __init__(self, model, method: Callable):
        """`model` holds the weights; they are there already."""
        super().__init__()
        self.model, self.method = model, method
        self.built = True

    def call(self, inputs: tuple):
        """Return what the method returns for these arguments."""
        return self.method(*inputs)


def _export_tagger(tagger: TrainedTagger, word_embedding: str, folder: Path) -> dict[str, Any]:
    """Write the two towers with the table of words that serving knows without the word embedding.

    Returns the manifest's settings.
    """
    model, table = tagger.model, tagger.table
    features = keras.Input((model.feature_dim,), name="features")
    _export_graph(keras.Model([features], [model.image_tower(features)]), folder / taggers.IMAGE_TOWER)
    width = model.row_width
    rows, counted = keras.Input((None, width), name="rows"), keras.Input((None,), name="counted")
    _export_graph(keras.Model([rows, counted], [model.text_tower(rows, counted)]), folder / taggers.TEXT_TOWER)
    words = list(dict.fromkeys([*table.words[: table.learned], *table.key_words]))
    ids = np.array([[table.ids[comparison_form(word)]] for word in words], np.int32)
    (folder / taggers.WORDS).write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    np.save(folder / taggers.WORD_ROWS, np.asarray(model.rows(ids))[:, 0].astype(np.float16))
    sentence_scale, word_scale = np.exp(model.log_scales.numpy()).tolist()
    return {
        "name": "dual_encoder",
        "scale": word_scale,
        "sentence_scale": sentence_scale,
        "word_embedding": word_embedding,
        "embedding_dim": model.embedding_dim,
        "width": model.width,
        "words": len(words),
    }


def _export_graph(graph: keras.Model, path: Path, last_output: str = "") -> None:
    """Write a graph; `last_output` names its last output, for Keras's export numbers them."""
    shapes = [[size or 1 for size in entry.shape] for entry in graph.inputs]
    graph([np.zeros(shape, entry.dtype) for shape, entry in zip(shapes, graph.inputs, strict=True)])  # else no export
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of Keras's tf2onnx bridge, on numpy
        graph.export(path, format="onnx", verbose=False)
    model = onnx.load(path)
    if last_output:
        output = model.graph.output[-1]
        model.graph.node.append(helper.make_node("Identity", [output.name], [last_output]))
        output.name = last_output
    put_in_order(model)
    store_fp16(model)
    onnx.save(model, path)
    open_session(path)  # what has no counterpart in ONNX is exported all the same, and only logged
