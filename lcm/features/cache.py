"""Features of images: encoded once each, in parallel and in constant memory, and found again by the images' bytes.

Training on frozen features sees an image more than once through views: crops, some mirrored, which follow from the
image's key alone, so that any run and any order give the same.

Shapes: R rows in the cache or of an image, S pixels a side, N grid positions, D numbers in a feature.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from lcm.data.dataset import Dataset, LabelledImage
from lcm.data.images import read_views
from lcm.data.splits import SPLITS
from lcm.data.text import Vocabulary, standardise
from lcm.errors import BadImageError, DataError, choose
from lcm.features.convert import PREPROCESSING
from lcm.features.encoders import ENCODERS, Encoder, EncoderIdentity
from lcm.paths import RunDir, cache_dir

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    work: Callable[[Sequence[Item]], Result], items: Iterable[Item], part_size: int, workers: int = 0
) -> Iterator[Result]:
    """Yield `work(part)` of parts of `part_size` items, in order, a few parts ahead of the reader.

    `workers` threads (0: one a core) share the work; memory stays flat however many items there are.
    """
    workers = workers or os.cpu_count() or 1
    items = iter(items)
    pool, ahead = ThreadPoolExecutor(workers), deque()
    try:
        while part := list(islice(items, part_size)):
            ahead.append(pool.submit(work, part))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # a reader that stops waits for the work under way, not for all ahead


POLICY = 1  # counts up when the same image and number would give another view
VIEW_AREA = (0.6, 1.0)  # share of the picture that a view shows
MAX_STRETCH = 4 / 3  # width over height of a view, against the picture's own, at most; at least its inverse


def view_keys(image_key: str, views: int) -> list[str]:
    """Return the keys of an image's rows: its own, then those of its views 1 to `views`; each 64 hexadecimal digits."""
    texts = (f"{image_key} view {number} policy {POLICY}" for number in range(1, views + 1))
    return [image_key, *(hashlib.sha256(text.encode()).hexdigest() for text in texts)]


@dataclass(frozen=True)
class View:
    """What a view shows."""

    box: tuple[float, float, float, float]  # left, top, right, bottom, in shares of the picture's sides
    mirrored: bool = False  # left and right change places

    @classmethod
    def of(cls, key: str) -> Self:
        """Return the view of a key; the digits of a sha256 are as random as any generator's, and stay what they are."""
        draws = (np.frombuffer(bytes.fromhex(key), ">u4") / 2**32).tolist()  # 0 to below 1
        area = VIEW_AREA[0] + (VIEW_AREA[1] - VIEW_AREA[0]) * draws[0]
        stretch = min(MAX_STRETCH, 1 / area) ** (2 * draws[1] - 1)  # beyond 1 / area, a side would leave the picture
        width, height = min(1.0, (area * stretch) ** 0.5), min(1.0, (area / stretch) ** 0.5)
        left, top = (1 - width) * draws[2], (1 - height) * draws[3]
        return cls((left, top, min(1.0, left + width), min(1.0, top + height)), mirrored=draws[4] < 0.5)


WHOLE = View((0.0, 0.0, 1.0, 1.0))


def read_keys(data: bytes, size: int, image_key: str, keys: Sequence[str]) -> np.ndarray:
    """Return the pictures of some of an image's keys, uint8 [R, S, S, 3]; that of its own key is the whole picture.

    `data` is the image's file. Raises BadImageError as read_image does.
    """
    views = [WHOLE if key == image_key else View.of(key) for key in keys]
    pictures = read_views(data, size, [view.box for view in views])
    mirrored = [view.mirrored for view in views]
    pictures[mirrored] = pictures[mirrored, :, ::-1]
    return pictures


KEY_BYTES = 65  # a line of the keys file: a sha256 in hexadecimal and a line feed
ROWS_BETWEEN_SYNCS = 512  # what a kill can cost


