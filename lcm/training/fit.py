"""Fitting, the first stage of training: the model learns each next word of the captions that people wrote.

Knows the optimizer, its learning rate and the compiled steps. Refuses to know where batches come from, when to stop
and how a model is exported.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import keras
import tensorflow as tf
from tqdm import tqdm

from lcm.config import TrainConfig
from lcm.training.batches import CaptionBatches
from lcm.training.compiled import ByLength
from lcm.training.epochs import History, Measured, Trained, run_epochs
from lcm.training.loss import caption_loss
from lcm.training.state import TrainingState


class Trainer:
    """A model with its optimizer and the compiled steps."""

    def __init__(self, model, config: TrainConfig, total_steps: int):
        """Compile nothing yet; over `total_steps` the learning rate rises, then falls to zero."""
        rising = round(config.warm_up * total_steps)
        rise = {"initial_learning_rate": 0.0, "warmup_target": config.learning_rate, "warmup_steps": rising}
        schedule = keras.optimizers.schedules.CosineDecay(
            decay_steps=total_steps - rising, **(rise if rising else {"initial_learning_rate": config.learning_rate})
        )
        self.model, self.optimizer = model, keras.optimizers.Adam(schedule, global_clipnorm=config.clip_norm or None)
        self.state = TrainingState(model, self.optimizer, config.averaged_epochs)
        self.label_smoothing = config.label_smoothing
        self.train = ByLength(
            self._train_step, model.unrolled
        )  # takes one step over a batch; returns the loss before it
        self.measure = ByLength(self._measure_step, model.unrolled)  # returns the loss of a batch, dropout off

    def _train_step(self, features, inputs, targets):
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            loss = caption_loss(self.model, features, inputs, targets, True, self.label_smoothing)
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    def _measure_step(self, features, inputs, targets):
        return caption_loss(self.model, features, inputs, targets, False)


class Fitting:
    """The stage: every caption once an epoch."""

    def __init__(
        self,
        trainer: Trainer,
        train: CaptionBatches,
        dev: CaptionBatches,
        dev_cider: Callable[[], float | None],
        config: TrainConfig,
    ):
        self.state = trainer.state
        self._trainer, self._train, self._dev, self._dev_cider = trainer, train, dev, dev_cider
        self._config = config

    def train_epoch(self, number: int) -> Trained:
        """Train on every caption once."""
        started = time.perf_counter()
        losses, positions = [], []
        progress = tqdm(
            self._train.epoch(self._config.seed, number),
            total=len(self._train),
            desc=f"epoch {number}/{self._config.epochs}",
            mininterval=1,
        )
        for batch in progress:
            losses.append(self._trainer.train(batch))
            positions.append(batch.positions)
        train_loss = _mean(losses, positions)
        images_per_second = self._train.images / (time.perf_counter() - started)
        return Trained(float(self._trainer.optimizer.learning_rate), images_per_second, train_loss)

    def measure(self) -> Measured:
        """Return loss and CIDEr on dev with the weights as they are, None without dev images."""
        if not len(self._dev):
            return Measured()
        measured = [(self._trainer.measure(batch), batch.positions) for batch in self._dev.epoch(0, 0)]
        return Measured(_mean(*zip(*measured, strict=True)), self._dev_cider())


def fit(
    model,
    train: CaptionBatches,
    dev: CaptionBatches,
    dev_cider: Callable[[], float | None],
    config: TrainConfig,
    checkpoint: Path,
) -> History:
    """Train `model` until `config.epochs` or until dev stops improving, and leave it with the best weights.

    `checkpoint` is a folder, as run_epochs takes it.
    """
    trainer = Trainer(model, config, config.epochs * len(train))
    stage = Fitting(trainer, train, dev, dev_cider, config)
    return run_epochs(stage, config.epochs, config.patience, _recipe(config, train), checkpoint)


def _recipe(config: TrainConfig, train: CaptionBatches) -> dict:
    """What must be the same for a run to be resumed: the data, and all parameters but those of other stages."""
    others = {"run_dir", "word_embedding", "export_attention", "contributed_share", "keep_images", "keep_weight"}
    parameters = {
        name: value
        for name, value in asdict(config).items()
        if name not in others and not name.startswith(("reinforce", "tagger"))
    }
    return parameters | {"batches": len(train), "images": train.images, "fingerprint": train.fingerprint()}


def _mean(losses, positions) -> float:
    """Return the mean loss a word, from the mean loss and the number of words of each batch."""
    return sum(float(loss) * count for loss, count in zip(losses, positions, strict=True)) / sum(positions)
