"""Training: epochs over the captions, the best kept, resumable at every epoch's end.

Knows optimisation, early stopping and what an epoch is worth. Refuses to know where batches come from and how
a model is exported.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import keras
import tensorflow as tf
from tqdm import tqdm

from lcm.config import TrainConfig
from lcm.training.batches import Batch, CaptionBatches
from lcm.training.checkpoint import load_checkpoint, save_checkpoint
from lcm.training.loss import caption_loss
from lcm.training.state import TrainingState


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training captions gave."""

    epoch: int  # from 1
    train_loss: float  # nats a word, dropout and label smoothing on
    learning_rate: float  # at the end of the epoch
    images_per_second: float  # training alone, without the scoring of dev
    dev_loss: float | None  # nats a word, of the averaged weights; None without dev images
    dev_cider: float | None  # of the averaged weights; None without dev images, or where it has no value

    def __str__(self) -> str:
        cider = "" if self.dev_cider is None else f", dev CIDEr {self.dev_cider:.3f}"
        return f"epoch {self.epoch}: loss {self.train_loss:.3f}, {self.images_per_second:.0f} images/s{cider}"


@dataclass
class History:
    """All epochs so far, and which was the best."""

    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    finished: bool = False

    def is_better(self, candidate: Epoch) -> bool:
        """Whether `candidate` beats the best epoch: by dev CIDEr, else dev loss, else (no dev) by being later."""
        if not self.epochs:
            return True
        best = self.epochs[self.best_epoch - 1]
        if candidate.dev_cider is not None and best.dev_cider is not None:
            return candidate.dev_cider > best.dev_cider
        if candidate.dev_loss is not None and best.dev_loss is not None:
            return candidate.dev_loss < best.dev_loss
        return True

    def as_record(self) -> dict:
        """Return plain numbers, for JSON and for plots."""
        return {
            "epochs": [asdict(one) for one in self.epochs],
            "best_epoch": self.best_epoch,
            "finished": self.finished,
        }

    def as_metrics(self) -> dict[str, float | None]:
        """Return what a run is known by, under the keys of metrics.json."""
        return {
            "epochs": len(self.epochs),
            "best_epoch": self.best_epoch,
            "best_dev_cider": self.epochs[self.best_epoch - 1].dev_cider,
            "train_images_per_second": median(one.images_per_second for one in self.epochs),
        }

    @classmethod
    def from_record(cls, record: dict) -> "History":
        """Read back what `as_record` gave."""
        return cls([Epoch(**one) for one in record["epochs"]], record["best_epoch"], record["finished"])


class Trainer:
    """A model with its optimizer and the compiled steps, one a caption length."""

    def __init__(self, model, config: TrainConfig, total_steps: int):
        """Compile nothing yet; the learning rate falls from its highest to zero over `total_steps`."""
        schedule = keras.optimizers.schedules.CosineDecay(config.learning_rate, total_steps)
        self.model, self.optimizer = model, keras.optimizers.Adam(schedule)
        self.state = TrainingState(model, self.optimizer, config.averaged_epochs)
        self.label_smoothing = config.label_smoothing
        self._train_steps, self._dev_steps = {}, {}

    def train(self, batch: Batch) -> tf.Tensor:
        """Take one step; returns the loss before it."""
        return self._call(self._train_steps, self._train_step, batch)

    def measure(self, batch: Batch) -> tf.Tensor:
        """Return the loss of a batch, dropout off."""
        return self._call(self._dev_steps, self._measure_step, batch)

    def _call(self, compiled: dict, step: Callable, batch: Batch) -> tf.Tensor:
        length = batch.inputs.shape[1]
        if length not in compiled:
            ids = tf.TensorSpec([None, length], tf.int32)
            features = tf.TensorSpec([None, *batch.features.shape[1:]], tf.float32)
            compiled[length] = tf.function(step, input_signature=[features, ids, ids])
        return compiled[length](batch.features, batch.inputs, batch.targets)

    def _train_step(self, features, inputs, targets):
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            loss = caption_loss(self.model, features, inputs, targets, True, self.label_smoothing)
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    def _measure_step(self, features, inputs, targets):
        return caption_loss(self.model, features, inputs, targets, False)


