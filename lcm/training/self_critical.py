"""Self-critical training, a second stage: the model writes captions and learns from what each one earns.

From Rennie et al., "Self-critical Sequence Training for Image Captioning" (2017), with the mean of an image's other
samples as baseline (Luo, "A Better Variant of Self-Critical Sequence Training", 2020).

Captions are sampled, and learned from, at a low temperature: label smoothing leaves every word of the vocabulary a
little probability, and at temperature 1 most samples hold a word that has nothing to do with the image. Dropout is off:
with it, the gradient would be that of another policy than the one that wrote the captions, and training soon falls
apart.

Shapes: B images in a batch, S captions sampled for each, T positions, V words, P words that were written.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from lcm.config import TrainConfig
from lcm.data.text import END, PAD, Vocabulary
from lcm.errors import DataError
from lcm.evaluation.metrics import CiderD
from lcm.features.cache import LabelledFeatures
from lcm.training.loop import DevScorer, History, Stage, Stop, compile_step, open_log, real_logits

LENGTH_STEP = 4  # samples are padded to a multiple of it: of an unrolled model, each length costs a compiled graph
# Parameters; whatever else there is has its say in the weights that the first stage leaves.
_OWN = ("reinforce", "view_share", "averaged_epochs", "patience", "dev_beam_width", "max_words", "seed")


class Sampler:
    """A model that writes captions at random, each word with the probability that it gives it at a temperature."""

    def __init__(self, model, never: Sequence[int], samples: int, max_words: int, temperature: float = 1.0):
        """Compile nothing yet; `max_words` bounds a caption, END counted; log-probabilities are over `temperature`.

        The ids of `never` are not written.
        """
        self._row_shapes, self._samples, self._max_words = model.row_shapes, samples, max_words
        self._start = tf.function(model.start, reduce_retracing=True)
        self._step = tf.function(self._draw, reduce_retracing=True)
        self._model, self._temperature = model, temperature
        ruled_out = np.zeros(model.settings["vocabulary_size"], np.float32)
        ruled_out[list(never)] = -np.inf
        self._never = tf.constant(ruled_out)

    def write(self, features: tf.Tensor, starts: np.ndarray, seed: tuple[int, int]) -> np.ndarray:
        """Return sampled captions [B, S, T], END included and PAD after it; `seed` decides them.

        They begin after the ids `starts` [B], which are not in them. The seed is of the first words; the second of its
        numbers grows by 1 with each word after them.
        """
        images, texts = self._start(features), (features.shape[0], self._samples)
        rows = tuple(tf.zeros((*texts, *(size or 0 for size in shape))) for shape in self._row_shapes)
        last, ended, written = np.repeat(starts[:, None], self._samples, axis=1), np.zeros(texts, bool), []
        last = tf.constant(last, tf.int32)
        for place in range(self._max_words):
            last, rows = self._step(last, images, rows, tf.constant((seed[0], seed[1] + place)))
            written.append(np.where(ended, PAD, last.numpy()))
            ended |= written[-1] == END
            if ended.all():
                break
        return np.stack(written, axis=2)

    def logits(self, logits: tf.Tensor) -> tf.Tensor:
        """Return the logits [..., V] that words are drawn by, from the model's, or from its log-probabilities."""
        return logits / self._temperature + self._never

    def _draw(self, last, images, rows, seed):
        """Return a word for each text [B, S] by the Gumbel-max trick, and the next rows."""
        log_probs, rows, *_ = self._model.step(last, images, rows)
        uniform = tf.random.stateless_uniform(tf.shape(log_probs), seed, minval=1e-9)
        return tf.argmax(self.logits(log_probs) - tf.math.log(-tf.math.log(uniform)), 2, tf.int32), rows


