"""The bundle: a trained captioner as a folder of plain files.

Knows the format, writes it, verifies it and runs its two graphs with ONNX Runtime. Refuses to know images,
search, tags and Keras. Nothing in a bundle is code: ONNX graphs, arrays, text and JSON, never a pickle.

Shapes: B images, R rows in a beam search, V words. States are tuples of arrays, one row an image or beam.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self, get_origin, get_type_hints

import numpy as np

from lcm.captioning import dual_encoder
from lcm.captioning.decoding import State
from lcm.data.vocabulary import Vocabulary
from lcm.encoding.encoders import EncoderIdentity, file_sha256
from lcm.encoding.runtime import open_session
from lcm.errors import BundleError, DataError

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"
START_GRAPH = "start.onnx"  # image features -> the state before the first word
STEP_GRAPH = "step.onnx"  # last ids and state -> log-probabilities of the next word and the next state
VOCABULARY = "vocabulary.txt"
MODEL_CARD = "MODEL_CARD.md"
REQUIRED_FILES = (START_GRAPH, STEP_GRAPH, VOCABULARY)


@dataclass(frozen=True)
class Manifest:
    """What bundle.json says."""

    name: str  # model and version, shown with every answer
    model: str  # architecture, a name from lcm.models.MODELS
    settings: Mapping[str, Any]  # of the architecture
    training: Mapping[str, Any]  # parameters of 02_train
    training_data: Mapping[str, Any]  # where the captions came from, and how many
    vocabulary_size: int
    feature_kind: str  # "pooled" or "grid"
    encoder: EncoderIdentity
    beam_width: int  # decoding that the metrics were measured with, and captions are written with
    max_words: int
    tagger: Mapping[str, Any] = field(default_factory=dict)  # what DualEncoder needs; empty: no tag scorer
    files: Mapping[str, str] = field(default_factory=dict)  # name -> sha256
    metrics: Mapping[str, Any] = field(default_factory=dict)  # of 03_evaluate
    schema_version: int = SCHEMA_VERSION

    def save(self, folder: Path) -> None:
        """Write bundle.json, atomically."""
        temporary = folder / f".{MANIFEST}.{os.getpid()}"
        temporary.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.replace(folder / MANIFEST)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read bundle.json; raises BundleError when there is none or it is not of this schema version."""
        try:
            record = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        except OSError as error:
            raise BundleError(
                f"{folder} is no bundle: no {MANIFEST} to read ({error.strerror}); train one with: lcm run"
            ) from error
        except ValueError as error:
            raise BundleError(f"{folder / MANIFEST} is damaged: it is not JSON; export the bundle again") from error
        version = record.get("schema_version") if isinstance(record, dict) else None
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{folder} has bundle schema version {version!r} and this lcm reads {SCHEMA_VERSION}; "
                "export it again with this version, or update lcm"
            )
        try:
            manifest = cls(**record | {"encoder": EncoderIdentity.from_record(record["encoder"])})
        except (TypeError, KeyError, ValueError) as error:
            raise BundleError(f"{folder / MANIFEST} is damaged ({error}); export the bundle again") from error
        kinds = {name: get_origin(hint) or hint for name, hint in get_type_hints(cls).items()}
        wrong = [name for name, kind in kinds.items() if not isinstance(getattr(manifest, name), kind)]
        if wrong:
            raise BundleError(f"{folder / MANIFEST} is damaged ({', '.join(wrong)}); export the bundle again")
        return manifest


def required_files(manifest: Manifest) -> tuple[str, ...]:
    """Return the names of the files that a bundle must have."""
    return (*REQUIRED_FILES, *(dual_encoder.FILES if manifest.tagger else ()))


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write bundle.json last, with the hash of every other file; what has no bundle.json is no bundle."""
    names = {*required_files(manifest), MODEL_CARD}
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.name in names}
    sealed = replace(manifest, files=files)
    sealed.save(folder)
    return sealed


def verify(folder: Path, manifest: Manifest) -> None:
    """Raise BundleError unless every file is there and is what was written."""
    for name in {*required_files(manifest), *manifest.files}:
        path = folder / name
        if name not in manifest.files or Path(name).name != name or not path.is_file():
            raise BundleError(f"the bundle {folder} lacks {name}; copy it again or export it again")
        if file_sha256(path) != manifest.files[name]:
            raise BundleError(f"{path} is not what was exported (its sha256 differs); copy or export the bundle again")


class Bundle:
    """A loaded bundle: from image features to states, from states to words."""

    def __init__(self, folder: Path):
        """Verify and load; raises BundleError when anything is off."""
        self.manifest = Manifest.load(folder)
        verify(folder, self.manifest)
        try:
            self.vocabulary = Vocabulary.load(folder / VOCABULARY)
        except DataError as error:
            raise BundleError(f"{folder / VOCABULARY} is no vocabulary ({error}); export the bundle again") from error
        if len(self.vocabulary) != self.manifest.vocabulary_size:
            raise BundleError(
                f"{folder / VOCABULARY} has {len(self.vocabulary)} words and the model "
                f"{self.manifest.vocabulary_size}: they are not from one export; export the bundle again"
            )
        try:
            self._start = open_session(folder / START_GRAPH)
            self._step = open_session(folder / STEP_GRAPH)
        except Exception as error:  # onnxruntime has no common class of its own for what it raises
            raise BundleError(
                f"{folder} holds a graph that ONNX Runtime cannot load ({type(error).__name__}); export it again"
            ) from error
        self._step_inputs = [entry.name for entry in self._step.get_inputs()]

    def start(self, features: np.ndarray) -> State:
        """Return the state before the first word from features [B, D] or [B, N, D]."""
        (entry,) = self._start.get_inputs()
        return tuple(self._start.run(None, {entry.name: np.asarray(features, np.float32)}))

    def step(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Return log-probabilities [R, V] of the word after `token_ids` [R], and the next state."""
        values = (token_ids.astype(np.int32), *state)
        log_probs, *next_state = self._step.run(None, dict(zip(self._step_inputs, values, strict=True)))
        return log_probs, tuple(next_state)
