"""Epochs: one after the other until the best is found, resumable at every epoch's end.

Knows early stopping, checkpoints and what an epoch is worth. Refuses to know what is done in an epoch: a stage of
training does that, fit.py's or reinforce.py's.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Protocol

from lcm.training.checkpoint import load_checkpoint, save_checkpoint
from lcm.training.state import TrainingState


@dataclass(frozen=True)
class Trained:
    """What one pass over the training images gave by itself."""

    learning_rate: float  # at the end of the epoch
    images_per_second: float  # training alone, without the scoring of dev
    train_loss: float | None = None  # nats a word, dropout and label smoothing on; None where captions earn a reward
    train_reward: float | None = None  # mean CIDEr-D of the sampled captions; None where captions are given


@dataclass(frozen=True)
class Measured:
    """What the averaged weights are worth after an epoch."""

    dev_loss: float | None = None  # nats a word; None without dev images, or where captions earn a reward
    dev_cider: float | None = None  # None without dev images, or where it has no value


@dataclass(frozen=True)
class Epoch(Measured, Trained):
    """What one pass over the training images gave, and what it is worth."""

    epoch: int = 1  # from 1

    def __str__(self) -> str:
        loss = "" if self.train_loss is None else f" loss {self.train_loss:.3f},"
        reward = "" if self.train_reward is None else f" reward {self.train_reward:.3f},"
        cider = "" if self.dev_cider is None else f", dev CIDEr {self.dev_cider:.3f}"
        return f"epoch {self.epoch}:{loss}{reward} {self.images_per_second:.0f} images/s{cider}"


@dataclass
class History:
    """All epochs so far, and which was the best."""

    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    finished: bool = False

    def is_better(self, candidate: Measured) -> bool:
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

    def as_metrics(self, prefix: str = "") -> dict[str, float | None]:
        """Return what a run is known by, under the keys of metrics.json, each with `prefix` before it."""
        metrics = {
            "epochs": len(self.epochs),
            "best_epoch": self.best_epoch,
            "best_dev_cider": self.epochs[self.best_epoch - 1].dev_cider,
            "train_images_per_second": median(one.images_per_second for one in self.epochs),
        }
        return {f"{prefix}{name}": value for name, value in metrics.items()}

    @classmethod
    def from_record(cls, record: dict) -> "History":
        """Read back what `as_record` gave."""
        return cls([Epoch(**one) for one in record["epochs"]], record["best_epoch"], record["finished"])


class Stage(Protocol):
    """One way of training a model."""

    state: TrainingState  # the model, its optimizer and its latest weights

    def train_epoch(self, number: int) -> Trained:
        """Train on every image once; `number` is from 1."""
        ...

    def measure(self) -> Measured:
        """Return what the model's weights, as they are, are worth on dev."""
        ...


def run_epochs(stage: Stage, epochs: int, patience: int, recipe: dict, checkpoint: Path) -> History:
    """Train until `epochs` or until dev has not improved for `patience` of them; the model keeps the best weights.

    `checkpoint` is a folder: a run that was killed goes on from its last whole epoch and ends as it would have
    ended; one that has finished returns at once; one made with another `recipe`, which JSON can hold, is started over.
    """
    history = _resume(stage.state, checkpoint / "last.npz", recipe)
    while not history.finished:
        number = len(history.epochs) + 1
        trained = stage.train_epoch(number)
        stage.state.remember()
        with stage.state.averaged():
            measured = stage.measure()
            if history.is_better(measured):
                save_checkpoint(checkpoint / "best.npz", stage.state.model.get_weights(), {"epoch": number})
                history.best_epoch = number
        history.epochs.append(Epoch(**asdict(trained), **asdict(measured), epoch=number))
        print(history.epochs[-1], flush=True)
        history.finished = number == epochs or number - history.best_epoch >= patience
        record = {"recipe": recipe, "history": history.as_record()}
        save_checkpoint(checkpoint / "last.npz", stage.state.arrays, record)
    best_weights, _ = load_checkpoint(checkpoint / "best.npz")
    stage.state.model.set_weights(best_weights)
    return history


def _resume(state: TrainingState, last: Path, recipe: dict) -> History:
    stored = load_checkpoint(last)
    if stored is None:
        return History()
    arrays, record = stored
    if record["recipe"] != recipe:
        print("The checkpoint was made with other parameters or data: training starts over.")
        return History()
    state.restore(arrays)
    return History.from_record(record["history"])
