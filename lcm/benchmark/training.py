"""Speed of training: ours, Keras's own `fit` on the same model, and the original's method.

Knows which sides there are and how much arithmetic an image costs each, so that a rate becomes a share of what the
processor can do. Refuses to know how a side trains.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import keras
import numpy as np

from lcm.benchmark.arithmetic import prefix_gflop, product_rate, step_gflop
from lcm.benchmark.plain import PlainTraining
from lcm.benchmark.prefixes import IMAGES_PER_STEP, build_prefix_model, prefix_batches
from lcm.benchmark.profile import profile
from lcm.benchmark.timing import Rates, time_in_turn
from lcm.config import TrainConfig
from lcm.data.text import Vocabulary
from lcm.errors import DataError
from lcm.features.cache import LabelledFeatures
from lcm.models import build_model
from lcm.training.batches import Batch, CaptionBatches
from lcm.training.loop import Trainer
from lcm.training.self_critical import SelfCritical

STEPS = 30  # of ours in a round: two seconds of merge
OTHER_STEPS = 10  # of the sides that are slower
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # of the processor's limit -> Keras's name
REINFORCED = 64  # images a round, as many as a step of the preset flickr8k-best has
GRID_POSITIONS, DIFFERENT_GRIDS = 81, 64  # of EfficientNet-Lite2; so many grids are made up
OURS, HALF, PLAIN, ORIGINAL, SELF_CRITICAL = (
    "lcm",
    "lcm in bfloat16",
    "Keras compile and fit",
    "the original's method",
    "lcm, self-critical stage",
)


@dataclass(frozen=True)
class Way:
    """One way to train a model."""

    train: Callable[[], float]  # trains for a while; returns on how many images
    gflop_per_image: float | None = None  # None: not counted
    precision: str = "float32"


@dataclass(frozen=True)
class TrainingSpeed:
    """Images a second of each way, and GFLOP/s of bare matrix products in the same run."""

    rates: Rates
    ways: Mapping[str, Way]
    profiles: Mapping[str, Mapping[str, float]]  # way -> kind of operation -> share of the time

    def share(self, way: str) -> float | None:
        """Return the share of the processor's matrix products, in the way's own precision, that it does."""
        one = self.ways[way]
        if one.gflop_per_image is None:
            return None
        return self.rates.of(way) * one.gflop_per_image / self.rates.of(products(one.precision))


def products(precision: str) -> str:
    """Return the name of the side that multiplies bare matrices."""
    return f"matrix products, {precision}"


def measure(ways: Mapping[str, Way], rounds: int, profiled: Sequence[str] = ()) -> TrainingSpeed:
    """Time all ways in turn, with the processor's limit in each precision that any has, and profile some."""
    limits = {products(way.precision): product_rate(way.precision) for way in ways.values()}
    rates = time_in_turn({name: way.train for name, way in ways.items()} | limits, rounds)
    return TrainingSpeed(rates, ways, {name: profile(ways[name].train, 1) for name in profiled})


def merge_ways(labelled: LabelledFeatures, vocabulary: Vocabulary, word_vectors, batch_size: int) -> dict[str, Way]:
    """Return the ways to train merge: ours in both precisions, Keras's own, the original's.

    Raises DataError when there are too few captions for a fair round.
    """
    batches = _enough(CaptionBatches(labelled, vocabulary, batch_size))
    model = build_model("merge", labelled.shape, word_vectors, seed=0)
    ways = {OURS: our_way(model, batches), HALF: half_way(labelled.shape, word_vectors, batches)}
    ways[PLAIN] = plain_way(build_model("merge", labelled.shape, word_vectors, seed=0), batches, batch_size)
    return ways | {ORIGINAL: original_way(model, labelled, vocabulary)}


def transformer_ways(
    labelled: LabelledFeatures, vocabulary: Vocabulary, word_vectors, batch_size: int
) -> dict[str, Way]:
    """Return the ways to train the transformer: ours, Keras's own, and the self-critical stage. Raises DataError.

    The features are made up: a run of pooled ones has no grids, and how long a step takes does not depend on them.
    """
    labelled = with_grids(labelled)
    batches = _enough(CaptionBatches(labelled, vocabulary, batch_size, together=True))
    model, again, third = (build_model("transformer", labelled.shape, word_vectors, seed=0) for _ in range(3))
    ways = {OURS: our_way(model, batches), SELF_CRITICAL: self_critical_way(third, labelled, vocabulary)}
    return ways | {PLAIN: plain_way(again, batches, batch_size)}


