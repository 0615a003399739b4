"""Pictures, and what becomes of them on their way through programs and hands."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image


def as_file(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.convert("RGB").save(file, kind, **options)
    return file.getvalue()


def scene(seed: int, size: tuple[int, int] = (320, 240)) -> bytes:
    """A picture of soft patches, another one for each seed, as a PNG."""
    patches = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return as_file(Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC))


def resized(picture: Image.Image, share: float) -> Image.Image:
    return picture.resize([round(share * side) for side in picture.size], Image.Resampling.LANCZOS)


def cropped(picture: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = picture.size
    return picture.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))


SAVED_ANEW: dict[str, Callable[[Image.Image], bytes]] = {
    "jpeg 75": lambda picture: as_file(picture, "JPEG", quality=75),
    "jpeg 30": lambda picture: as_file(picture, "JPEG", quality=30),
    "webp 70": lambda picture: as_file(picture, "WEBP", quality=70),
}
RESIZED: dict[str, Callable[[Image.Image], bytes]] = {
    "to a half": lambda picture: as_file(resized(picture, 0.5), "JPEG", quality=85),
    "to 200 wide": lambda picture: as_file(resized(picture, 200 / picture.width), "JPEG", quality=85),
    "to the double": lambda picture: as_file(resized(picture, 2.0), "JPEG", quality=85),
}
CROPPED: dict[str, Callable[[Image.Image], bytes]] = {  # by 10 % of a side, of both sides, and of the area
    "left": lambda picture: as_file(cropped(picture, 0.1, 0, 1, 1), "JPEG", quality=85),
    "bottom": lambda picture: as_file(cropped(picture, 0, 0, 1, 0.9), "JPEG", quality=85),
    "corner": lambda picture: as_file(cropped(picture, 0.1, 0.1, 1, 1), "JPEG", quality=85),
    "centre": lambda picture: as_file(cropped(picture, 0.05, 0.05, 0.95, 0.95), "JPEG", quality=85),
    "of area": lambda picture: as_file(cropped(picture, 0.026, 0.026, 0.974, 0.974), "JPEG", quality=85),
    "resized": lambda picture: as_file(resized(cropped(picture, 0.03, 0.08, 0.93, 0.98), 0.6), "JPEG", quality=70),
}
ALTERED = SAVED_ANEW | RESIZED | CROPPED


def alter(data: bytes, how: str) -> bytes:
    with Image.open(io.BytesIO(data)) as picture:
        return ALTERED[how](picture.convert("RGB"))
