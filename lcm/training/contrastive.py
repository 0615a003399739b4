"""Contrastive training of the dual encoder: images and the texts that belong to them move together.

Shapes: B images in a batch, T words of a caption, C key words, D numbers in a vector.
"""

from dataclasses import dataclass
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
from lcm.training.batches import Pairs, WordTable, build_word_table
from lcm.training.loop import Epoch, History, Stage

IMAGES_PER_STEP = 256
LEARNING_RATE = 2e-3  # at its highest
WARMUP_STEPS = 100
CLIP_NORM = 2.0  # of the gradient
AVERAGED_EPOCHS = 4  # the last ones, whose mean weights are kept
KEY_WORD_WEIGHT = 1.0  # of the loss of key words beside that of sentences; it helps sentences too


@dataclass(frozen=True)
class TrainedTagger:
    """A trained dual encoder with the words it reads."""

    model: DualEncoder
    table: WordTable
    history: History
    images: int  # that it was trained on

    def as_metrics(self) -> dict[str, float]:
        """Return what a run is known by, under the keys of metrics.json."""
        epochs = self.history.epochs
        seconds = sum(self.images / one.images_per_second for one in epochs)
        return {"tagger_loss": epochs[-1].train_loss, "tagger_seconds": seconds}


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
    history = fit_dual_encoder(model, pairs, table, config, run.checkpoint / "tagger")
    return TrainedTagger(model, table, history, pairs.images)


def fit_dual_encoder(
    model: DualEncoder, pairs: Pairs, table: WordTable, config: TrainConfig, checkpoint: Path
) -> History:
    """Train `model` for `config.tagger_epochs` and leave it with the mean weights of the last ones.

    `checkpoint` is a folder, as Stage.run takes it. Without a full batch nothing is trained.
    """
    if not len(pairs):
        return History()
    recipe = {
        "epochs": config.tagger_epochs,
        "seed": config.seed,
        "view_share": config.view_share if pairs.views else 0.0,
        "settings": model.settings,
        "fingerprint": pairs.fingerprint(),
    }
    stage = Contrastive(model, pairs, table, config)
    with tqdm(total=config.tagger_epochs, desc="tagger", unit=" epochs", mininterval=1) as progress:

        def show(epoch: Epoch) -> None:
            progress.set_postfix(loss=f"{epoch.train_loss:.3f}", refresh=False)
            progress.update(epoch.epoch - progress.n)

        return stage.run(config.tagger_epochs, config.tagger_epochs, recipe, checkpoint, show)


class Contrastive(Stage):
    """Each image with one of its captions once an epoch, and with its key words.

    Nothing is measured: 03_evaluate does, and later epochs count as better.
    """

    def __init__(self, model: DualEncoder, pairs: Pairs, table: WordTable, config: TrainConfig):
        """Compile the step; the learning rate rises for WARMUP_STEPS, at most a quarter of all, then falls to zero."""
        total_steps = config.tagger_epochs * len(pairs)
        warmup = min(WARMUP_STEPS, max(total_steps // 4, 1))
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0, max(total_steps - warmup, 1), warmup_target=LEARNING_RATE, warmup_steps=warmup
        )
        optimizer = keras.optimizers.Adam(schedule, global_clipnorm=CLIP_NORM)
        super().__init__(model, optimizer, AVERAGED_EPOCHS, pairs.images)
        self._pairs, self._seed = pairs, config.seed
        key_words = table.key_words
        self._key_word_ids = tf.constant(np.array([[table.ids[word]] for word in key_words], np.int32).reshape(-1, 1))
        features = tf.TensorSpec([None, model.settings["feature_dim"]], tf.float32)
        texts, shares = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, len(key_words)], tf.float32)
        self._step = tf.function(self._take_step, input_signature=[features, texts, shares])

    def train_epoch(self, number: int) -> dict[str, float]:
        """Train on each image with one of its captions."""
        batches = self._pairs.epoch(self._seed, number)
        losses = [float(self._step(one.features, one.word_ids, one.key_words)) for one in batches]
        return {"train_loss": float(np.mean(losses))}

    def _take_step(self, features, word_ids, key_words):
        with tf.GradientTape() as tape:
            images, texts = self.model((features, word_ids), training=True)
            scales = ops.exp(self.model.log_scales)
            loss = contrastive_loss(images, texts, scales[0])
            if len(self._key_word_ids):
                words = self.model.read(self._key_word_ids, training=True)
                loss += KEY_WORD_WEIGHT * key_word_loss(images, words, scales[1], key_words)
        variables = self.model.trainable_variables
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
