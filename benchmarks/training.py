"""Speed of training: ours, Keras's own `fit` on the same model, and the original's method; and that all learn the same.

Shapes: C captions, T positions of the longest, V words.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

import keras
import numpy as np

from benchmarks.common import table, time_in_turn
from benchmarks.original import IMAGES_PER_STEP, build_prefix_model, prefix_batches
from lcm.config import TrainConfig
from lcm.data.text import PAD, Vocabulary
from lcm.features.cache import LabelledFeatures
from lcm.models import build_model
from lcm.training.batches import Batch, CaptionBatches
from lcm.training.loop import Supervised
from lcm.training.self_critical import SelfCritical

BATCH_SIZE = 128  # captions a step of ours, and of Keras's
STEPS = 30  # of ours in a round: two seconds of merge
OTHER_STEPS = 10  # of the sides that are slower
REINFORCED = 64  # images a round, as many as a step of the preset flickr8k-best has
GRID_POSITIONS, DIFFERENT_GRIDS = 81, 64  # of EfficientNet-Lite2; so many grids are made up
LEARNING_RATE = 1e-3  # of Adam, as the original's
LOSS_STEPS = 20


def section(labelled: LabelledFeatures, vocabulary: Vocabulary, word_vectors: np.ndarray, rounds: int) -> str:
    """Return the section of the report; `labelled` are train images with pooled features."""
    if len(labelled) < STEPS * IMAGES_PER_STEP:
        raise SystemExit(f"{len(labelled)} train images are too few to measure; use {STEPS * IMAGES_PER_STEP} at least")
    grids = np.random.default_rng(0).normal(size=(DIFFERENT_GRIDS, GRID_POSITIONS, *labelled.shape))
    looking = replace(labelled, store=grids.astype(np.float16), rows=np.arange(len(labelled)) % DIFFERENT_GRIDS)
    merge, again = (build_model("merge", labelled.shape, word_vectors, seed=0) for _ in range(2))
    first, second, third = (build_model("transformer", looking.shape, word_vectors, seed=0) for _ in range(3))
    words = CaptionBatches(labelled, vocabulary, BATCH_SIZE)
    texts = CaptionBatches(looking, vocabulary, BATCH_SIZE, together=True)
    merge_rates = time_in_turn(
        {
            "lcm": ours(merge, words),
            "Keras compile and fit": plain(again, words),
            "the original's method": originals(merge, labelled, vocabulary),
        },
        rounds,
    )
    transformer_rates = time_in_turn(
        {
            "lcm": ours(first, texts),
            "lcm, self-critical stage": self_critical(second, looking, vocabulary),
            "Keras compile and fit": plain(third, texts),
        },
        rounds,
    )
    losses = compare_losses(labelled, vocabulary, word_vectors, LOSS_STEPS)
    apart = max(max(step) - min(step) for step in zip(*losses.values(), strict=True))
    rows = [[way, f"{each[0]:.5f}", f"{each[-1]:.5f}"] for way, each in losses.items()]
    return "\n\n".join(
        [
            f"## Training\n\nMedians of {rounds} rounds, all ways in turn. The transformer's features are made up.",
            f"### merge\n\n{merge_rates.as_table('images/s')}",
            f"### transformer\n\n{transformer_rates.as_table('images/s')}",
            f"### Equal loss\n\n{LOSS_STEPS} steps on the same captions from the same weights, without dropout: never "
            f"more than {apart:.1e} nats a word apart.",
            table(["way", "loss before the first step", "before the last"], rows),
        ]
    )


def ours(model, batches: CaptionBatches) -> Callable[[], float]:
    """Return our training, whose graphs, one a length, are compiled before any clock runs."""
    trainer = Supervised(model, batches, batches, lambda: None, TrainConfig(run_dir="", epochs=1000))
    for length in batches.buckets:
        trainer.step(*next(batch for batch in batches.epoch(0, 0) if batch.inputs.shape[-1] == length))
    images = _images(list(islice(batches.epoch(0, 1), STEPS)), batches)

    def train() -> float:
        for batch in islice(batches.epoch(0, 1), STEPS):  # making batches is part of the work
            loss = trainer.step(*batch)
        float(loss)
        return images

    return train


def plain(model, batches: CaptionBatches) -> Callable[[], float]:
    """Return what anyone would write first: a caption a row, padded to the longest, under Keras's own `fit`."""
    some = list(islice(batches.epoch(0, 1), OTHER_STEPS))
    inputs, targets, weights = padded_rows(some, max(batches.buckets))
    model.compile(keras.optimizers.Adam(LEARNING_RATE), keras.losses.SparseCategoricalCrossentropy())
    options = {"batch_size": BATCH_SIZE, "sample_weight": weights, "shuffle": False, "verbose": 0}
    images = _images(some, batches)

    def train() -> float:
        model.fit(inputs, targets, **options)
        return images

    return train


