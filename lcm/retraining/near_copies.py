"""Copies among the images of a data set: the same picture re-saved, resized or slightly cropped.

Knows which of many images a picture is a copy of, by the features that training has anyway and by thumbnails. Refuses
to know what follows from it.

Shapes: R images, D numbers in pooled features.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lcm.captioning.copies import compare, thumbnail
from lcm.captioning.signatures import CANDIDATES, MIN_COSINE, WIDTH, direction_of
from lcm.data.images import read_image
from lcm.errors import BadImageError


@dataclass(frozen=True)
class Picture:
    """An image to compare."""

    image_id: str
    key: str  # sha256 of its bytes
    path: Path
    features: np.ndarray  # pooled [D]


class KnownPictures:
    """Pictures that later ones are compared with."""

    def __init__(self, pictures: Sequence[Picture], side: int):
        """Know these; `side` is what the encoder's pictures have, in pixels, for they are compared as it sees them."""
        self._side = side
        self._pictures: list[Picture] = []
        self._places: dict[str, int] = {}  # key -> place
        self._directions = np.zeros((max(64, len(pictures)), WIDTH), np.float32)  # room for more than there are
        self._thumbnails: dict[int, np.ndarray | None] = {}
        for picture in pictures:
            self.add(picture)

    def add(self, picture: Picture) -> None:
        """Know one more."""
        place = len(self._pictures)
        if place == len(self._directions):
            self._directions = np.concatenate([self._directions, np.zeros_like(self._directions)])
        self._directions[place] = direction_of(picture.features)
        self._pictures.append(picture)
        self._places.setdefault(picture.key, place)

    def originals_of(self, picture: Picture) -> list[Picture]:
        """Return the known pictures that this one is a copy of, the best fitting first.

        Of those with the same bytes, the first that became known stands for all. A known picture that cannot be read
        any more is passed over; raises BadImageError or OSError when that is so of the one that is asked about.
        """
        if picture.key in self._places:
            return [self._pictures[self._places[picture.key]]]
        cosines = self._directions[: len(self._pictures)] @ direction_of(picture.features)
        best = np.argsort(-cosines, kind="stable")[:CANDIDATES]
        places = [int(place) for place in best if cosines[place] >= MIN_COSINE]
        places = [place for place in places if self._thumbnail(place) is not None]
        if not places:
            return []
        fit = compare(self._read(picture), np.stack([self._thumbnail(place) for place in places]))
        return [self._pictures[places[rank]] for rank in np.argsort(-fit.fit, kind="stable") if fit.is_copy[rank]]

    def _thumbnail(self, place: int) -> np.ndarray | None:
        if place not in self._thumbnails:
            self._thumbnails[place] = None
            with suppress(BadImageError, OSError):
                self._thumbnails[place] = self._read(self._pictures[place])
        return self._thumbnails[place]

    def _read(self, picture: Picture) -> np.ndarray:
        return thumbnail(read_image(picture.path, self._side))