class FeatureStore:
    """Rows of one shape under keys: a file of rows and a file that names them, both only appended to.

    Rows are forced to disk before the keys that name them, so that a kill costs some of the newest and never breaks the
    rest. One process may write at a time (the caller holds a lock from `recover` to the last `sync`); any may read.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: type):
        """Open or make the store in `folder`; `shape` is that of one row."""
        folder.mkdir(parents=True, exist_ok=True)
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._rows_path, self._keys_path = folder / "rows.bin", folder / "keys.txt"
        self._row_bytes = int(np.prod(shape)) * self.dtype.itemsize
        self._unsynced: list[str] = []
        self._index = self._read_index()

    def __contains__(self, key: str) -> bool:
        return key in self._index

    def _read_index(self) -> dict[str, int]:
        keys = self._keys_path.read_text().split("\n")[:-1] if self._keys_path.exists() else []
        whole_rows = self._rows_path.stat().st_size // self._row_bytes if self._rows_path.exists() else 0
        return {key: row for row, key in enumerate(keys[:whole_rows])}

    def recover(self) -> None:
        """Take in what other processes wrote and cut off what a kill left half written."""
        self._index = self._read_index()
        for path, unit in ((self._rows_path, self._row_bytes), (self._keys_path, KEY_BYTES)):
            path.touch()
            os.truncate(path, len(self._index) * unit)

    def append(self, keys: Sequence[str], rows: np.ndarray) -> None:
        """Add rows [len(keys), *shape]; keys that are there already are skipped."""
        with self._rows_path.open("ab") as file:
            for key, row in zip(keys, rows, strict=True):
                assert row.shape == self.shape, "a row of another shape would shift all later ones"
                if key not in self._index:
                    file.write(np.ascontiguousarray(row, self.dtype).tobytes())
                    self._index[key] = len(self._index)
                    self._unsynced.append(key)
        if len(self._unsynced) >= ROWS_BETWEEN_SYNCS:
            self.sync()

    def sync(self) -> None:
        """Force the appended rows to disk, then their keys."""
        with self._rows_path.open("ab") as file:
            os.fsync(file.fileno())
        with self._keys_path.open("a") as file:
            file.writelines(f"{key}\n" for key in self._unsynced)
            file.flush()
            os.fsync(file.fileno())
        self._unsynced.clear()

    def rows(self, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return all rows, memory-mapped [R, *shape], and where each key's row is among them [len(keys)].

        Raises DataError when a key has no row.
        """
        missing = [key for key in keys if key not in self._index]
        if missing:
            raise DataError(f"the feature cache lacks {len(missing)} of {len(keys)} images; run 01_prepare again")
        places = np.array([self._index[key] for key in keys], dtype=np.int64)
        if not self._index:
            return np.zeros((0, *self.shape), self.dtype), places
        shape = (len(self._index), *self.shape)
        return np.memmap(self._rows_path, self.dtype, mode="r", shape=shape), places


DTYPES = {"pooled": np.float32, "grid": np.float16}  # a grid of 81 positions is large: half precision is enough
CHUNK_IMAGES = 8  # images that a worker reads in one call, and pictures, views among them, that it encodes at once
MAX_UNREADABLE = 0.01  # share of the images


@dataclass(frozen=True)
class EncodedImages:
    """Which images of a data set have features, and of which encoder: what a run keeps of its features."""

    encoder: EncoderIdentity
    keys: Mapping[str, str]  # image_id -> sha256 of the image's bytes, the key of its row
    unreadable: Mapping[str, str]  # image_id -> reason
    views: Mapping[str, int] = field(default_factory=dict)  # image_id -> number of further views, where it has any

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
        return cls(**record | {"encoder": EncoderIdentity.from_record(record["encoder"])})


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
    keys, unreadable = {}, {}
    with (
        FileLock(_encoder_folder(encoder.identity) / "lock"),
        tqdm(total=len(paths) + sum(views.values()), unit=" images", desc="encode", mininterval=1) as progress,
    ):
        for store in stores.values():
            store.recover()
        try:
            work = partial(_encode_chunk, views=views, encoder=encoder, stores=stores)
            for chunk in map_in_order(work, paths.items(), CHUNK_IMAGES, workers):
                for kind, rows in chunk.features.items():
                    stores[kind].append(chunk.row_keys, rows)
                keys.update(chunk.keys)
                unreadable.update(chunk.unreadable)
                progress.update(sum(1 + views.get(image_id, 0) for image_id in [*chunk.keys, *chunk.unreadable]))
        finally:  # an interrupted run keeps what it has
            for store in stores.values():
                store.sync()
    if len(unreadable) > MAX_UNREADABLE * len(paths):
        listed = "\n".join(f"  - {image_id}: {reason}" for image_id, reason in list(unreadable.items())[:10])
        raise DataError(
            f"{len(unreadable)} of {len(paths)} images cannot be read, more than {MAX_UNREADABLE:.0%}; replace or "
            f"remove them. The first:\n{listed}"
        )
    views = {image_id: number for image_id, number in views.items() if image_id in keys}
    return EncodedImages(encoder.identity, keys, unreadable, views)


@dataclass(frozen=True)
class _Chunk:
    """What a worker made of a few images."""

    keys: dict[str, str]  # image_id -> key, of all that could be read
    unreadable: dict[str, str]  # image_id -> reason
    row_keys: list[str]  # of the images and views that were encoded
    features: dict[str, np.ndarray]  # kind -> [len(row_keys), ...]; empty where nothing was encoded


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
    stack = list(pictures.values())  # encoded a few at a time: the encoder needs memory for each
    parts = [np.stack(stack[start : start + CHUNK_IMAGES]) for start in range(0, len(stack), CHUNK_IMAGES)]
    made = [encoder.encode(part, tuple(stores)) for part in parts]
    features = {kind: np.concatenate([one[kind] for one in made]) for kind in stores} if made else {}
    return _Chunk(key_of, unreadable, list(pictures), features)


