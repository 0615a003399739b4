"""Features of images: encoded once each, in parallel and in constant memory, and found again by the images' bytes.

Training on frozen features sees an image more than once through views: crops, some mirrored, which follow from the
image's key alone, so that any run and any order give the same.

Shapes: R rows in the cache or of an image, S pixels a side, N grid positions, D numbers in a feature.
"""

import hashlib
import json
import os
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from lcm.data.dataset import Dataset, LabelledImage
from lcm.data.files import NAMES_SHOWN
from lcm.data.images import THUMBNAIL_SIDE, WHOLE, Square, read_views, thumbnail
from lcm.data.splits import SPLITS
from lcm.data.text import Vocabulary, standardise
from lcm.errors import BadImageError, DataError, choose
from lcm.features.convert import PREPROCESSING
from lcm.features.encoders import ENCODERS, Encoder, EncoderIdentity, file_name
from lcm.paths import RunDir, cache_dir, explained


def map_in_order(
    work: Callable[[Sequence[Any]], Any], items: Iterable[Any], part_size: int, workers: int = 0
) -> Iterator[Any]:
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
# What a caption in some language says that is untrue of the mirrored picture.
SIDES = {"en": "left|right|(anti|counter)?clockwise", "fr": "gauche|droite", "de": "(link|recht)(s|e[mnrs]?)"}
_SIDES = re.compile(rf"\b({'|'.join(SIDES.values())})\b", re.IGNORECASE)


def view_keys(image_key: str, views: int) -> list[str]:
    """Return the keys of an image's rows: its own, then those of its views 1 to `views`; each 64 hexadecimal digits."""
    texts = (f"{image_key} view {number} policy {POLICY}" for number in range(1, views + 1))
    return [image_key, *(hashlib.sha256(text.encode()).hexdigest() for text in texts)]


def tells_sides(image: LabelledImage) -> bool:
    """Return whether a caption tells left from right, so that it may be untrue of the mirrored picture."""
    return any(map(_SIDES.search, image.captions))


def view_of(key: str, areas: tuple[float, float] = VIEW_AREA) -> tuple[tuple[float, float, float, float], bool]:
    """Return what the view of a key shows: left, top, right, bottom in shares of the sides; and whether it is mirrored.

    `areas` are the least and the most that it shows, as shares of the picture. The digits of
    a sha256 are as random as any generator's, and stay what they are.
    """
    draws = (np.frombuffer(bytes.fromhex(key), ">u4") / 2**32).tolist()  # 0 to below 1
    area = areas[0] + (areas[1] - areas[0]) * draws[0]
    stretch = min(MAX_STRETCH, 1 / area) ** (2 * draws[1] - 1)  # beyond 1 / area, a side would leave the picture
    width, height = min(1.0, (area * stretch) ** 0.5), min(1.0, (area / stretch) ** 0.5)
    left, top = (1 - width) * draws[2], (1 - height) * draws[3]
    return (left, top, min(1.0, left + width), min(1.0, top + height)), draws[4] < 0.5


def read_keys(data: bytes, square: int | Square, image_key: str, keys: Sequence[str]) -> np.ndarray:
    """Return the pictures of some of an image's keys, uint8 [R, S, S, 3]; that of its own key is the whole picture.

    `data` is the image's file, `square` as read_views takes it. Raises BadImageError as read_image does.
    """
    boxes, mirrored = zip(*((WHOLE, False) if key == image_key else view_of(key) for key in keys), strict=True)
    pictures = read_views(data, square, boxes)
    pictures[list(mirrored)] = pictures[list(mirrored), :, ::-1]
    return pictures


