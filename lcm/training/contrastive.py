"""Contrastive training of the dual encoder: images and the texts that belong to them move together.

Shapes: B images in a batch, T words of a caption, C key words, D numbers in a vector, W words of a table, E numbers in
a word vector.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops
from tqdm import tqdm

from lcm.config import TrainConfig
from lcm.data.dataset import LabelledImage
from lcm.data.text import Vocabulary, comparison_form, content_words, count_words, standardise
from lcm.data.word_vectors import find_vectors
from lcm.features.cache import LabelledFeatures, PreparedRun
from lcm.models import build_tagger
from lcm.models.dual_encoder import DualEncoder
from lcm.paths import RunDir
from lcm.training.loop import Epoch, History, Stage, Stop, compile_step, make_adam, open_log

MAX_WORDS = 20  # of a caption; the rest is not read: a batch is as long as its longest caption
IMAGES_PER_STEP = 256
LEARNING_RATE = 2e-3  # at its highest
WARMUP_STEPS = 100
CLIP_NORM = 2.0  # of the gradient
AVERAGED_EPOCHS = 4  # the last ones, whose mean weights are kept
KEY_WORD_WEIGHT = 1.0  # of the loss of key words beside that of sentences; it helps sentences too


@dataclass(frozen=True)
class WordTable:
    """The words that are read: those of the vocabulary, for which more is learned, and others the embedding knows."""

    words: tuple[str, ...]
    learned: int  # the first so many are the vocabulary's
    vectors: np.ndarray  # [W, E]; zeros for a word of the vocabulary that the embedding does not know
    key_words: tuple[str, ...]  # the lemmas of the vocabulary's content words, as tags have them
    read_as: Mapping[str, str] = field(default_factory=dict)  # lemma that is in no text: the form of it in most texts

    @cached_property
    def ids(self) -> dict[str, int]:
        """Word, as it is compared, to id; ids begin at 1, 0 is no word."""
        ids = {comparison_form(word): place for place, word in enumerate(self.words, start=1)}
        return {lemma: ids[comparison_form(word)] for lemma, word in self.read_as.items()} | ids

    def encode(self, text: str) -> list[int]:
        """Return the ids of the words of a text that the table holds."""
        return [self.ids[word] for word in standardise(text) if word in self.ids][:MAX_WORDS]


def build_word_table(labelled: LabelledFeatures, vocabulary: Vocabulary, word_embedding: str) -> WordTable:
    """Return the table for the captions of `labelled`, the train split: all their words that can be read."""
    own = vocabulary.own_words
    seen, key_words, read_as = [], {}, {}
    for language in vocabulary.starts:
        texts = (text for image in labelled.images if image.language == language for text in image.captions)
        counts = count_words(texts, language)
        seen += counts
        for word in filter(counts.__contains__, own):  # the most frequent first
            key_words |= (lemmas := content_words(word, language))
            read_as = dict.fromkeys(lemmas, word) | read_as
    found = find_vectors([*own, *seen, *key_words.values()], word_embedding)
    others = sorted(word for word in found if comparison_form(word) not in vocabulary.ids)
    width = len(next(iter(found.values()), [0.0]))  # where it knows no word at all, each has a zero
    vectors = [found.get(word, np.zeros(width, np.float32)) for word in (*own, *others)]
    known = {comparison_form(word) for word in (*own, *others)}
    return WordTable(
        (*own, *others),
        len(own),
        np.array(vectors, np.float32).reshape(len(own) + len(others), width),
        tuple(key_words.values()),
        {lemma: word for lemma, word in read_as.items() if lemma not in known},
    )


@dataclass(frozen=True)
class TrainedTagger:
    """A trained dual encoder with the words it reads."""

    model: DualEncoder
    table: WordTable
    history: History
    images: int  # that it was trained on

    @property
    def weights(self) -> list[np.ndarray]:
        """All arrays of the model."""
        return self.model.get_weights()

    def as_metrics(self) -> dict[str, float]:
        """Return what a run is known by, under the keys of metrics.json."""
        epochs = self.history.epochs
        seconds = sum(self.images / one.images_per_second for one in epochs)
        return {"tagger_loss": epochs[-1].train_loss, "tagger_seconds": seconds}


def train_tagger(prepared: PreparedRun, config: TrainConfig, run: RunDir) -> TrainedTagger | None:
    """Train a dual encoder on the train split's pooled features; None where `config.tagger` is another."""
    if config.tagger != "dual_encoder":
        return None
    train = prepared.labelled_features("train", "pooled")
    table = build_word_table(train, prepared.vocabulary, config.word_embedding)
    train = readable(train, table)
    model = build_tagger(train.read(slice(None)), table.vectors, table.learned, config.seed)
    stage = Contrastive(model, train, table, config)
    return TrainedTagger(model, table, stage.fit(run.checkpoint / "tagger"), stage.images)


def readable(labelled: LabelledFeatures, table: WordTable) -> LabelledFeatures:
    """Return the images with a caption of which the table holds a word."""
    return labelled.at(np.flatnonzero([any(map(table.encode, image.captions)) for image in labelled.images]))


