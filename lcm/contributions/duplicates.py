"""Copies of contributed images: the same picture saved anew, resized, or cut at its edges a little.

The features of the captioner's encoder, which change little with a picture's edges and size, name a few candidates;
their thumbnails decide. A copy shows a part of the original, so each of its positions x is at scale * x + shift in the
original, across and down. These four numbers are found by Gauss-Newton on the differences of brightness (Lucas and
Kanade, "An Iterative Image Registration Technique", IJCAI 1981), first on coarse thumbnails. Then the colours must
agree, as a whole and in each of 8 x 8 blocks: two moments of one scene agree as a whole, and differ where something has
moved. That keeps copies in one split, where a frame of a burst too many does no harm; whether two files show the same
photo, `is_same` says at a larger size, and more strictly.

Features are kept as WIDTH sums of all their numbers with random signs, which keep angles (Achlioptas,
"Database-friendly random projections", PODS 2001): 51 MB for 100,000 images. Thumbnails, 7 kB each, are in a temporary
file. All of it is made anew from the images at each start.

Shapes: T pixels a side of a thumbnail, K originals, R images, D numbers in pooled features.
"""

import tempfile
import threading
from collections.abc import Callable
from functools import cache

import numpy as np

from lcm.captioning.description import SeenImage
from lcm.data.images import THUMBNAIL_SIDE, Source, read_image, thumbnail
from lcm.features.encoders import EncoderIdentity

SIDE = THUMBNAIL_SIDE  # T
COARSE = 16  # T of the first steps
COARSE_STEPS, FINE_STEPS = 10, 5
COARSE_FIT = 0.5  # below it a pair is given up after the first steps: copies have 0.9, other photos 0.2 on average
SCALES = (0.75, 1.05)  # of sides: how much of the original a copy may show
BLOCKS = 8  # a side
NOISE = 8.0  # grey levels that count as variance of any picture: one of a single colour has no other
# See reports/memory.md: copies have at least 0.98 and at most 17; nothing else measured passes both limits.
MIN_FIT = 0.97  # share of the copy's variance that the original explains
MAX_BLOCK = 20.0  # grey levels, root mean square over the block that differs most
WIDTH = 128
CANDIDATES = 16  # thumbnails that are compared: of 250 photos halved in size, among 6,000, none had a place after 8
MIN_COSINE = 0.4  # of candidates; copies have 0.58 at least, and a picture without features has 0
MIN_OUTLINE_COSINE = 0.98  # copies of photos that were saved anew or resized have 0.999 at least
LARGE = 128  # T of two files that may show the same photo; the limits for them are measured in reports/memory.md
MAX_OUTSIDE = 0.0025  # share of a side that the copy shows beyond the original
MAX_CHANGE = 0.4  # mean square of the difference in any of 16 x 16 blocks, as a share of the variance there
MAX_MOTION = 0.0035  # of what any of 8 x 8 blocks shows, as a share of a side
CHANGE_NOISE = 10.0  # grey levels that count as variance of any block
Read = Callable[[np.ndarray], np.ndarray]  # gives the thumbnails [K, SIDE, SIDE, 3] of some images


