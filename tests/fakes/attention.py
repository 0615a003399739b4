"""Where a Keras model looked at each word, asked for word by word."""

import numpy as np

from lcm.captioning.decoding import empty_rows


def attention(model, features: np.ndarray, token_ids: np.ndarray) -> np.ndarray:
    """Return where the model looked as it wrote the word after each of the ids [B, W, T]: [B, W, T, N]."""
    images, rows = model.start(features), empty_rows(len(features), model.row_shapes)
    rows, looked = [np.repeat(row, token_ids.shape[1], axis=1) for row in rows], []
    for position in range(token_ids.shape[2]):
        _, rows, weights = model.step(token_ids[:, :, position], images, rows)
        looked.append(weights.numpy())
    return np.stack(looked, axis=2)
