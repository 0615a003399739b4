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
from tqdm import tqdm

from lcm.captioning.bundle import WEIGHTS, Bundle, Manifest
from lcm.captioning.generate import caption_features
from lcm.config import TrainConfig
from lcm.data.dataset import LabelledImage
from lcm.data.text import Vocabulary
from lcm.errors import DataError
from lcm.features.cache import LabelledFeatures
from lcm.models import build_model
from lcm.paths import RunDir
from lcm.training.batches import Batch, CaptionBatches
from lcm.training.loop import History, Stage, caption_loss, compile_step, load_weights, real_logits

# Of the captions that the model has written of each base image: the best of a beam, and some that were drawn.
OWN_BEAM_WIDTH, OWN_SAMPLES = 3, 2


@dataclass(frozen=True)
class ParentModel:
    """The model that training continues from."""

    folder: Path

    @property
    def manifest(self) -> Manifest:
        """What it is."""
        return Manifest.load(self.folder)

    def followed_by(self, config: TrainConfig) -> TrainConfig:
        """Return the parameters with its architecture, and with the decoding that its metrics were measured with."""
        its = self.manifest
        return replace(config, model=its.model, dev_beam_width=its.beam_width, max_words=its.max_words)


def find_parent_model(run: RunDir) -> ParentModel | None:
    """Return the model that 01_prepare says to continue from, None where training is from scratch."""
    folder = run.read_metrics().get("start_from")
    return ParentModel(Path(folder)) if folder else None


class Distillation(Stage):
    """Every contributed image once an epoch, each step with base images beside.

    Nothing is measured: the gate does, on more than one model's word.
    """

    def __init__(self, model, teacher, contributed: CaptionBatches, base: CaptionBatches, config: TrainConfig):
        """`teacher` is the parent; `base` holds captions that it wrote."""
        schedule = keras.optimizers.schedules.CosineDecay(config.learning_rate, config.epochs * len(contributed))
        super().__init__(model, keras.optimizers.Adam(schedule), config.averaged_epochs, contributed.images)
        self._teacher, self._contributed, self._base, self._config = teacher, contributed, base, config
        self._learn, self._keep = (compile_step(step, model.unrolled) for step in (self._learning, self._keeping))
        self._apply = tf.function(self._step)
        self._drawn = self._base_batches()

    def train_epoch(self, number: int) -> dict[str, float]:
        """Learn from every contributed image once."""
        batches, label = self._contributed.epoch(self._config.seed, number), f"epoch {number}/{self._config.epochs}"
        progress = tqdm(batches, total=len(self._contributed), desc=label, mininterval=1)
        return {"train_loss": float(np.mean([self._take_step(batch, next(self._drawn)) for batch in progress]))}

    def _base_batches(self) -> Iterator[Batch]:
        """Yield batches of base images for ever, each image once before any comes again."""
        for number in count(1):
            yield from self._base.epoch(self._config.seed, number)

    def _take_step(self, contributed: Batch, base: Batch) -> float:
        """Take a step, and return the loss of the contributed captions before it."""
        loss, learning = self._learn(contributed)
        self._apply(learning, self._keep(base))
        return float(loss)

    def _learning(self, features, inputs, targets):
        with tf.GradientTape() as tape:
            loss = caption_loss(self.model, features, inputs, targets, False)
        return loss, self._gradients(tape, loss)

    def _keeping(self, features, inputs, targets):
        before = tf.nn.softmax(real_logits(self._teacher, features, inputs, targets))  # [P, V]
        with tf.GradientTape() as tape:
            now = real_logits(self.model, features, inputs, targets)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(before, now))
        return self._gradients(tape, loss)

    def _gradients(self, tape: tf.GradientTape, loss: tf.Tensor) -> list[tf.Tensor]:
        return list(map(tf.convert_to_tensor, tape.gradient(loss, self.model.trainable_variables)))

    def _step(self, learning, keeping):
        weight, variables = self._config.keep_weight, self.model.trainable_variables
        gradients = [new + weight * old for new, old in zip(learning, keeping, strict=True)]
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))


def distill(
    model, train: LabelledFeatures, vocabulary: Vocabulary, parent: ParentModel, config: TrainConfig, checkpoint: Path
) -> History:
    """Train `model` on the contributed images of `train`, from the weights of `parent`.

    `checkpoint` is a folder, as Stage.run takes it. Raises DataError when there is no contributed image, or no base
    image to keep what is known with.
    """
    no_vectors = np.zeros((len(vocabulary), model.settings["embedding_dim"]), np.float32)
    teacher = build_model(config.model, train.shape, no_vectors, config.seed)
    for one in (model, teacher):
        load_weights(one, parent.folder / WEIGHTS)
    teacher.trainable = False
    sent = np.array([image.is_contributed for image in train.images], bool)
    if not sent.any() or sent.all():
        raise DataError(
            f"{sent.sum()} contributed and {(~sent).sum()} base images to train on; continuing from a model needs both"
        )
    share, together = config.contributed_share, model.captions_together
    contributed = CaptionBatches(
        train.at(np.flatnonzero(sent)), vocabulary, max(1, round(config.batch_size * share)), together=together
    )
    base = train.at(_draw(np.flatnonzero(~sent), config))
    base = replace(base, images=_own_captions(base, Bundle(parent.folder), config.max_words))
    captions = 1 + OWN_SAMPLES if together else 1  # a row
    kept = CaptionBatches(
        base, vocabulary, max(1, round(config.batch_size * (1 - share))) * captions, together=together
    )
    stage = Distillation(model, teacher, contributed, kept, config)
    recipe = {name: value for name, value in asdict(config).items() if name != "run_dir"}
    recipe |= {"parent": parent.manifest.name, "contributed": contributed.fingerprint(), "base": kept.fingerprint()}
    return stage.run(config.epochs, config.patience, recipe, checkpoint)


def cap_contributed(train: LabelledFeatures, share: float) -> LabelledFeatures:
    """Return the images with no more contributed ones than this share of them, the latest."""
    sent = np.array([image.is_contributed for image in train.images], bool)
    most = int(share / max(1 - share, 1e-9) * (~sent).sum())
    left_out = np.flatnonzero(sent)[: max(0, sent.sum() - most)]
    return train.at(np.setdiff1d(np.arange(len(train)), left_out)) if len(left_out) else train


def _draw(places: np.ndarray, config: TrainConfig) -> np.ndarray:
    """Return places of `keep_images` of the images, in order."""
    chosen = np.random.default_rng(config.seed).permutation(places)[: config.keep_images]
    return np.sort(chosen)


def _own_captions(base: LabelledFeatures, bundle: Bundle, max_words: int) -> list[LabelledImage]:
    """Return the images with captions that the bundle writes of each."""
    captions, _ = caption_features(bundle, base, OWN_BEAM_WIDTH, max_words, OWN_SAMPLES)
    return [replace(image, captions=tuple(its)) for image, its in zip(base.images, captions, strict=True)]
