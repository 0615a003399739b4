"""Cross-modal retrieval: how often an image finds one of its own texts among all of them, and a text its own image.

Knows how recall at k is counted, and what a tie is worth. Refuses to know how vectors come about.

Recall at k is the share of queries with an own item among the k of highest cosine (Hodosh, Young and Hockenmaier
2013; both directions as in Karpathy and Fei-Fei 2015). A query's rank is how many items of others are at least as
near as its nearest own one: ties count against it, so a model that gives everything the same vector ranks last.

Edge cases: an image without texts asks nothing, but texts can still find it instead of their own; a vector of zeros
has the cosine 0 with everything; any model reaches a k that is no smaller than the number of items.

Shapes: B images, K texts, D numbers in a vector, R texts of one block.
"""

from dataclasses import dataclass

import numpy as np

from lcm.errors import DataError

KS = (1, 5, 10)
# Cosines this close are equal. Two float32 sums of the same products differ by their order: by up to 5e-7, measured
# for equal vectors of 8 to 4,096 numbers.
TIE = 2e-6
BLOCK_COSINES = 1 << 22  # cosines held at once: 16 MB


@dataclass(frozen=True)
class Recall:
    """Recall at k in both directions, k -> share of queries: 0 to 1, higher is better."""

    image_to_text: dict[int, float]
    text_to_image: dict[int, float]
    images: int  # images with texts: the queries of image_to_text
    skipped_images: int  # images without
    texts: int  # the queries of text_to_image

    def as_metrics(self) -> dict[str, float]:
        """Return the flat object for metrics.json: `recall_1_image_to_text` to `recall_10_text_to_image`."""
        directions = {"image_to_text": self.image_to_text, "text_to_image": self.text_to_image}
        return {f"recall_{k}_{name}": share for name, recall in directions.items() for k, share in recall.items()}


def retrieval(image_vectors: np.ndarray, text_vectors: np.ndarray, owner: np.ndarray) -> Recall:
    """Count how often images [B, D] find their own texts [K, D], and texts their image: text i's is `owner[i]`, [K].

    Vectors need no unit length. Memory: a float32 copy of both, and one block of cosines; never all K times B.
    Raises DataError when there are no images or no texts, when shapes do not fit, an owner is none of the images, or
    a vector is not finite.
    """
    images, texts, owner = np.asarray(image_vectors), np.asarray(text_vectors), np.asarray(owner)
    _check(images, texts, owner)
    images, texts = _units(images, "image"), _units(texts, "text")
    rows = max(1, BLOCK_COSINES // len(images))
    blocks = [slice(start, start + rows) for start in range(0, len(texts), rows)]
    own = np.concatenate([np.einsum("rd,rd->r", texts[block], images[owner[block]]) for block in blocks])  # [K]
    nearest = np.full(len(images), -np.inf, np.float32)  # [B], cosine of an image and the nearest of its own texts
    np.maximum.at(nearest, owner, own)

    text_ranks = np.empty(len(texts), np.int64)  # images of others at least as near as a text's own
    image_ranks = np.zeros(len(images), np.int64)  # texts of others at least as near as an image's nearest own
    for block in blocks:
        cosines = texts[block] @ images.T  # [R, B]
        cosines[np.arange(len(cosines)), owner[block]] = -np.inf  # leaves those of others
        text_ranks[block] = np.count_nonzero(cosines >= own[block, None] - TIE, axis=1)
        image_ranks += np.count_nonzero(cosines >= nearest - TIE, axis=0)
    asking = np.isfinite(nearest)
    return Recall(
        image_to_text=_shares(image_ranks[asking]),
        text_to_image=_shares(text_ranks),
        images=int(asking.sum()),
        skipped_images=int((~asking).sum()),
        texts=len(texts),
    )


def _shares(ranks: np.ndarray) -> dict[int, float]:
    return {k: float((ranks < k).mean()) for k in KS}


def _check(images: np.ndarray, texts: np.ndarray, owner: np.ndarray) -> None:
    if not len(images) or not len(texts):
        raise DataError(f"{len(images)} images and {len(texts)} texts; retrieval needs at least one of each")
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:
        raise DataError(f"image vectors of shape {images.shape}, text vectors of {texts.shape}; give [B, D] and [K, D]")
    if owner.shape != texts.shape[:1] or not np.issubdtype(owner.dtype, np.integer):
        raise DataError(f"owners of shape {owner.shape} and type {owner.dtype}; give a whole number for each text")
    if owner.min() < 0 or owner.max() >= len(images):
        raise DataError(f"owners from {owner.min()} to {owner.max()}; the images are 0 to {len(images) - 1}")


def _units(vectors: np.ndarray, kind: str) -> np.ndarray:
    """Return the vectors at length one, float32; zeros stay zeros."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)).astype(np.float32)
    if not (usable := np.isfinite(lengths)).all():
        raise DataError(f"the vector of {kind} {int(usable.argmin())} has a number that is not finite, or too large")
    lengths[lengths == 0] = 1
    return np.divide(vectors, lengths[:, None], dtype=np.float32, casting="same_kind")
