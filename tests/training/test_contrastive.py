"""Contrastive training: its losses by hand, its table of words, its batches, and that it learns and resumes."""

from dataclasses import dataclass
from math import log
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from lcm.config import TrainConfig
from lcm.data.dataset import LabelledImage
from lcm.data.text import RESERVED, Vocabulary, build_vocabulary, content_words
from lcm.evaluation.tags import retrieval
from lcm.features.cache import LabelledFeatures
from lcm.models.dual_encoder import DualEncoder
from lcm.paths import RunDir
from lcm.training import contrastive
from lcm.training.contrastive import (
    Contrastive,
    TrainedTagger,
    WordTable,
    build_word_table,
    contrastive_loss,
    key_word_loss,
    readable,
    train_tagger,
)
from tests.fakes.toy_world import COLOURS, THINGS, toy_world

UNIT = np.eye(2, dtype=np.float32)


def label(captions: list[tuple[str, ...]], features: np.ndarray | None = None) -> LabelledFeatures:
    """Images with these captions; the features say which image it is, unless given."""
    images = [LabelledImage(f"{i}.jpg", Path(f"{i}.jpg"), "train", texts) for i, texts in enumerate(captions)]
    store = np.eye(len(images), dtype=np.float32) if features is None else features
    return LabelledFeatures(images, np.arange(len(images)), store)


@dataclass
class FakePrepared:
    """What training asks of a prepared run."""

    labelled: LabelledFeatures

    @property
    def vocabulary(self) -> Vocabulary:
        return build_vocabulary({"en": [text for image in self.labelled.images for text in image.captions]}, 1)

    def labelled_features(self, split: str, kind: str) -> LabelledFeatures:
        assert (split, kind) == ("train", "pooled")
        return self.labelled


def write_embedding(path: Path, *words: str) -> str:
    """Write a GloVe text file of vectors of three numbers."""
    vectors = np.random.default_rng(0).normal(size=(len(words), 3))
    rows = [
        " ".join([word, *(f"{value:.3f}" for value in vector)]) for word, vector in zip(words, vectors, strict=True)
    ]
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def table_of(*words: str) -> WordTable:
    vectors = np.random.default_rng(0).normal(size=(len(words), 3)).astype(np.float32)
    return WordTable(words, len(words), vectors, tuple(filter(words.__contains__, content_words(" ".join(words)))))


# Losses


def test_the_contrastive_loss_asks_both_ways():
    """Both texts lie on the first image: images choose evenly, texts find their image with 3/4 and with 1/4."""
    texts = np.array([[1, 0], [1, 0]], np.float32)
    from_images, from_texts = log(2), (log(4 / 3) + log(4)) / 2
    assert float(contrastive_loss(UNIT, texts, log(3))) == pytest.approx((from_images + from_texts) / 2)
    assert float(contrastive_loss(texts, UNIT, log(3))) == pytest.approx((from_images + from_texts) / 2)


def test_the_key_word_loss_is_the_mean_cross_entropy_over_images():
    """A word alone, two words with half each, and an image without key words, which adds nothing but counts."""
    images = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    shares = np.array([[1, 0], [0.5, 0.5], [0, 0]], np.float32)
    expected = (log(4 / 3) + (log(4) + log(4 / 3)) / 2 + 0) / 3
    assert float(key_word_loss(tf.constant(images), UNIT, log(3), shares)) == pytest.approx(expected)


# The table of words


def test_the_table_holds_the_vocabulary_first_then_what_the_embedding_knows(tmp_path):
    """ "zorp" is in no embedding: as a word of the vocabulary it has zeros, as another it is left out."""
    embedding = write_embedding(tmp_path / "glove.txt", "run", "dog", "dogs", "unused", "a")
    labelled = label([("zorp dogs run", "zorp dogs blick"), ("a zebra",)])
    table = build_word_table(labelled, Vocabulary((*RESERVED, "zorp", "dogs")), embedding)
    assert table.key_words == ("zorp", "dog")  # in one form; "zebra" is not of the vocabulary
    assert table.words == ("zorp", "dogs", "a", "dog", "run")  # "dog" for the key word of "dogs"
    assert (table.learned, table.vectors.shape, table.vectors.dtype) == (2, (5, 3), np.float32)
    written = {line.split()[0]: np.array(line.split()[1:], float) for line in Path(embedding).read_text().splitlines()}
    for word, vector in zip(table.words, table.vectors, strict=True):
        np.testing.assert_allclose(vector, written.get(word, np.zeros(3)), rtol=1e-6)
    assert table.encode("A blick, DOGS!") == [3, 2]  # ids begin at one
    assert table.encode("blick") == []


def test_a_lemma_that_neither_captions_nor_the_embedding_have_is_read_as_its_word(tmp_path):
    labelled = label([("two dogs", "red bricks"), ("one dog",)])
    embedding = write_embedding(tmp_path / "glove.txt", "red")
    table = build_word_table(labelled, Vocabulary((*RESERVED, "dogs", "dog", "bricks", "red")), embedding)
    assert table.key_words == ("dog", "brick", "red")
    assert table.ids["brick"] == table.ids["bricks"]
    assert table.ids["dog"] != table.ids["dogs"], "which captions have"


# Training


