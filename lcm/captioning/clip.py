"""CLIP as a judge of tags: a picture and texts as unit vectors, whose cosine says how well they fit.

Knows where a CLIP checkpoint is found, how it is told from anything else, and that its own processor and tokenizer
feed it. Refuses to know which texts are asked and how scores become tags, and to read weights that are not safetensors:
a pickle can run code. Downloads happen here alone, once, and never make anyone wait for a dead network.

Shapes: K texts, D numbers in a vector.
"""

import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from lcm.errors import BundleError, require

CLIP_CHECKPOINT = "openai/clip-vit-large-patch14"  # Radford et al. 2021, arXiv 2103.00020; 1.7 GB
TEXTS_AT_ONCE = 64
MAX_CACHED_TEXTS = 50_000  # 150 MB at D = 768
REACH_S = 5  # seconds for the hub's first answer, which comes in well under one
_FILES = (  # of a checkpoint; repositories hold pickles and other frameworks' weights beside these
    *("config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"),
    *("model.safetensors", "model-*-of-*.safetensors"),
)
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_ADVICE = (
    f"Give a checkpoint's name on the model hub, such as {CLIP_CHECKPOINT} (needs a network, once), or a folder that "
    f"holds one; to make it, on a machine with a network: hf download {CLIP_CHECKPOINT} --local-dir clip "
    "--include '*.json' --include '*.txt' --include '*.safetensors'. lcm's own embedded scorer needs no download"
)
_NO_WEIGHTS = "it holds no model.safetensors; other forms of weights are not read, for a pickle can run code"


class ClipScorer:
    """A loaded CLIP; safe to call from several threads. A text's score is softmax(scale * cosine) over the texts."""

    def __init__(self, checkpoint: str = CLIP_CHECKPOINT):
        """Load a checkpoint: a folder that holds one, or a name on the model hub, downloaded on first use.

        Raises BundleError when it cannot be had or is no CLIP, and ConfigError when the packages are missing.
        """
        self._torch, transformers, hub = _import_quietly()
        try:
            self._model, self._processor, self._tokenizer = _load(_find(checkpoint, hub), self._torch, transformers)
        except _UnusableError as error:
            raise BundleError(f"cannot use {checkpoint!r} as a CLIP checkpoint: {error}. {_ADVICE}") from None
        self.name = Path(checkpoint).resolve().name if Path(checkpoint).is_dir() else checkpoint
        self.scale = float(self._model.logit_scale.detach().exp())
        self._known: dict[str, np.ndarray] = {}  # [D] each, oldest first
        self._lock = threading.Lock()  # a tokenizer that pads is not safe from threads either

    def image_vector(self, photo: Any) -> np.ndarray:
        """Return the unit vector of the RGB picture that `photo.open()` gives, float32 [D]; its middle counts."""
        pixels = self._processor(images=photo.open(), return_tensors="pt")["pixel_values"]
        with self._torch.inference_mode():
            return _unit(self._model.get_image_features(pixel_values=pixels).pooler_output)[0]

    def text_vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return the unit vectors of texts taken as they are, float32 [K, D]; the end of a very long one is cut off."""
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._known]
            for start in range(0, len(new), TEXTS_AT_ONCE):
                batch = new[start : start + TEXTS_AT_ONCE]
                self._known.update(zip(batch, self._read(batch), strict=True))
            vectors = [self._known[text] for text in texts]
            for text in list(self._known)[: max(0, len(self._known) - MAX_CACHED_TEXTS)]:
                del self._known[text]
        return np.array(vectors, np.float32).reshape(len(vectors), self._model.config.projection_dim)

    def unknown(self, texts: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002
        """Return the texts that this scorer cannot read: none, for CLIP spells out what is no word of its own."""
        return ()

    def _read(self, texts: list[str]) -> np.ndarray:
        """Return the unit vectors of a few texts, [K, D]."""
        longest = self._model.config.text_config.max_position_embeddings
        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        with self._torch.inference_mode():
            return _unit(self._model.get_text_features(**tokens).pooler_output)


class _UnusableError(Exception):
    """Why a checkpoint cannot be used; the message continues "cannot use …:"."""


def _import_quietly() -> tuple[ModuleType, ModuleType, ModuleType]:
    """Return torch, transformers and huggingface_hub, which from now on report nothing and count nobody."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    torch, transformers, hub = (require(name, "clip") for name in ("torch", "transformers", "huggingface_hub"))
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()  # the hub's too
    hub.logging.set_verbosity_error()
    return torch, transformers, hub


def _line(error: Exception) -> str:
    """Return an error's first sentence; libraries go on with addresses and advice."""
    return re.split(r"\.\s|\.?$|\n", str(error).strip() or type(error).__name__)[0]


def _unit(vectors: Any) -> np.ndarray:
    """Return a tensor's vectors at length 1, float32 [K, D]."""
    return (vectors / vectors.norm(dim=-1, keepdim=True)).numpy()