def compare(copy: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """Return the share of a thumbnail's variance that others [K, SIDE, SIDE, 3] explain, 0 where it is no copy, [K]."""
    copy, originals = (np.moveaxis(each, -1, -3).astype(np.float32) for each in (copy, originals))  # [..., 3, T, T]
    coarse, coarse_originals = _means(copy, COARSE), _means(originals, COARSE)
    unmoved = np.tile(np.float32([1, 0, 1, 0]), (len(originals), 1))  # scale and shift across, down, as shares of sides
    places = _register(coarse.mean(0), coarse_originals.mean(1), unmoved, COARSE_STEPS)
    fit, _ = _agreement(coarse, coarse_originals, places)
    close, found = np.flatnonzero(fit >= COARSE_FIT), np.zeros(len(originals))
    if len(close):
        near = originals[close]
        fine = _register(_smooth(copy.mean(0)), _smooth(near.mean(1)), places[close], FINE_STEPS)
        fit, block = _agreement(copy, near, fine)
        found[close] = fit * ((fit >= MIN_FIT) & (block <= MAX_BLOCK))
    return found


def find_originals(cosines: np.ndarray, small: np.ndarray, read: Read, least: float = MIN_COSINE) -> list[int]:
    """Return which of R images the one with the thumbnail `small` is a copy of, the best first, by its cosines [R]."""
    close = np.flatnonzero(cosines >= least)
    best = close[np.argsort(-cosines[close], kind="stable")[:CANDIDATES]]
    fit = compare(small, read(best))
    return [int(best[rank]) for rank in np.argsort(-fit, kind="stable") if fit[rank]]


def is_same(copy: Source, original: Source) -> bool:
    """Return whether a picture is a photo saved anew, resized or cut, and not the next of its burst, or one patched."""
    copied, original = (read_image(one, LARGE).transpose(2, 0, 1).astype(np.float32) for one in (copy, original))
    place = np.float32([[1, 0, 1, 0]])
    for side, steps in ((COARSE, COARSE_STEPS), (LARGE // 2, FINE_STEPS), (LARGE, FINE_STEPS)):
        grey, original_grey = (_smooth(_means(planes.mean(0), side)) for planes in (copied, original))
        place = _register(grey, original_grey[None], place, steps)
    scales, shifts = place[0, ::2], place[0, 1::2]
    copied, (laid,) = _smooth(copied), _lay(original[None], place)
    change = _means((copied - laid) ** 2, 16).mean(0)
    variance = [(_means(each**2, 16) - _means(each, 16) ** 2).mean(0) for each in (copied, laid)]
    return bool(
        max(*-shifts, *(scales + shifts - 1)) <= MAX_OUTSIDE
        and (change / (np.maximum(*variance) + CHANGE_NOISE**2)).max() <= MAX_CHANGE
        and _motion(copied.mean(0), laid.mean(0)) <= MAX_MOTION
    )


def _motion(copy: np.ndarray, laid: np.ndarray) -> float:
    """Return how far that of 8 x 8 blocks has moved which moved most, by one step of Lucas and Kanade in each."""
    slopes = np.stack(np.gradient((copy + laid) / 2))  # [2, T, T]
    normal, wanted = _means(slopes[:, None] * slopes, BLOCKS), _means(slopes * (copy - laid), BLOCKS)
    damping = 4 + 0.02 * (normal[0, 0] + normal[1, 1])  # squared grey levels a pixel: what has no slopes never moves
    normal += damping * np.eye(2)[:, :, None, None]
    steps = np.linalg.solve(normal.T, wanted.T[..., None])  # [BLOCKS, BLOCKS, 2, 1]
    return float(np.linalg.norm(steps, axis=2).max() / len(copy))


def _means(values: np.ndarray, blocks: int) -> np.ndarray:
    """Return the means [..., blocks, blocks] of squares of values [..., T, T]."""
    part = values.shape[-1] // blocks
    return values.reshape(*values.shape[:-2], blocks, part, blocks, part).mean((-3, -1))


def _smooth(pictures: np.ndarray) -> np.ndarray:
    """Return [..., T, T] with each pixel the mean of its neighbours, which count 1, 2, 1 in both directions."""
    edged = np.pad(pictures, [(0, 0)] * (pictures.ndim - 2) + [(1, 1)] * 2, mode="edge")
    across = edged[..., :-2] + 2 * edged[..., 1:-1] + edged[..., 2:]
    return (across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]) / 16


def _samplers(scale: np.ndarray, shift: np.ndarray, side: int) -> np.ndarray:
    """Return matrices [K, T, T] that read lines of pixels at scale * x + shift, between two pixels both."""
    centres = (np.arange(side, dtype=np.float32) + 0.5) / side
    places = (scale[:, None] * centres + shift[:, None]) * side - 0.5
    distances = np.abs(places.clip(0, side - 1)[:, :, None] - np.arange(side, dtype=np.float32))
    return np.maximum(0, 1 - distances)


def _register(copy: np.ndarray, originals: np.ndarray, places: np.ndarray, steps: int) -> np.ndarray:
    """Return better places [K, 4] of the greys [T, T] within the greys [K, T, T] than those given."""
    count, side = originals.shape[:2]
    centres = (np.arange(side, dtype=np.float32) + 0.5) / side
    slopes = [np.gradient(originals, axis=axis).astype(np.float32) * side for axis in (2, 1)]
    for _ in range(steps):
        across = _samplers(places[:, 0], places[:, 1], side).transpose(0, 2, 1)
        down = _samplers(places[:, 2], places[:, 3], side)
        difference = copy - down @ originals @ across
        slope_x, slope_y = (down @ slope @ across for slope in slopes)
        jacobian = np.stack([slope_x * centres, slope_x, slope_y * centres[:, None], slope_y], 1)
        jacobian = jacobian.reshape(count, 4, side**2)
        normal = jacobian @ jacobian.transpose(0, 2, 1)  # [K, 4, 4]
        damping = 1e-3 * np.trace(normal, axis1=1, axis2=2) / 4 + 1e-3  # a picture of one colour has no slopes
        normal += damping[:, None, None] * np.eye(4, dtype=np.float32)
        step = np.linalg.solve(normal, jacobian @ difference.reshape(count, side**2, 1))[..., 0]
        places = places + step.clip(-0.1, 0.1)
        places[:, ::2] = places[:, ::2].clip(*SCALES)
    return places


def _lay(originals: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return what the places are of originals [K, 3, T, T], smoothed."""
    side = originals.shape[-1]
    across = _samplers(places[:, 0], places[:, 1], side).transpose(0, 2, 1)[:, None]
    down = _samplers(places[:, 2], places[:, 3], side)[:, None]
    return _smooth(down @ originals @ across)


def _agreement(copy: np.ndarray, originals: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return fit and worst block [K] of a picture [3, T, T] and originals [K, 3, T, T] that are laid upon it."""
    copy = _smooth(copy)
    squares = (copy - _lay(originals, places)) ** 2
    variance = ((copy - copy.mean((1, 2), keepdims=True)) ** 2).mean() + NOISE**2
    return 1 - squares.mean((1, 2, 3)) / variance, np.sqrt(_means(squares, BLOCKS).mean(1).max((1, 2)))


class Signatures:
    """The signatures of images by one encoder, by the sha256 of their bytes; safe to call from several threads."""

    def __init__(self, encoder: EncoderIdentity):
        self.encoder = encoder
        self._lock = threading.Lock()
        self._rows: dict[str, int] = {}  # image -> row
        self._images: list[str] = []  # of the rows, which never move; empty: it was removed
        self._directions = np.empty((0, WIDTH), np.float32)  # of length 1
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it is gone when this is
        self._make_room(256)

    def __contains__(self, image: str) -> bool:
        return image in self._rows

    def add(self, image: str, seen: SeenImage) -> None:
        direction, small = direction_of(seen.features["pooled"]), thumbnail(seen.pixels)
        with self._lock:
            row = self._rows.setdefault(image, len(self._images))
            if row == len(self._images):
                self._images.append(image)
            if row == len(self._directions):
                self._make_room(2 * row)
            self._directions[row], self._thumbnails[row] = direction, small

    def remove(self, image: str) -> None:
        """Forget an image for good, if it is there."""
        with self._lock:
            if (row := self._rows.pop(image, None)) is not None:
                self._images[row] = ""
                self._directions[row] = self._thumbnails[row] = 0

    def copies(self, seen: SeenImage) -> list[str]:
        """Return the images that the one seen is a copy of, the best first."""
        with self._lock:
            directions, thumbnails = self._directions[: len(self._images)], self._thumbnails
        cosines = directions @ direction_of(seen.features["pooled"])  # without the lock: it takes longest
        rows = find_originals(cosines, thumbnail(seen.pixels), lambda rows: thumbnails[rows])
        return [image for row in rows if (image := self._images[row])]

    def _make_room(self, rows: int) -> None:
        more = np.zeros((rows - len(self._directions), WIDTH), np.float32)
        self._directions = np.concatenate([self._directions, more])
        self._thumbnails = np.memmap(self._file, np.uint8, "r+", shape=(rows, SIDE, SIDE, 3))


@cache
def _signs(width: int) -> np.ndarray:
    """Return the signs [D, WIDTH]; of RandomState, whose numbers stay what they are in all versions of NumPy."""
    return np.random.RandomState(0).randint(0, 2, (width, WIDTH)).astype(np.float32) * 2 - 1


def direction_of(features: np.ndarray) -> np.ndarray:
    """Return pooled features [D] as they are compared: [WIDTH] float32, of length 1, or 0 where there are none."""
    sums = np.asarray(features, np.float32) @ _signs(len(features))
    length = np.linalg.norm(sums)
    return sums / length if length > 0 and np.isfinite(length) else np.zeros_like(sums)


def outline_of(small: np.ndarray) -> np.ndarray:
    """Return a thumbnail's coarse greys less their mean, [COARSE * COARSE], of length 1, or 0 without any edge."""
    greys = _means(small.mean(-1, dtype=np.float32), COARSE).ravel()
    greys -= greys.mean()
    return greys / max(np.linalg.norm(greys), 1e-3)