class Contrastive(Stage):
    """Each image with one of its captions once an epoch, and with its key words.

    The captions of an image in all its languages belong together: one in another language is no text of another image.
    Nothing is measured: 03_evaluate does, and later epochs count as better.
    """

    def __init__(
        self,
        model: DualEncoder,
        train: LabelledFeatures,
        table: WordTable,
        config: TrainConfig,
        rate: float = LEARNING_RATE,
        scorer: DualEncoder | None = None,
    ):
        """Compile the step; the learning `rate` rises for WARMUP_STEPS, at most a quarter of all, then falls to zero.

        `train` are images with readable captions. `scorer` is the tag scorer that `model` holds, where it is not one.
        """
        self._scorer = scorer or model
        columns = {comparison_form(word): column for column, word in enumerate(table.key_words)}
        digest = hashlib.sha256(json.dumps([train.references, table.words]).encode())
        places: dict[str, list[int]] = {}  # of an image's records, one a language
        for place, image in enumerate(train.images):
            places.setdefault(image.image_id, []).append(place)
        records = [[train.images[place] for place in its] for its in places.values()]
        train = train.at(np.array([first for first, *_ in places.values()]))
        self._train, self._table, self._config = train, table, config
        self._batch_size = min(IMAGES_PER_STEP, len(train))
        self._captions = [[list(filter(None, map(table.encode, one.captions))) for one in its] for its in records]
        self._shares = [_mean_shares([key_word_shares(one, columns) for one in its]) for its in records]
        total_steps = config.tagger_epochs * (len(train) // self._batch_size)
        warmup = min(WARMUP_STEPS, max(total_steps // 4, 1))
        optimizer = make_adam(rate, total_steps, warmup, CLIP_NORM)
        epochs, views = config.tagger_epochs, config.view_share if train.views else 0.0
        for array in (train.read(slice(None)), table.vectors):
            digest.update(np.ascontiguousarray(array))
        recipe = {"epochs": epochs, "rate": rate, "seed": config.seed, "view_share": views}
        recipe["fingerprint"] = digest.hexdigest()
        stop = Stop(epochs, epochs, AVERAGED_EPOCHS)
        super().__init__(model, optimizer, len(train), stop, recipe, open_log(config, "tagger"))
        self._key_word_ids = tf.constant(np.array([table.ids[word] for word in columns], np.int32).reshape(-1, 1))
        self._step = compile_step(self._take_step, unrolled=False)

    def fit(self, checkpoint: Path) -> History:
        with tqdm(total=self._config.tagger_epochs, desc="tagger", unit=" epochs") as self._progress:
            return super().fit(checkpoint)

    def show(self, epoch: Epoch) -> None:
        self._progress.set_postfix(loss=f"{epoch.train_loss:.3f}", refresh=False)
        self._progress.update(epoch.epoch - self._progress.n)

    def batches(self, number: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield features, word ids [B, T] of one caption each, 0 where it is over, and shares of the key words [B, C].

        In an order that the seed and the epoch's `number` decide; what does not fill the last batch waits for another
        epoch's.
        """
        random = np.random.default_rng((self._config.seed, number))
        order = random.permutation(len(self._train))
        for start in range(0, len(order) - self._batch_size + 1, self._batch_size):
            places = order[start : start + self._batch_size]
            languages = [_one_of(self._captions[place], random) for place in places]
            captions = [_one_of(its, random) for its in languages]
            word_ids = np.zeros((len(places), max(map(len, captions))), np.int32)
            for row, ids in zip(word_ids, captions, strict=True):
                row[: len(ids)] = ids
            shares = share_rows([self._shares[place] for place in places], len(self._table.key_words))
            views = self._train.draw_views(len(places), self._config.view_share, random)
            yield self._train.read(places, views), word_ids, shares

    def train_epoch(self, number: int) -> dict[str, float]:
        return {"train_loss": float(np.mean([float(self._step(*batch)) for batch in self.batches(number)]))}

    def _take_step(self, features, word_ids, key_words):
        def loss_of():
            images, texts = self.model((features, word_ids), training=True)
            scales = ops.exp(self._scorer.log_scales)
            loss = contrastive_loss(images, texts, scales[0])
            if len(self._key_word_ids):
                words = self._scorer.read(self._key_word_ids, training=True)
                loss += KEY_WORD_WEIGHT * key_word_loss(images, words, scales[1], key_words)
            return loss

        return self.descend(loss_of)


def key_word_shares(image: LabelledImage, columns: Mapping[str, int]) -> dict[int, float]:
    """Return the columns of the key words that an image's captions hold, and the share of each among them."""
    words = (word for caption in image.captions for word in content_words(caption, image.language))
    counts = Counter(columns[word] for word in words if word in columns)
    return {column: times / counts.total() for column, times in counts.items()}


def share_rows(shares: Sequence[Mapping[int, float]], key_words: int) -> np.ndarray:
    """Return the shares of the key words, by column, of some images as an array [B, C]."""
    rows = np.zeros((len(shares), key_words), np.float32)
    for row, its in zip(rows, shares, strict=True):
        row[[*its]] = [*its.values()]
    return rows


def _mean_shares(several: Sequence[Mapping[int, float]]) -> dict[int, float]:
    return {column: sum(one.get(column, 0.0) for one in several) / len(several) for column in set().union(*several)}


def _one_of(choices: Sequence, random: np.random.Generator) -> Any:
    return choices[random.integers(len(choices))]


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
