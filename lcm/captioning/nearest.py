"""The nearest neighbour: the caption that people gave to the most similar training image.

Knows the train images of a prepared run by their features, and which of their captions fits best. Refuses to know
models: nothing is learned. It is the baseline that every captioner must beat, or it has learned nothing from captions.

Shapes: R train images, D numbers in a feature, K neighbours, C captions of theirs, G different word groups in these.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from lcm.captioning.describing import BaseCaptioner, Source
from lcm.captioning.scorers import load_tag_scorer
from lcm.captioning.tagging import Photo
from lcm.data.images import read_image
from lcm.data.vocabulary import join_words, standardise
from lcm.encoding.encoders import find_encoder
from lcm.encoding.prepared import LabelledFeatures, PreparedRun
from lcm.errors import ConfigError, DataError
from lcm.run_folder import RunFolder

ROWS_AT_ONCE = 4096  # train images that are read at once
DIGITS = 5  # of a cosine that count: the last ones differ between processors, and equal images must stay equal


class NearestCaptioner(BaseCaptioner):
    """A prepared run's train images with their captions, and its encoder. Holds 5 kB of features a train image."""

    def __init__(self, run_dir: str | Path, tagger: str | None = None, threads: int = 0, neighbours: int = 1):
        """Load both; `tagger` and `threads` are as load_captioner takes them.

        With several `neighbours` their captions are gathered, and the one that is most like the others is taken: the
        consensus caption of Devlin et al., "Exploring Nearest Neighbor Approaches for Image Captioning" (2015).
        Raises DataError when the run is not prepared, BundleError when its encoder has changed since.
        """
        if neighbours < 1:
            raise ConfigError(f"neighbours is {neighbours!r}; it must be at least 1")
        if not str(run_dir):
            raise ConfigError("nearest needs the folder of a run that 01_prepare has filled: nearest:RUN_DIR")
        folder = Path(run_dir).resolve()
        prepared = _load(folder)
        labelled = prepared.labelled_features("train", "pooled")
        if not len(labelled):
            raise DataError(f"the run {folder} has no train images; run 01_prepare with a larger data set")
        self._references = labelled.references
        self._centre, self._features = _directions(labelled)
        self._encoder = find_encoder(prepared.encoded.encoder, threads)
        self._neighbours = neighbours
        self.tag_scorer = load_tag_scorer(tagger)
        self.name = f"nearest:{folder.name}" + f" ({neighbours})" * (neighbours > 1)

    def _write(self, image: Source, samples: int) -> tuple[Photo, list[str]]:
        pixels = read_image(image, self._encoder.spec.size)
        features = self._encoder.encode(pixels[None])["pooled"][0]
        return Photo(image, {"pooled": features}), self._captions(features, samples)

    def _captions(self, features: np.ndarray, samples: int) -> list[str]:
        """Return the neighbours' captions, the most typical of them first, all different, 1 + `samples` at most."""
        cosines = self._features @ _unit(features - self._centre)  # [R]
        nearest = np.argsort(-cosines.round(DIGITS), kind="stable")[: self._neighbours]  # equal: first in the data set
        texts = [standardise(text) for place in nearest for text in self._references[place]]
        order = np.argsort(-agreement(texts).round(DIGITS), kind="stable")  # equal: the nearest, as written first
        return list(dict.fromkeys(join_words(texts[place]) for place in order))[: 1 + samples]


def agreement(texts: Sequence[Sequence[str]]) -> np.ndarray:
    """Return how much each text has in common with the others, [C]: the mean of its overlaps with them, 0 to 1.

    The overlap of two is Dice's coefficient of their words and pairs of words, 1 where they have the same.
    """
    groups = [{*words, *pairwise(words)} for words in texts]
    columns = {group: column for column, group in enumerate(dict.fromkeys(one for each in groups for one in each))}
    holds = np.zeros((len(texts), len(columns)), np.float32)  # [C, G]
    for row, each in enumerate(groups):
        holds[row, [columns[group] for group in each]] = 1
    sizes = holds.sum(1)
    overlaps = 2 * (holds @ holds.T) / np.maximum(sizes[:, None] + sizes, 1)  # [C, C]
    np.fill_diagonal(overlaps, 0)
    return overlaps.sum(1) / max(len(texts) - 1, 1)


def _load(folder: Path) -> PreparedRun:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give the folder of a run that 01_prepare has filled: nearest:RUN_DIR")
    try:
        return PreparedRun.load(RunFolder(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"the run {folder} is damaged ({type(error).__name__}: {error}); run 01_prepare for it again"
        ) from error


def _directions(labelled: LabelledFeatures) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of the features [D], and each image's direction from there [R, D], of length 1."""
    parts = [slice(start, start + ROWS_AT_ONCE) for start in range(0, len(labelled), ROWS_AT_ONCE)]
    centre = sum(labelled.read(part).sum(0, dtype=np.float64) for part in parts) / len(labelled)
    directions = np.empty((len(labelled), *labelled.shape), np.float32)
    for part in parts:
        directions[part] = _unit(labelled.read(part) - centre)
    return centre, directions


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors at length 1, float32; one of length 0 stays as it is."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
