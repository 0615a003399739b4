"""Pretrained checkpoints in the form of transformers: a folder, or a name on the model hub, downloaded once.

Nothing that could run code is read: weights are safetensors files or, of a kind that is published as nothing else, the
tensors of a pickle.
"""

import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from lcm.errors import BundleError, require

SETTINGS = ("*.json", "*.txt", "*.spm", "*.model", "README.md")  # of model, processor, tokenizer; and the licence
HUB_NAME = re.compile(r"(\w[\w.-]*(?:/\w[\w.-]*)?)(?:@(\w[\w./-]*))?")  # perhaps with a revision


@dataclass(frozen=True)
class Kind:
    """A kind of checkpoint."""

    label: str  # for messages: "CLIP"
    example: str  # its name on the hub
    model: str  # class of transformers
    processor: str  # class of its image processor; empty: it sees no images
    tokenizer: str  # class of its tokenizer
    weights: tuple[str, ...] = ("*.safetensors",)  # files that are downloaded; of some kinds, pickles


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint."""

    name: str  # its folder's name, or the name on the hub
    model: Any
    processor: Any
    tokenizer: Any
    torch: ModuleType
    device: str  # where the model is, and what it is given must be


def load(checkpoint: str, kind: Kind) -> Checkpoint:
    """Load a checkpoint from a folder or by its name on the model hub; from then on, libraries report nothing.

    Raises BundleError when it cannot be had, is damaged or of another kind, ConfigError when packages are missing.
    """
    with opened(checkpoint, kind) as (folder, torch, transformers):
        parts = load_parts(folder, kind, torch, transformers)
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        parts[0].to(device)
    return Checkpoint(folder.resolve().name if Path(checkpoint).is_dir() else checkpoint, *parts, torch, device)


@contextmanager
def opened(checkpoint: str, kind: Kind, extras: str = "clip") -> Iterator[tuple[Path, ModuleType, ModuleType]]:
    """Find a checkpoint, and give its folder with torch and transformers; whatever goes wrong within is a BundleError.

    Raises ConfigError when packages are missing, which `extras` install.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    torch, transformers, hub = (require(name, extras) for name in ("torch", "transformers", "huggingface_hub"))
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()  # the hub's too
    hub.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", "Recommended: pip install sacremoses")  # Marian's tokenizer does not call it
    try:
        yield _find(checkpoint, kind, hub), torch, transformers
    except Exception as error:  # of the network, the hub, the disk, or any reader that a damaged file trips
        first = re.split(r"\.\s|\.?$|\n", str(error).strip() or type(error).__name__)[0]  # libraries add advice
        wanted = " ".join(f"--include '{pattern}'" for pattern in (*SETTINGS, *kind.weights))
        raise BundleError(
            f"cannot use {checkpoint!r} as a {kind.label} checkpoint: {first}. Give a checkpoint's name on the model "
            f"hub, such as {kind.example} (needs a network, once), or a folder that holds one; to make one "
            f"where a network is: hf download {kind.example} --local-dir {kind.label.lower()} {wanted}"
        ) from error


def _find(checkpoint: str, kind: Kind, hub: ModuleType) -> Path:
    """Return the folder of a checkpoint: itself, or the one in the hub's cache, filled if need be."""
    if checkpoint and Path(checkpoint).is_dir():
        return Path(checkpoint)
    if not (named := HUB_NAME.fullmatch(checkpoint)):
        raise OSError("there is no such folder")
    name, revision = named.groups()
    download = partial(hub.snapshot_download, name, revision=revision, allow_patterns=[*SETTINGS, *kind.weights])
    with suppress(hub.errors.LocalEntryNotFoundError):
        cached = Path(download(local_files_only=True))
        if any(next(cached.glob(pattern), None) for pattern in kind.weights):  # else it was downloaded in part
            return cached
    print(f"downloading the {kind.label} checkpoint {checkpoint}, once", file=sys.stderr)
    return Path(download())


def load_parts(folder: Path, kind: Kind, torch: ModuleType, transformers: ModuleType) -> tuple[Any, Any, Any]:
    """Return model, in float32, image processor and tokenizer; raises ValueError when they do not fit each other."""
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    if kind.model not in (config.architectures or []):
        raise ValueError(f"it holds a {config.model_type} model, {config.architectures}; only {kind.model} is read")
    model = load_model(folder, kind, config, torch, getattr(transformers, kind.model))
    processor, tokenizer = (
        name and getattr(transformers, name).from_pretrained(folder, local_files_only=True)
        for name in (kind.processor, kind.tokenizer)
    )
    known, words = len(tokenizer), config.get_text_config().vocab_size
    # Models may have some words more, BLIP has two; transformers makes a tokenizer of three or five without its files.
    if not words / 2 < known <= words:
        raise ValueError(f"its tokenizer has {known:,} tokens, its model {words:,}")
    return model, processor, tokenizer


def load_model(folder: Path, kind: Kind, config: Any, torch: ModuleType, model_class: Any, **options: Any) -> Any:
    """Return a model of a class of transformers, in float32; raises ValueError when weights do not fit its config."""
    config.transformers_weights = None  # it may name any file, a pickle too
    model, report = model_class.from_pretrained(
        folder,
        config=config,
        local_files_only=True,
        use_safetensors=True if kind.weights == ("*.safetensors",) else None,
        weights_only=True,  # of a pickle, nothing but tensors is built
        dtype=torch.float32,
        attn_implementation="eager",  # whatever config.json asks for, code from the hub too
        ignore_mismatched_sizes=True,  # told in the next lines, in words
        output_loading_info=True,
        **options,
    )
    if wrong := [*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])]:
        raise ValueError(f"weights are missing or of another size, {len(wrong)} in all: {min(wrong)} is one")
    return model.eval()
