"""Features of many images: encoded in parallel, in constant memory, and found again by the image's bytes.

Knows how to keep all cores busy decoding and encoding. Refuses to know captions and splits: an image is an
id and a path; how rows lie on disk is store.py's.

Shapes: R rows in the cache, N grid positions, D numbers in a feature.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from lcm.config import cache_dir
from lcm.data.images import read_image
from lcm.encoding.conversion import PREPROCESSING
from lcm.encoding.encoders import ENCODERS, Encoder, EncoderIdentity
from lcm.encoding.parallel import map_in_order
from lcm.encoding.store import FeatureStore
from lcm.errors import BadImageError, DataError, choose

DTYPES = {"pooled": np.float32, "grid": np.float16}  # a grid of 81 positions is large: half precision is enough
CHUNK_IMAGES = 8  # images that a worker decodes and encodes in one call
MAX_UNREADABLE = 0.01  # share of the images


@dataclass(frozen=True)
class EncodedImages:
    """Which images of a data set have features, and of which encoder: what a run keeps of its features."""

    encoder: EncoderIdentity
    keys: Mapping[str, str]  # image_id -> sha256 of the image's bytes, the key of its row
    unreadable: Mapping[str, str]  # image_id -> reason

    def features(self, image_ids: Sequence[str], kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the cached rows, memory-mapped [R, D] or [R, N, D], and the row of each image [len(image_ids)].

        Raises DataError when the cache lacks an image.
        """
        return open_store(self.encoder, kind).rows([self.keys.get(image_id, "") for image_id in image_ids])

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=0), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; raises DataError when 01_prepare has not run."""
        if not path.exists():
            raise DataError(f"{path} is not there; run 01_prepare for this run folder first")
        record = json.loads(path.read_text(encoding="utf-8"))
        return cls(EncoderIdentity.from_record(record["encoder"]), record["keys"], record["unreadable"])


def open_store(encoder: EncoderIdentity, kind: str) -> FeatureStore:
    """Return the cache of one kind of feature of one encoder."""
    dtype = choose(DTYPES, kind, "kind of feature")
    spec = choose(ENCODERS, encoder.name, "encoder")
    shape = (spec.width,) if kind == "pooled" else (spec.positions, spec.width)
    return FeatureStore(_encoder_folder(encoder) / kind, shape, dtype)


def _encoder_folder(encoder: EncoderIdentity) -> Path:
    return cache_dir() / "features" / f"{encoder.name}-{encoder.source_sha256[:12]}-v{PREPROCESSING}"


def encode_images(
    paths: Mapping[str, Path], encoder: Encoder, kinds: Sequence[str] = ("pooled",), workers: int = 0
) -> EncodedImages:
    """Encode what the cache lacks, with a progress bar, and return where each image's features lie.

    `paths` maps image_id to file. `workers` threads (0: one a core) share `encoder`, which should use one
    thread a call. Unreadable images are left out and listed; DataError when they are more than MAX_UNREADABLE.
    """
    stores = {kind: open_store(encoder.identity, kind) for kind in kinds}
    encoded = EncodedImages(encoder.identity, {}, {})

    def work(part: Sequence[tuple[str, Path]]) -> _Chunk:
        return _encode_chunk(part, encoder, stores)

    with (
        FileLock(_encoder_folder(encoder.identity) / "lock"),
        tqdm(total=len(paths), unit=" images", desc="encode", mininterval=1) as progress,
    ):
        for store in stores.values():
            store.recover()
        try:
            for chunk in map_in_order(work, paths.items(), CHUNK_IMAGES, workers):
                for kind, store in stores.items():
                    store.append(chunk.keys, chunk.features[kind])
                encoded.keys.update(chunk.key_of)
                encoded.unreadable.update(chunk.unreadable)
                progress.update(len(chunk.key_of) + len(chunk.unreadable))
        finally:  # an interrupted run keeps what it has
            for store in stores.values():
                store.sync()
    _check_unreadable(encoded.unreadable, len(paths))
    return encoded


@dataclass(frozen=True)
class _Chunk:
    """What a worker made of a few images."""

    keys: list[str]  # of those that were encoded
    features: dict[str, np.ndarray]  # kind -> [len(keys), ...]
    key_of: dict[str, str]  # image_id -> key, of all that could be read
    unreadable: dict[str, str]  # image_id -> reason


def _encode_chunk(part: Sequence[tuple[str, Path]], encoder: Encoder, stores: Mapping[str, FeatureStore]) -> _Chunk:
    """Read, decode and encode a few images; those that every store has are only read and hashed."""
    key_of, unreadable, arrays = {}, {}, {}
    for image_id, path in part:
        try:
            data = path.read_bytes()
            key = hashlib.sha256(data).hexdigest()
            if key not in arrays and not all(key in store for store in stores.values()):
                arrays[key] = read_image(data, encoder.spec.size)
            key_of[image_id] = key
        except (BadImageError, OSError) as error:
            unreadable[image_id] = str(error)
    if not arrays:
        return _Chunk([], {kind: np.empty(0) for kind in stores}, key_of, unreadable)
    features = encoder.encode(np.stack(list(arrays.values())), tuple(stores))
    return _Chunk(list(arrays), features, key_of, unreadable)


def _check_unreadable(unreadable: Mapping[str, str], images: int) -> None:
    if len(unreadable) > MAX_UNREADABLE * images:
        listed = "\n".join(f"  - {image_id}: {reason}" for image_id, reason in list(unreadable.items())[:10])
        raise DataError(
            f"{len(unreadable)} of {images} images cannot be read, more than {MAX_UNREADABLE:.0%}; replace or remove "
            f"them. The first:\n{listed}"
        )
