"""Features: encoded once each, found again by content, and whole after a kill."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcm.data.dataset import Dataset, LabelledImage
from lcm.data.images import read_image
from lcm.data.text import RESERVED, Vocabulary
from lcm.errors import ConfigError, DataError
from lcm.features.cache import (
    EncodedImages,
    PreparedRun,
    encode_dataset,
    encode_images,
    find_features,
    map_in_order,
    open_store,
    read_keys,
    view_keys,
    view_of,
)
from lcm.features.encoders import ENCODERS, EncoderIdentity, EncoderSpec
from lcm.paths import RunDir

FAKE = EncoderIdentity("fake", "random", "f" * 64, ())
FAKE_SPEC = EncoderSpec(size=4, positions=2, width=3, convert=None)
RECORD_BYTES = 64 + 3 * 4  # a key, and a pooled row of the fake: three float32


class FakeEncoder:
    """Gives mean colours, divided by 7 so that half precision cannot hold them; counts the images it is given."""

    identity, square = FAKE, FAKE_SPEC.size

    def __init__(self):
        self.images = 0
        self._lock = threading.Lock()

    def encode(self, images: np.ndarray, kinds: Iterable[str] = ("pooled",)) -> dict[str, np.ndarray]:
        with self._lock:
            self.images += len(images)
        assert images.dtype == np.uint8
        assert images.shape[1:] == (4, 4, 3)
        grid = images.reshape(-1, 2, 8, 3).mean(2, dtype=np.float32) / 7  # [B, 2, 3]
        values = {"pooled": grid.mean(1), "grid": grid}
        return {kind: values[kind] for kind in kinds}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """An empty cache, and the fake in the table of encoders."""
    monkeypatch.setenv("LCM_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(ENCODERS, "fake", FAKE_SPEC)
    return tmp_path / "home"


@pytest.fixture
def cache(home) -> Path:
    """Where the fake's pooled rows lie."""
    return home / "cache" / "features" / "fake-ffffffffffff-v1" / "pooled.rows"


def make_images(folder: Path, number: int, first: int = 0) -> dict[str, Path]:
    """Draw images that all differ; returns image_id -> file."""
    folder.mkdir(exist_ok=True)
    paths = {}
    for seed in range(first, first + number):
        path = folder / f"{seed}.png"
        pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        paths[path.name] = path
    return paths


@pytest.fixture
def paths(tmp_path) -> dict[str, Path]:
    return make_images(tmp_path / "images", 20)


def assert_views_are_right(encoded: EncodedImages, paths: dict[str, Path], views: int = 0, kind: str = "pooled"):
    """Each row is what the encoder gives for the whole picture (first) or for a view, by itself."""
    store, rows = encoded.features(list(paths), kind, views)
    assert rows.shape == (1 + views, len(paths))
    for of_image, path in zip(rows.T, paths.values(), strict=True):
        pictures = read_keys(path.read_bytes(), 4, key_of(path), view_keys(key_of(path), views))
        direct = FakeEncoder().encode(pictures, (kind,))[kind].astype(store.dtype)
        np.testing.assert_array_equal(store[of_image], direct)


def key_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Rows


def test_each_image_is_encoded_once_and_found_by_its_bytes(paths, tmp_path, cache):
    """Two names of one file and a copy of it share a row; what comes later is appended."""
    copy = paths["0.png"].with_name("copy.png")
    copy.write_bytes(paths["0.png"].read_bytes())
    paths = paths | {"again.png": paths["0.png"], "copy.png": copy}
    encoded, first = encode_images(paths, FakeEncoder()), cache.read_bytes()
    assert (encoded.encoder, encoded.unreadable) == (FAKE, {})
    assert encoded.keys == {image_id: key_of(path) for image_id, path in paths.items()}
    assert_views_are_right(encoded, paths)
    store, (rows,) = encoded.features(["7.png", "0.png", "copy.png", "again.png"], "pooled")
    assert (store.shape, store.dtype, rows.tolist()) == ((20, 3), np.float32, [7, 0, 0, 0])
    assert isinstance(store, np.memmap)

    encoder, more = FakeEncoder(), paths | make_images(tmp_path / "images", 3, first=20)
    assert encode_images(paths, encoder) == encoded
    assert (encoder.images, cache.read_bytes()) == (0, first)
    assert_views_are_right(encode_images(more, encoder), more)
    assert (encoder.images, cache.read_bytes()[: len(first)]) == (3, first)


