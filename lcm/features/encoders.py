"""Frozen image encoders, of one table or of the model hub: one ONNX file each, made once and checked ever after.

An encoder is known by its golden outputs, what it gives for a fixed test picture: ONNX bytes differ between exporters.

Shapes: B images, S pixels a side, N grid positions, D numbers in a feature.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from filelock import FileLock

from lcm.data.images import Source, Square, read_image, read_views
from lcm.errors import BundleError, ConfigError, choose, closest
from lcm.features import convert
from lcm.features.checkpoints import HUB_NAME
from lcm.paths import cache_dir, write_atomic

if TYPE_CHECKING:
    import onnxruntime


PROVIDERS = {  # of ONNX Runtime, by LCM_PROVIDER; CoreML, which every Mac has, rounds otherwise: by name alone
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}


def find_providers(available: Sequence[str]) -> list[str]:
    """Return what runs the graphs, the processor last; raises ConfigError where LCM_PROVIDER names none of them."""
    offered = {name: provider for name, provider in PROVIDERS.items() if provider in available}
    named = os.environ.get("LCM_PROVIDER", "").strip() or ("cuda" if "cuda" in offered else "cpu")
    return list(dict.fromkeys([choose(offered, named, "LCM_PROVIDER"), PROVIDERS["cpu"]]))


GRAPH, RECORD = "encoder.onnx", "encoder.json"  # files of an encoder in the cache
ORIGIN = "origin"  # in the record of one that was made from a folder: where that was last
MOST_THREADS = 8  # of one call: an image has no work for more


def open_session(path: Path, threads: int = 0, alone: bool = False) -> "onnxruntime.InferenceSession":
    """Load a graph where LCM_PROVIDER says; `threads` is the number of cores one call uses (0: all, to MOST_THREADS).

    `alone`: no other request wants the cores while a call runs.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when ONNX Runtime is imported
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Never 0: ONNX Runtime then ties each of its threads to a core, where it waits for what runs there already. Of
    # photos asked for one by one, every tenth took 34 ms to encode instead of 10.
    options.intra_op_num_threads = threads or min(os.cpu_count() or 1, MOST_THREADS)
    # Threads that wait for work by spinning take the cores from other requests: without it, four at once are answered
    # half as fast again on two cores. One alone is encoded in 10 ms instead of 13 where they spin on to the next part.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if alone else "0")
    options.enable_mem_pattern = os.environ.get("LCM_PROVIDER") != "directml"  # which cannot
    return onnxruntime.InferenceSession(path, options, providers=find_providers(onnxruntime.get_available_providers()))


FEATURE_KINDS = ("pooled", "grid")  # the order of the ONNX outputs
WEIGHTS = ("pretrained", "random")
TUNED = "tuned-"  # begins what tells encoders that were tuned on one's own photos apart
GOLDEN_VALUES = 64  # of the pooled features of the golden image that identify an encoder
GOLDEN_TOLERANCE = 1e-3  # exporters and processors differ by less, other weights by far more


@dataclass(frozen=True)
class EncoderSpec:
    """What an encoder takes and gives, and how it is made where it stands in ENCODERS."""

    size: int  # S, pixels
    positions: int  # N
    width: int  # D
    convert: Callable[[str, int, str, Path], str] | None = None  # writes the ONNX file, returns its weights' hash


ENCODERS: dict[str, EncoderSpec] = {
    "efficientnet_lite2": EncoderSpec(260, 9 * 9, 1280, convert.convert_efficientnet_lite),
    "efficientnet_lite0": EncoderSpec(224, 7 * 7, 1280, convert.convert_efficientnet_lite),
    "resnet50": EncoderSpec(224, 7 * 7, 2048, convert.convert_keras_application),
    "inception_v3": EncoderSpec(299, 8 * 8, 2048, convert.convert_keras_application),
    "efficientnetv2b0": EncoderSpec(224, 7 * 7, 1280, convert.convert_keras_application),
}


@dataclass(frozen=True)
class CheckpointFacts:
    """What is recorded besides of an encoder that was made from a checkpoint in the form of transformers."""

    square: Square
    positions: int  # N
    width: int  # D
    licence: str  # as the checkpoint's README names it
    revision: str  # the commit on the model hub; empty: it was a folder