class FeatureStore:
    """Rows of one shape under keys: a file of records, each a key and its row, that is only appended to.

    A kill costs the record that it tore. One process may append at a time (the caller holds a lock from `recover` on);
    any may read.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: type):
        """Read which keys the file has; `shape` is that of one row, keys are 64 hexadecimal digits."""
        self._path, self._record = path, np.dtype([("key", "S64"), ("row", dtype, shape)])
        self._index = self._read_index()

    def __contains__(self, key: str) -> bool:
        return key in self._index

    def _records(self) -> np.ndarray:
        count = self._path.stat().st_size // self._record.itemsize if self._path.exists() else 0
        return np.memmap(self._path, self._record, "r", shape=count) if count else np.zeros(0, self._record)

    def _read_index(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self._records()["key"].astype(str).tolist())}

    def recover(self) -> None:
        """Take in what other processes wrote and cut off what a kill left half written."""
        self._index = self._read_index()
        self._path.touch()
        os.truncate(self._path, len(self._index) * self._record.itemsize)

    def append(self, keys: Sequence[str], rows: np.ndarray) -> None:
        """Add rows [len(keys), *shape]; keys that are there already are skipped."""
        place = self._path.parent
        with explained(place, "make room, or name a folder that has some in LCM_CACHE"), self._path.open("ab") as file:
            for key, row in zip(keys, rows, strict=True):
                if key not in self._index:
                    file.write(np.array((key, row), self._record).tobytes())
                    self._index[key] = len(self._index)

    def rows(self, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return all rows, memory-mapped [R, *shape], and where each key's row is among them [len(keys)].

        Raises DataError when a key has no row.
        """
        missing = [key for key in keys if key not in self._index]
        if missing:
            raise DataError(
                f"the feature cache lacks the {self._path.stem} features of {len(missing)} of {len(keys)} images and "
                "views; run 01_prepare again (a transformer needs features=grid)"
            )
        return self._records()["row"], np.array([self._index[key] for key in keys], dtype=np.int64)


THUMBNAIL = "thumbnail"  # kept beside the features, for copies are told by it
# A grid of 81 positions is large: half precision is enough.
DTYPES = {"pooled": np.float32, "grid": np.float16, THUMBNAIL: np.uint8}
CHUNK_IMAGES = 8  # images that a worker reads in one call, and pictures, views among them, that it encodes at once
MAX_UNREADABLE = 0.25  # share of the images; more of them, and it is hardly the data set that was meant


def open_store(encoder: EncoderIdentity, kind: str) -> FeatureStore:
    """Return the cache of one kind of feature of one encoder."""
    dtype = choose(DTYPES, kind, "kind of feature")
    spec = encoder.checkpoint or choose(ENCODERS, encoder.name, "encoder")
    shapes = {"pooled": (spec.width,), THUMBNAIL: (THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)}
    return FeatureStore(_folder_of(encoder) / f"{kind}.rows", shapes.get(kind, (spec.positions, spec.width)), dtype)


def _folder_of(encoder: EncoderIdentity) -> Path:
    return cache_dir() / "features" / f"{file_name(encoder.name)}-{encoder.source_sha256[:12]}-v{PREPROCESSING}"


def find_features(path: Path, stores: Mapping[str, FeatureStore]) -> dict[str, np.ndarray] | None:
    """Return kind -> features of an image file that was encoded before, [D] or [N, D] float32.

    None where one of the `stores`, by kind, lacks what the file holds, or the file cannot be read.
    """
    try:
        key = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
    if not all(key in store for store in stores.values()):
        return None
    found = {kind: store.rows([key]) for kind, store in stores.items()}
    return {kind: np.asarray(rows[place], np.float32) for kind, (rows, (place,)) in found.items()}