# Kills


KILLED_RUN = """
import os, signal, sys
from pathlib import Path
from lcm.features.encoders import ENCODERS
from lcm.features.cache import THUMBNAIL, encode_images  # the kind that is written last
from tests.features.test_cache import FAKE_SPEC, KINDS, FakeEncoder

class Killer(FakeEncoder):
    def encode(self, images, kinds=("pooled",)):
        if any(path.stat().st_size for path in Path(os.environ["LCM_HOME"]).rglob(f"{THUMBNAIL}.rows")):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(images, kinds)

ENCODERS["fake"] = FAKE_SPEC
paths = {path.name: path for path in map(Path, sys.argv[1:])}
encode_images(paths, Killer(), KINDS, workers=1, views=4, viewed=list(paths)[5:])
"""
KINDS = ("pooled", "grid")


def test_after_a_kill_only_the_rest_is_encoded_and_the_bytes_are_those_of_a_whole_run(tmp_path, home, monkeypatch):
    paths = make_images(tmp_path / "images", 40)
    command = [sys.executable, "-c", KILLED_RUN, *map(str, paths.values())]
    environment = os.environ | {"LCM_HOME": str(home)}
    killed = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    found = []
    for folder, workers in ((home, 3), (tmp_path / "whole", 1)):
        monkeypatch.setenv("LCM_HOME", str(folder))
        encoder = FakeEncoder()
        encoded = encode_images(paths, encoder, KINDS, workers=workers, views=4, viewed=list(paths)[5:])
        files = sorted((folder / "cache" / "features").rglob("*.rows"))
        found.append((encoded, [path.read_bytes() for path in files], encoder.images))
    (resumed, rows, rest), (whole, expected, every) = found
    assert (resumed, rows) == (whole, expected)
    assert 0 < rest < every


@pytest.mark.parametrize(("torn", "lost"), [(4, 1), (RECORD_BYTES, 1), (RECORD_BYTES + 70, 2), (20 * RECORD_BYTES, 20)])
def test_a_torn_file_costs_no_more_than_what_is_torn(torn, lost, paths, tmp_path, cache):
    encode_images(paths, FakeEncoder())
    os.truncate(cache, cache.stat().st_size - torn)
    encoder, more = FakeEncoder(), paths | make_images(tmp_path / "images", 2, first=20)
    assert_views_are_right(encode_images(more, encoder), more)
    assert (encoder.images, cache.stat().st_size) == (lost + 2, 22 * RECORD_BYTES)


# Views


def test_the_images_that_are_named_have_views_with_rows_of_their_own_in_every_kind(paths, capsys):
    encoder, viewed, kinds = FakeEncoder(), list(paths)[3:8], ("pooled", "grid")
    encoded = encode_images(paths, encoder, kinds, views=2, viewed=viewed)
    assert encoder.images == 20 + 5 * 2
    assert "30/30" in capsys.readouterr().err
    assert_views_are_right(encoded, paths)
    for kind in kinds:
        assert_views_are_right(encoded, {name: paths[name] for name in viewed}, 2, kind)
        store, rows = encoded.features(viewed, kind, 2)
        assert len({store[row].tobytes() for row in rows.ravel()}) == 5 * 3
    with pytest.raises(DataError, match="lacks the pooled features of 2 of 3 images and views; run 01_prepare again"):
        encoded.features(["0.png"], "pooled", 2)


# Unreadable images