KINDS_OF = {"pooled": ("pooled",), "grid": ("pooled", "grid")}  # what is encoded for a model; the tagger reads pooled


def encode_dataset(dataset: Dataset, encoder: Encoder, features: str = "pooled", views: int = 0) -> EncodedImages:
    """Encode all images once, and `views` further views of each train image, as encode_images does.

    `features` is the kind that the model reads; raises ConfigError for an unknown one.
    """
    kinds = choose(KINDS_OF, features, "kind of features")
    viewed = dict.fromkeys((image.image_id for image in dataset.of("train")), views)
    return encode_images(dataset.paths, encoder, kinds, views=viewed)


@dataclass(frozen=True)
class LabelledFeatures:
    """Labelled images with one kind of features, in the same order."""

    images: Sequence[LabelledImage]
    rows: np.ndarray  # [len(images)] int64, places in `store`
    store: np.ndarray  # memory-mapped [R, D] or [R, N, D]
    view_rows: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))  # [views, len(images)], as rows

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image's features."""
        return self.store.shape[1:]

    @property
    def views(self) -> int:
        """The number of further views of each image."""
        return len(self.view_rows)

    @property
    def paths(self) -> list[Path]:
        """The image files, in order."""
        return [image.path for image in self.images]

    @property
    def references(self) -> list[tuple[str, ...]]:
        """The captions that people wrote, image by image."""
        return [image.captions for image in self.images]

    def at(self, places: np.ndarray) -> Self:
        """Return some of the images, by place."""
        images = [self.images[place] for place in places]
        view_rows = self.view_rows[:, places] if self.views else self.view_rows
        return replace(self, images=images, rows=self.rows[places], view_rows=view_rows)

    def draw_views(self, count: int, share: float, random: np.random.Generator) -> np.ndarray | None:
        """Return for each of `count` images which view to read: a further one for about a `share` of them.

        Where there are none, nothing is drawn.
        """
        if not (share and self.views):
            return None
        views = random.integers(1, self.views + 1, count)
        return np.where(random.random(count) < share, views, 0)

    def read(self, places: slice | np.ndarray, views: np.ndarray | None = None) -> np.ndarray:
        """Return the features of some of the images, float32.

        `views` [len(places)] says which view of each: 0 the image as it is (all, without `views`), 1 to self.views a
        further one.
        """
        if views is None:
            return np.asarray(self.store[self.rows[places]], np.float32)
        rows = np.vstack([self.rows, *self.view_rows])  # [1 + self.views, len(images)]
        return np.asarray(self.store[rows[views, np.arange(len(self))[places]]], np.float32)


@dataclass(frozen=True)
class PreparedRun:
    """The work of 01_prepare."""

    dataset: Dataset
    vocabulary: Vocabulary
    encoded: EncodedImages

    def labelled_features(self, split: str, kind: str) -> LabelledFeatures:
        """Return the images of a split with their features of a kind ("pooled" or "grid"), and those of their views.

        Raises DataError for an unknown split, or when the cache lacks an image or this kind of features.
        """
        images = self.dataset.of(split)
        image_ids = [image.image_id for image in images]
        views = min((self.encoded.views.get(image_id, 0) for image_id in image_ids), default=0)
        store, (rows, *view_rows) = self.encoded.features(image_ids, kind, views)
        return LabelledFeatures(images, rows, store, np.array(view_rows, np.int64).reshape(views, len(images)))

    def caption_lengths(self) -> dict[str, list[int]]:
        """Return split -> the number of words of each of its captions."""
        return {split: [len(standardise(text)) for text in self.dataset.captions_of(split)] for split in SPLITS}

    def sizes(self) -> dict[str, int]:
        """Return the numbers of images, captions and words, under the keys of metrics.json."""
        return {
            **{f"{split}_images": len(self.dataset.of(split)) for split in SPLITS},
            "train_captions": len(self.dataset.captions_of("train")),
            "unreadable_images": len(self.encoded.unreadable),
            "vocabulary_size": len(self.vocabulary),
        }

    def save(self, folder: RunDir) -> None:
        """Write all three into a run's folder."""
        self.dataset.save(folder.dataset)
        self.vocabulary.save(folder.vocabulary)
        self.encoded.save(folder.encoded_images)

    @classmethod
    def load(cls, folder: RunDir) -> Self:
        """Read what `save` wrote; raises DataError when 01_prepare has not run for this folder."""
        encoded = EncodedImages.load(folder.encoded_images)
        return cls(Dataset.load(folder.dataset), Vocabulary.load(folder.vocabulary), encoded)
