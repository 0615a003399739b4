"""The training loop: loss, epochs with checkpoints, and the first stage, in which people's captions are learned.

Every way of training is a Stage (Supervised here, self_critical, adapt, contrastive): a run that was killed resumes
from its last whole epoch and ends as it would have ended.

Shapes: B images, W texts of each image, T positions, P real positions of a batch, V words, D width.
"""

import json
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from lcm.captioning.decoding import State, caption_features, empty_rows
from lcm.config import TrainConfig
from lcm.data.text import PAD, Vocabulary
from lcm.errors import BundleError, DataError
from lcm.evaluation.metrics import score_languages
from lcm.features.cache import LabelledFeatures
from lcm.paths import in_clone, open_atomic
from lcm.training.batches import Batch, CaptionBatches

DevScorer = Callable[[], float | None]  # gives the CIDEr on dev of a model as it now is; None without a dev split
NOT_LEARNED = ("run_dir", "tensorboard")  # parameters of which nothing that is learned depends


def save_checkpoint(path: Path, arrays: Sequence[np.ndarray], record: dict) -> None:
    """Write arrays and a JSON-able record as one .npz file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_atomic(path) as file:
        np.savez(file, record=np.array(json.dumps(record)), **_numbered(arrays))


def load_checkpoint(path: Path) -> tuple[list[np.ndarray], dict] | None:
    """Return what `save_checkpoint` wrote, or None where there is no file.

    Raises DataError for a damaged file.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        return [arrays[name] for name in sorted(arrays) if name != "record"], json.loads(str(arrays["record"]))
    except Exception as error:  # numpy and zipfile have no common class for what they raise
        raise DataError(f"the checkpoint {path} is damaged ({error}); remove it to train from the start") from error


def save_weights(model: keras.Model, path: Path) -> None:
    """Write the model's weights as float16, in their order, as one compressed .npz file."""
    with path.open("wb") as file:
        np.savez_compressed(file, **_numbered([array.astype(np.float16) for array in model.get_weights()]))


def load_weights(model: keras.Model, path: Path, likeness: np.ndarray | None = None) -> None:
    """Give the model what `save_weights` wrote of one that knew the same words or fewer, the same first.

    A new word starts as the mean of known words that `likeness` [new, known] says, as `liken` gives it. Where that has
    none, its vector stays as it is and its bias is the least that any word has: it begins as one of the least probable.
    In a table that is not trained, each has a vector of its own: equal ones could never be told apart.
    Raises BundleError for weights of another model.
    """
    with np.load(path, allow_pickle=False) as stored:
        arrays = [stored[name].astype(np.float32) for name in sorted(stored.files)]
    fresh = model.get_weights()
    frozen = {id(variable) for variable in model.non_trainable_variables}
    pairs = list(zip(arrays, fresh, strict=False))
    if len(arrays) != len(fresh) or not all(_may_grow(old.shape, new.shape) for old, new in pairs):
        held, wanted = ([list(array.shape) for array in each] for each in (arrays, fresh))
        raise BundleError(f"{path} is of another model: it holds arrays of {held} numbers, and the model has {wanted}")
    for (old, new), variable in zip(pairs, model.weights, strict=True):
        if new.shape == old.shape:
            new[...] = old
            continue
        (axis,) = np.flatnonzero(np.array(new.shape) != old.shape)
        ours, theirs = np.moveaxis(new, axis, 0), np.moveaxis(old, axis, 0)  # views: words first
        if new.ndim == 1:
            ours[:] = theirs.min()
        ours[: len(theirs)] = theirs
        if likeness is not None and id(variable) not in frozen and (alike := likeness.any(axis=1)).any():
            ours[len(theirs) :][alike] = np.tensordot(likeness[alike], theirs, 1)
    model.set_weights(fresh)


