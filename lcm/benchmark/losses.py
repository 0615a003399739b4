"""Equal work: every way to train comes to the same loss by the same steps.

Knows how the same captions are given to each way, dropout off: five images with all their captions a step, as the
original takes them. Refuses to time anything.
"""

from collections.abc import Iterator
from itertools import islice

import keras
import numpy as np

from lcm.benchmark.plain import PlainTraining
from lcm.benchmark.prefixes import IMAGES_PER_STEP, build_prefix_model, prefix_batches
from lcm.config import TrainConfig
from lcm.data.text import PAD, Vocabulary
from lcm.features.cache import LabelledFeatures
from lcm.models.merge import Merge
from lcm.training.batches import Batch, CaptionBatches
from lcm.training.loop import Trainer

LEARNING_RATE = 1e-3  # of Adam, as the original's


def compare_losses(
    labelled: LabelledFeatures, vocabulary: Vocabulary, word_vectors, steps: int
) -> dict[str, list[float]]:
    """Return the loss of merge before each step, in nats a word: ours, Keras's own training and the original's.

    All start with the same weights, and differ only by how numbers are rounded.
    """
    ours, theirs = (_build(labelled, word_vectors) for _ in range(2))
    original, prefixes = build_prefix_model(ours), prefix_batches(labelled, vocabulary)
    trainer = Trainer(ours, TrainConfig(run_dir="", learning_rate=LEARNING_RATE), total_steps=10**9)
    groups = list(islice(_groups(labelled, vocabulary), steps))
    longest = max(group.inputs.shape[-1] for group in groups)
    plain = PlainTraining.of(theirs, groups, longest, LEARNING_RATE)
    losses: dict[str, list[float]] = {"ours": [], "plain": [], "original": []}
    ends = np.cumsum([int((group.targets != PAD).any(-1).sum()) for group in groups])
    for end, start, (read, next_words) in zip(ends, [0, *ends], prefixes, strict=False):
        one = plain.part(slice(start, end))
        losses["ours"].append(float(trainer.train(Batch(one.features, one.inputs, one.targets))))
        losses["plain"].append(_step(theirs, (one.features, one.inputs), one.targets, one.weights()))
        losses["original"].append(_step(original, read, next_words))
    return losses


def _build(labelled: LabelledFeatures, word_vectors) -> Merge:
    keras.utils.set_random_seed(0)
    vocabulary_size, embedding_dim = word_vectors.shape
    model = Merge(labelled.shape, vocabulary_size, embedding_dim, dropout=0.0)
    model((np.zeros((1, *labelled.shape), np.float32), np.zeros((1, 1, 1), np.int32)))
    model.take_word_vectors(word_vectors)
    return model


def _groups(labelled: LabelledFeatures, vocabulary: Vocabulary) -> Iterator[Batch]:
    """Yield the captions of each five images, in order, as one batch."""
    for start in range(0, len(labelled), IMAGES_PER_STEP):
        some = labelled.at(np.arange(start, min(start + IMAGES_PER_STEP, len(labelled))))
        captions = sum(len(image.captions) for image in some.images)
        yield from CaptionBatches(some, vocabulary, captions).epoch(0, 0)


def _step(model: keras.Model, read, targets, weights=None) -> float:
    """Take one step; returns the loss before it."""
    model.reset_metrics()
    loss = model.train_on_batch(read, targets, weights, return_dict=True)["loss"]
    return float(loss)