def originals(model, labelled: LabelledFeatures, vocabulary: Vocabulary) -> Callable[[], float]:
    """Return the original's training of merge: prefixes of five images a step, from a Python generator."""
    reference, stream = build_prefix_model(model), prefix_batches(labelled, vocabulary)

    def train() -> float:
        reference.fit(stream, steps_per_epoch=OTHER_STEPS, epochs=1, verbose=0)
        return OTHER_STEPS * IMAGES_PER_STEP

    return train


def self_critical(model, labelled: LabelledFeatures, vocabulary: Vocabulary) -> Callable[[], float]:
    """Return an epoch of the second stage over some images: captions sampled, rewarded and learned from."""
    config = TrainConfig(run_dir="", reinforce_epochs=1, reinforce_images=REINFORCED)
    some = labelled.at(np.arange(min(REINFORCED, len(labelled))))
    stage = SelfCritical(model, some, vocabulary, lambda: None, config)

    def train() -> float:
        stage.train_epoch(1)
        return len(some)

    return train


def padded_rows(batches: Sequence[Batch], longest: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
    """Return (features [C, …], inputs [C, 1, T]), targets [C, 1, T] and weights [C, 1, T], a caption a row.

    A weight is 0 where there is no word and 1 on average: Keras takes the mean over all positions, and the weights make
    it one over those that hold a word.
    """
    features, inputs, targets = [], [], []
    for batch in batches:
        images, texts, length = batch.inputs.shape
        padding = ((0, 0), (0, 0), (0, longest - length))
        ids, words = (
            np.pad(each.reshape(images * texts, 1, length), padding, constant_values=PAD)
            for each in (batch.inputs, batch.targets)
        )
        held = (words != PAD).any((1, 2))  # a row of the batch may have fewer captions than another
        features.append(np.repeat(batch.features, texts, axis=0)[held])
        inputs.append(ids[held])
        targets.append(words[held])
    targets = np.concatenate(targets)
    real = (targets != PAD).astype(np.float32)
    return (np.concatenate(features), np.concatenate(inputs)), targets, real / real.mean()


def compare_losses(
    labelled: LabelledFeatures, vocabulary: Vocabulary, word_vectors: np.ndarray, steps: int
) -> dict[str, list[float]]:
    """Return the loss of merge before each step, in nats a word, of the three ways from the same weights.

    They differ only by how numbers are rounded. A step has the captions of five images, as the original takes them.
    """
    mine, theirs = (_without_dropout(labelled, word_vectors) for _ in range(2))
    original, stream = build_prefix_model(mine), prefix_batches(labelled, vocabulary)
    batches = CaptionBatches(labelled, vocabulary, BATCH_SIZE)
    config = TrainConfig(run_dir="", learning_rate=LEARNING_RATE, epochs=10**6)  # so many that the rate hardly falls
    trainer = Supervised(mine, batches, batches, lambda: None, config)
    theirs.compile(keras.optimizers.Adam(LEARNING_RATE), keras.losses.SparseCategoricalCrossentropy())
    losses: dict[str, list[float]] = {"lcm": [], "Keras": [], "the original": []}
    groups = []
    for start in range(0, min(steps * IMAGES_PER_STEP, len(labelled)), IMAGES_PER_STEP):
        some = labelled.at(np.arange(start, min(start + IMAGES_PER_STEP, len(labelled))))
        captions = sum(len(image.captions) for image in some.images)
        groups += CaptionBatches(some, vocabulary, captions).epoch(0, 0)
    longest = max(group.inputs.shape[-1] for group in groups)
    for group, (prefixes, next_words) in zip(groups, stream, strict=False):
        inputs, targets, weights = padded_rows([group], longest)
        losses["lcm"].append(float(trainer.step(group.features, group.inputs, group.targets)))
        losses["Keras"].append(_step(theirs, inputs, targets, weights))
        losses["the original"].append(_step(original, prefixes, next_words))
    return losses


def _without_dropout(labelled: LabelledFeatures, word_vectors: np.ndarray):
    from lcm.models.merge import Merge

    keras.utils.set_random_seed(0)
    model = Merge(labelled.shape, *word_vectors.shape, dropout=0.0)
    model((np.zeros((1, *labelled.shape), np.float32), np.zeros((1, 1, 1), np.int32)))
    model.take_word_vectors(word_vectors)
    return model


def _step(model: keras.Model, inputs, targets, weights=None) -> float:
    """Take one step; returns the loss before it."""
    model.reset_metrics()
    return float(model.train_on_batch(inputs, targets, weights, return_dict=True)["loss"])


def _images(some: Sequence[Batch], batches: CaptionBatches) -> float:
    """Return how many images the captions of some batches are worth: an image has as many as it has on average."""
    captions = sum(int((batch.targets != PAD).any(-1).sum()) for batch in some)
    return captions * batches.images / batches.captions