def _may_grow(known: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether an array may become one of `shape`: longer along one axis, or the same."""
    longer = np.subtract(shape, known) if len(known) == len(shape) else np.array([-1])
    return bool((longer >= 0).all()) and np.count_nonzero(longer) <= 1


def _numbered(arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{place:04}": array for place, array in enumerate(arrays)}


def compile_step(step: Callable, unrolled: bool) -> Callable[..., Any]:
    """Return `step(features [B, ...], ids, ...)` compiled: but for the features, any axis may have any size.

    `unrolled` is the model's: whether a graph of it holds for one T only; ids are [B, W, T] then, as all that has a T.
    """
    graphs = {}

    def run(features: np.ndarray, ids: np.ndarray, *more: np.ndarray) -> Any:
        length = ids.shape[-1] if unrolled else None
        if length not in graphs:
            shapes = [[None, *features.shape[1:]], *([None, None, length][: one.ndim] for one in (ids, *more))]
            kinds = zip(shapes, (features, ids, *more), strict=True)
            signature = [tf.TensorSpec(shape, one.dtype) for shape, one in kinds]
            graphs[length] = tf.function(step, input_signature=signature)
        return graphs[length](features, ids, *more)

    return run


def cross_entropy(logits: tf.Tensor, targets: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Return the mean over P of the cross entropy of softmax(logits) with the targets; [P, V] and [P].

    `smoothing` is the share of the target that all words hold in equal parts (Szegedy et al., "Rethinking the
    Inception Architecture", 2016, section 7). Without it, value and gradient are those of TensorFlow's
    sparse_softmax_cross_entropy_with_logits, whose CPU kernel takes twice as long: here the softmax is kept, and
    its gradient is softmax - target.
    """

    @tf.custom_gradient
    def mean_loss(logits):
        positions = tf.shape(targets)[0]
        probabilities = tf.nn.softmax(logits)
        places = tf.stack([tf.range(positions), targets], axis=1)  # [P, 2]
        loss = -tf.reduce_mean(tf.math.log(tf.gather_nd(probabilities, places) + 1e-30))
        if smoothing:
            target_logits = tf.gather_nd(logits, places)
            loss += smoothing * tf.reduce_mean(target_logits - tf.reduce_mean(logits, axis=1))

        def gradient(upstream):
            share = upstream / tf.cast(positions, logits.dtype)
            towards = tf.fill([positions], (1.0 - smoothing) * share)
            spread = probabilities * share
            if smoothing:
                spread -= smoothing * share / tf.cast(tf.shape(logits)[1], logits.dtype)
            return tf.tensor_scatter_nd_sub(spread, places, towards)

        return loss, gradient

    return mean_loss(logits)


def caption_loss(model, features, inputs, targets, training: bool, smoothing: float = 0.0) -> tf.Tensor:
    """Return the model's mean loss over the real positions of a batch; the softmax is taken at no other.

    `features` [B, ...], `inputs` and `targets` [B, W, T]; PAD in `targets` marks what is not a position.
    """
    words = tf.boolean_mask(targets, targets != PAD)
    return cross_entropy(real_logits(model, features, inputs, targets, training), words, smoothing)


def real_logits(model, features, inputs, targets, training: bool = False) -> tf.Tensor:
    """Return the model's logits [P, V] at the real positions of a batch, as caption_loss takes it."""
    hidden = model.hidden(features, inputs, training=training)  # [B, W, T, D]
    logits = model.logits(tf.gather_nd(hidden, tf.where(targets != PAD)))
    return tf.cast(logits, tf.float32)  # where products are in 16 bits, a mean of thousands of losses may not be


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training images gave, and what the averaged weights are worth after it."""

    epoch: int  # from 1
    learning_rate: float  # at its end
    images_per_second: float  # training alone, without the scoring of dev
    train_loss: float | None = None  # nats a word, dropout and label smoothing on; None where captions earn a reward
    train_reward: float | None = None  # mean CIDEr-D of the sampled captions; None where captions are given
    dev_loss: float | None = None  # nats a word; None without dev images, or where captions earn a reward
    dev_cider: float | None = None  # None without dev images, or where it has no value

    def __str__(self) -> str:
        values = {"loss": self.train_loss, "reward": self.train_reward, "dev CIDEr": self.dev_cider}
        said = "".join(f", {name} {value:.3f}" for name, value in values.items() if value is not None)
        return f"epoch {self.epoch}: {self.images_per_second:.0f} images/s{said}"


@dataclass
class History:
    """All epochs so far, and which was the best."""

    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0

    def add(self, epoch: Epoch) -> bool:
        """Add an epoch; returns whether it is the best: by dev CIDEr, else dev loss, else (no dev) by being later."""
        best = self.epochs[self.best_epoch - 1] if self.epochs else None
        self.epochs.append(epoch)
        is_best = True
        if best and None not in (epoch.dev_cider, best.dev_cider):
            is_best = epoch.dev_cider > best.dev_cider
        elif best and None not in (epoch.dev_loss, best.dev_loss):
            is_best = epoch.dev_loss < best.dev_loss
        if is_best:
            self.best_epoch = epoch.epoch
        return is_best

    @property
    def waited(self) -> int:
        """The number of epochs since the best one."""
        return len(self.epochs) - self.best_epoch

    def as_metrics(self, prefix: str = "") -> dict[str, float | None]:
        """Return what a run is known by, under the keys of metrics.json, each with `prefix` before it."""
        metrics = {
            "epochs": len(self.epochs),
            "best_epoch": self.best_epoch,
            "best_dev_cider": self.epochs[self.best_epoch - 1].dev_cider,
            "train_images_per_second": median(one.images_per_second for one in self.epochs),
        }
        return {f"{prefix}{name}": value for name, value in metrics.items()}


class Stop(NamedTuple):
    """How long a stage trains, and what it keeps."""

    epochs: int  # at most
    patience: int  # epochs without a better one on dev before it stops
    averaged: int  # latest epochs whose mean weights are measured and kept


# Of fewer, the shipped model learns more: measured on photos of COCO, CIDEr 0.480 against 0.374 of 1,000 of them, and
# 0.443 against 0.313 of 300.
FEW_IMAGES = 2000


def few_images(images: int) -> str:
    """Return what somebody should know before a captioner is trained from scratch on so many images."""
    if images >= FEW_IMAGES:
        return ""
    return (
        f"{images:,} images are few to train a captioner from scratch, and its captions may be of no use; the shipped "
        "model learns more from so many: lcm run --params adapt -p data_dir FOLDER"
    )


def open_log(config: TrainConfig, stage: str) -> tf.summary.SummaryWriter | None:
    """Return what writes the epochs of a stage for TensorBoard, where that is asked for."""
    folder = in_clone(config.run_dir) / "tensorboard" / stage
    return tf.summary.create_file_writer(str(folder)) if config.tensorboard else None


def log_epoch(log: tf.summary.SummaryWriter, epoch: Epoch) -> None:
    """Write an epoch for TensorBoard, whose package tf.summary.scalar would want here too."""
    numbers = {name: number for name, number in asdict(epoch).items() if name != "epoch" and number is not None}
    values = [tf.compat.v1.Summary.Value(tag=name, simple_value=number) for name, number in numbers.items()]
    with log.as_default():
        tf.summary.experimental.write_raw_pb(tf.compat.v1.Summary(value=values).SerializeToString(), epoch.epoch)
        tf.summary.flush()


class Stage(ABC):
    """One way of training a model; a subclass says what an epoch does and how the model is measured."""

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        images: int,
        stop: Stop,
        recipe: dict[str, Any],
        log: tf.summary.SummaryWriter | None = None,
    ):
        """Build the optimizer; an epoch trains on `images`, and `recipe`, which JSON can hold, tells runs apart."""
        self.model, self.optimizer, self.images, self._stop, self._recipe = model, optimizer, images, stop, recipe
        self._log = log
        optimizer.build(model.trainable_variables)
        self._recent: deque[list[np.ndarray]] = deque(maxlen=stop.averaged)  # weights after the latest epochs

    @abstractmethod
    def train_epoch(self, number: int) -> dict[str, float]:
        """Train on every image once, `number` is from 1; returns train_loss or train_reward."""
        ...

    def measure(self) -> dict[str, float | None]:
        """Return dev_loss and dev_cider of the model's weights as they are; where nothing is measured, nothing."""
        return {}

    def show(self, epoch: Epoch) -> None:
        """Tell of an epoch that is over."""
        print(epoch, flush=True)

    def fit(self, checkpoint: Path) -> History:
        """Train as long as it helps; the model keeps the best weights.

        `checkpoint` is a folder: a run that was killed resumes from its last whole epoch and ends as it would have
        ended; one that has finished returns at once; one of another recipe is started over.
        """
        history = self._resume(checkpoint / "last.npz")
        while len(history.epochs) < self._stop.epochs and history.waited < self._stop.patience:
            number, started = len(history.epochs) + 1, time.perf_counter()
            trained = self.train_epoch(number)
            trained["images_per_second"] = self.images / (time.perf_counter() - started)
            trained["learning_rate"] = float(self.optimizer.learning_rate)
            own = self.model.get_weights()
            self._recent.append(own)
            self.model.set_weights([np.mean(same, axis=0) for same in zip(*self._recent, strict=True)])
            epoch = Epoch(number, **trained, **self.measure())
            if history.add(epoch):
                save_checkpoint(checkpoint / "best.npz", self.model.get_weights(), {"epoch": number})
            self.model.set_weights(own)
            self.show(epoch)
            if self._log:
                log_epoch(self._log, epoch)
            arrays = [*(variable.numpy() for variable in self._state()), *chain(*self._recent)]
            save_checkpoint(checkpoint / "last.npz", arrays, {"recipe": self._recipe, "history": asdict(history)})
        best_weights, _ = load_checkpoint(checkpoint / "best.npz")
        self.model.set_weights(best_weights)
        return history

    def descend(self, loss_of: Callable[[], tf.Tensor]) -> tf.Tensor:
        """Take a step down the gradient of a loss; returns what the loss was before it."""
        loss, gradients = self.gradients_of(loss_of)
        self.apply(gradients)
        return loss

    def gradients_of(self, loss_of: Callable[[], tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Return a loss, and its gradient by the weights that are trained, each a dense array."""
        with tf.GradientTape() as tape:
            loss = loss_of()
        gradients = tape.gradient(loss, self.model.trainable_variables)
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Take a step along the gradients of the weights that are trained."""
        self.optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))

    def _state(self) -> list:
        return [*self.model.variables, *self.optimizer.variables]  # dropout's random states and moments among them

    def _resume(self, last: Path) -> History:
        """Go back to the last whole epoch that is in a checkpoint, where the recipe is the same."""
        stored = load_checkpoint(last)
        if stored is None:
            return History()
        arrays, record = stored
        if record["recipe"] != self._recipe:
            print("The checkpoint was made with other parameters or data: training starts over.")
            return History()
        state, size = self._state(), len(self.model.weights)
        for variable, array in zip(state, arrays, strict=False):
            variable.assign(array)
        recent = arrays[len(state) :]
        self._recent.extend(recent[start : start + size] for start in range(0, len(recent), size))
        history = record["history"]
        return History([Epoch(**one) for one in history["epochs"]], history["best_epoch"])


def make_adam(rate: float, steps: int, rising: int, clip_norm: float, stays: bool = False) -> keras.optimizers.Adam:
    """Return an optimizer whose rate rises from zero in `rising` of the steps, then falls to zero or stays.

    `clip_norm` is of the gradient, 0 for any.
    """
    rise = {"warmup_target": rate, "warmup_steps": rising} if rising else {}
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if rising else rate, max(steps - rising, 1), float(stays), **rise
    )
    return keras.optimizers.Adam(schedule, global_clipnorm=clip_norm or None)


