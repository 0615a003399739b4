"""Views: crops of an image, some mirrored, so that training on frozen features sees it more than once.

Knows which part of the picture each view shows, from the view's key alone: any run and any order give the same.
Refuses to know features and stores, and how files become pixels.

Shapes: S pixels a side, R views.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from lcm.data.images import read_views

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
