"""Features of many images: encoded in parallel, in constant memory, and found again by the image's bytes.

Knows how to keep all cores busy decoding and encoding. Refuses to know captions and splits: an image is an
id and a path; what a view shows is views.py's, how rows lie on disk store.py's.

Shapes: R rows in the cache, N grid positions, D numbers in a feature.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from lcm.encoding.conversion import PREPROCESSING
from lcm.encoding.encoders import ENCODERS, Encoder, EncoderIdentity
from lcm.encoding.parallel import map_in_order
from lcm.encoding.store import FeatureStore
from lcm.encoding.views import read_keys, view_keys
from lcm.errors import BadImageError, DataError, choose
from lcm.folders import cache_dir

DTYPES = {"pooled": np.float32, "grid": np.float16}  # a grid of 81 positions is large: half precision is enough
CHUNK_IMAGES = 8  # images that a worker reads in one call, and pictures, views among them, that it encodes at once
MAX_UNREADABLE = 0.01  # share of the images


@dataclass(frozen=True)
class EncodedImages:
    """Which images of a data set have features, and of which encoder: what a run keeps of its features."""

    encoder: EncoderIdentity
    keys: Mapping[str, str]  # image_id -> sha256 of the image's bytes, the key of its row
    unreadable: Mapping[str, str]  # image_id -> reason
    views: Mapping[str, int] = field(
        default_factory=dict
    )  # image_id -> number of further views, of those that have any

    def features(self, image_ids: Sequence[str], kind: str, views: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return the cached rows, memory-mapped [R, D] or [R, N, D], and which are the images' [1 + views, images].

        The first are of the images as they are, the others of their views 1 to `views`. Raises DataError when the cache
        lacks any.
        """
        keys = [view_keys(self.keys.get(image_id, ""), views) for image_id in image_ids]
        try:
            store, rows = open_store(self.encoder, kind).rows([key for of_image in keys for key in of_image])
        except DataError as error:
            raise DataError(f"{error} with features={kind}" if kind == "grid" else str(error)) from None
        return store, rows.reshape(len(keys), 1 + views).T

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=0), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; raises DataError when 01_prepare has not run."""
        if not path.exists():
            raise DataError(f"{path} is not there; run 01_prepare for this run folder first")
        record = json.loads(path.read_text(encoding="utf-8"))
        encoder = EncoderIdentity.from_record(record["encoder"])
        return cls(encoder, record["keys"], record["unreadable"], record.get("views", {}))  # older runs have no views


def open_store(encoder: EncoderIdentity, kind: str) -> FeatureStore:
    """Return the cache of one kind of feature of one encoder."""
    dtype = choose(DTYPES, kind, "kind of feature")
    spec = choose(ENCODERS, encoder.name, "encoder")
    shape = (spec.width,) if kind == "pooled" else (spec.positions, spec.width)
    return FeatureStore(_encoder_folder(encoder) / kind, shape, dtype)


class FeatureCache:
    """Features of images that were encoded before, by what the files hold."""

    def __init__(self, encoder: EncoderIdentity, kinds: Sequence[str]):
        """Open what the cache holds of these kinds by now."""
        self._stores = {kind: open_store(encoder, kind) for kind in kinds}

    def find(self, path: Path) -> dict[str, np.ndarray] | None:
        """Return kind -> features of an image file, [D] or [N, D] float32.

        None where the cache lacks any of them, or the file cannot be read.
        """
        try:
            key = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            return None
        if not all(key in store for store in self._stores.values()):
            return None
        found = {kind: store.rows([key]) for kind, store in self._stores.items()}
        return {kind: np.asarray(rows[place], np.float32) for kind, (rows, (place,)) in found.items()}


def _encoder_folder(encoder: EncoderIdentity) -> Path:
    return cache_dir() / "features" / f"{encoder.name}-{encoder.source_sha256[:12]}-v{PREPROCESSING}"


def encode_images(
    paths: Mapping[str, Path],
    encoder: Encoder,
    kinds: Sequence[str] = ("pooled",),
    workers: int = 0,
    views: Mapping[str, int] | None = None,
) -> EncodedImages:
    """Encode what the cache lacks, with a progress bar, and return where each image's features lie.

    `paths` maps image_id to file, `views` the image_ids that have further views to their number; the bar counts these
    too. `workers` threads (0: one a core) share `encoder`, which should use one thread a call. Unreadable images are
    left out and listed; DataError when they are more than MAX_UNREADABLE.
    """
    stores = {kind: open_store(encoder.identity, kind) for kind in kinds}
    views = {image_id: number for image_id, number in (views or {}).items() if number and image_id in paths}
    encoded = EncodedImages(encoder.identity, {}, {}, {})

    def work(part: Sequence[tuple[str, Path]]) -> _Chunk:
        return _encode_chunk(part, views, encoder, stores)

    with (
        FileLock(_encoder_folder(encoder.identity) / "lock"),
        tqdm(total=len(paths) + sum(views.values()), unit=" images", desc="encode", mininterval=1) as progress,
    ):
        for store in stores.values():
            store.recover()
        try:
            for chunk in map_in_order(work, paths.items(), CHUNK_IMAGES, workers):
                for kind, store in stores.items():
                    store.append(chunk.keys, chunk.features[kind])
                encoded.keys.update(chunk.key_of)
                encoded.unreadable.update(chunk.unreadable)
                progress.update(sum(1 + views.get(image_id, 0) for image_id in [*chunk.key_of, *chunk.unreadable]))
        finally:  # an interrupted run keeps what it has
            for store in stores.values():
                store.sync()
    _check_unreadable(encoded.unreadable, len(paths))
    encoded.views.update({image_id: number for image_id, number in views.items() if image_id in encoded.keys})
    return encoded


@dataclass(frozen=True)
class _Chunk:
    """What a worker made of a few images."""

    keys: list[str]  # of the images and views that were encoded
    features: dict[str, np.ndarray]  # kind -> [len(keys), ...]
    key_of: dict[str, str]  # image_id -> key, of all that could be read
    unreadable: dict[str, str]  # image_id -> reason


def _encode_chunk(
    part: Sequence[tuple[str, Path]], views: Mapping[str, int], encoder: Encoder, stores: Mapping[str, FeatureStore]
) -> _Chunk:
    """Read, decode and encode a few images and their views; those that every store has are only read and hashed."""
    key_of, unreadable, pictures = {}, {}, {}
    for image_id, path in part:
        try:
            data = path.read_bytes()
            key = hashlib.sha256(data).hexdigest()
            keys = view_keys(key, views.get(image_id, 0))
            missing = [one for one in keys if not all(one in store for store in stores.values())]
            if missing:
                pictures.update(zip(missing, read_keys(data, encoder.spec.size, key, missing), strict=True))
            key_of[image_id] = key
        except (BadImageError, OSError) as error:
            unreadable[image_id] = str(error)
    if not pictures:
        return _Chunk([], {kind: np.empty(0) for kind in stores}, key_of, unreadable)
    return _Chunk(list(pictures), _encode(list(pictures.values()), encoder, stores), key_of, unreadable)


def _encode(
    pictures: Sequence[np.ndarray], encoder: Encoder, stores: Mapping[str, FeatureStore]
) -> dict[str, np.ndarray]:
    """Return kind -> features [len(pictures), ...]; a few at a time: the encoder needs memory for each."""
    parts = [pictures[start : start + CHUNK_IMAGES] for start in range(0, len(pictures), CHUNK_IMAGES)]
    made = [encoder.encode(np.stack(part), tuple(stores)) for part in parts]
    return {kind: np.concatenate([one[kind].astype(store.dtype) for one in made]) for kind, store in stores.items()}


def _check_unreadable(unreadable: Mapping[str, str], images: int) -> None:
    if len(unreadable) > MAX_UNREADABLE * images:
        listed = "\n".join(f"  - {image_id}: {reason}" for image_id, reason in list(unreadable.items())[:10])
        raise DataError(
            f"{len(unreadable)} of {images} images cannot be read, more than {MAX_UNREADABLE:.0%}; replace or remove "
            f"them. The first:\n{listed}"
        )
