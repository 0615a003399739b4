"""From a trained Keras model to a bundle.

Knows how Keras becomes the two ONNX graphs of the format that captioning/bundle.py defines. Refuses to know
training and decoding.
"""

import contextlib
import io
import shutil
import tempfile
from pathlib import Path

import keras

from lcm.captioning import bundle
from lcm.data.vocabulary import Vocabulary


def export_bundle(model, vocabulary: Vocabulary, manifest: bundle.Manifest, folder: Path) -> bundle.Manifest:
    """Write `model` as a bundle at `folder`, atomically, in place of one that is there; returns the manifest."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        start, step = _graphs(model)
        _export_graph(start, temporary / bundle.START_GRAPH)
        _export_graph(step, temporary / bundle.STEP_GRAPH)
        vocabulary.save(temporary / bundle.VOCABULARY)
        sealed = bundle.seal(temporary, manifest)
        bundle.verify(temporary, sealed)
        temporary.chmod(0o755)  # mkdtemp's folder is private, a bundle is to be shared
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sealed


def _graphs(model) -> tuple[keras.Model, keras.Model]:
    """Return `model.start` and `model.step` as models of their own, that share its weights."""
    features = keras.Input(model.feature_shape, name="features")
    state = model.start(features)
    start = keras.Model(features, list(state))
    token_ids = keras.Input((), dtype="int32", name="token_ids")
    state_inputs = tuple(
        keras.Input(array.shape[1:], dtype=array.dtype, name=f"state_{place}") for place, array in enumerate(state)
    )
    log_probs, next_state = model.step(token_ids, state_inputs)
    return start, keras.Model([token_ids, *state_inputs], [log_probs, *next_state])


def _export_graph(graph: keras.Model, path: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):  # Keras prints the signature
        graph.export(path, format="onnx", verbose=False)
