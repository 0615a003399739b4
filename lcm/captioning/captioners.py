"""Captioners: an image in, a description out.

Knows how to find a bundle with its encoder and its tag scorer, and how pictures become descriptions, one or many.
Refuses to know HTTP, files of results and metrics.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lcm.captioning.bundle import MANIFEST, Bundle
from lcm.captioning.confidence import Calibration
from lcm.captioning.scorers import load_chooser, load_tag_scorer
from lcm.captioning.tagging import Photo, Tag, rank, tag_candidates
from lcm.captioning.writing import Written, add_samples, best_captions
from lcm.config import resource
from lcm.data.images import read_image
from lcm.encoding.encoders import find_encoder
from lcm.encoding.parallel import map_in_order
from lcm.errors import BadImageError, BundleError, ConfigError

SHIPPED_BUNDLE = "data/models/flickr8k"
SAMPLES = 5  # captions beside the best one, as many as BLIP's service gives
MAX_SAMPLES = 10
PART = 8  # images that a thread reads and encodes at once
BATCH = 8  # parts that are captioned at once

Source = bytes | str | Path  # of an image: its bytes or its path


@dataclass(frozen=True)
class Description:
    """What a captioner says of one image."""

    caption: str
    english_captions: tuple[str, ...]  # the sentences that the tags were made from; the first is the caption
    tags: tuple[Tag, ...]  # (word, score), best first; a score is the share among the candidates, all sum to 1
    model: str  # name of the captioner and its version
    confidence: float | None = None  # probability that people would use all its content words; None: not calibrated


class Captioner(Protocol):
    """Anything that captions images."""

    name: str

    def describe(self, image: Source, samples: int = SAMPLES, labels: Sequence[str] | None = None) -> Description:
        """Describe an image, given as its path or its bytes; raises BadImageError when it is not one."""
        ...

    def describe_many(
        self, images: Iterable[Source], samples: int = SAMPLES, labels: Sequence[str] | None = None, workers: int = 1
    ) -> Iterator[tuple[Source, Description | BadImageError]]:
        """Yield each image with its description, or with the reason why it has none, in the order given."""
        ...

    def unknown_labels(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the labels that get no score."""
        ...


@dataclass(frozen=True)
class _Seen:
    """One image after encoding: its features and its vector for tags, or why it could not be read."""

    source: Source
    features: np.ndarray | None  # [D] or [N, D]
    tag_vector: np.ndarray | None
    error: BadImageError | None = None