def test_up_to_a_quarter_is_named_and_left_out_and_more_are_refused(tmp_path):
    paths = make_images(tmp_path / "images", 20)
    assert str(encode_images(paths, FakeEncoder())) == "0 of 20 images cannot be read"
    paths["3.png"].write_bytes(paths["3.png"].read_bytes()[:50])
    for number in range(4):
        paths[f"{10 + number}.png"].write_bytes(b"")
    encoded = encode_images(paths, FakeEncoder())
    assert list(encoded.unreadable) == ["3.png", "10.png", "11.png", "12.png", "13.png"]
    assert "5 of 20 images cannot be read\n  - 3.png: received a PNG file (50 bytes) that is damaged" in str(encoded)
    assert "\n  - 13.png: received 0 bytes" in str(encoded)
    readable = {image_id: path for image_id, path in paths.items() if image_id not in encoded.unreadable}
    assert list(encoded.keys) == list(readable)
    assert_views_are_right(encoded, readable)
    paths["19.png"].unlink()
    with pytest.raises(DataError, match=r"(?s)^6 of 20 .* 12.png: .*  and 1 more\nAt most 25% .* replace or remove"):
        encode_images(paths, FakeEncoder())
    with pytest.raises(DataError, match=r"1 of 2 images cannot be read(?s:.*)two must be left"):
        encode_images({name: paths[name] for name in ("0.png", "3.png")}, FakeEncoder())


# What a run keeps


@pytest.mark.parametrize(
    ("image_id", "kind", "error", "message"),
    [
        ("nobody.png", "pooled", DataError, "lacks the pooled features of 1 of 1 images"),
        ("0.png", "grid", DataError, "lacks the grid features of 1 of 1 .* run 01_prepare again .*features=grid"),
        ("0.png", "both", ConfigError, "unknown kind of feature 'both'; choose from pooled, grid"),
    ],
)
def test_what_was_not_encoded_is_an_error_that_says_what_to_do(image_id, kind, error, message, paths):
    with pytest.raises(error, match=message):
        encode_images(paths, FakeEncoder()).features([image_id], kind)


def label(paths: dict[str, Path]) -> Dataset:
    splits = ["train"] * 10 + ["dev"] * 5 + ["test"] * 4 + [""]
    images = (
        LabelledImage(image_id, path, split, ("A red dog.", f"Dog {image_id} runs"))
        for (image_id, path), split in zip(paths.items(), splits, strict=True)
    )
    return Dataset(tuple(images))


def prepare(paths: dict[str, Path], features: str = "pooled", views: int = 0) -> PreparedRun:
    dataset = label(paths)
    encoded = encode_dataset(dataset, FakeEncoder(), features, views)
    return PreparedRun(dataset, Vocabulary((*RESERVED, "dog", "été")), encoded)


def test_a_run_is_read_as_it_was_saved_and_gives_each_split_its_features(paths, tmp_path):
    folder, prepared = RunDir.at(tmp_path / "run"), prepare(paths)
    with pytest.raises(DataError, match="is not there; run 01_prepare"):
        PreparedRun.load(folder)
    prepared.save(folder)
    loaded = PreparedRun.load(folder)
    assert (loaded.dataset.images, loaded.vocabulary) == (prepared.dataset.images, prepared.vocabulary)
    assert loaded.encoded == prepared.encoded
    dev = loaded.labelled_features("dev", "pooled")
    assert [image.image_id for image in dev.images] == [f"{number}.png" for number in range(10, 15)]
    assert (len(dev), dev.shape, dev.references[1]) == (5, (3,), ("A red dog.", "Dog 11.png runs"))
    expected = FakeEncoder().encode(np.stack([read_image(image.path, 4) for image in dev.images]))["pooled"]
    for places in (slice(None), slice(1, 3), np.array([4, 0, 4])):
        np.testing.assert_array_equal(dev.read(places), expected[places])
    counts = {"train_images": 10, "dev_images": 5, "test_images": 4, "train_captions": 20, "unreadable_images": 0}
    assert loaded.sizes() == counts | {"vocabulary_size": 6, "languages": "en"}
    assert {split: len(lengths) for split, lengths in loaded.caption_lengths().items()} == {
        "train": 20,
        "dev": 10,
        "test": 8,
    }
    assert loaded.caption_lengths()["dev"][:2] == [3, 4]  # "a red dog", "dog 10 png runs"


