"""Pretrained checkpoints in the form of transformers: a folder, or a name on the model hub.

Knows where a checkpoint is found, how it is told from anything else, and how its weights become a model. Refuses to
know what the model is for, and to read anything that could run code: a pickle is read where a kind of checkpoint is
published as nothing else, and then its tensors alone. Downloads happen here alone, once, and never make anyone wait
for a dead network.
"""

import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from lcm.errors import BundleError, require

REACH_S = 5  # seconds for the hub's first answer, which comes in well under one
_SETTINGS = (  # repositories hold pickles and other frameworks' weights beside these
    *("config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
)
_WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")
_PICKLE = "pytorch_model.bin"
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


@dataclass(frozen=True)
class Kind:
    """A kind of checkpoint."""

    label: str  # for messages: "CLIP"
    model_type: str  # what config.json says it is
    model_class: str  # of transformers, of the model that is made
    words: tuple[str, ...]  # files of its tokenizer beside tokenizer.json
    advice: str  # where to get one, the end of a message
    attention: str = "sdpa"  # how the model computes it, whatever config.json asks for: the fastest that it can do
    pickles: bool = False  # whether the tensors of a pickle are read where there is no safetensors file

    @property
    def files(self) -> tuple[str, ...]:
        """What is downloaded of a repository, as patterns."""
        return (*_SETTINGS, *self.words, *_WEIGHTS, *[_PICKLE] * self.pickles)


class UnusableError(Exception):
    """Why a checkpoint cannot be used; the message continues "cannot use …:"."""


def import_quietly() -> tuple[ModuleType, ModuleType]:
    """Return torch and transformers, which from now on report nothing and count nobody."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    torch, transformers, hub = (require(name, "clip") for name in ("torch", "transformers", "huggingface_hub"))
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()  # the hub's too
    hub.logging.set_verbosity_error()
    return torch, transformers


@contextmanager
def explaining(checkpoint: str, kind: Kind) -> Iterator[None]:
    """Turn an UnusableError into a BundleError that says which checkpoint, why, and where to get another."""
    try:
        yield
    except UnusableError as error:
        raise BundleError(f"cannot use {checkpoint!r} as a {kind.label} checkpoint: {error}. {kind.advice}") from None


def name_of(checkpoint: str) -> str:
    """Return what a loaded checkpoint is called: its folder's name, or the name on the hub."""
    return Path(checkpoint).resolve().name if Path(checkpoint).is_dir() else checkpoint


def find(checkpoint: str, kind: Kind) -> Path:
    """Return the folder of a checkpoint: itself, or the one in the hub's cache, filled if need be.

    Raises UnusableError when there is none, or the hub cannot give it.
    """
    hub, folder = require("huggingface_hub", "clip"), Path(checkpoint)
    if checkpoint and folder.is_dir():
        return folder
    if folder.is_file() or not _HUB_NAME.fullmatch(checkpoint):
        raise UnusableError("it is a file, not a folder" if folder.is_file() else "there is no such folder")
    with suppress(OSError, ValueError, UnusableError):  # never downloaded, or only in part
        cached = Path(hub.snapshot_download(checkpoint, allow_patterns=kind.files, local_files_only=True))
        if _weight_files(cached, kind):
            return cached
    sizes = _ask_hub(checkpoint, kind, hub)
    size = f"{sum(sizes.values()) / 1e9:.1f} GB"
    print(f"downloading the {kind.label} checkpoint {checkpoint}, once ({size})", file=sys.stderr)
    try:
        return Path(hub.snapshot_download(checkpoint, allow_patterns=list(sizes)))
    except Exception as error:  # of the network, of the hub or of the disk
        raise UnusableError(f"its download broke off ({_line(error)}); what has arrived is kept") from None


def load_model(folder: Path, kind: Kind, torch: ModuleType, transformers: ModuleType) -> Any:
    """Return the model of a folder, ready to be asked; raises UnusableError when it is not whole or not of the kind."""
    model_class = getattr(transformers, kind.model_class)
    with reading(folder, "config.json"):
        settings = json.loads((folder / "config.json").read_bytes())
        _check_type(settings, kind)
        config = model_class.config_class.from_dict(settings)
    with reading(folder, "weights"):
        # The weights are handed over, for a config.json can send from_pretrained to other files, pickles among them.
        model, report = model_class.from_pretrained(
            None,
            config=config,
            state_dict={name: weight for file in _weight_files(folder, kind) for name, weight in _weights(file, torch)},
            dtype=torch.float32,
            attn_implementation=kind.attention,
            ignore_mismatched_sizes=True,  # told in the next lines, in words
            output_loading_info=True,
        )
        if wrong := [*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])]:
            raise UnusableError(f"weights are missing or of another size, {len(wrong)} in all: {min(wrong)} is one")
    return model.eval()


