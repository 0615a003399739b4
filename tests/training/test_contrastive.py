"""Contrastive training: its losses by hand, its pairs, and that it learns and resumes."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import log
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from lcm.config import TrainConfig
from lcm.data.dataset import LabelledImage
from lcm.data.text import RESERVED, Vocabulary, build_vocabulary
from lcm.evaluation.tags import retrieval
from lcm.features.cache import LabelledFeatures
from lcm.models.dual_encoder import DualEncoder
from lcm.paths import RunDir
from lcm.training.batches import PairBatch, Pairs, WordTable, build_word_table
from lcm.training.contrastive import (
    TrainedTagger,
    contrastive_loss,
    fit_dual_encoder,
    key_word_loss,
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
        return build_vocabulary((text for image in self.labelled.images for text in image.captions), 1)

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
    return WordTable(words, len(words), np.random.default_rng(0).normal(size=(len(words), 3)).astype(np.float32))


# Losses


def test_the_contrastive_loss_is_zero_apart_for_pairs_that_fit():
    """Cosines 1 and 0 at a scale of ln 3: each finds its own with 3 / (3 + 1)."""
    assert float(contrastive_loss(UNIT, UNIT, log(3))) == pytest.approx(log(4 / 3))
    assert float(contrastive_loss(UNIT, UNIT, 50.0)) == pytest.approx(0, abs=1e-6)


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


def test_ids_begin_at_one_and_words_outside_the_table_are_left_out():
    table = table_of("dog", "red", "a")
    assert table.ids == {"dog": 1, "red": 2, "a": 3}
    assert table.encode("A red, blue DOG!") == [3, 2, 1]
    assert table.encode("blue") == []


def test_the_table_holds_the_vocabulary_first_then_what_the_embedding_knows(tmp_path):
    """ "zorp" is in no embedding: as a word of the vocabulary it has zeros, as another it is left out."""
    embedding = write_embedding(tmp_path / "glove.txt", "run", "dog", "dogs", "unused", "a")
    labelled = label([("zorp dogs run", "zorp dogs blick"), ("a zebra",)])
    table = build_word_table(labelled, Vocabulary((*RESERVED, "zorp", "dogs")), embedding)
    assert table.words == ("zorp", "dogs", "a", "dog", "run")  # "dog" for the key word of "dogs"
    assert table.learned == 2
    assert table.vectors.shape == (5, 3)
    assert table.vectors.dtype == np.float32
    written = {line.split()[0]: np.array(line.split()[1:], float) for line in Path(embedding).read_text().splitlines()}
    for word, vector in zip(table.words, table.vectors, strict=True):
        np.testing.assert_allclose(vector, written.get(word, np.zeros(3)), rtol=1e-6)


def test_key_words_are_the_vocabulary_s_content_words_in_one_form():
    """ "cats" has no singular in the table, "tree" is not of the vocabulary."""
    words = ("the", "dogs", "dog", "men", "two", "of", "red", "cats", "man", "tree")
    table = WordTable(words, 8, np.zeros((len(words), 3), np.float32))
    assert table.key_words == ("dog", "man", "red")


# Pairs


def test_a_batch_has_each_image_with_one_of_its_captions():
    captions = [("dog", "red dog"), ("cat", "cat cat red"), ("boat",), ("red",)]
    labelled, table = label(captions), table_of("dog", "cat", "boat", "red")
    pairs = Pairs(labelled, table, batch_size=4)
    read: dict[int, set[tuple[int, ...]]] = {}
    for number in range(20):
        (batch,) = pairs.epoch(0, number)
        assert batch.word_ids.dtype == np.int32
        assert sorted(batch.features.argmax(axis=1)) == [0, 1, 2, 3]
        assert batch.word_ids.any(axis=0).all(), "no longer than its longest caption"
        for features, ids in zip(batch.features, batch.word_ids, strict=True):
            text = ids[ids > 0]
            assert ids[: len(text)].all(), "padding comes last"
            read.setdefault(int(features.argmax()), set()).add(tuple(text.tolist()))
    expected = [{tuple(table.encode(text)) for text in texts} for texts in captions]
    assert [read[place] for place in range(4)] == expected


def test_images_without_a_readable_caption_are_left_out():
    labelled = label([("zorp",), ("a dog", "zorp"), ("...",), ("dog",)])
    pairs = Pairs(labelled, table_of("dog"), batch_size=10)
    assert pairs.features.argmax(axis=1).tolist() == [1, 3]
    (batch,) = pairs.epoch(0, 1)
    assert sorted(batch.features.argmax(axis=1)) == [1, 3]
    assert batch.word_ids.tolist() == [[1], [1]]


def test_key_words_count_once_a_caption_and_share_one():
    """Of image 0, three captions hold "dog" (folded), one "red", one "boat"; of image 1 none holds a key word."""
    labelled = label([("a red dog and a dog", "two dogs", "the boat", "the dogs"), ("and the",)])
    table = table_of("a", "and", "the", "two", "red", "dogs", "dog", "boat")
    (batch,) = Pairs(labelled, table, batch_size=10).epoch(0, 1)
    assert table.key_words == ("red", "dog", "boat")
    shares = {
        int(features.argmax()): row.tolist() for features, row in zip(batch.features, batch.key_words, strict=True)
    }
    assert shares == {0: pytest.approx([0.2, 0.6, 0.2]), 1: [0, 0, 0]}


# Training


class KilledError(Exception):
    """Stands for the end of the process."""


class KilledPairs(Pairs):
    """Pairs in whose third epoch the run is killed."""

    def epoch(self, seed: int, number: int) -> Iterator[PairBatch]:
        for place, batch in enumerate(super().epoch(seed, number)):
            if (number, place) == (3, 1):
                raise KilledError
            yield batch


def train_toy(
    checkpoint: Path, kind: type[Pairs] = Pairs, labelled: LabelledFeatures | None = None, **parameters
) -> TrainedTagger:
    """Train a small dual encoder on the toy world, or on other images, in batches of ten."""
    labelled = labelled or toy_world()[0]
    config = TrainConfig(run_dir="", **({"tagger_epochs": 4} | parameters))
    table = table_of(*COLOURS, *THINGS, "a", "there", "is", "in", "the", "picture")
    pairs = kind(labelled, table, batch_size=10)
    keras.utils.set_random_seed(config.seed)
    model = DualEncoder(labelled.shape[0], len(table.words), table.learned, embedding_dim=3, learned_dim=32, width=64)
    model((labelled.store[:1], np.ones((1, 1), np.int32)))
    return TrainedTagger(model, table, fit_dual_encoder(model, pairs, table, config, checkpoint), pairs.images)


def test_it_learns_which_captions_and_which_key_words_fit(tmp_path):
    trained, labelled = train_toy(tmp_path / "tagger", tagger_epochs=60), toy_world()[0]
    first, *_, last = trained.history.epochs
    assert (last.epoch, trained.history.best_epoch) == (60, 60)
    assert last.train_loss < 0.7 * first.train_loss
    images = trained.model.image_tower(labelled.store).numpy()

    def read(texts: list[str]) -> np.ndarray:
        return np.concatenate([trained.model.read(np.array([trained.table.encode(text)])) for text in texts])

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


def test_killed_and_resumed_it_ends_like_an_uninterrupted_run(tmp_path):
    with pytest.raises(KilledError):
        train_toy(tmp_path / "killed", KilledPairs)
    resumed, whole = train_toy(tmp_path / "killed"), train_toy(tmp_path / "whole")
    assert [one.train_loss for one in resumed.history.epochs] == [one.train_loss for one in whole.history.epochs]
    for ours, theirs in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    again = train_toy(tmp_path / "killed")
    assert again.history == resumed.history, "a finished run is not trained again"


# A run's tagger


def train(tmp_path: Path, captions: list[tuple[str, ...]], embedding: str, **parameters) -> TrainedTagger | None:
    config = TrainConfig(run_dir="", word_embedding=embedding, **({"tagger_epochs": 2} | parameters))
    return train_tagger(FakePrepared(label(captions)), config, RunDir.at(tmp_path / "run"))


def test_none_trains_nothing(tmp_path):
    assert train(tmp_path, [], "", tagger="none") is None
    assert not (tmp_path / "run" / "checkpoint").exists()


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