class BundleCaptioner:
    """A bundle with its encoder: the whole way from a picture to its description, in ONNX Runtime alone.

    The same image gets the same description, alone or among others.
    """

    def __init__(self, folder: Path, tagger: str | None = None, threads: int = 0):
        """Load both; `tagger` is as load_captioner takes it, `threads` the cores that encoding one image uses.

        Raises BundleError when the bundle is damaged or the encoder is not the one it knows.
        """
        self._bundle = Bundle(folder)
        self._encoder = find_encoder(self._bundle.manifest.encoder, threads)
        self.name = self._bundle.manifest.name
        self.tag_scorer = load_tag_scorer(tagger, folder, self._bundle.manifest)
        self._chooser = load_chooser(folder, self._bundle.manifest, self.tag_scorer)
        self._calibration = _load_calibration(folder, self._bundle.manifest.calibration)

    def describe(self, image: Source, samples: int = SAMPLES, labels: Sequence[str] | None = None) -> Description:
        """Return caption, other captions and tags of an image, given as its path or its bytes.

        `samples` (0 to MAX_SAMPLES) captions are drawn beside the best one: they give more key words to choose tags
        from. `labels` are scored in their place: words or phrases of any kind, not only such as captions hold.
        Raises BadImageError when it is no image, ConfigError for a wrong number of samples or no label at all.
        """
        ((_, description),) = self.describe_many([image], samples, labels)
        if isinstance(description, BadImageError):
            raise description
        return description

    def describe_many(
        self, images: Iterable[Source], samples: int = SAMPLES, labels: Sequence[str] | None = None, workers: int = 1
    ) -> Iterator[tuple[Source, Description | BadImageError]]:
        """Yield each image with its description, or with the reason why it has none, in the order given.

        `workers` threads (0: one a core) read and encode ahead; memory is bounded however many images there are.
        Raises ConfigError, at the call, as describe.
        """
        if not 0 <= samples <= MAX_SAMPLES:
            raise ConfigError(f"samples is {samples!r}; it must be 0 to {MAX_SAMPLES}")
        if labels is not None and not labels:
            raise ConfigError("labels is empty; give at least one word, or leave labels out")
        return self._describe_all(images, samples, labels, workers)

    def _describe_all(
        self, images: Iterable[Source], samples: int, labels: Sequence[str] | None, workers: int
    ) -> Iterator[tuple[Source, Description | BadImageError]]:
        seen = map_in_order(lambda part: list(map(self._see, part)), images, PART, workers)
        while batch := list(chain.from_iterable(islice(seen, BATCH))):
            yield from self._describe(batch, samples, labels)

    def unknown_labels(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the labels that the tag scorer does not know: they get no score."""
        return self.tag_scorer.unknown(labels) if self.tag_scorer else tuple(labels)

    def _see(self, source: Source) -> _Seen:
        """Read and encode an image by itself: in a batch, its features would have other last digits."""
        feature_kind = self._bundle.manifest.feature_kind
        try:
            pixels = read_image(source, self._encoder.spec.size)
            encoded = self._encoder.encode(pixels[None], tuple({"pooled", feature_kind}))
            photo = Photo(source, {kind: features[0] for kind, features in encoded.items()})
            vector = self.tag_scorer.image_vector(photo) if self.tag_scorer else None  # it may read the image anew
        except BadImageError as error:
            return _Seen(source, None, None, error)
        return _Seen(source, photo.features[feature_kind], vector)

    def _describe(
        self, batch: Sequence[_Seen], samples: int, labels: Sequence[str] | None
    ) -> Iterator[tuple[Source, Description | BadImageError]]:
        """Yield each image of a batch with its description or its error."""
        good = [one for one in batch if one.error is None]
        written = iter(self._write(np.stack([one.features for one in good]), samples) if good else ())
        for one in batch:
            yield one.source, one.error or self._description(*next(written), one.tag_vector, labels)

    def _write(self, features: np.ndarray, samples: int) -> Iterator[tuple[Written, list[str]]]:
        """Yield each image's best caption and all its captions, from its features [B, D] or [B, N, D]."""
        manifest = self._bundle.manifest
        best = best_captions(self._bundle, features, manifest.beam_width, manifest.max_words, self._chooser)
        texts = [one.text for one in best]
        yield from zip(best, add_samples(self._bundle, features, texts, samples, manifest.max_words), strict=True)

    def _description(
        self, best: Written, captions: Sequence[str], tag_vector: np.ndarray | None, labels: Sequence[str] | None
    ) -> Description:
        tags = rank(self.tag_scorer, tag_vector, tag_candidates(captions, labels)) if self.tag_scorer else ()
        confidence = self._calibration.confidence(best.mean_log_prob) if self._calibration else None
        return Description(best.text, tuple(captions), tags, self.name, confidence)


def _load_calibration(folder: Path, record: Mapping[str, Any]) -> Calibration | None:
    """Return the curve that a manifest's `calibration` holds, None for an empty one; raises BundleError for another."""
    try:
        return Calibration.from_record(record) if record else None
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BundleError(
            f"{folder / MANIFEST} holds a calibration that is damaged ({type(error).__name__}: {error}); export or "
            "evaluate the bundle again"
        ) from error


def load_captioner(bundle: str | Path | None = None, tagger: str | None = None, threads: int = 0) -> BundleCaptioner:
    """Return the captioner of a bundle's folder; without one, of the bundle that lcm ships.

    `tagger` is a name in scorers.TAG_SCORERS, or the name or the folder of a CLIP checkpoint; without one, the
    bundle's own tag scorer is used, where it has one. `threads` is the number of cores one call uses (0: all).
    Raises BundleError when the folder holds no whole bundle, ConfigError for an unknown tagger.
    """
    return BundleCaptioner(Path(bundle) if bundle else resource(SHIPPED_BUNDLE), tagger, threads)