@pytest.mark.parametrize(
    ("features", "kinds"),
    [("pooled", ["pooled.rows", "thumbnail.rows"]), ("grid", ["grid.rows", "pooled.rows", "thumbnail.rows"])],
)
def test_a_run_encodes_what_its_model_and_the_tagger_read_and_further_views_to_train_on(features, kinds, paths, cache):
    prepared = prepare(paths, features, views=4)
    assert sorted(path.name for path in cache.parent.iterdir() if path.name != "lock") == kinds
    for kind in features, "pooled":
        assert [prepared.labelled_features(split, kind).views for split in ("train", "dev", "test")] == [4, 0, 0]
        assert len(prepared.labelled_features("dev", kind).store) == 20 + 10 * 4


@pytest.mark.parametrize(
    ("caption", "mirrored"),
    [
        *(("a dog LEFT of a boy", False), ("the left-hand door", False), ("runs clockwise", False)),
        *(("un chien à gauche", False), ("rechts ein Hund", False), ("in der linken Hand", False)),
        *(("a bright leftover", True), ("il fait droit", True), ("golf links", False)),
    ],
)
def test_a_mirrored_view_is_of_no_image_whose_captions_tell_left_from_right(caption, mirrored, paths):
    dataset = Dataset([replace(image, captions=("a dog", caption)) for image in label(paths).images])
    encoded = encode_dataset(dataset, FakeEncoder(), views=4)
    train = PreparedRun(dataset, Vocabulary(RESERVED), encoded).labelled_features("train", "pooled")
    _, rows = encoded.features([image.image_id for image in train.images], "pooled", 4)
    keys = np.array([view_keys(encoded.keys[image.image_id], 4) for image in train.images]).T
    is_mirrored = np.array([[number and view_of(key)[1] for key in row] for number, row in enumerate(keys)], bool)
    assert 0 < is_mirrored.sum() < is_mirrored[1:].size
    np.testing.assert_array_equal(train.rows, rows if mirrored else np.where(is_mirrored, rows[0], rows))


# Looked up


def test_a_file_is_found_by_what_it_holds_and_only_where_all_kinds_are_there(tmp_path):
    paths = make_images(tmp_path / "photos", 3)
    first, second, other = paths.values()
    encode_images({"first": first}, FakeEncoder(), ("pooled", "grid"))
    encode_images({"second": second}, FakeEncoder(), ("pooled",))
    copy = tmp_path / "copy.png"
    copy.write_bytes(first.read_bytes())
    expected = FakeEncoder().encode(read_image(first, 4)[None], ("pooled", "grid"))
    both = {kind: open_store(FAKE, kind) for kind in ("pooled", "grid")}
    for path in (first, copy):
        found = find_features(path, both)
        assert found["pooled"].tolist() == expected["pooled"][0].tolist()
        np.testing.assert_allclose(found["grid"], expected["grid"][0], rtol=1e-3)
        assert {values.dtype for values in found.values()} == {np.dtype(np.float32)}
    assert list(find_features(second, {"pooled": both["pooled"]})) == ["pooled"]
    assert [find_features(path, both) for path in (second, other, tmp_path / "gone.png")] == [None] * 3


# What a view shows

SQUARE = 32
KEY = hashlib.sha256(b"a picture").hexdigest()


def view_key(*draws: float) -> str:
    """The key whose view is made from these five numbers, 0 to below 1."""
    return "".join(f"{int(draw * 2**32):08x}" for draw in (*draws, 0, 0, 0))