def under_progress(batches: CaptionBatches, config: TrainConfig, number: int, passes: int = 1) -> Iterable[Batch]:
    """Return the batches of an epoch, which may be several passes, with a progress bar."""
    label, first = f"epoch {number}/{config.epochs}", (number - 1) * passes + 1
    each = chain.from_iterable(batches.epoch(config.seed, one) for one in range(first, first + passes))
    return tqdm(each, total=passes * len(batches), desc=label)


class KerasDecoder:
    """A Keras model that writes captions as it now is, as a bundle does."""

    def __init__(self, model, vocabulary: Vocabulary):
        self.vocabulary, self._model = vocabulary, model
        self._step = tf.function(model.step, reduce_retracing=True)

    def start(self, features: np.ndarray) -> State:
        """Return the state before the first word, of one text an image."""
        images = tuple(array.numpy() for array in self._model.start(tf.constant(features)))
        return State(images, empty_rows(len(features), self._model.row_shapes))

    def step(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Return log-probabilities [B, W, V] of the word after each text's last, [B, W], and the next state."""
        images, rows = (tuple(map(tf.constant, arrays)) for arrays in (state.images, state.rows))
        log_probs, next_rows, *_ = self._step(tf.constant(token_ids, tf.int32), images, rows)
        return log_probs.numpy(), State(state.images, tuple(array.numpy() for array in next_rows))


def make_dev_scorer(model, dev: LabelledFeatures, vocabulary: Vocabulary, beam_width: int, max_words: int) -> DevScorer:
    """Return a function that gives the model's CIDEr on `dev` as it now is, the mean over languages; None without."""
    decoder = KerasDecoder(model, vocabulary)

    def dev_cider() -> float | None:
        captions, _ = caption_features(decoder, dev, beam_width, max_words, progress=False)
        scores = score_languages([best for best, *_ in captions], dev.images, meteor=False).values()
        ciders = [its.cider for its in scores if its.cider is not None]
        return fmean(ciders) if ciders else None

    return dev_cider


class Supervised(Stage):
    """The first stage: every caption once an epoch."""

    def __init__(self, model, train: CaptionBatches, dev: CaptionBatches, dev_cider: DevScorer, config: TrainConfig):
        """Compile nothing yet; over all steps the learning rate rises, then falls to zero or stays."""
        of_others = (*NOT_LEARNED, "word_embedding", "new", "keep", "parent", "adapt", "reinforce", "tagger")
        recipe = {name: value for name, value in asdict(config).items() if not name.startswith(of_others)}
        recipe |= {"batches": len(train), "images": train.images, "fingerprint": train.fingerprint()}
        self._passes = -(-config.epoch_steps // max(len(train), 1))  # over the images, an epoch
        total_steps = config.epochs * self._passes * len(train)
        rising = round(config.warm_up * total_steps)
        optimizer = make_adam(config.learning_rate, total_steps, rising, config.clip_norm, config.constant_rate)
        stop = Stop(config.epochs, config.patience, config.averaged_epochs)
        super().__init__(model, optimizer, self._passes * train.images, stop, recipe, open_log(config, "captions"))
        self._train, self._dev, self._dev_cider, self._config = train, dev, dev_cider, config
        # Both return the loss of a batch: `step` that before the step that it takes, `loss_of` with dropout off.
        self.step = compile_step(self._take_step, model.unrolled)
        self.loss_of = compile_step(partial(caption_loss, model, training=False), model.unrolled)

    def _take_step(self, features, inputs, targets):
        smoothing = self._config.label_smoothing
        return self.descend(lambda: caption_loss(self.model, features, inputs, targets, True, smoothing))

    def train_epoch(self, number: int) -> dict[str, float]:
        batches = under_progress(self._train, self._config, number, self._passes)
        return {"train_loss": _mean([(self.step(*batch), batch.positions) for batch in batches])}

    def measure(self) -> dict[str, float | None]:
        if not len(self._dev):
            return {}
        losses = [(self.loss_of(*batch), batch.positions) for batch in self._dev.epoch(0, 0)]
        return {"dev_loss": _mean(losses), "dev_cider": self._dev_cider()}


def _mean(losses: Sequence[tuple[tf.Tensor, int]]) -> float:
    """Return the mean loss a word, from the mean loss and the number of words of each batch."""
    return sum(float(loss) * count for loss, count in losses) / sum(count for _, count in losses)