def _find(checkpoint: str, hub: ModuleType) -> Path:
    """Return the folder of a checkpoint: itself, or the one in the hub's cache, filled if need be."""
    folder = Path(checkpoint)
    if checkpoint and folder.is_dir():
        return folder
    if folder.is_file() or not _HUB_NAME.fullmatch(checkpoint):
        raise _UnusableError("it is a file, not a folder" if folder.is_file() else "there is no such folder")
    with suppress(OSError, ValueError, _UnusableError):  # never downloaded, or only in part
        cached = Path(hub.snapshot_download(checkpoint, allow_patterns=_FILES, local_files_only=True))
        if _weight_files(cached):
            return cached
    sizes = _ask_hub(checkpoint, hub)
    print(f"downloading the CLIP checkpoint {checkpoint}, once ({sum(sizes.values()) / 1e9:.1f} GB)", file=sys.stderr)
    try:
        return Path(hub.snapshot_download(checkpoint, allow_patterns=list(sizes)))
    except Exception as error:  # of the network, of the hub or of the disk
        raise _UnusableError(f"its download broke off ({_line(error)}); what has arrived is kept") from None


def _ask_hub(name: str, hub: ModuleType) -> dict[str, int]:
    """Return the files to download and their bytes; raises _UnusableError without a network or such a CLIP."""
    errors = require("huggingface_hub.errors", "clip")
    try:  # once: the hub's own loading asks six times before it gives up, over 23 seconds
        info = _within(REACH_S + 1, lambda: hub.HfApi().model_info(name, timeout=REACH_S, files_metadata=True))
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise _UnusableError(
            "there is no such folder, and the model hub has no such checkpoint, or wants a login first (hf auth login)"
        ) from None
    except Exception as error:  # connection, proxy, certificate, time-out, the hub's own trouble
        reason = "HF_HUB_OFFLINE is set" if isinstance(error, errors.OfflineModeIsEnabled) else _line(error)
        raise _UnusableError(
            f"there is no such folder, it was not downloaded before, and the model hub cannot be reached ({reason})"
        ) from None
    if info.config:  # otherwise _load will tell
        _check_type(info.config)
    files = [file for file in info.siblings or () if any(fnmatchcase(file.rfilename, each) for each in _FILES)]
    if not any(file.rfilename.endswith(".safetensors") for file in files):
        raise _UnusableError(_NO_WEIGHTS)
    return {file.rfilename: file.size or 0 for file in files}


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


def _load(folder: Path, torch: ModuleType, transformers: ModuleType) -> tuple[Any, Any, Any]:
    """Return model, image processor and tokenizer of the folder."""
    with _reading(folder, "config.json"):
        settings = json.loads((folder / "config.json").read_bytes())
        _check_type(settings)
        config = transformers.CLIPConfig.from_dict(settings)
    with _reading(folder, "weights"):
        load_file = require("safetensors.torch", "clip").load_file
        # The weights are handed over, for a config.json can send from_pretrained to other files, pickles among them.
        model, report = transformers.CLIPModel.from_pretrained(
            None,
            config=config,
            state_dict={name: weight for file in _weight_files(folder) for name, weight in load_file(file).items()},
            dtype=torch.float32,
            attn_implementation="sdpa",
            ignore_mismatched_sizes=True,  # told in the next lines, in words
            output_loading_info=True,
        )
        if wrong := [*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])]:
            raise _UnusableError(f"weights are missing or of another size, {len(wrong)} in all: {min(wrong)} is one")
    with _reading(folder, "image processor (preprocessor_config.json)"):
        processor = transformers.CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        _check_pictures(model.config.vision_config, processor)
    with _reading(folder, "tokenizer (tokenizer.json, or vocab.json with merges.txt)"):
        tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        _check_texts(model.config.text_config, tokenizer)
    return model.eval(), processor, tokenizer


@contextmanager
def _reading(folder: Path, part: str) -> Iterator[None]:
    """Turn whatever a damaged or missing file makes its reader trip over into an _UnusableError."""
    try:
        yield
    except _UnusableError:
        raise
    except Exception as error:
        raise _UnusableError(f"its {part} in {folder} cannot be read ({_line(error)})") from None


def _weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files, one or its shards; raises _UnusableError when there is none."""
    whole = folder / "model.safetensors"
    files = [whole] if whole.is_file() else sorted(folder.glob("model-*-of-*.safetensors"))
    if not files:
        raise _UnusableError(_NO_WEIGHTS)
    return files


def _check_type(config: Any) -> None:
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "clip":
        raise _UnusableError(f"it holds a model of the type {kind!r}, and only 'clip' is read")


def _check_pictures(model: Any, processor: Any) -> None:
    size = model.image_size
    cut = processor(images=Image.new("RGB", (16, 8)), return_tensors="np")["pixel_values"].shape[2:]
    if cut != (size, size):
        raise _UnusableError(f"its image processor makes {cut[1]} x {cut[0]} pixels, its model takes {size} x {size}")


def _check_texts(model: Any, tokenizer: Any) -> None:
    """A text's vector is read where its end token stands; id 2 says in old checkpoints: the highest there is."""
    known = max(tokenizer.get_vocab().values()) + 1  # without its files a tokenizer comes up empty
    size = model.vocab_size
    end = size - 1 if model.eos_token_id == 2 else model.eos_token_id
    if known > size or tokenizer.eos_token_id != end:
        found = f"({known:,} tokens, end token {tokenizer.eos_token_id})"
        raise _UnusableError(f"its tokenizer {found} is not its model's ({size:,} tokens, end token {end})")
