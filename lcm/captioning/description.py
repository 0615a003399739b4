"""Descriptions: what captioners share, what they are asked and what they answer; and how sure they are.

The confidence is a probability that a caption is right, from how probable the model finds its words; lcm.evaluation
says what "right" means and fits the curve.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from lcm.captioning.tagging import Tag, TagScorer
from lcm.errors import BadImageError, ConfigError
from lcm.features.cache import map_in_order
from lcm.features.encoders import EncoderIdentity


@dataclass(frozen=True)
class PlattScaler:
    """A fitted curve: the probability is 1 / (1 + e ** -(intercept + slope * mean_log_prob)).

    A logistic function with two numbers, after Platt, "Probabilistic Outputs for Support Vector Machines" (1999). It is
    only as true as the images are like those that it was fitted on.
    """

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


class Captioner(ABC):
    """Anything that captions images. The same image gets the same description, alone or among others.

    A subclass sets `name` and `tag_scorer`, and says in `describe_part` how images are described.
    """

    name: str  # and version, shown with every answer
    tag_scorer: TagScorer | None  # None: descriptions have no tags
    part = 1  # images that a thread describes at once

    def describe(self, image: Source, samples: int = SAMPLES, labels: Sequence[str] | None = None) -> Description:
        """Return caption, other captions and tags of an image, given as its path or its bytes.

        Up to `samples` (0 to MAX_SAMPLES) other captions are drawn beside the best one: they give more key words to
        choose tags from. `labels`, words or phrases of any kind, are scored in place of these. Raises BadImageError
        when it is no image, ConfigError for a wrong number of samples or an empty list of labels.
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
        work = partial(self.describe_part, samples=samples, labels=labels)
        return (answer for part in map_in_order(work, images, self.part, workers) for answer in part)

    def unknown_labels(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the labels that the tag scorer does not know: they get no score."""
        return self.tag_scorer.unknown(labels) if self.tag_scorer else tuple(labels)

    @abstractmethod
    def describe_part(
        self, images: Sequence[Source], samples: int, labels: Sequence[str] | None
    ) -> list[tuple[Source, Description | BadImageError]]:
        """Return each of a few images with its description, or with the reason why it has none."""


@runtime_checkable
class SeeingCaptioner(Protocol):
    """A captioner that tells what it sees: its `describe` takes a SeenImage too, and encodes nothing anew."""

    name: str
    encoder: EncoderIdentity  # of the features
    feature_kinds: tuple[str, ...]  # that it describes an image by
    describe: Callable[..., Description]  # as Captioner's

    def see(self, image: Source) -> SeenImage:
        """Read and encode an image; raises BadImageError when it is not one."""
        ...
