"""The bundle: a trained captioner as a folder of plain files, its image encoder among them, run by ONNX Runtime.

Nothing in a bundle is code: ONNX graphs, arrays, text and JSON, never a pickle; bundle.json holds every file's hash.

Shapes: B images, W texts of each image, T words, V words of the vocabulary, N grid positions. The start graph gives
what is known of the images; the step graph takes that as image_0, image_1, … and what is known of the texts as row_0,
row_1, …
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np

from lcm.captioning.decoding import LENGTH_POWER, State, empty_rows
from lcm.data.text import Vocabulary
from lcm.errors import BundleError
from lcm.features.encoders import Encoder, EncoderIdentity, file_sha256, open_session
from lcm.features.text_towers import IMAGE_TOWER, TEXT_TOWER, TOKENIZER, TOWER
from lcm.paths import write_atomic

SCHEMA_VERSION = 3
MANIFEST = "bundle.json"
ENCODER_GRAPH = "encoder.onnx"  # pictures uint8 [B, S, S, 3] -> their features, pooled [B, D] and grid [B, N, D]
START_GRAPH = "start.onnx"  # image features -> what every step reads of the images, arrays [B, ...]
# Last ids [B, W], images and rows [B, W, ...] -> log-probabilities [B, W, V], next rows, perhaps ATTENTION.
STEP_GRAPH = "step.onnx"
ATTENTION = "attention"  # an output of the step graph where the model looks at a grid: how much where, [B, W, N]
VOCABULARY = "vocabulary.txt"
MODEL_CARD = "MODEL_CARD.md"
WEIGHTS = "weights.npz"  # what training can continue from; nothing that serves reads it
# IMAGE_TOWER: pooled features [B, F] -> unit vectors [B, D]. TEXT_TOWER: rows of words [K, T, E] and which of them
# count [K, T], or of a checkpoint's own text side tokens [K, T] -> unit vectors [K, D].
WORDS = "tag_words.txt"  # the table: a word a line
WORD_ROWS = "tag_word_rows.npy"  # [W, E] float16: what the text tower reads for each
TAGGER_FILES = (IMAGE_TOWER, TEXT_TOWER, WORDS, WORD_ROWS)
TOWER_FILES = (IMAGE_TOWER, TEXT_TOWER, TOKENIZER)
REQUIRED_FILES = (ENCODER_GRAPH, START_GRAPH, STEP_GRAPH, VOCABULARY)


@dataclass(frozen=True)
class Manifest:
    """What bundle.json says."""

    name: str  # model and version, shown with every answer
    model: str  # architecture, a name from lcm.models.MODELS
    settings: dict  # of the architecture
    training: dict  # parameters of 02_train
    training_data: dict  # where the captions came from, and how many
    vocabulary_size: int
    feature_kind: str  # "pooled" or "grid"
    encoder: EncoderIdentity
    beam_width: int  # decoding that the metrics were measured with, and captions are written with
    max_words: int
    rerank_weight: float = 0.0  # of the tag scorer's cosine when one of the beam's captions is chosen; 0: not asked
    length_power: float = LENGTH_POWER  # of the score that the cosine is added to: see Hypothesis.score_at
    calibration: dict = field(default_factory=dict)  # what PlattScaler needs; empty: no confidence
    tagger: dict = field(default_factory=dict)  # what its scorer needs, curves among it; empty: no tag scorer
    files: dict = field(default_factory=dict)  # name -> sha256
    metrics: dict = field(default_factory=dict)  # of 03_evaluate
    notes: str = ""  # Markdown that a person adds to the model card: licences, biases seen, how it was made
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read bundle.json; raises BundleError when it is missing or not of this schema version."""
        try:
            record = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            version = record.get("schema_version")
            if version == SCHEMA_VERSION:
                return cls(**record | {"encoder": EncoderIdentity.from_record(record["encoder"])})
        except OSError as error:
            raise BundleError(
                f"{folder} is no bundle: no {MANIFEST} to read ({error.strerror}); train one with: lcm run"
            ) from error
        except (TypeError, AttributeError, KeyError, ValueError) as error:
            raise BundleError(f"{folder / MANIFEST} is damaged ({error}); export the bundle again") from error
        raise BundleError(
            f"{folder} has bundle schema version {version!r} and this lcm reads {SCHEMA_VERSION}; "
            "export it again with this version, or update lcm"
        )


def tagger_files(settings: dict) -> tuple[str, ...]:
    """Return the names of the files of a tag scorer, given its settings in a manifest."""
    return () if not settings else TOWER_FILES if settings.get("name") == TOWER else TAGGER_FILES


