"""What the tests of retraining share: an encoder that sees colours, a base data set, contributions.

Pictures are soft patches, another one for each seed; those of the base have seeds from BASE on.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lcm.contributions import store
from lcm.contributions.store import ContributionStore
from lcm.data.dataset import Dataset, LabelledImage
from lcm.features.cache import EncodedImages, encode_images
from lcm.features.encoders import ENCODERS, EncoderIdentity, EncoderSpec
from tests.fakes.altered import scene as large_scene

SIDE, WIDTH, BASE = 96, 64, 1000
IDENTITY = EncoderIdentity("colours", "random", "c" * 64, ())
SPEC = EncoderSpec(SIDE, 1, WIDTH, None)


@cache
def scene(seed: int) -> bytes:
    """Return a picture of altered.py, smaller and so faster."""
    return large_scene(seed, (160, 120))


class ColourEncoder:
    """Gives mean red, green and blue, 0 to 1, then how far each of 4 x 4 parts differs from grey."""

    identity, square = IDENTITY, SPEC.size

    def encode(self, images: np.ndarray, kinds: Iterable[str] = ("pooled",)) -> dict[str, np.ndarray]:
        shares = images.astype(np.float32) / 255
        parts = shares.reshape(-1, 4, SIDE // 4, 4, SIDE // 4, 3).mean((2, 4)).reshape(len(images), -1)  # [B, 48]
        pooled = np.zeros((len(images), WIDTH), np.float32)
        pooled[:, :3], pooled[:, 3:51] = shares.mean((1, 2)), 4 * (parts - 0.5)
        return {kind: {"pooled": pooled}[kind] for kind in kinds}


def use_colour_encoder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put it into the table of encoders, state and cache into a folder, and leave the disk its time."""
    monkeypatch.setenv("LCM_HOME", str(folder / "home"))
    monkeypatch.delenv("LCM_CACHE", raising=False)
    monkeypatch.setitem(ENCODERS, IDENTITY.name, SPEC)
    monkeypatch.setattr(store, "PRAGMAS", ("synchronous = OFF",))  # no power is cut here


def encode(paths: Mapping[str, Path]) -> EncodedImages:
    return encode_images(paths, ColourEncoder(), ("pooled",), workers=1)


def base_dataset(folder: Path, splits: Mapping[str, str], pictures: Mapping[str, bytes] | None = None) -> Dataset:
    """Write a picture for each name, of its own seed where `pictures` has none; each is captioned "a NAME picture"."""
    folder.mkdir()
    for number, name in enumerate(splits):
        (folder / name).write_bytes((pictures or {}).get(name) or scene(BASE + number))
    images = (LabelledImage(name, folder / name, split, (f"a {name} picture",)) for name, split in splits.items())
    return Dataset(tuple(images))


class SmallStore(ContributionStore):
    """A store, with what tests say often."""

    def keep(self, image: bytes, caption: str, source: str = "http", language: str = "en") -> int:
        """Add a contribution; returns its number."""
        return self.add(image, caption, language, source).id

    def send(self, seeds: Iterable[int], caption: str = "a picture", language: str = "en") -> list[int]:
        """Contribute the pictures of some seeds; returns the numbers."""
        return [self.keep(scene(seed), f"{caption} {seed}", language=language) for seed in seeds]

    def damage(self, number: int) -> None:
        """Make the image of a contribution unreadable."""
        with sqlite3.connect(self.path) as connection:
            digest = self.get(number).image_sha256
            connection.execute("UPDATE images SET data = x'00' WHERE image_sha256 = ?", (digest,))

    def name(self, number: int) -> str:
        """Return what a data set calls the image of a contribution."""
        return f"contributions/{self.get(number).image_sha256}"

    @property
    def names(self) -> list[str]:
        """What a data set calls the images, in the order of arrival."""
        return [image.image_id for image in self.training_images()]