def to_file(picture: Image.Image, file_format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def slopes(width: int = 400, height: int = 300) -> Image.Image:
    """Red tells how far a pixel is to the right, green how far it is down."""
    across, down = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    colours = np.stack([255 * across, 255 * down, np.full_like(down, 90)], axis=-1)
    return Image.fromarray(colours.round().astype(np.uint8))


@pytest.mark.parametrize(
    ("draws", "box", "mirrored"),
    [
        # area 0.8, as wide as high against the picture: sides of 0.8944, in the middle
        ((0.5, 0.5, 0.5, 0.5, 0.5), (0.0528, 0.0528, 0.9472, 0.9472), False),
        # area 0.6, 3/4 as wide: 0.6708 x 0.8944, in the upper left corner
        ((0, 0, 0, 0, 0), (0, 0, 0.6708, 0.8944), True),
        # area 0.6, nearly 4/3 as wide: 0.8944 x 0.6708, at the right, in the middle
        ((0, 1 - 2**-30, 1 - 2**-30, 0.5, 0.75), (0.1056, 0.1646, 1, 0.8354), False),
        # area 0.9, as narrow as fits: the whole height, 0.9 of the width
        ((0.75, 0, 0.5, 0.5, 0.25), (0.05, 0, 0.95, 1), True),
        # nearly all of it
        ((1 - 2**-30, 0, 0.5, 0.5, 0.25), (0, 0, 1, 1), True),
    ],
)
def test_views_worked_out_by_hand(draws, box, mirrored):
    assert view_of(view_key(*draws)) == (pytest.approx(box, abs=1e-4), mirrored)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_view_shows_its_part_of_the_picture_as_a_square(mirrored):
    """The outermost pixels' middles lie half a pixel inside the box."""
    key = next(key for key in view_keys(KEY, 20)[1:] if view_of(key)[1] == mirrored)
    (left, top, right, bottom), _ = view_of(key)
    data = to_file(slopes())
    whole, shown = read_keys(data, SQUARE, KEY, [KEY, key])
    np.testing.assert_array_equal(whole, read_image(data, SQUARE))
    shown = shown[:, ::-1] if mirrored else shown
    assert shown.shape == (SQUARE, SQUARE, 3)
    assert shown.dtype == np.uint8
    half_x, half_y = (right - left) / (2 * SQUARE), (bottom - top) / (2 * SQUARE)
    red, green = shown[..., 0] / 255, shown[..., 1] / 255
    # An edge pixel's filter is cut off at the box, which shifts it by under half a pixel of the square.
    assert red[:, 0].mean() == pytest.approx(left + half_x, abs=half_x)
    assert red[:, -1].mean() == pytest.approx(right - half_x, abs=half_x)
    assert green[0].mean() == pytest.approx(top + half_y, abs=half_y)
    assert green[-1].mean() == pytest.approx(bottom - half_y, abs=half_y)
    assert red[:, SQUARE // 2 - 1 : SQUARE // 2 + 1].mean() == pytest.approx((left + right) / 2, abs=0.005)


# Work in threads: every result, in order, a few ahead and no more


def test_parts_come_in_order_whole_but_for_the_last_and_a_few_ahead():
    assert list(map_in_order(list, range(23), 4)) == [list(range(23))[start : start + 4] for start in range(0, 23, 4)]
    items = count()
    results = map_in_order(len, items, part_size=2, workers=3)
    assert [next(results) for _ in range(50)] == [2] * 50
    results.close()
    assert next(items) == (50 + 2 * 3) * 2


def test_a_part_that_takes_long_is_not_overtaken_and_an_error_comes_in_its_place():
    done = [threading.Event() for _ in range(12)]

    def work(part):
        if part[0] % 3 == 0:
            assert done[part[0] + 1].wait(60)  # the next one is done before it
        done[part[0]].set()
        return 1 / (11 - part[0])

    results = map_in_order(work, range(12), 1, workers=4)
    assert [next(results) for _ in range(11)] == [1 / (11 - place) for place in range(11)]
    with pytest.raises(ZeroDivisionError):
        next(results)