def with_grids(labelled: LabelledFeatures) -> LabelledFeatures:
    """Return the images with made-up grids in place of their pooled features."""
    grids = np.random.default_rng(0).normal(size=(DIFFERENT_GRIDS, GRID_POSITIONS, *labelled.shape))
    return replace(labelled, store=grids.astype(np.float16), rows=np.arange(len(labelled)) % DIFFERENT_GRIDS)


def our_way(model, batches: CaptionBatches, steps: int = STEPS, precision: str = "float32") -> Way:
    """Return our training, whose graphs, one a length, are compiled before any clock runs."""
    trainer = Trainer(model, TrainConfig(run_dir=""), total_steps=100_000)
    for length in batches.lengths:
        trainer.train(next(batch for batch in batches.epoch(0, 0) if batch.inputs.shape[-1] == length))
    some = _some(batches, steps)
    images = _images(some, batches)

    def train() -> float:
        for batch in islice(batches.epoch(0, 1), steps):  # making batches is part of the work
            loss = trainer.train(batch)
        float(loss)
        return images

    return Way(train, sum(step_gflop(model, batch) for batch in some) / images, precision)


def half_way(shape: tuple[int, ...], word_vectors, batches: CaptionBatches) -> Way:
    """Return our training of merge with products in bfloat16, weights and loss in float32, as Keras mixes them."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(PRECISIONS["bfloat16"])
    try:
        return our_way(build_model("merge", shape, word_vectors, seed=0), batches, OTHER_STEPS, "bfloat16")
    finally:
        keras.config.set_dtype_policy(before)


def plain_way(model, batches: CaptionBatches, batch_size: int) -> Way:
    """Return Keras's own training of the captions of some batches."""
    some = _some(batches, OTHER_STEPS)
    plain = PlainTraining.of(model, some, max(batches.lengths))
    images = _images(some, batches)
    whole = Batch(plain.features, plain.inputs, np.ones_like(plain.targets))  # every position counts as a real one

    def train() -> float:
        plain.train(batch_size)
        return images

    return Way(train, step_gflop(model, whole) / images)


def original_way(model, labelled: LabelledFeatures, vocabulary: Vocabulary) -> Way:
    """Return the original's training of merge: prefixes of five images a step, from a Python generator."""
    reference, stream = build_prefix_model(model), prefix_batches(labelled, vocabulary)
    sizes = [prefixes.shape for (_, prefixes), _ in islice(prefix_batches(labelled, vocabulary), OTHER_STEPS)]
    images = OTHER_STEPS * IMAGES_PER_STEP

    def train() -> float:
        reference.fit(stream, steps_per_epoch=OTHER_STEPS, epochs=1, verbose=0)
        return images

    return Way(train, sum(prefix_gflop(model.settings, *size) for size in sizes) / images)


def self_critical_way(model, labelled: LabelledFeatures, vocabulary: Vocabulary) -> Way:
    """Return an epoch of the second stage over some images: captions sampled, rewarded and learned from."""
    config = TrainConfig(run_dir="", reinforce_epochs=1, reinforce_images=REINFORCED)
    some = labelled.at(np.arange(min(REINFORCED, len(labelled))))
    stage = SelfCritical(model, some, vocabulary, lambda: None, config)

    def train() -> float:
        stage.train_epoch(1)
        return len(some)

    return Way(train)


def _some(batches: CaptionBatches, steps: int) -> list[Batch]:
    return list(islice(batches.epoch(0, 1), steps))


def _images(some: Sequence[Batch], batches: CaptionBatches) -> float:
    """Return how many images the captions of some batches are worth: an image has as many as it has on average."""
    captions = sum(int((batch.targets != 0).any(-1).sum()) for batch in some)
    return captions / batches.captions_per_image


def _enough(batches: CaptionBatches) -> CaptionBatches:
    if len(batches) < STEPS:
        raise DataError(f"{batches.images} images are too few to measure; use {STEPS} batches of captions at least")
    return batches