def required_files(manifest: Manifest) -> tuple[str, ...]:
    """Return the names of the files that a bundle must have."""
    return REQUIRED_FILES + tagger_files(manifest.tagger)


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write bundle.json last, with the hash of every other file; what has no bundle.json is no bundle."""
    names = {*required_files(manifest), MODEL_CARD, WEIGHTS}
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.name in names}
    sealed = replace(manifest, files=files)
    write_atomic(folder / MANIFEST, json.dumps(asdict(sealed), indent=1, ensure_ascii=False) + "\n")
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
        """Verify and load all but the encoder, which `encoder` loads; raises BundleError when anything is off."""
        self._folder, self.manifest = folder, Manifest.load(folder)
        verify(folder, self.manifest)
        try:
            self.vocabulary = Vocabulary.load(folder / VOCABULARY)
            self._start = open_session(folder / START_GRAPH)
            # Its products are small: at one photo two threads take an eighth longer than one, for they meet at each
            # of them; at 256 photos they are a fifth faster, if no one else needs the second core.
            self._step = open_session(folder / STEP_GRAPH, threads=1)
        except Exception as error:  # onnxruntime has no common class for what it raises
            raise _unloadable(folder, error) from error
        outputs = {entry.name: entry.shape for entry in self._step.get_outputs()}
        counts = {len(self.vocabulary), self.manifest.vocabulary_size, next(iter(outputs.values()))[-1]}
        if len({count for count in counts if isinstance(count, int)}) > 1:  # a graph may leave its own open
            raise BundleError(
                f"{folder} holds {VOCABULARY}, {STEP_GRAPH} and {MANIFEST} for other numbers of words ({counts}): they "
                "are not from one export; export the bundle again"
            )
        rows = {entry.name: entry.shape[2:] for entry in self._step.get_inputs() if entry.name.startswith("row_")}
        self._row_shapes = [
            tuple(size if isinstance(size, int) else None for size in rows[f"row_{place}"])  # None: it grows
            for place in range(len(rows))
        ]
        self.has_attention = ATTENTION in outputs  # whether `attention` can tell where the model looked
        self._step_outputs = [name for name in outputs if name != ATTENTION]

    def encoder(self, threads: int = 0) -> Encoder:
        """Load the bundle's image encoder; `threads` is the number of cores one call uses (0: all).

        Raises BundleError when it gives other features here than those that the model was trained with.
        """
        try:
            encoder = Encoder(self._folder / ENCODER_GRAPH, self.manifest.encoder, threads)
        except Exception as error:  # as above
            raise _unloadable(self._folder, error) from error
        if not encoder.matches(self.manifest.encoder):
            raise BundleError(
                f"the encoder {self.manifest.encoder.name} of {self._folder} gives other features here than those that "
                "the model was trained with; install the onnxruntime that lcm asks for, or export the bundle again"
            )
        return encoder

    def start(self, features: np.ndarray) -> State:
        """Return the state before the first word, of one text an image, from features [B, D] or [B, N, D]."""
        (entry,) = self._start.get_inputs()
        images = self._start.run(None, {entry.name: np.asarray(features, np.float32)})
        return State(tuple(images), empty_rows(len(features), self._row_shapes))

    def step(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Return log-probabilities [B, W, V] of the word after `token_ids` [B, W], and the next state.

        Raises BundleError for one that is NaN: search would take the word for an impossible one.
        """
        log_probs, *rows = self._step.run(self._step_outputs, _step_inputs(token_ids, state))
        if np.isnan(log_probs).any():
            raise BundleError(f"the model {self.manifest.name} is broken: a word's log-probability is not a number")
        return log_probs, State(state.images, tuple(rows))

    def attention(self, features: np.ndarray, token_ids: np.ndarray) -> np.ndarray:
        """Return where the model looked as it wrote the word after each id: [B, W, T, N], each row sums to 1.

        From features [B, N, D] and ids [B, W, T], START first; of a bundle that has_attention.
        """
        state = self.start(features).of_texts(np.zeros(token_ids.shape[:2], np.int64))
        looked = []
        for ids in np.moveaxis(token_ids, 2, 0):
            *rows, attention = self._step.run([*self._step_outputs[1:], ATTENTION], _step_inputs(ids, state))
            state = State(state.images, tuple(rows))
            looked.append(attention)
        return np.stack(looked, axis=2)


def _step_inputs(token_ids: np.ndarray, state: State) -> dict[str, np.ndarray]:
    images = {f"image_{place}": array for place, array in enumerate(state.images)}
    rows = {f"row_{place}": array for place, array in enumerate(state.rows)}
    return {"token_ids": token_ids.astype(np.int32)} | images | rows


def _unloadable(folder: Path, error: Exception) -> BundleError:
    return BundleError(f"{folder} holds a file that cannot be loaded ({type(error).__name__}); export it again")
