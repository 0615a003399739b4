"""Pretrained checkpoints in the form of transformers: a folder, or a name on the model hub, downloaded once.

Nothing that could run code is read: weights are safetensors files or, of a kind that is published as nothing else, the
tensors of a pickle.
"""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from lcm.errors import BundleError, ConfigError, require

HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
SETTINGS = ("*.json", "*.txt")  # of model, image processor and tokenizer


@dataclass(frozen=True)
class Kind:
    """A kind of checkpoint."""

    label: str  # for messages: "CLIP"
    model_type: str  # what config.json says it is
    model: str  # class of transformers
    processor: str  # class of its image processor
    tokenizer: str  # class of its tokenizer
    advice: str  # where to get one, the end of a message
    attention: str = "sdpa"  # how the model computes it, whatever config.json asks for: the fastest that it can do
    weights: tuple[str, ...] = ("*.safetensors",)  # files that are downloaded; BLIP's own is a pickle


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint."""

    name: str  # its folder's name, or the name on the hub
    model: Any
    processor: Any
    tokenizer: Any
    torch: ModuleType


def load(checkpoint: str, kind: Kind) -> Checkpoint:
    """Load a checkpoint from a folder or by its name on the model hub; from then on, libraries report nothing.

    Raises BundleError when it cannot be had, is damaged or of another kind, ConfigError when packages are missing.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    torch, transformers, hub = (require(name, "clip") for name in ("torch", "transformers", "huggingface_hub"))
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()  # the hub's too
    hub.logging.set_verbosity_error()
    try:
        folder = _find(checkpoint, kind, hub)
        model = _load_model(folder, kind, torch, transformers)
        processor = getattr(transformers, kind.processor).from_pretrained(folder, local_files_only=True)
        tokenizer = getattr(transformers, kind.tokenizer).from_pretrained(folder, local_files_only=True)
        _check_parts(model.config, processor, tokenizer)
    except ConfigError:
        raise
    except Exception as error:  # of the network, the hub, the disk, or any reader that a damaged file trips
        raise BundleError(
            f"cannot use {checkpoint!r} as a {kind.label} checkpoint: {_line(error)}. {kind.advice}"
        ) from error
    name = folder.resolve().name if Path(checkpoint).is_dir() else checkpoint
    return Checkpoint(name, model, processor, tokenizer, torch)


def _line(error: Exception) -> str:
    """Return an error's first sentence; libraries add addresses and advice."""
    return re.split(r"\.\s|\.?$|\n", str(error).strip() or type(error).__name__)[0]


def _find(checkpoint: str, kind: Kind, hub: ModuleType) -> Path:
    """Return the folder of a checkpoint: itself, or the one in the hub's cache, filled if need be."""
    if checkpoint and Path(checkpoint).is_dir():
        return Path(checkpoint)
    if Path(checkpoint).is_file() or not HUB_NAME.fullmatch(checkpoint):
        raise OSError("there is no such folder")
    wanted = [*SETTINGS, *kind.weights]
    try:
        cached = Path(hub.snapshot_download(checkpoint, allow_patterns=wanted, local_files_only=True))
        if any(next(cached.glob(pattern), None) for pattern in kind.weights):  # else it was downloaded in part
            return cached
    except hub.errors.LocalEntryNotFoundError:
        pass
    print(f"downloading the {kind.label} checkpoint {checkpoint}, once", file=sys.stderr)
    try:
        return Path(hub.snapshot_download(checkpoint, allow_patterns=wanted))
    except Exception as error:  # of the network, the hub or the disk
        raise OSError(f"there is no such folder, and the model hub does not give it ({_line(error)})") from error


def _load_model(folder: Path, kind: Kind, torch: ModuleType, transformers: ModuleType) -> Any:
    """Return the model of a folder, in float32; raises ValueError when it is of another kind or not whole."""
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    architectures = config.architectures or [kind.model]
    if config.model_type != kind.model_type or kind.model not in architectures:
        raise ValueError(f"it holds a {config.model_type} model, {architectures[0]}; only {kind.model} is read")
    config.transformers_weights = None  # it may name any file, a pickle too
    model, report = getattr(transformers, kind.model).from_pretrained(
        folder,
        config=config,
        local_files_only=True,
        use_safetensors=True if kind.weights == ("*.safetensors",) else None,
        weights_only=True,  # of a pickle, nothing but tensors is built
        dtype=torch.float32,
        attn_implementation=kind.attention,
        ignore_mismatched_sizes=True,  # told in the next lines, in words
        output_loading_info=True,
    )
    if wrong := [*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])]:
        raise ValueError(f"weights are missing or of another size, {len(wrong)} in all: {min(wrong)} is one")
    return model.eval()


def _check_parts(config: Any, processor: Any, tokenizer: Any) -> None:
    """Raise ValueError unless image processor and tokenizer are the model's: transformers takes any, or makes some."""
    size = config.vision_config.image_size
    cut = processor(images=Image.new("RGB", (16, 8)), return_tensors="np")["pixel_values"].shape[2:]
    if cut != (size, size):
        raise ValueError(f"its image processor makes {cut[1]} x {cut[0]} pixels, its model takes {size} x {size}")
    known, words = max(tokenizer.get_vocab().values()) + 1, config.text_config.vocab_size
    # Models may have some words more, BLIP has two; a tokenizer that comes up without its files has three or five.
    if not words / 2 < known <= words:
        raise ValueError(f"its tokenizer has {known:,} tokens, its model {words:,}")
