"""Where a captioner looked: photos with a picture of it for each word of their captions.

Knows which photos are shown, and which look belongs to which word. Refuses to know how a look is found and drawn: the
bundle and pictures.py do that.

Shapes: T words, N image positions, F features.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lcm.captioning.bundle import Bundle
from lcm.encoding.prepared import LabelledFeatures
from lcm.evaluation import pictures, plots
from lcm.evaluation.pages import evenly

PHOTOS = 4


def draw_attention(bundle: Bundle, labelled: LabelledFeatures, captions: Sequence[str], folder: Path) -> list:
    """Return a figure of each of PHOTOS photos, evenly spaced, and save them in `folder` as attention_1.png and so on.

    `captions` are the model's, one an image. Returns none where the bundle cannot tell where its model looked; a photo
    whose caption has no words is left out.
    """
    if not bundle.manifest.attention:
        return []
    figures = []
    for place in evenly(PHOTOS, len(captions)):
        words, weights = look_at_words(bundle, labelled.read(slice(place, place + 1)), captions[place])
        if words:
            figures.append(pictures.attention(labelled.paths[place], words, weights))
            plots.save(figures[-1], folder / f"attention_{len(figures)}.png")
    return figures


def look_at_words(bundle: Bundle, features: np.ndarray, caption: str) -> tuple[list[str], np.ndarray]:
    """Return the words of a caption, as the bundle knows them, and where its model looked for each: weights [T, N].

    `features` [1, N, F] are the image's, of the bundle's kind.
    """
    token_ids = np.array(bundle.vocabulary.encode(caption))  # [2 + T]
    words = [bundle.vocabulary.words[token_id] for token_id in token_ids[1:-1]]
    if not words:
        return [], np.empty((0, features.shape[1]))
    return words, bundle.attention(features, token_ids[None, None, :-2])[0, 0]
