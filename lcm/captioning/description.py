"""Confidence: how probable it is that a caption is right, from how probable the model finds its words.

Knows the curve that turns a caption's mean log-probability into a probability, and how people read one. Refuses to
know what "right" means and how the curve was fitted: `lcm.evaluation.calibration` does both. No more is needed to serve
a confidence.

The curve is that of Platt, "Probabilistic Outputs for Support Vector Machines" (1999): a logistic function with two
fitted numbers. It is only as true as the images are like those that it was fitted on.

Describing: what a captioner is, what it is asked and what it says.

Knows the protocol of all captioners, and what they share. Refuses to know where captions come from.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from lcm.captioning.tagging import Photo, Tag, TagScorer, rank, tag_candidates
from lcm.errors import BadImageError, ConfigError
from lcm.features.cache import map_in_order
from lcm.features.encoders import EncoderIdentity


@dataclass(frozen=True)
class PlattScaler:
    """A fitted curve: the probability is 1 / (1 + e ** -(intercept + slope * mean_log_prob))."""

    slope: float  # per nat a word; above zero where the model is right more often when it is surer
    intercept: float

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that are not finite."""
        if not (math.isfinite(self.slope) and math.isfinite(self.intercept)):
            raise ValueError(f"slope {self.slope} and intercept {self.intercept} of a calibration must be finite")

    def confidence(self, mean_log_prob: float) -> float:
        """Return the probability that a caption is right, 0 to 1.

        `mean_log_prob` is its log-probability over its number of words, END counted, in nats.
        """
        return (1 + math.tanh((self.intercept + self.slope * mean_log_prob) / 2)) / 2  # e ** x would overflow

    def as_record(self) -> dict[str, float]:
        """Return what `from_record` reads, for JSON."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Read back what `as_record` made; raises KeyError, TypeError or ValueError when it cannot be that."""
        return cls(float(record["slope"]), float(record["intercept"]))


def percent(probability: float) -> str:
    """Return a probability to read; what is not quite sure is never 100 % or 0 %."""
    rounded = round(100 * probability)
    return f"{rounded} %" if 0 < rounded < 100 else "over 99 %" if rounded else "under 1 %"


SAMPLES = 5  # captions beside the best one, as many as BLIP's service gives
MAX_SAMPLES = 10

Source = bytes | str | Path  # of an image: its bytes or its path


@dataclass(frozen=True)
class SeenImage:
    """An image as a captioner has read and encoded it."""

    source: Source
    pixels: np.ndarray | None  # uint8 [S, S, 3]: the picture as a square, as read_image returns it; None: not kept
    features: Mapping[str, np.ndarray]  # kind -> features of this image; "pooled" [D] is among them


@dataclass(frozen=True)
class Description:
    """What a captioner says of one image."""

    caption: str
    english_captions: tuple[str, ...]  # the first is the caption, unless that was contributed in another language
    tags: tuple[Tag, ...]  # (word, score), best first; a score is the share among the candidates, all sum to 1
    model: str  # name of the captioner and its version
    confidence: float | None = None  # probability that people would use all its content words; None: not calibrated
    contribution: int | None = None  # number of the contribution that gave the caption; None: the captioner wrote it


class Captioner(Protocol):
    """Anything that captions images."""

    name: str
    tag_scorer: TagScorer | None  # None: descriptions have no tags

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


@runtime_checkable
class SeeingCaptioner(Captioner, Protocol):
    """A captioner that tells what it sees: its `describe` takes a SeenImage too, and reads and encodes nothing anew."""

    encoder: EncoderIdentity  # of the features
    feature_kinds: tuple[str, ...]  # that it describes an image by

    def see(self, image: Source) -> SeenImage:
        """Read and encode an image; raises BadImageError when it is not one."""
        ...


class BaseCaptioner(ABC):
    """What captioners share. The same image gets the same description, alone or among others.

    A subclass sets `name` and `tag_scorer`, and says in `_write` how one image is captioned; one that gains by taking
    many at once replaces `_describe_all`.
    """

    name: str
    tag_scorer: TagScorer | None

    def describe(self, image: Source, samples: int = SAMPLES, labels: Sequence[str] | None = None) -> Description:
        """Return caption, other captions and tags of an image, given as its path or its bytes.

        `samples` (0 to MAX_SAMPLES) other captions are given beside the best one, as far as there are so many: they
        give more key words to choose tags from. `labels` are scored in their place: words or phrases of any kind, not
        only such as captions hold. Raises BadImageError when it is no image, ConfigError for a wrong number of samples
        or no label at all.
        """
        ((_, description),) = self.describe_many([image], samples, labels)
        if isinstance(description, BadImageError):
            raise description
        return description

    def describe_many(
        self, images: Iterable[Source], samples: int = SAMPLES, labels: Sequence[str] | None = None, workers: int = 1
    ) -> Iterator[tuple[Source, Description | BadImageError]]:
        """Yield each image with its description, or with the reason why it has none, in the order given.

        `workers` threads (0: one a core) work ahead; memory is bounded however many images there are.
        Raises ConfigError, at the call, as describe.
        """
        if not 0 <= samples <= MAX_SAMPLES:
            raise ConfigError(f"samples is {samples!r}; it must be 0 to {MAX_SAMPLES}")
        if labels is not None and not labels:
            raise ConfigError("labels is empty; give at least one word, or leave labels out")
        return self._describe_all(images, samples, labels, workers)

    def unknown_labels(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the labels that the tag scorer does not know: they get no score."""
        return self.tag_scorer.unknown(labels) if self.tag_scorer else tuple(labels)

    def _describe_all(
        self, images: Iterable[Source], samples: int, labels: Sequence[str] | None, workers: int
    ) -> Iterator[tuple[Source, Description | BadImageError]]:
        def work(part: Sequence[Source]) -> list[tuple[Source, Description | BadImageError]]:
            return [(image, self._describe_one(image, samples, labels)) for image in part]

        for part in map_in_order(work, images, 1, workers):
            yield from part

    def _describe_one(self, image: Source, samples: int, labels: Sequence[str] | None) -> Description | BadImageError:
        try:
            photo, captions = self._write(image, samples)
            tags = ()
            if self.tag_scorer:
                candidates = tag_candidates(captions, labels)
                tags = rank(self.tag_scorer, self.tag_scorer.image_vector(photo), candidates)
        except BadImageError as error:
            return error
        return Description(captions[0], tuple(captions), tags, self.name)

    @abstractmethod
    def _write(self, image: Source, samples: int) -> tuple[Photo, list[str]]:
        """Return the image as tag scorers see it, and its captions, best first; raises BadImageError."""