def fit(
    model,
    train: CaptionBatches,
    dev: CaptionBatches,
    dev_cider: Callable[[], float | None],
    config: TrainConfig,
    checkpoint: Path,
) -> History:
    """Train `model` until `config.epochs` or until dev stops improving, and leave it with the best weights.

    `checkpoint` is a folder: a run that was killed goes on from its last whole epoch and ends as it would have
    ended; one that has finished returns at once; one made with other parameters or data is started over.
    """
    trainer = Trainer(model, config, config.epochs * len(train))
    recipe = _recipe(config, train)
    history = _resume(trainer, checkpoint / "last.npz", recipe)
    while not history.finished:
        number = len(history.epochs) + 1
        trained = _train_epoch(trainer, train, config, number)
        with trainer.state.averaged():
            epoch = Epoch(number, *trained, *_measure(trainer, dev, dev_cider))
            if history.is_better(epoch):
                save_checkpoint(checkpoint / "best.npz", model.get_weights(), {"epoch": number})
                history.best_epoch = number
        history.epochs.append(epoch)
        print(epoch, flush=True)
        history.finished = number == config.epochs or number - history.best_epoch >= config.patience
        save_checkpoint(
            checkpoint / "last.npz", trainer.state.arrays, {"recipe": recipe, "history": history.as_record()}
        )
    best_weights, _ = load_checkpoint(checkpoint / "best.npz")
    model.set_weights(best_weights)
    return history


def _recipe(config: TrainConfig, train: CaptionBatches) -> dict:
    """What must be the same for a run to be resumed: all parameters but the tagger's, and the data."""
    others = {"run_dir", "tagger", "tagger_epochs", "word_embedding"}
    parameters = {name: value for name, value in asdict(config).items() if name not in others}
    return parameters | {"batches": len(train), "images": train.images, "fingerprint": train.fingerprint()}


def _resume(trainer: Trainer, last: Path, recipe: dict) -> History:
    stored = load_checkpoint(last)
    if stored is None:
        return History()
    arrays, record = stored
    if record["recipe"] != recipe:
        print("The checkpoint was made with other parameters or data: training starts over.")
        return History()
    trainer.state.restore(arrays)
    return History.from_record(record["history"])


def _train_epoch(
    trainer: Trainer, train: CaptionBatches, config: TrainConfig, number: int
) -> tuple[float, float, float]:
    """Train on every caption once; returns loss, learning rate at the end, and images a second."""
    started = time.perf_counter()
    losses, positions = [], []
    progress = tqdm(
        train.epoch(config.seed, number), total=len(train), desc=f"epoch {number}/{config.epochs}", mininterval=1
    )
    for batch in progress:
        losses.append(trainer.train(batch))
        positions.append(batch.positions)
    train_loss = _mean(losses, positions)
    images_per_second = train.images / (time.perf_counter() - started)
    trainer.state.remember()
    return train_loss, float(trainer.optimizer.learning_rate), images_per_second


def _measure(
    trainer: Trainer, dev: CaptionBatches, dev_cider: Callable[[], float | None]
) -> tuple[float | None, float | None]:
    """Return loss and CIDEr on dev with the weights as they are, None without dev images."""
    if not len(dev):
        return None, None
    measured = [(trainer.measure(batch), batch.positions) for batch in dev.epoch(0, 0)]
    return _mean(*zip(*measured, strict=True)), dev_cider()


def _mean(losses, positions) -> float:
    """Return the mean loss a word, from the mean loss and the number of words of each batch."""
    return sum(float(loss) * count for loss, count in zip(losses, positions, strict=True)) / sum(positions)
