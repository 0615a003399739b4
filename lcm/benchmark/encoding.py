"""Speed of encoding: images a second from files to features, ours and the original's way.

Knows the sides: the feature cache as 01_prepare fills it, and Keras's `predict` of one image at a time as the original
did it, at the same network and at each one's default; what of it is reading pictures; and what options give. Refuses to
know what features are for.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from lcm.data.images import open_image, read_image
from lcm.errors import DataError
from lcm.features.cache import encode_images, map_in_order
from lcm.features.encoders import Encoder, load_encoder

LITE, RESNET = "efficientnet_lite2", "resnet50"  # our default, the original's
MEANING = (
    "Files to features: ours through the whole feature cache, hashing and writing among it; the original's by Keras. "
    "Then pictures already read, through the default network with other options."
)
FEW = 16  # images that slow sides get in a round: Keras takes a tenth of a second for each


def ways(paths: Sequence[Path]) -> dict[str, Callable[[], int]]:
    """Return the sides: ours with either network, Keras with the original's, and reading pictures alone.

    Speed does not depend on what is in the weights, so ResNet50's are random ones: nothing is downloaded. Raises
    DataError without images.
    """
    if not paths:
        raise DataError("there are no images to encode; run 01_prepare on a data set with a dev split")
    lite, resnet = load_encoder(LITE, threads=1), load_encoder(RESNET, "random", threads=1)
    few = paths[:FEW]
    return {
        "lcm, EfficientNet-Lite2": partial(fill_cache, paths, lite),
        "lcm, ResNet50": partial(fill_cache, few, resnet),
        "reading pictures alone": partial(in_parts, paths, partial(read_image, size=lite.spec.size), 8),
        "reading at full size, then resizing": partial(in_parts, paths, partial(read_whole, size=lite.spec.size), 8),
        "Keras, ResNet50, one at a time": keras_one_by_one(few, resnet.spec.size),
    }


def options(paths: Sequence[Path]) -> dict[str, Callable[[], int]]:
    """Return EfficientNet-Lite2 alone, on pictures already read, with several batches, workers and threads a call."""
    one, all_cores = load_encoder(LITE, threads=1), load_encoder(LITE)
    pictures = np.stack([read_image(path, one.spec.size) for path in paths])
    return {
        "a thread a call, 1 picture, 2 workers": partial(encode_parts, pictures, one, 1, 2),
        "a thread a call, 8 pictures, 2 workers": partial(encode_parts, pictures, one, 8, 2),
        "a thread a call, 32 pictures, 2 workers": partial(encode_parts, pictures, one, 32, 2),
        "all cores a call, 1 picture": partial(encode_parts, pictures, all_cores, 1, 1),
        "all cores a call, 8 pictures": partial(encode_parts, pictures, all_cores, 8, 1),
    }


def fill_cache(paths: Sequence[Path], encoder: Encoder) -> int:
    """Encode files into an empty feature cache, as 01_prepare does; returns how many."""
    with _empty_cache():
        encode_images({str(path): path for path in paths}, encoder)
    return len(paths)


def keras_one_by_one(paths: Sequence[Path], size: int) -> Callable[[], int]:
    """Return the original's way: load one file, `predict` it, keep the answer by name."""
    import keras

    network = keras.applications.ResNet50(include_top=False, pooling="avg", weights=None)

    def work() -> int:
        features = {}
        for path in paths:
            pixels = keras.utils.img_to_array(keras.utils.load_img(path, target_size=(size, size)))
            ready = keras.applications.resnet50.preprocess_input(pixels[None])
            features[path] = network.predict(ready, verbose=0)[0]
        return len(features)

    return work


def read_whole(path: Path, size: int) -> np.ndarray:
    """Read a picture without JPEG's shortcut: decoded at its own size, then resized."""
    return np.asarray(open_image(path).resize((size, size)))


def in_parts(paths: Sequence[Path], read: Callable[[Path], np.ndarray], part: int) -> int:
    """Read pictures on all cores; returns how many."""
    return sum(map(len, map_in_order(lambda some: [read(path).shape for path in some], paths, part)))


def encode_parts(pictures: np.ndarray, encoder: Encoder, part: int, workers: int) -> int:
    """Encode pictures [B, S, S, 3] in parts; returns how many."""
    done = map_in_order(lambda some: encoder.encode(np.stack(some))["pooled"], pictures, part, workers)
    return sum(map(len, done))


@contextmanager
def _empty_cache() -> Iterator[None]:
    """Let features be kept in an empty folder for a while."""
    before = os.environ.get("LCM_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LCM_CACHE"] = folder
        try:
            yield
        finally:
            os.environ.pop("LCM_CACHE")
            os.environ.update({"LCM_CACHE": before} if before else {})