@dataclass(frozen=True)
class EncoderIdentity:
    """What a bundle records of its encoder: enough to find it again and to know that it is the same."""

    name: str  # in ENCODERS, or on the model hub, perhaps with @ and a revision; of a folder with @ and a hash
    weights: str  # "pretrained", "random", or TUNED and what they were tuned on
    source_sha256: str  # of the weights it was made from, not of the ONNX bytes, which differ between exporters
    golden: tuple[float, ...]  # pooled features of the golden image, GOLDEN_VALUES of them
    checkpoint: CheckpointFacts | None = None  # None: it stands in ENCODERS

    @property
    def square(self) -> Square | None:
        """How it wants its pictures; None: as read_image makes them."""
        return self.checkpoint.square if self.checkpoint else None

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Read back what `dataclasses.asdict` made, from JSON; other keys are ignored."""
        golden, checkpoint = tuple(map(float, record["golden"])), record.get("checkpoint")
        if checkpoint:
            checkpoint = CheckpointFacts(**checkpoint | {"square": Square(**checkpoint["square"])})
        return cls(record["name"], record["weights"], record["source_sha256"], golden, checkpoint)


class Encoder:
    """A loaded encoder; safe to call from several threads."""

    def __init__(self, onnx_path: Path, identity: EncoderIdentity, threads: int = 0):
        """Load the file, in the cache or in a bundle; `threads` is the number of cores one call uses (0: all)."""
        self.path, self.identity = onnx_path, identity
        self._session = open_session(onnx_path, threads, alone=threads == 0)
        (image,), (pooled, grid) = self._session.get_inputs(), self._session.get_outputs()
        self.spec = EncoderSpec(image.shape[1], *grid.shape[1:])
        self.provider = self._session.get_providers()[0]  # what really runs it
        self.square = identity.square or self.spec.size  # as read_views takes it
        self._outputs = dict(zip(FEATURE_KINDS, (pooled.name, grid.name), strict=True))

    def read(self, image: Source) -> np.ndarray:
        """Return a picture as this encoder sees it, uint8 [S, S, 3]; raises BadImageError as read_image does."""
        return read_image(image, self.square) if isinstance(self.square, int) else read_views(image, self.square)[0]

    def encode(self, images: np.ndarray, kinds: Sequence[str] = ("pooled",)) -> dict[str, np.ndarray]:
        """Return the features of uint8 images [B, S, S, 3]: "pooled" [B, D] and, when asked, "grid" [B, N, D]."""
        names = [choose(self._outputs, kind, "kind of feature") for kind in kinds]
        (image_input,) = self._session.get_inputs()
        return dict(zip(kinds, self._session.run(names, {image_input.name: images}), strict=True))

    def matches(self, expected: EncoderIdentity) -> bool:
        """Whether this encoder gives the features that `expected` was recorded with."""
        golden = golden_features(self)
        return len(expected.golden) == len(golden) and np.allclose(golden, expected.golden, atol=GOLDEN_TOLERANCE)


def golden_image(size: int) -> np.ndarray:
    """Return the fixed test picture, uint8 [1, S, S, 3]: two slopes and a chequerboard."""
    ramp = np.arange(size) * 255 // (size - 1)
    board = (np.add.outer(np.arange(size) // 16, np.arange(size) // 16) % 2) * 255
    return np.stack([np.tile(ramp, (size, 1)), np.tile(ramp[:, None], (1, size)), board], -1).astype(np.uint8)[None]


def golden_features(encoder: Encoder) -> np.ndarray:
    """Return the evenly spaced values of the golden image's pooled features, [GOLDEN_VALUES]."""
    pooled = encoder.encode(golden_image(encoder.spec.size))["pooled"][0]
    return pooled[:: len(pooled) // GOLDEN_VALUES][:GOLDEN_VALUES]


def load_encoder(name: str, weights: str = "pretrained", threads: int = 0) -> Encoder:
    """Return an encoder, converting it to ONNX on first use (some seconds, needs its packages).

    `name` is one of ENCODERS, or a checkpoint of one of convert.FAMILIES: its folder, or its name on the model hub,
    owner/name or hf:owner/name@revision. Raises ConfigError for an unknown name, for weights that it has not and for a
    missing package, BundleError for a checkpoint that cannot be had or used.
    """
    name = checkpoint = name.removeprefix("hf:")
    is_listed = name in ENCODERS
    if is_folder := bool(name) and not is_listed and Path(name).expanduser().is_dir():
        checkpoint = str(Path(name).expanduser())
        name = f"{Path(checkpoint).resolve().name}@{convert.source_sha256(Path(checkpoint))[:12]}"
    choices = WEIGHTS if is_listed else WEIGHTS[:1]
    if weights not in choices and not is_kept(name, weights):
        tuned = ", or those of a bundle that training goes on from" if weights.startswith(TUNED) else ""
        raise ConfigError(f"unknown encoder weights {weights!r}; choose from {', '.join(choices)} for {name}{tuned}")
    folder = encoder_folder(name, weights)
    record = folder / RECORD
    if not record.exists():  # without the lock: a cache that is whole may be read-only
        if not (is_listed or is_folder or ("/" in name and HUB_NAME.fullmatch(name))):
            raise ConfigError(
                f"unknown encoder {name!r}; {closest(name, ENCODERS)}, or give a checkpoint by its folder or its name "
                f"on the hub, owner/name or hf:owner/name@revision, with a model of {', '.join(convert.FAMILIES)}"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not record.exists():
                _convert(name, weights, checkpoint, folder)
    known = json.loads(record.read_text())
    if is_folder and known.get(ORIGIN) != (origin := str(Path(checkpoint).resolve())):
        with suppress(OSError):  # a cache may be read-only
            write_atomic(record, json.dumps(known | {ORIGIN: origin}, indent=1) + "\n")
    return Encoder(folder / GRAPH, EncoderIdentity.from_record(known), threads)


def is_kept(name: str, weights: str) -> bool:
    """Return whether the cache holds this encoder."""
    return (encoder_folder(name, weights) / RECORD).exists()


def keep_tuned(name: str, weights: str, graph: bytes) -> None:
    """Put an encoder that was tuned into the cache; `weights`, which begins with TUNED, tells it from others."""
    folder = encoder_folder(name, weights)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / GRAPH, graph)
    _write_record(folder, EncoderIdentity(name, weights, hashlib.sha256(graph).hexdigest(), ()))


def keep_encoder(identity: EncoderIdentity, graph: Path) -> None:
    """Put a bundle's graph into the cache, where it is missing: of a checkpoint, for no hub has all, or a tuned one."""
    folder = encoder_folder(identity.name, identity.weights)
    if (identity.checkpoint or identity.weights.startswith(TUNED)) and not (folder / RECORD).exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(graph, folder / GRAPH)
        write_atomic(folder / RECORD, json.dumps(asdict(identity)))


def encoder_folder(name: str, weights: str) -> Path:
    """Return the folder of an encoder in the cache, whether it is there or not."""
    return cache_dir() / "encoders" / file_name(f"{name}-{weights}-v{convert.PREPROCESSING}")


def file_name(encoder: str) -> str:
    """Return the name of an encoder as one of a file."""
    return encoder.replace("/", "--")


def _convert(name: str, weights: str, checkpoint: str, folder: Path) -> None:
    """Write an encoder into the cache; without the record, which comes last, a graph there is no encoder."""
    print(f"converting the encoder {name} to ONNX, once", file=sys.stderr)
    folder.mkdir(exist_ok=True)
    if spec := ENCODERS.get(name):
        source_sha256, found = spec.convert(name, spec.size, weights, folder / GRAPH), {}
    else:
        source_sha256, found = convert.convert_checkpoint(checkpoint, folder / GRAPH)
    _write_record(folder, EncoderIdentity(name, weights, source_sha256, ()), found)


def _write_record(folder: Path, identity: EncoderIdentity, found: Mapping[str, Any] | None = None) -> None:
    """Write what is known of the graph in `folder`: golden features, and what a checkpoint says of itself."""
    encoder = Encoder(folder / GRAPH, identity)
    golden = tuple(round(float(value), 5) for value in golden_features(encoder))
    facts = CheckpointFacts(positions=encoder.spec.positions, width=encoder.spec.width, **found) if found else None
    write_atomic(
        folder / RECORD, json.dumps(asdict(replace(identity, golden=golden, checkpoint=facts)), indent=1) + "\n"
    )


def find_encoder(expected: EncoderIdentity, threads: int = 0) -> Encoder:
    """Return the encoder of this name; raises BundleError when it gives other features than those `expected`."""
    encoder = load_encoder(expected.name, expected.weights, threads)
    if not encoder.matches(expected):
        raise BundleError(
            f"the encoder {expected.name} made on this machine gives other features than the one the model was trained "
            f"with (source weights {encoder.identity.source_sha256[:12]} here, {expected.source_sha256[:12]} there); "
            f"remove {cache_dir() / 'encoders'} to make it again"
        )
    return encoder


def file_sha256(path: Path) -> str:
    """Return the hash of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
