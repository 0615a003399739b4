"""Contrastive training of the dual encoder: images and the texts that belong to them move together.

Knows its two losses, its schedule, and how a killed run goes on. Refuses to know where pairs come from and how the
model is exported.

Shapes: B images in a batch, T words of a caption, C key words, D numbers in a vector.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from tqdm import tqdm

from lcm.config import TrainConfig
from lcm.errors import choose
from lcm.features.cache import PreparedRun
from lcm.models import TAGGERS, build_tagger
from lcm.models.dual_encoder import DualEncoder
from lcm.paths import RunDir
from lcm.training.batches import PairBatch, Pairs, WordTable, build_word_table
from lcm.training.loop import TrainingState, load_checkpoint, save_checkpoint

IMAGES_PER_STEP = 256
LEARNING_RATE = 2e-3  # at its highest
WARMUP_STEPS = 100
CLIP_NORM = 2.0  # of the gradient
AVERAGED_EPOCHS = 4  # the last ones, whose mean weights are kept
KEY_WORD_WEIGHT = 1.0  # of the loss of key words beside that of sentences; it helps sentences too


@dataclass(frozen=True)
class ContrastiveEpoch:
    """What one pass over the training images gave."""

    epoch: int  # from 1
    loss: float  # nats, both losses together
    seconds: float


@dataclass(frozen=True)
class TrainedTagger:
    """A trained dual encoder with the words it reads."""

    model: DualEncoder
    table: WordTable
    history: list[ContrastiveEpoch]

    def as_metrics(self) -> dict[str, float]:
        """Return what a run is known by, under the keys of metrics.json."""
        return {"tagger_loss": self.history[-1].loss, "tagger_seconds": sum(one.seconds for one in self.history)}


def train_tagger(prepared: PreparedRun, config: TrainConfig, run: RunDir) -> TrainedTagger | None:
    """Train the tag scorer `config.tagger` on the train split's pooled features; None for "none".

    Raises ConfigError for an unknown tagger.
    """
    if choose(TAGGERS, config.tagger, "tagger") is None:
        return None
    train = prepared.labelled_features("train", "pooled")
    table = build_word_table(train, prepared.vocabulary, config.word_embedding)
    pairs = Pairs(train, table, IMAGES_PER_STEP, config.view_share)
    model = build_tagger(config.tagger, pairs.features, table.vectors, table.learned, config.seed)
    return TrainedTagger(model, table, fit_dual_encoder(model, pairs, table, config, run.checkpoint / "tagger.npz"))


def fit_dual_encoder(
    model: DualEncoder, pairs: Pairs, table: WordTable, config: TrainConfig, checkpoint: Path
) -> list[ContrastiveEpoch]:
    """Train `model` for `config.tagger_epochs` and leave it with the mean weights of the last ones.

    `checkpoint` is a file: a run that was killed goes on from its last whole epoch and ends as it would have ended;
    one made with other parameters or data starts over.
    """
    key_word_ids = np.array([[table.ids[word]] for word in table.key_words], np.int32).reshape(-1, 1)
    trainer = _Trainer(model, key_word_ids, config.tagger_epochs * len(pairs))
    recipe = {
        "epochs": config.tagger_epochs,
        "seed": config.seed,
        "view_share": config.view_share if pairs.views else 0.0,
        "settings": model.settings,
        "fingerprint": pairs.fingerprint(),
    }
    history = _resume(trainer, checkpoint, recipe)
    progress = tqdm(range(len(history) + 1, config.tagger_epochs + 1), desc="tagger", unit=" epochs", mininterval=1)
    for number in progress if len(pairs) else ():
        started = time.perf_counter()
        losses = [trainer.train(batch) for batch in pairs.epoch(config.seed, number)]
        history.append(ContrastiveEpoch(number, float(np.mean(losses)), time.perf_counter() - started))
        trainer.state.remember()
        progress.set_postfix(loss=f"{history[-1].loss:.3f}", refresh=False)
        save_checkpoint(
            checkpoint, trainer.state.arrays, {"recipe": recipe, "history": [asdict(one) for one in history]}
        )
    trainer.state.keep_average()
    return history


def _resume(trainer: "_Trainer", checkpoint: Path, recipe: dict) -> list[ContrastiveEpoch]:
    stored = load_checkpoint(checkpoint)
    if stored is None or stored[1]["recipe"] != recipe:
        return []
    arrays, record = stored
    trainer.state.restore(arrays)
    return [ContrastiveEpoch(**one) for one in record["history"]]


class _Trainer:
    """A dual encoder with its optimizer and its compiled step."""

    def __init__(self, model: DualEncoder, key_word_ids: np.ndarray, total_steps: int):
        warmup = min(WARMUP_STEPS, max(total_steps // 4, 1))
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0, max(total_steps - warmup, 1), warmup_target=LEARNING_RATE, warmup_steps=warmup
        )
        self.model, self.optimizer = model, keras.optimizers.Adam(schedule, global_clipnorm=CLIP_NORM)
        self.state = TrainingState(model, self.optimizer, AVERAGED_EPOCHS)
        self._key_word_ids = tf.constant(key_word_ids)
        features = tf.TensorSpec([None, model.settings["feature_dim"]], tf.float32)
        texts, shares = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, len(key_word_ids)], tf.float32)
        self._step = tf.function(self._take_step, input_signature=[features, texts, shares])

    def train(self, batch: PairBatch) -> float:
        """Take one step; returns the loss before it."""
        return float(self._step(batch.features, batch.word_ids, batch.key_words))

    def _take_step(self, features, word_ids, key_words):
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            images, texts = self.model((features, word_ids), training=True)
            scales = ops.exp(self.model.log_scales)
            loss = contrastive_loss(images, texts, scales[0])
            if len(self._key_word_ids):
                words = self.model.read(self._key_word_ids, training=True)
                loss += KEY_WORD_WEIGHT * key_word_loss(images, words, scales[1], key_words)
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, variables)]
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss


def contrastive_loss(images: tf.Tensor, texts: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Return the mean cross entropy of finding each image's text among all, and each text's image; [B, D] both."""
    logits = scale * ops.matmul(images, ops.transpose(texts))  # [B, B]
    own = tf.range(tf.shape(logits)[0])
    both = (logits, ops.transpose(logits))
    return sum(tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(own, one)) for one in both) / 2


def key_word_loss(images: tf.Tensor, words: tf.Tensor, scale: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
    """Return the mean cross entropy between the softmax over all key words [C, D] and an image's shares [B, C]."""
    log_probs = tf.nn.log_softmax(scale * ops.matmul(images, ops.transpose(words)))  # [B, C]
    return -tf.reduce_mean(tf.reduce_sum(shares * log_probs, axis=-1))
