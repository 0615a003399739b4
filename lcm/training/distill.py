"""Distillation: a trained model learns what users sent, and keeps what it knows.

The mixed objective: of contributed images the captions that people wrote, of base images what the parent model said,
word by word with all probabilities (Li and Hoiem, "Learning without Forgetting", 2016; on the model's own captions
after Kim and Rush, "Sequence-Level Knowledge Distillation", 2016).

Dropout is off: a model that was trained on what its captions earn loses that at once to the noise of dropout, though
each single word stays as probable as it was.

Shapes: B images, W texts of each, T positions, P real positions of a batch, V words.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from lcm.captioning.bundle import WEIGHTS, Bundle, Manifest
from lcm.captioning.generate import caption_features
from lcm.config import TrainConfig
from lcm.data.text import Vocabulary
from lcm.errors import DataError
from lcm.features.cache import LabelledFeatures
from lcm.models import build_model
from lcm.paths import RunDir
from lcm.training.batches import Batch, CaptionBatches
from lcm.training.loop import (
    History,
    Stage,
    Stop,
    caption_loss,
    compile_step,
    gradients_of,
    load_weights,
    real_logits,
    under_progress,
)

# Of the captions that the model has written of each base image: the best of a beam, and some that were drawn.
OWN_BEAM_WIDTH, OWN_SAMPLES = 3, 2


@dataclass(frozen=True)
class ParentModel:
    """The model that training continues from."""

    folder: Path
    manifest: Manifest

    def followed_by(self, config: TrainConfig) -> TrainConfig:
        """Return the parameters with its architecture, and with the decoding that its metrics were measured with."""
        its = self.manifest
        return replace(config, model=its.model, dev_beam_width=its.beam_width, max_words=its.max_words)


def find_parent_model(run: RunDir) -> ParentModel | None:
    """Return the model that 01_prepare says to continue from, None where training is from scratch."""
    start_from = run.read_metrics().get("start_from")
    return ParentModel(Path(start_from), Manifest.load(Path(start_from))) if start_from else None


class Distillation(Stage):
    """Every contributed image once an epoch, each step with base images beside.

    Nothing is measured: the gate does, on more than one model's word.
    """

    def __init__(
        self, model, teacher, contributed: CaptionBatches, base: CaptionBatches, config: TrainConfig, parent: str = ""
    ):
        """`teacher` is the model of the name `parent`; `base` holds captions that it wrote."""
        schedule = keras.optimizers.schedules.CosineDecay(config.learning_rate, config.epochs * len(contributed))
        recipe = {name: value for name, value in asdict(config).items() if name != "run_dir"}
        recipe |= {"parent": parent, "contributed": contributed.fingerprint(), "base": base.fingerprint()}
        stop = Stop(config.epochs, config.patience, config.averaged_epochs)
        super().__init__(model, keras.optimizers.Adam(schedule), contributed.images, stop, recipe)
        self._teacher, self._contributed, self._base, self._config = teacher, contributed, base, config
        self._learn, self._keep = (compile_step(step, model.unrolled) for step in (self._learning, self._keeping))
        self._apply = tf.function(self._step)
        self._drawn = self._base_batches()

    def train_epoch(self, number: int) -> dict[str, float]:
        """Learn from every contributed image once."""
        losses = []
        for batch in under_progress(self._contributed, self._config, number):
            loss, learning = self._learn(batch)
            self._apply(learning, self._keep(next(self._drawn)))
            losses.append(float(loss))
        return {"train_loss": float(np.mean(losses))}

    def _base_batches(self) -> Iterator[Batch]:
        """Yield batches of base images for ever, each image once before any comes again."""
        for number in count(1):
            yield from self._base.epoch(self._config.seed, number)

    def _learning(self, features, inputs, targets):
        with tf.GradientTape() as tape:
            loss = caption_loss(self.model, features, inputs, targets, False)
        return loss, gradients_of(tape, loss, self.model)

    def _keeping(self, features, inputs, targets):
        before = tf.nn.softmax(real_logits(self._teacher, features, inputs, targets))  # [P, V]
        with tf.GradientTape() as tape:
            now = real_logits(self.model, features, inputs, targets)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(before, now))
        return gradients_of(tape, loss, self.model)

    def _step(self, learning, keeping):
        weight = self._config.keep_weight
        self.apply([new + weight * old for new, old in zip(learning, keeping, strict=True)])


def distill(
    model, train: LabelledFeatures, vocabulary: Vocabulary, parent: ParentModel, config: TrainConfig, checkpoint: Path
) -> History:
    """Train `model` on the contributed images of `train`, from the weights of `parent`.

    `checkpoint` is a folder, as Stage.fit takes it. Raises DataError when there is no contributed image, or no base
    image to keep what is known with.
    """
    sent = np.array([image.is_contributed for image in train.images], bool)
    if not sent.any() or sent.all():
        raise DataError(
            f"{sent.sum()} contributed and {(~sent).sum()} base images to train on; continuing from a model needs both"
        )
    bundle = Bundle(parent.folder)  # which verifies its files
    no_vectors = np.zeros((len(vocabulary), model.settings["embedding_dim"]), np.float32)
    teacher = build_model(config.model, train.shape, no_vectors, config.seed)
    for one in (model, teacher):
        load_weights(one, parent.folder / WEIGHTS)
    teacher.trainable = False
    share, together = config.contributed_share, model.captions_together
    sent_rows = max(1, round(config.batch_size * share))
    contributed = CaptionBatches(train.at(np.flatnonzero(sent)), vocabulary, sent_rows, together=together)
    chosen = np.random.default_rng(config.seed).permutation(np.flatnonzero(~sent))[: config.keep_images]
    base = train.at(np.sort(chosen))
    said, _ = caption_features(bundle, base, OWN_BEAM_WIDTH, config.max_words, OWN_SAMPLES)
    own = [replace(image, captions=tuple(its)) for image, its in zip(base.images, said, strict=True)]
    base_rows = max(1, round(config.batch_size * (1 - share))) * (1 + OWN_SAMPLES if together else 1)
    kept = CaptionBatches(replace(base, images=own), vocabulary, base_rows, together=together)
    return Distillation(model, teacher, contributed, kept, config, parent.manifest.name).fit(checkpoint)


def cap_contributed(train: LabelledFeatures, share: float) -> LabelledFeatures:
    """Return the images with no more contributed ones than this share of them, the latest."""
    sent = np.array([image.is_contributed for image in train.images], bool)
    most = int(share / max(1 - share, 1e-9) * (~sent).sum())
    left_out = np.flatnonzero(sent)[: max(0, sent.sum() - most)]
    return train.at(np.setdiff1d(np.arange(len(train)), left_out)) if len(left_out) else train