def make_stage(labelled: LabelledFeatures, table: WordTable, **parameters) -> Contrastive:
    """A small dual encoder before training, in batches of ten."""
    config = TrainConfig(run_dir="", **({"tagger_epochs": 4} | parameters))
    keras.utils.set_random_seed(config.seed)
    model = DualEncoder(labelled.shape[0], len(table.words), table.learned, embedding_dim=3, learned_dim=32, width=64)
    model((labelled.store[:1], np.ones((1, 1), np.int32)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrastive, "IMAGES_PER_STEP", 10)
        return Contrastive(model, readable(labelled, table), table, config)


def test_a_batch_has_each_readable_image_with_one_of_its_captions():
    captions = [("dog", "red dog"), ("cat", "cat cat red"), ("boat",), ("zorp", "..."), ("red", "zorp")]
    table = table_of("dog", "cat", "boat", "red")
    stage = make_stage(label(captions), table)
    read: dict[int, set[tuple[int, ...]]] = {}
    for number in range(20):
        ((features, word_ids, _),) = stage.batches(number)
        assert word_ids.dtype == np.int32
        assert sorted(features.argmax(axis=1)) == [0, 1, 2, 4]
        assert word_ids.any(axis=0).all(), "no longer than its longest caption"
        for image, ids in zip(features.argmax(axis=1).tolist(), word_ids, strict=True):
            text = ids[ids > 0]
            assert ids[: len(text)].all(), "padding comes last"
            read.setdefault(image, set()).add(tuple(text.tolist()))
    expected = {
        place: {tuple(table.encode(text)) for text in texts if table.encode(text)}
        for place, texts in enumerate(captions)
        if place != 3
    }
    assert read == expected


def test_key_words_count_once_a_caption_and_share_one():
    """Of image 0, three captions hold "dog" (folded), one "red", one "boat"; of image 1 none holds a key word."""
    table = table_of("a", "and", "the", "two", "red", "dogs", "dog", "boat")
    stage = make_stage(label([("a red dog and a dog", "two dogs", "the boat", "the dogs"), ("and the",)]), table)
    ((features, _, shares),) = stage.batches(1)
    assert table.key_words == ("red", "dog", "boat")
    found = dict(zip(features.argmax(axis=1).tolist(), shares.tolist(), strict=True))
    assert found == {0: pytest.approx([0.2, 0.6, 0.2]), 1: [0, 0, 0]}


def test_it_learns_which_captions_and_which_key_words_fit(tmp_path):
    labelled, table = toy_world()[0], table_of(*COLOURS, *THINGS, "a", "there", "is", "in", "the", "picture")
    stage = make_stage(labelled, table, tagger_epochs=60)
    history = stage.fit(tmp_path)
    first, *_, last = history.epochs
    assert (last.epoch, history.best_epoch) == (60, 60)
    assert last.train_loss < 0.7 * first.train_loss
    images = stage.model.image_tower(labelled.store).numpy()

    def read(texts: list[str]) -> np.ndarray:
        return np.concatenate([stage.model.read(np.array([table.encode(text)])) for text in texts])

    recall = retrieval(images, read([image.captions[1] for image in labelled.images]), np.arange(20))
    assert recall["recall_1_image_to_text"] >= 0.95
    assert recall["recall_1_text_to_image"] >= 0.95
    words = [*COLOURS, *THINGS]
    nearest = (images @ read(words).T).argsort(axis=1)[:, -2:]
    found = [{words[place] for place in row} for row in nearest]
    right = sum(
        words == set(image.captions[0].split()[1:]) for words, image in zip(found, labelled.images, strict=True)
    )
    assert right >= 19


# A run's tagger


def train(tmp_path: Path, captions: list[tuple[str, ...]], embedding: str, **parameters) -> TrainedTagger | None:
    config = TrainConfig(run_dir="", word_embedding=embedding, **({"tagger_epochs": 2} | parameters))
    return train_tagger(FakePrepared(label(captions)), config, RunDir.at(tmp_path / "run"))


def test_two_images_train_with_an_embedding_that_knows_one_word(tmp_path):
    trained = train(tmp_path, [("a red dog",), ("a blue zorp",)], write_embedding(tmp_path / "glove.txt", "dog"))
    assert trained.table.key_words == ("blue", "dog", "red", "zorp")
    assert np.flatnonzero(trained.table.vectors.any(axis=1)).tolist() == [trained.table.ids["dog"] - 1]
    metrics = trained.as_metrics()
    assert set(metrics) == {"tagger_loss", "tagger_seconds"}
    assert np.isfinite(metrics["tagger_loss"])
    assert metrics["tagger_seconds"] > 0
    assert (tmp_path / "run" / "checkpoint" / "tagger" / "last.npz").is_file()


def test_a_language_that_the_word_embedding_does_not_know_trains_on_what_it_learns(tmp_path):
    trained = train(tmp_path, [("punainen koira",), ("sininen kissa",)], write_embedding(tmp_path / "glove.txt", "dog"))
    assert trained.table.words == ("kissa", "koira", "punainen", "sininen")
    assert not trained.table.vectors.any()
    vectors = trained.model.read(np.array([[1], [2]])).numpy()
    assert vectors[0] @ vectors[1] < 0.999