@contextmanager
def reading(folder: Path, part: str) -> Iterator[None]:
    """Turn whatever a damaged or missing file makes its reader trip over into an UnusableError."""
    try:
        yield
    except UnusableError:
        raise
    except Exception as error:
        raise UnusableError(f"its {part} in {folder} cannot be read ({_line(error)})") from None


def check_pictures(model: Any, processor: Any) -> None:
    """Raise UnusableError unless an image processor makes pictures of the size that the model takes."""
    size = model.image_size
    cut = processor(images=Image.new("RGB", (16, 8)), return_tensors="np")["pixel_values"].shape[2:]
    if cut != (size, size):
        raise UnusableError(f"its image processor makes {cut[1]} x {cut[0]} pixels, its model takes {size} x {size}")


def _ask_hub(name: str, kind: Kind, hub: ModuleType) -> dict[str, int]:
    """Return the files to download and their bytes; raises UnusableError without a network or such a checkpoint."""
    errors = require("huggingface_hub.errors", "clip")
    try:  # once: the hub's own loading asks six times before it gives up, over 23 seconds
        info = _within(REACH_S + 1, lambda: hub.HfApi().model_info(name, timeout=REACH_S, files_metadata=True))
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise UnusableError(
            "there is no such folder, and the model hub has no such checkpoint, or wants a login first (hf auth login)"
        ) from None
    except Exception as error:  # connection, proxy, certificate, time-out, the hub's own trouble
        reason = "HF_HUB_OFFLINE is set" if isinstance(error, errors.OfflineModeIsEnabled) else _line(error)
        raise UnusableError(
            f"there is no such folder, it was not downloaded before, and the model hub cannot be reached ({reason})"
        ) from None
    if info.config:  # otherwise load_model will tell
        _check_type(info.config, kind)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    sizes = {file: size for file, size in sizes.items() if any(fnmatchcase(file, each) for each in kind.files)}
    if any(file.endswith(".safetensors") for file in sizes):
        sizes.pop(_PICKLE, None)
    elif _PICKLE not in sizes:
        raise UnusableError(_no_weights(kind))
    return sizes


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """Return what `call` returns, or raise what it raises; TimeoutError when neither happens in time.

    For what no time-out of its own ends: looking up a host's address, and trying its addresses one after the other.
    """
    future = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()  # a pool's thread would keep the process from ending
    try:
        return future.result(seconds)
    except TimeoutError:
        raise TimeoutError(f"no answer in {seconds:g} seconds") from None


def _line(error: Exception) -> str:
    """Return an error's first sentence; libraries go on with addresses and advice."""
    return re.split(r"\.\s|\.?$|\n", str(error).strip() or type(error).__name__)[0]


def _check_type(config: Any, kind: Kind) -> None:
    found = config.get("model_type") if isinstance(config, dict) else None
    if found != kind.model_type:
        raise UnusableError(f"it holds a model of the type {found!r}, and only {kind.model_type!r} is read")
    classes = config.get("architectures") or [kind.model_class]
    if kind.model_class not in classes:
        raise UnusableError(f"it holds a {classes[0]}, and only {kind.model_class} is read")


def _weight_files(folder: Path, kind: Kind) -> list[Path]:
    """Return the safetensors files, one or its shards, else a pickle that may be read; raises UnusableError."""
    whole, pickle = folder / _WEIGHTS[0], folder / _PICKLE
    if whole.is_file():
        return [whole]
    if shards := sorted(folder.glob(_WEIGHTS[1])):
        return shards
    if kind.pickles and pickle.is_file():
        return [pickle]
    raise UnusableError(_no_weights(kind))


def _no_weights(kind: Kind) -> str:
    if kind.pickles:
        return f"it holds neither {_WEIGHTS[0]} nor {_PICKLE}"
    return f"it holds no {_WEIGHTS[0]}; other forms of weights are not read, for a pickle can run code"


def _weights(file: Path, torch: ModuleType) -> Any:
    """Return names and tensors of a file; of a pickle, nothing but tensors is ever built."""
    if file.name == _PICKLE:
        return torch.load(file, map_location="cpu", weights_only=True).items()
    return require("safetensors.torch", "clip").load_file(file).items()
