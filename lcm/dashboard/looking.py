"""Looking: where the model looked at each word of its caption, as small pictures.

Knows which bundle gave an answer, and how its weights over the photo read, for the eye and in words. Refuses to know
pages.

The HTTP contract has no room for weights, so they are found here, with the same bundle, where it lies on this machine.

Shapes: T words, N image positions, rows of a square grid from the top left.
"""

import base64
import hashlib
import io
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from lcm.captioning.bundle import MANIFEST, Bundle, Manifest
from lcm.captioning.captioner import current_folder, models_folder
from lcm.dashboard.answer import Answer
from lcm.data.images import open_image, read_image
from lcm.errors import DataError, LcmError
from lcm.evaluation.gallery import attention_gallery, looked_at
from lcm.features.encoders import find_encoder

SIDE = 240  # pixels of a picture's longer side
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
CANNOT = "This model cannot tell where it looked: only a transformer can that was trained with export_attention true."


@dataclass(frozen=True)
class Glance:
    """Where the model looked as it wrote one word."""

    word: str
    place: str  # of the most weight: "top left"
    picture: str  # base64 of a JPEG: the photo without colour, and coloured where it looked


def why_not(answer: Answer) -> str:
    """Return why it cannot be told where the model looked, in words for people; empty: it can."""
    if answer.contributed:
        return "A person wrote this caption, so there is nothing that the model looked at."
    if not (folder := _folder_of(answer.version)):
        return "The model that answered is not this machine's current one, so where it looked cannot be shown here."
    try:
        return "" if Manifest.load(folder).attention else CANNOT
    except LcmError as error:
        return str(error)


def glances(photo: bytes, answer: Answer) -> list[Glance]:
    """Return a glance for each word of an answer's caption; raises DataError where that cannot be told."""
    if reason := why_not(answer):
        raise DataError(reason)
    bundle = _open(_folder_of(answer.version), answer.version)
    encoder = find_encoder(bundle.manifest.encoder)
    kind = bundle.manifest.feature_kind
    features = encoder.encode(read_image(photo, encoder.spec.size)[None], (kind,))[kind]  # [1, N, F]
    return list(_draw(photo, *attention_gallery(bundle, features, answer.caption)))


def place_of(weights: np.ndarray) -> str:
    """Return where the most weight of a row [N] is, in words."""
    side = math.isqrt(len(weights))
    row, column = divmod(int(np.argmax(weights)), side)
    vertical, horizontal = ROWS[(2 * row + 1) * 3 // (2 * side)], COLUMNS[(2 * column + 1) * 3 // (2 * side)]
    return "centre" if (vertical, horizontal) == ("middle", "centre") else f"{vertical} {horizontal}"


def _draw(photo: bytes, words: list[str], weights: np.ndarray) -> Iterator[Glance]:
    from PIL import Image

    small = open_image(photo)
    small.thumbnail((SIDE, SIDE))
    pixels = np.asarray(small)
    for word, row in zip(words, weights, strict=True):
        with io.BytesIO() as buffer:
            Image.fromarray(looked_at(pixels, row)).save(buffer, "JPEG", quality=75)
            yield Glance(word, place_of(row), base64.b64encode(buffer.getvalue()).decode())


def _folder_of(version: str) -> Path | None:
    """Return the folder of the bundle with these first digits: LCM_BUNDLE, or the current one; None: it is neither."""
    named = os.environ.get("LCM_BUNDLE", "").strip()
    with suppress(OSError):
        folder = Path(named).expanduser().resolve() if named else current_folder(models_folder())
        digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
        return folder if version and digest.startswith(version) else None
    return None


@lru_cache(maxsize=1)
def _open(folder: Path, _version: str) -> Bundle:
    return Bundle(folder)