class SelfCritical(Stage):
    """Samples, their rewards, and steps towards those that earn more than an image's others."""

    def __init__(
        self, model, train: LabelledFeatures, vocabulary: Vocabulary, dev_cider: DevScorer, config: TrainConfig
    ):
        """Count the n-grams of the train captions; the images are those that have one with words.

        Raises DataError when there are fewer than two.
        """
        encoded = [[vocabulary.encode(text, image.language)[1:] for text in image.captions] for image in train.images]
        self._starts = np.array([vocabulary.starts[image.language] for image in train.images], np.int32)
        references = [[ids for ids in captions if len(ids) > 1] for captions in encoded]  # END included
        self._places = np.array([place for place, captions in enumerate(references) if captions])
        if len(self._places) < 2:
            raise DataError(
                f"train images with captions in words: {len(self._places)}; self-critical training needs two, for it "
                "rewards what tells images apart; add images, or set reinforce_epochs to 0"
            )
        digest = hashlib.sha256(b"".join(weights.tobytes() for weights in model.get_weights())).hexdigest()
        recipe = {name: value for name, value in asdict(config).items() if name.startswith(_OWN)}
        recipe |= {"images": len(train), "first_stage": digest}
        optimizer = keras.optimizers.Adam(config.reinforce_learning_rate)
        stop = Stop(config.reinforce_epochs, config.patience, config.averaged_epochs)
        super().__init__(model, optimizer, len(self._places), stop, recipe, open_log(config, "reinforce"))
        self._reward = CiderD(references)
        self._train, self._dev_cider, self._config = train, dev_cider, config
        never, temperature = vocabulary.never_written, config.reinforce_temperature
        self._sampler = Sampler(model, never, config.reinforce_samples, config.max_words + 1, temperature)
        self._step = compile_step(self._take_step, model.unrolled)

    def train_epoch(self, number: int) -> dict[str, float]:
        rewards, config = [], self._config
        random = np.random.default_rng((config.seed, number))
        parts = -(-len(self._places) // config.reinforce_images)
        batches = np.array_split(random.permutation(self._places), parts)
        views = [self._train.draw_views(len(places), config.view_share, random) for places in batches]
        label = f"reinforce {number}/{config.reinforce_epochs}"
        progress = tqdm(zip(batches, views, strict=True), total=parts, desc=label)
        for places, its_views in progress:
            features = tf.constant(self._train.read(places, its_views))
            starts = self._starts[places]
            written = self._sampler.write(features, starts, tuple(random.integers(2**62, size=2)))
            texts = [[ids[ids != PAD].tolist() for ids in texts] for texts in written]
            earned = self._reward.score(places, texts)
            self.learn(features, starts, written, advantages(earned))
            rewards.append(earned.mean())
            progress.set_postfix_str(f"reward {np.mean(rewards[-50:]):.3f}", refresh=False)
        return {"train_reward": float(np.mean(rewards))}

    def measure(self) -> dict[str, float | None]:
        return {"dev_cider": self._dev_cider()}

    def learn(self, features: tf.Tensor, starts: np.ndarray, written: np.ndarray, advantages: np.ndarray) -> None:
        """Take one step: each word's log-probability counts as much as its caption earned over the image's others.

        From features [B, ...], start tokens [B], captions [B, S, T] and advantages [B, S].
        """
        length = -(-written.shape[2] // LENGTH_STEP) * LENGTH_STEP
        padding = ((0, 0), (0, 0), (0, length - written.shape[2]))
        self._step(features, np.pad(written, padding, constant_values=PAD), starts, advantages)

    def _take_step(self, features, written, starts, advantages):
        before = tf.broadcast_to(starts[:, None, None], tf.concat([tf.shape(written)[:2], [1]], 0))
        inputs = tf.concat([before, written[:, :, :-1]], 2)
        real = tf.where(written != PAD)  # [P, 3]

        def loss_of():
            logits = self._sampler.logits(real_logits(self.model, features, inputs, written))  # [P, V]
            surprise = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.gather_nd(written, real), logits)
            return tf.reduce_mean(surprise * tf.gather_nd(advantages, real[:, :2]))

        self.descend(loss_of)


def advantages(rewards: np.ndarray) -> np.ndarray:
    """Return by how much each sample earned more than the mean of its image's other samples, [B, S] float32."""
    others = (rewards.sum(1, keepdims=True) - rewards) / (rewards.shape[1] - 1)
    return (rewards - others).astype(np.float32)


def train_self_critical(
    model, train: LabelledFeatures, vocabulary: Vocabulary, dev_cider: DevScorer, config: TrainConfig, checkpoint: Path
) -> History | None:
    """Train `model`, as the first stage left it, on what its own captions earn; it keeps the best epoch's weights.

    Where no epoch is as good on dev as the first stage was, it keeps that one's, and says so. Returns None, and does
    nothing, with `config.reinforce_epochs` 0. `checkpoint` is a folder, as Stage.fit takes it.
    Raises DataError when fewer than two images have captions.
    """
    if not config.reinforce_epochs:
        return None
    first_stage, before = model.get_weights(), dev_cider()
    history = SelfCritical(model, train, vocabulary, dev_cider, config).fit(checkpoint)
    if before is not None and (after := history.as_metrics()["best_dev_cider"]) is not None and after < before:
        print(f"self-critical training did not help: dev CIDEr {after:.3f}, before it {before:.3f}, whose weights stay")
        model.set_weights(first_stage)
    return history
