"""Pictures, and what becomes of them on their way through programs and hands."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter


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


def turned_by_exif(picture: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by a quarter
    return as_file(picture.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=92, exif=exif)


TOUCHED: dict[str, Callable[[Image.Image], bytes]] = {
    "jpeg 95": lambda picture: as_file(picture, "JPEG", quality=95),
    "jpeg 50": lambda picture: as_file(picture, "JPEG", quality=50),
    "webp 90": lambda picture: as_file(picture, "WEBP", quality=90),
    "png": as_file,
    "half as png": lambda picture: as_file(resized(picture, 0.5)),
    "turned by exif": turned_by_exif,
    "sharpened": lambda picture: as_file(picture.filter(ImageFilter.UnsharpMask(1.5, 60, 2)), "JPEG", quality=90),
}


def frame(picture: Image.Image, across: float = 0.0, down: float = 0.0) -> Image.Image:
    """What a camera sees of a picture, nine tenths of its sides: turned aside by shares of what it sees."""
    width, height = (round(0.9 * side) for side in picture.size)
    left, top = round((0.05 + 0.9 * across) * picture.width), round((0.05 + 0.9 * down) * picture.height)
    return picture.crop((left, top, left + width, top + height))


def brightened(picture: Image.Image, gain: float) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(gain)


def moved(picture: Image.Image, by: float, seed: int) -> Image.Image:
    """The picture with what is somewhere in it, 0.3 of both sides, moved across by a share of the width."""
    width, height = picture.size
    sides = round(0.3 * width), round(0.3 * height)
    left, top = np.random.default_rng(seed).integers(0, (width - sides[0], height - sides[1])).tolist()
    to = left + round(by * width) * (1 if left + sides[0] + by * width <= width else -1)
    mask = Image.new("L", sides)
    mask.paste(255, (3, 3, sides[0] - 3, sides[1] - 3))
    after = picture.copy()
    part = picture.crop((left, top, left + sides[0], top + sides[1]))
    after.paste(part, (to, top), mask.filter(ImageFilter.GaussianBlur(2)))
    return after


def patched(picture: Image.Image, other: Image.Image, seed: int) -> Image.Image:
    """The picture with one of another's patches: 60 x 40 pixels where its longer side has 500."""
    size = tuple(round(side * max(picture.size) / 500) for side in (60, 40))
    random = np.random.default_rng(seed)
    (left, top), (x, y) = (
        random.integers(0, (one.width - size[0], one.height - size[1])).tolist() for one in (picture, other)
    )
    after = picture.copy()
    after.paste(other.crop((x, y, x + size[0], y + size[1])), (left, top))
    return after


# What comes after `frame` of a picture: of the picture, another one, and a number that says where.
NEXT: dict[str, Callable[[Image.Image, Image.Image, int], Image.Image]] = {
    "1 % to the right": lambda picture, *_: frame(picture, 0.01),
    "2 % down": lambda picture, *_: frame(picture, 0, 0.02),
    "3 % aslant": lambda picture, *_: frame(picture, 0.02, -0.02),
    "4 % to the left": lambda picture, *_: frame(picture, -0.04),
    "turned by 1 degree": lambda picture, *_: frame(picture.rotate(1, Image.Resampling.BICUBIC)),
    "turned by 1.5 degrees": lambda picture, *_: frame(picture.rotate(-1.5, Image.Resampling.BICUBIC)),
    "turned by 2 degrees": lambda picture, *_: frame(picture.rotate(2, Image.Resampling.BICUBIC)),
    "moved by 3 %": lambda picture, _, seed: moved(frame(picture), 0.03, seed),
    "5 % brighter, moved by 3 %": lambda picture, _, seed: brightened(moved(frame(picture), 0.03, seed), 1.05),
    "7 % darker, moved by 5 %": lambda picture, _, seed: brightened(moved(frame(picture), 0.05, seed), 0.93),
    "5 % darker, 1 % to the right": lambda picture, *_: brightened(frame(picture, 0.01), 0.95),
    "a patch": lambda picture, other, seed: patched(frame(picture), other, seed),
    "another patch": lambda picture, other, seed: patched(frame(picture), other, seed + 10_000),
}
BURST = ["first", *NEXT]


def alter(data: bytes, how: str) -> bytes:
    with Image.open(io.BytesIO(data)) as picture:
        return (ALTERED | TOUCHED)[how](picture.convert("RGB"))


def in_burst(data: bytes, how: str, other: bytes = b"", seed: int = 0) -> bytes:
    """Return a frame of a burst as a camera's JPEG; `how` is in BURST."""
    first, second = (Image.open(io.BytesIO(each or data)).convert("RGB") for each in (data, other))
    return as_file(NEXT[how](first, second, seed) if how in NEXT else frame(first), "JPEG", quality=92)
