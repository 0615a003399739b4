"""Weights of a bundle: what training can go on from.

Knows how a model's weights are kept beside its graphs, in 16 bits as there, and how they fit a model that knows more
words. Refuses to know what is trained.
"""

from pathlib import Path

import keras
import numpy as np

from lcm.errors import BundleError


def save_weights(model: keras.Model, path: Path) -> None:
    """Write the model's weights as float16, in their order, as one compressed .npz file."""
    arrays = {f"{place:04}": array.astype(np.float16) for place, array in enumerate(model.get_weights())}
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_weights(model: keras.Model, path: Path) -> None:
    """Give the model what `save_weights` wrote of one that knew the same words or fewer, the same first.

    Of a word that is new, a vector stays as it is, and the bias is the least that any word has: it begins as one of the
    least probable. Raises BundleError for weights of another model.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = [stored[name].astype(np.float32) for name in sorted(stored.files)]
    except Exception as error:  # numpy and zipfile have no common class for what they raise
        raise BundleError(f"{path} is damaged ({error}); export the bundle again") from error
    fresh = model.get_weights()
    if len(arrays) != len(fresh):
        raise BundleError(f"{path} holds {len(arrays)} arrays and the model has {len(fresh)}; it is of another model")
    model.set_weights([_extend(old, new, path) for old, new in zip(arrays, fresh, strict=True)])


def _extend(old: np.ndarray, fresh: np.ndarray, path: Path) -> np.ndarray:
    """Return `old` where it is, and what `fresh` has more of along one axis."""
    if old.shape == fresh.shape:
        return old
    longer = [axis for axis, (a, b) in enumerate(zip(old.shape, fresh.shape, strict=False)) if a != b]
    if old.ndim != fresh.ndim or len(longer) != 1 or old.shape[longer[0]] > fresh.shape[longer[0]]:
        raise BundleError(
            f"{path} holds an array of shape {list(old.shape)} where the model has {list(fresh.shape)}; it is of "
            "another model"
        )
    extended = fresh.copy() if fresh.ndim > 1 else np.full_like(fresh, old.min())
    extended[tuple(slice(size) for size in old.shape)] = old
    return extended
