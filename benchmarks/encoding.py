"""Speed of encoding: images a second from files to features, ours and the original's way.

Ours is the feature cache as 01_prepare fills it, hashing and writing among it; the original's is Keras's `predict` of
one image at a time, by the same network. Speed does not depend on what is in the weights: ResNet50's are random.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

import keras

from benchmarks.common import time_in_turn
from lcm.data.images import read_image
from lcm.features.cache import encode_images, map_in_order
from lcm.features.encoders import Encoder, load_encoder

LITE, RESNET = "efficientnet_lite2", "resnet50"  # our default, the original's
FEW = 16  # images that slow sides get in a round: Keras takes a tenth of a second for each


def section(paths: Sequence[Path], rounds: int, networks: tuple[str, str] = (LITE, RESNET)) -> str:
    """Return the section of the report; `networks` are those of our default and of the comparison with Keras."""
    default, same = load_encoder(networks[0], threads=1), load_encoder(networks[1], "random", threads=1)
    few = paths[:FEW]
    rates = time_in_turn(
        {
            f"lcm, {networks[0]}": partial(fill_cache, paths, default),
            f"lcm, {networks[1]}": partial(fill_cache, few, same),
            "reading pictures alone": partial(read_all, paths, default.spec.size),
            "Keras, resnet50, one at a time": keras_one_by_one(few),
        },
        rounds,
    )
    return f"## Encoding\n\nFiles to features.\n\n{rates.as_table('images/s')}"


def fill_cache(paths: Sequence[Path], encoder: Encoder) -> int:
    """Encode files into an empty feature cache, as 01_prepare does; returns how many."""
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, {"LCM_CACHE": folder}):
        encode_images({str(path): path for path in paths}, encoder)
    return len(paths)


def read_all(paths: Sequence[Path], size: int) -> int:
    """Read pictures on all cores; returns how many."""
    return sum(map(len, map_in_order(lambda some: [read_image(path, size).shape for path in some], paths, 8)))


def keras_one_by_one(paths: Sequence[Path]) -> Callable[[], int]:
    """Return the original's way: load one file, `predict` it, keep the answer by name."""
    network = keras.applications.ResNet50(include_top=False, pooling="avg", weights=None)

    def work() -> int:
        features = {}
        for path in paths:
            pixels = keras.utils.img_to_array(keras.utils.load_img(path, target_size=(224, 224)))
            ready = keras.applications.resnet50.preprocess_input(pixels[None])
            features[path] = network.predict(ready, verbose=0)[0]
        return len(features)

    return work