@dataclass(frozen=True)
class EncodedImages:
    """Which images of a data set have features, and of which encoder: what a run keeps of its features."""

    encoder: EncoderIdentity
    keys: Mapping[str, str]  # image_id -> sha256 of the image's bytes, the key of its row
    unreadable: Mapping[str, str]  # image_id -> reason
    views: int = 0  # further views of each train image

    def __str__(self) -> str:
        count, total = len(self.unreadable), len(self.unreadable) + len(self.keys)
        listed = [f"\n  - {name}: {reason}" for name, reason in islice(self.unreadable.items(), NAMES_SHOWN)]
        more = f"\n  and {count - NAMES_SHOWN} more" if count > NAMES_SHOWN else ""
        return f"{count} of {total} images cannot be read" + "".join(listed) + more

    def features(self, image_ids: Sequence[str], kind: str, views: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return the cached rows, memory-mapped [R, D] or [R, N, D], and which are the images' [1 + views, images].

        Raises DataError when the cache lacks any.
        """
        keys = [view_keys(self.keys.get(image_id, ""), views) for image_id in image_ids]
        store, rows = open_store(self.encoder, kind).rows([key for of_image in keys for key in of_image])
        return store, rows.reshape(len(keys), 1 + views).T


def encode_images(
    paths: Mapping[str, Path],
    encoder: Encoder,
    kinds: Sequence[str] = ("pooled",),
    workers: int = 0,
    views: int = 0,
    viewed: Collection[str] = (),
) -> EncodedImages:
    """Encode what the cache lacks, with a progress bar, and return where each image's features lie.

    `paths` maps image_id to file; the images `viewed` have `views` further views each, which the bar counts too.
    `workers` threads (0: one a core) share `encoder`, which should use one thread a call. Unreadable images are left
    out and listed; DataError when they are more than MAX_UNREADABLE, or leave fewer than two.
    """
    stores = {kind: open_store(encoder.identity, kind) for kind in (*kinds, THUMBNAIL)}
    views_of = dict.fromkeys(paths, 0) | dict.fromkeys(viewed, views)
    keys: dict[str, str] = {}
    unreadable: dict[str, str] = {}

    def encode(part: Sequence[tuple[str, Path]]) -> tuple[dict, dict, list[str], dict[str, np.ndarray]]:
        """Return the keys and the reasons of a few images, the keys of what the cache lacks, and kind -> its rows."""
        found, refused, pictures = {}, {}, {}
        for image_id, path in part:
            try:
                data = path.read_bytes()
                key = hashlib.sha256(data).hexdigest()
                wanted = view_keys(key, views_of[image_id])
                missing = [one for one in wanted if not all(one in store for store in stores.values())]
                if missing:
                    pictures.update(zip(missing, read_keys(data, encoder.square, key, missing), strict=True))
                found[image_id] = key
            except (BadImageError, OSError) as error:
                refused[image_id] = str(error)
        stack = list(pictures.values())  # encoded a few at a time: the encoder needs memory for each
        starts = range(0, len(stack), CHUNK_IMAGES)
        made = [encoder.encode(np.stack(stack[start : start + CHUNK_IMAGES]), kinds) for start in starts]
        rows = {kind: np.concatenate([one[kind] for one in made]) for kind in kinds} if made else {}
        rows |= {THUMBNAIL: np.stack([thumbnail(picture) for picture in stack])} if made else {}
        return found, refused, list(pictures), rows

    folder = _folder_of(encoder.identity)
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(1 + views_of[image_id] for image_id in paths)
    with FileLock(folder / "lock"), tqdm(total=total, unit=" images", desc="encode") as progress:
        for store in stores.values():
            store.recover()
        for found, refused, new, rows in map_in_order(encode, paths.items(), CHUNK_IMAGES, workers):
            for kind, its in rows.items():
                stores[kind].append(new, its)
            keys.update(found)
            unreadable.update(refused)
            progress.update(sum(1 + views_of[image_id] for image_id in (*found, *refused)))
    encoded = EncodedImages(encoder.identity, keys, unreadable, views)
    if unreadable and (len(keys) < 2 or len(unreadable) > MAX_UNREADABLE * len(paths)):
        raise DataError(
            f"{encoded}\nAt most {MAX_UNREADABLE:.0%} may be like that, and two must be left: replace or remove them"
        )
    return encoded


KINDS_OF = {"pooled": ("pooled",), "grid": ("pooled", "grid")}  # what is encoded for a model; the tagger reads pooled


def encode_dataset(dataset: Dataset, encoder: Encoder, features: str = "pooled", views: int = 0) -> EncodedImages:
    """Encode all images once, and `views` further views of each train image, as encode_images does.

    `features` is the kind that the model reads; raises ConfigError for an unknown one.
    """
    kinds = choose(KINDS_OF, features, "kind of features")
    viewed = [image.image_id for image in dataset.of("train")]
    return encode_images(dataset.paths, encoder, kinds, views=views, viewed=viewed)


@dataclass(frozen=True)
class LabelledFeatures:
    """Labelled images with one kind of features, in the same order."""

    images: Sequence[LabelledImage]
    rows: np.ndarray  # int64, places in `store`: [len(images)], or [1 + views, len(images)]
    store: np.ndarray  # memory-mapped [R, D] or [R, N, D]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image's features."""
        return self.store.shape[1:]

    @property
    def views(self) -> int:
        """The number of further views of each image."""
        return len(np.atleast_2d(self.rows)) - 1

    @property
    def references(self) -> list[tuple[str, ...]]:
        """The captions that people wrote, image by image."""
        return [image.captions for image in self.images]

    def at(self, places: np.ndarray) -> Self:
        """Return some of the images, by place."""
        return replace(self, images=[self.images[place] for place in places], rows=self.rows[..., places])

    def draw_views(self, count: int, share: float, random: np.random.Generator) -> np.ndarray | None:
        """Return which view to read of each of `count` images: a further one of about a `share`; None without views."""
        if not (share and self.views):
            return None
        views = random.integers(1, self.views + 1, count)
        return np.where(random.random(count) < share, views, 0)

    def read(self, places: slice | np.ndarray, views: np.ndarray | None = None) -> np.ndarray:
        """Return the features of some of the images, float32; `views` [len(places)] says which view of each, 0 none."""
        rows = np.atleast_2d(self.rows)[0 if views is None else views, np.arange(len(self))[places]]
        return np.asarray(self.store[rows], np.float32)


@dataclass(frozen=True)
class PreparedRun:
    """The work of 01_prepare."""

    dataset: Dataset
    vocabulary: Vocabulary
    encoded: EncodedImages

    @property
    def language(self) -> str:
        """The language that headline scores are of: the vocabulary's first that there are captions in."""
        there = {image.language for image in self.dataset.images}
        return next((code for code in self.vocabulary.starts if code in there), self.vocabulary.language)

    def labelled_features(self, split: str, kind: str, language: str = "") -> LabelledFeatures:
        """Return the images of a split with their features of a kind ("pooled" or "grid"); train, with those of views.

        With their captions in one language, or an image once for each of its languages. One whose captions tell left
        from right is whole in place of its mirrored views. Raises DataError for an unknown split, or when the cache
        lacks an image or this kind of features.
        """
        images, views = self.dataset.of(split, language), self.encoded.views if split == "train" else 0
        store, rows = self.encoded.features([image.image_id for image in images], kind, views)
        for place, image in enumerate(images if views else ()):
            if tells_sides(image):
                keys = view_keys(self.encoded.keys[image.image_id], views)
                rows[[number for number in range(1, 1 + views) if view_of(keys[number])[1]], place] = rows[0, place]
        return LabelledFeatures(images, rows, store)

    def caption_lengths(self) -> dict[str, list[int]]:
        """Return split -> the number of words of each of its captions."""
        texts = {split: chain.from_iterable(self.dataset.captions_of(split).values()) for split in SPLITS}
        return {split: [len(standardise(text)) for text in its] for split, its in texts.items()}

    def sizes(self) -> dict[str, int | str]:
        """Return the numbers of images, captions and words, under the keys of metrics.json."""
        return {
            **{f"{split}_images": len({image.image_id for image in self.dataset.of(split)}) for split in SPLITS},
            "train_captions": sum(map(len, self.dataset.captions_of("train").values())),
            "languages": ", ".join(self.vocabulary.starts),
            "unreadable_images": len(self.encoded.unreadable),
            "vocabulary_size": len(self.vocabulary),
        }

    def save(self, folder: RunDir) -> None:
        """Write all three into a run's folder."""
        self.dataset.save(folder.dataset)
        self.vocabulary.save(folder.vocabulary)
        folder.encoded_images.write_text(json.dumps(asdict(self.encoded), ensure_ascii=False, indent=0), "utf-8")

    @classmethod
    def load(cls, folder: RunDir) -> Self:
        """Read what `save` wrote; raises DataError for a folder that 01_prepare has not filled."""
        try:
            dataset = Dataset.load(folder.dataset)
            record = json.loads(folder.encoded_images.read_text("utf-8"))
            encoded = EncodedImages(**record | {"encoder": EncoderIdentity.from_record(record["encoder"])})
            return cls(dataset, Vocabulary.load(folder.vocabulary), encoded)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{folder.path} is no run, or not a whole one ({error}); run 01_prepare for it") from error
