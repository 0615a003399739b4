"""From a trained Keras model to a bundle.

Knows how Keras becomes the two ONNX graphs of the format that captioning/bundle.py defines. Refuses to know
training and decoding.
"""

import hashlib
import shutil
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np

from lcm.captioning import bundle
from lcm.config import RunFolder, TrainConfig
from lcm.encoding.prepared import PreparedRun


def export_bundle(model, prepared: PreparedRun, config: TrainConfig, run: RunFolder) -> bundle.Manifest:
    """Write `model` as the run's bundle, atomically, in place of one that is there; returns the manifest."""
    folder = run.bundle
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        start, step = _graphs(model)
        _export_graph(start, temporary / bundle.START_GRAPH)
        _export_graph(step, temporary / bundle.STEP_GRAPH)
        prepared.vocabulary.save(temporary / bundle.VOCABULARY)
        sealed = bundle.seal(temporary, _describe(model, prepared, config, run))
        bundle.verify(temporary, sealed)
        temporary.chmod(0o755)  # mkdtemp's folder is private, a bundle is to be shared
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sealed


def _describe(model, prepared: PreparedRun, config: TrainConfig, run: RunFolder) -> bundle.Manifest:
    """Return the manifest of a model that has just been trained."""
    digest = hashlib.sha256(b"".join(array.tobytes() for array in model.get_weights())).hexdigest()
    training = {name: value for name, value in asdict(config).items() if name != "run_dir"}
    return bundle.Manifest(
        name=f"{config.model}-{digest[:8]}",
        model=config.model,
        settings=model.settings,
        training=training,
        training_data=prepared.sizes() | {"source": run.read_metrics().get("data_source")},
        vocabulary_size=len(prepared.vocabulary),
        feature_kind=model.feature_kind,
        encoder=prepared.encoded.encoder,
        beam_width=config.beam_width,
        max_words=config.max_words,
    )


def _graphs(model) -> tuple[keras.Model, keras.Model]:
    """Return `model.start` and `model.step` as models of their own, that share its weights."""
    features = keras.Input(model.feature_shape, name="features")
    state = model.start(features)
    start = keras.Model([features], list(state))
    token_ids = keras.Input((), dtype="int32", name="token_ids")
    state_inputs = tuple(
        keras.Input(array.shape[1:], dtype=array.dtype, name=f"state_{place}") for place, array in enumerate(state)
    )
    log_probs, next_state = model.step(token_ids, state_inputs)
    return start, keras.Model([token_ids, *state_inputs], [log_probs, *next_state])


def _export_graph(graph: keras.Model, path: Path) -> None:
    graph([np.zeros((1, *entry.shape[1:]), entry.dtype) for entry in graph.inputs])  # Keras exports what was called
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of Keras's tf2onnx bridge, on numpy
        graph.export(path, format="onnx", verbose=False)
