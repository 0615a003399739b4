"""Speed, as ratios measured in one run: ours and the reference in turn, several times, medians.

Knows how to time fairly. Refuses to know what the reference is made of; that is training/prefixes.py.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

from lcm.captioning.captioners import load_captioner
from lcm.captioning.describing import Captioner
from lcm.config import TrainConfig
from lcm.data.vocabulary import Vocabulary
from lcm.encoding.prepared import LabelledFeatures
from lcm.errors import DataError

REFERENCE_STEPS = 20  # of the original's 5 images: some seconds
OUR_STEPS = 60


@dataclass(frozen=True)
class SpeedRatio:
    """Images a second of two ways to do the same, one entry a round."""

    ours: tuple[float, ...]
    reference: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """How many times faster ours is: the ratio of the medians."""
        return median(self.ours) / median(self.reference)

    @property
    def extra_ms(self) -> float:
        """How many milliseconds an image ours takes beyond the reference, by the medians."""
        return 1000 / median(self.ours) - 1000 / median(self.reference)

    def as_metrics(self, prefix: str) -> dict[str, float]:
        """Return medians, ratio and the ratio's range over the rounds, for metrics.json."""
        ratios = [ours / reference for ours, reference in zip(self.ours, self.reference, strict=True)]
        return {
            f"{prefix}_images_per_second": median(self.ours),
            f"{prefix}_reference_images_per_second": median(self.reference),
            f"{prefix}_ratio": self.ratio,
            f"{prefix}_ratio_low": min(ratios),
            f"{prefix}_ratio_high": max(ratios),
        }


def time_in_turn(ours: Callable[[], int], reference: Callable[[], int], rounds: int) -> SpeedRatio:
    """Time two functions that return how many images they handled, in turn; the first call of each warms up."""
    ours()
    reference()
    rates: dict[Callable[[], int], list[float]] = {ours: [], reference: []}
    for _ in range(rounds):
        for work, measured in rates.items():
            started = time.perf_counter()
            images = work()
            measured.append(images / (time.perf_counter() - started))
    return SpeedRatio(tuple(rates[ours]), tuple(rates[reference]))


def measure_training(
    labelled: LabelledFeatures, vocabulary: Vocabulary, word_vectors, batch_size: int, rounds: int
) -> SpeedRatio:
    """Return images a second of our training of merge and of the original's, on the same features and words.

    Raises DataError when there are too few captions for a fair round.
    """
    from lcm.models import build_model
    from lcm.training.batches import CaptionBatches
    from lcm.training.fit import Trainer
    from lcm.training.prefixes import IMAGES_PER_STEP, build_prefix_model, prefix_batches

    batches = CaptionBatches(labelled, vocabulary, batch_size)
    if len(batches) < OUR_STEPS or len(labelled) < REFERENCE_STEPS * IMAGES_PER_STEP:
        raise DataError(f"{len(labelled)} images are too few to measure; use {OUR_STEPS} batches of captions at least")
    captions_per_image = sum(len(image.captions) for image in labelled.images) / len(labelled)
    model = build_model("merge", labelled.shape, word_vectors, seed=0)
    reference = build_prefix_model(model)
    trainer = Trainer(model, TrainConfig(run_dir="", model="merge"), total_steps=100_000)
    for length in batches.buckets:  # compile every length before the clock runs
        trainer.train(next(batch for batch in batches.epoch(0, 0) if batch.inputs.shape[-1] == length))
    stream = prefix_batches(labelled, vocabulary)

    def train_ours() -> int:
        captions = 0
        for batch in islice(batches.epoch(0, 1), OUR_STEPS):
            float(trainer.train(batch))
            captions += len(batch.inputs)
        return round(captions / captions_per_image)

    def train_reference() -> int:
        reference.fit(stream, steps_per_epoch=REFERENCE_STEPS, epochs=1, verbose=0)
        return REFERENCE_STEPS * IMAGES_PER_STEP

    return time_in_turn(train_ours, train_reference, rounds)


def measure_tags(images: Sequence[Path], rounds: int) -> SpeedRatio:
    """Return images a second that the shipped captioner describes with tags and, as the reference, without.

    Both write the best caption and five samples. Raises DataError without images.
    """
    if not images:
        raise DataError("there are no images to describe; run 01_prepare on a data set with a dev split")
    with_tags, without = load_captioner(), load_captioner(tagger="none")

    def describe(captioner: Captioner) -> int:
        return sum(1 for image in images if captioner.describe(image))

    return time_in_turn(lambda: describe(with_tags), lambda: describe(without), rounds)
