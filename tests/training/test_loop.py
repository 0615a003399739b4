"""Training the captioner: loss, batches, the first stage and its resumption; and the export of captioner and tagger."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from lcm.captioning import taggers
from lcm.captioning.bundle import TAGGER_FILES, Bundle, Manifest
from lcm.captioning.generate import best_captions
from lcm.captioning.taggers import load_tag_scorer
from lcm.captioning.tagging import Photo
from lcm.config import TrainConfig
from lcm.data.dataset import Dataset, LabelledImage
from lcm.data.text import END, PAD, START, UNKNOWN, build_vocabulary
from lcm.data.word_vectors import find_vectors
from lcm.features.cache import EncodedImages, LabelledFeatures, PreparedRun
from lcm.features.encoders import EncoderIdentity, open_session
from lcm.models import build_model, build_tagger
from lcm.paths import RunDir
from lcm.training.batches import MAX_CAPTION_WORDS, CaptionBatches, build_word_table, make_buckets
from lcm.training.contrastive import TrainedTagger
from lcm.training.export import export_bundle
from lcm.training.loop import History, KerasDecoder, Trainer, cross_entropy, fit, load_checkpoint, make_dev_scorer

COLOURS, THINGS = ("red", "green", "blue", "white"), ("dog", "cat", "horse", "boat", "tree")


def toy_world() -> tuple[LabelledFeatures, PreparedRun]:
    """Twenty images whose features say outright which colour and thing they show."""
    images, features = [], []
    for i, colour in enumerate(COLOURS):
        for j, thing in enumerate(THINGS):
            captions = (f"a {colour} {thing}", f"there is a {colour} {thing} in the picture")
            images.append(LabelledImage(f"{colour}-{thing}.jpg", Path(f"{colour}-{thing}.jpg"), "train", captions))
            features.append(np.concatenate([np.eye(4)[i], np.eye(5)[j]]))
    store = np.array(features, dtype=np.float32)
    dataset = Dataset(tuple(images))
    vocabulary = build_vocabulary(dataset.captions_of("train"), 1)
    encoder = EncoderIdentity("efficientnet_lite0", "random", "0" * 64, ())
    prepared = PreparedRun(dataset, vocabulary, EncodedImages(encoder, {}, {}))
    return LabelledFeatures(images, np.arange(len(images)), store), prepared


def train_toy(checkpoint: Path, **parameters) -> tuple[object, History, LabelledFeatures, PreparedRun]:
    labelled, prepared = toy_world()
    config = TrainConfig(run_dir="", **({"epochs": 4, "batch_size": 8, "learning_rate": 0.01} | parameters))
    vectors = np.random.default_rng(0).normal(size=(len(prepared.vocabulary), 50)).astype(np.float32)
    model = build_model("merge", labelled.shape, vectors, config.seed)
    batches = CaptionBatches(labelled, prepared.vocabulary, config.batch_size)
    scorer = make_dev_scorer(model, labelled, prepared.vocabulary, beam_width=2, max_words=10)
    history = fit(model, batches, batches, scorer, config, checkpoint)
    return model, history, labelled, prepared


# Loss


def test_cross_entropy_and_its_gradient_are_tensorflows():
    random = np.random.default_rng(0)
    logits = tf.constant(random.normal(0, 5, (7, 11)), tf.float32)
    targets = tf.constant(random.integers(0, 11, 7), tf.int32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        ours = 3.0 * cross_entropy(logits, targets)
        theirs = 3.0 * tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits))
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)
    np.testing.assert_allclose(tape.gradient(ours, logits), tape.gradient(theirs, logits), atol=1e-6)


def test_smoothed_cross_entropy_and_its_gradient_are_keras():
    random = np.random.default_rng(0)
    logits = tf.constant(random.normal(0, 3, (7, 11)), tf.float32)
    targets = random.integers(0, 11, 7)
    keras_loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        ours = cross_entropy(logits, tf.constant(targets, tf.int32), smoothing=0.1)
        theirs = keras_loss(tf.one_hot(targets, 11), logits)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)
    np.testing.assert_allclose(tape.gradient(ours, logits), tape.gradient(theirs, logits), atol=1e-6)


def test_cross_entropy_of_a_word_held_impossible_is_finite():
    logits = tf.constant([[1e4, -1e4]])
    assert np.isfinite(float(cross_entropy(logits, tf.constant([1]))))


# Batches


def test_every_caption_is_in_one_batch_of_each_epoch():
    labelled, prepared = toy_world()
    batches = CaptionBatches(labelled, prepared.vocabulary, batch_size=7)
    expected = sorted(tuple(prepared.vocabulary.encode(text)) for image in labelled.images for text in image.captions)
    for number in (1, 2):
        epoch = list(batches.epoch(0, number))
        assert len(epoch) == len(batches)
        read = [
            (*row_inputs[row_targets != PAD].tolist(), row_targets[row_targets != PAD][-1])
            for batch in epoch
            for row_inputs, row_targets in zip(batch.inputs[:, 0], batch.targets[:, 0], strict=True)
        ]
        assert sorted(read) == expected


def test_a_batch_carries_the_features_of_its_captions():
    labelled, prepared = toy_world()
    for batch in CaptionBatches(labelled, prepared.vocabulary, batch_size=7).epoch(0, 1):
        for features, (targets,) in zip(batch.features, batch.targets, strict=True):
            words = prepared.vocabulary.decode(targets).split()
            assert COLOURS[features[:4].argmax()] in words
            assert THINGS[features[4:].argmax()] in words


def test_the_order_depends_on_seed_and_epoch_alone():
    labelled, prepared = toy_world()

    def order(seed: int, number: int) -> list:
        batches = CaptionBatches(labelled, prepared.vocabulary, batch_size=7)
        return [batch.targets.tolist() for batch in batches.epoch(seed, number)]

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_buckets_hold_each_caption_once_padded_to_the_longest():
    lengths = np.array([3] * 40 + [4] * 40 + [7] * 5 + [30])
    buckets = make_buckets(lengths, batch_size=16)
    assert sorted(np.concatenate(list(buckets.values())).tolist()) == list(range(86))
    # 3 and 4 round up to 4; 7 rounds to 8 and is too rare for a bucket of its own, so it joins the longest
    assert {length: len(members) for length, members in buckets.items()} == {4: 80, 30: 6}


def test_no_captions_make_no_batches():
    labelled, prepared = toy_world()
    empty = CaptionBatches(LabelledFeatures([], np.zeros(0, int), labelled.store), prepared.vocabulary, 8)
    assert len(empty) == 0
    assert list(empty.epoch(0, 1)) == []


def test_a_caption_too_long_is_cut_and_has_no_end_to_learn():
    labelled, prepared = toy_world()
    long = LabelledImage("long.jpg", Path("long.jpg"), "train", (" ".join(["dog"] * 500),))
    batches = CaptionBatches(LabelledFeatures([long], np.array([0]), labelled.store), prepared.vocabulary, 8)
    (batch,) = batches.epoch(0, 1)
    assert batches.cut_captions == 1
    assert batch.positions == MAX_CAPTION_WORDS + 1
    assert batch.inputs[0, 0, 0] == START
    assert END not in batch.targets


def test_captions_without_words_are_counted_and_not_learned():
    labelled, prepared = toy_world()
    image = LabelledImage("a.jpg", Path("a.jpg"), "train", ("...", "a red dog", "\N{DOG FACE}"))
    batches = CaptionBatches(LabelledFeatures([image], np.array([0]), labelled.store), prepared.vocabulary, 8)
    (batch,) = batches.epoch(0, 1)
    assert batches.wordless_captions == 2
    assert len(batch.inputs) == 1


def test_word_dropout_hides_inputs_and_never_targets():
    labelled, prepared = toy_world()
    plain = CaptionBatches(labelled, prepared.vocabulary, 8)
    some = CaptionBatches(labelled, prepared.vocabulary, 8, word_dropout=0.5)
    words = hidden = 0
    assert sum(batch.targets.sum() for batch in some.epoch(0, 1)) == sum(b.targets.sum() for b in plain.epoch(0, 1))
    for batch in some.epoch(0, 1):
        assert (batch.inputs[..., 0] == START).all()
        shifted = np.append(batch.inputs[..., 1:], np.full((len(batch.inputs), 1, 1), PAD), axis=2)
        changed = (shifted != batch.targets) & (batch.targets != END) & (batch.targets != PAD)
        assert (shifted[changed] == UNKNOWN).all()
        words += np.count_nonzero((batch.targets != END) & (batch.targets != PAD))
        hidden += np.count_nonzero(changed)
    assert 0.35 < hidden / words < 0.65


# Fit


def test_captions_of_an_image_together_are_learned_as_they_are_alone():
    """Same words, same loss, whatever the number of captions of an image."""
    labelled, prepared = toy_world()
    images = [replace(image, captions=image.captions[: 1 + place % 2]) for place, image in enumerate(labelled.images)]
    labelled = replace(labelled, images=images)
    model = build_model("merge", labelled.shape, np.ones((len(prepared.vocabulary), 50), np.float32), 0)
    trainer = Trainer(model, TrainConfig(run_dir=""), total_steps=10)
    losses, widths = [], set()
    for together in (False, True):
        epoch = list(CaptionBatches(labelled, prepared.vocabulary, 2, together=together).epoch(0, 1))
        measured = [(float(trainer.measure(batch)), batch.positions) for batch in epoch]
        widths |= {batch.inputs.shape[1] for batch in epoch}
        losses.append(np.average([loss for loss, _ in measured], weights=[count for _, count in measured]))
    assert widths == {1, 2}
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_it_learns_to_caption_and_leaves_the_best_weights(tmp_path):
    model, history, labelled, prepared = train_toy(tmp_path, epochs=40, patience=40)
    assert history.epochs[-1].train_loss < 0.5 * history.epochs[0].train_loss
    decoder = KerasDecoder(model, prepared.vocabulary)
    captions = best_captions(decoder, labelled.read(slice(None)), beam_width=2, max_words=10)
    right = sum(one.text in image.captions for one, image in zip(captions, labelled.images, strict=True))
    assert right >= 18


def test_gradients_longer_than_the_norm_are_cut(tmp_path):
    """Adam divides a gradient by its own size plus 1e-7: one of 1e-12 hardly moves the weights, whatever the rate."""
    losses = []
    for norm in (0.0, 1.0, 1e-12):
        _, history, *_ = train_toy(tmp_path / str(norm), epochs=3, patience=3, clip_norm=norm)
        losses.append([epoch.dev_loss for epoch in history.epochs])
    (_, *free), (_, *cut), still = losses
    assert min(free) < still[0] - 0.3
    assert min(cut) < still[0] - 0.3
    assert still == pytest.approx([still[0]] * 3, abs=1e-3)
    assert free != cut


def test_other_parameters_start_over_but_not_those_of_other_stages(tmp_path, capsys):
    _, first, *_ = train_toy(tmp_path, epochs=2)
    others = {"reinforce_epochs": 3, "reinforce_samples": 7, "tagger_epochs": 99, "export_attention": True}
    _, again, *_ = train_toy(tmp_path, epochs=2, **others)
    assert again.epochs == first.epochs
    _, other, *_ = train_toy(tmp_path, epochs=2, learning_rate=0.02)
    assert "starts over" in capsys.readouterr().out
    assert other.epochs[0].train_loss != first.epochs[0].train_loss


KILLED_RUN = """
import os, signal, sys
from pathlib import Path
import lcm.training.loop as fit_module
from tests.test_training import train_toy

whole = fit_module.Fitting.train_epoch

def killed_in_the_third_epoch(stage, number):
    if number == 3:
        for place, batch in enumerate(stage._train.epoch(0, number)):
            stage._trainer.train(batch)
            if place == 1:
                os.kill(os.getpid(), signal.SIGKILL)
    return whole(stage, number)

fit_module.Fitting.train_epoch = killed_in_the_third_epoch
train_toy(Path(sys.argv[1]))
"""


def test_killed_and_resumed_it_ends_like_an_uninterrupted_run(tmp_path):
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", KILLED_RUN, str(tmp_path / "killed")]
    assert subprocess.run(command, cwd=root, capture_output=True, timeout=120).returncode == -signal.SIGKILL
    _, record = load_checkpoint(tmp_path / "killed" / "last.npz")
    assert len(record["history"]["epochs"]) == 2
    resumed, resumed_history, *_ = train_toy(tmp_path / "killed")
    whole, whole_history, *_ = train_toy(tmp_path / "whole")
    for ours, theirs in zip(resumed_history.epochs, whole_history.epochs, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-5)
        assert ours.dev_cider == pytest.approx(theirs.dev_cider, abs=1e-5)
    for ours, theirs in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_without_dev_images_nothing_is_measured(tmp_path):
    labelled, prepared = toy_world()
    config = TrainConfig(run_dir="", epochs=2, batch_size=8, patience=1)
    model = build_model("merge", labelled.shape, np.zeros((len(prepared.vocabulary), 50), np.float32), 0)
    batches = CaptionBatches(labelled, prepared.vocabulary, 8)
    empty = CaptionBatches(LabelledFeatures([], np.zeros(0, int), labelled.store), prepared.vocabulary, 8)
    history = fit(model, batches, empty, pytest.fail, config, tmp_path)
    assert history.best_epoch == len(history.epochs) == 2
    assert [(epoch.dev_loss, epoch.dev_cider) for epoch in history.epochs] == [(None, None)] * 2


# Export

CAPTIONER_FILES = ["bundle.json", "start.onnx", "step.onnx", "vocabulary.txt", "weights.npz"]
HALF = 2e-3  # how far a number near 1 may be off in float16


@dataclass(frozen=True)
class Exported:
    """A bundle with a tagger, and the models that it was made from."""

    run: RunDir
    model: object
    tagger: TrainedTagger
    labelled: LabelledFeatures
    prepared: PreparedRun
    manifest: Manifest

    @property
    def scorer(self) -> taggers.DualEncoder:
        return load_tag_scorer(None, self.run.bundle, self.manifest)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Exported:
    folder = tmp_path_factory.mktemp("exported")
    model, _, labelled, prepared = train_toy(folder / "checkpoint")
    tagger = make_tagger(labelled, prepared)
    run = RunDir.at(folder / "run")
    manifest = export_bundle(model, tagger, prepared, TrainConfig(run_dir=str(run.path)), run)
    return Exported(run, model, tagger, labelled, prepared, manifest)


def make_tagger(labelled: LabelledFeatures, prepared: PreparedRun, word_embedding: str = "glove_6b_50d"):
    """A tagger as it is before training, but for its scales."""
    table = build_word_table(labelled, prepared.vocabulary, word_embedding)
    model = build_tagger("dual_encoder", labelled.read(slice(None)), table.vectors, table.learned, seed=0)
    model.log_scales.assign(np.log([20.0, 30.0]))
    return TrainedTagger(model, table, [])


def test_the_bundle_answers_as_keras_does(exported):
    model, manifest, bundle = exported.model, exported.manifest, Bundle(exported.run.bundle)
    assert bundle.manifest == manifest
    assert manifest.name.startswith("merge-")
    features = exported.labelled.read(slice(None))
    decoder = KerasDecoder(model, exported.prepared.vocabulary)
    ours, theirs = bundle.start(features), decoder.start(features)
    token_ids = np.full((len(features), 1), START)
    for _ in range(4):
        for a, b in zip((*ours.images, *ours.rows), (*theirs.images, *theirs.rows), strict=True):
            np.testing.assert_allclose(a, b, atol=HALF)
        our_log_probs, ours = bundle.step(token_ids, ours)
        their_log_probs, theirs = decoder.step(token_ids, theirs)
        np.testing.assert_allclose(our_log_probs, their_log_probs, atol=HALF)
        token_ids = our_log_probs.argmax(2)


def test_the_image_tower_answers_as_keras_does(exported):
    features = np.random.default_rng(0).normal(size=(7, *exported.labelled.shape)).astype(np.float32)
    expected = exported.tagger.model.image_tower(features)
    for part in (slice(0, 1), slice(0, 7)):
        np.testing.assert_allclose(exported.scorer.image_vectors(features[part]), expected[part], atol=HALF)
    np.testing.assert_allclose(
        exported.scorer.image_vector(Photo("a.jpg", {"pooled": features[3]})), expected[3], atol=HALF
    )


@pytest.mark.parametrize("texts", [1, 3])
@pytest.mark.parametrize("words", [1, 2, 9, 30])
def test_the_text_tower_answers_as_keras_does(exported, texts, words):
    random = np.random.default_rng(words)
    width = exported.tagger.model.rows(np.array([[1]])).shape[-1]
    rows = random.normal(size=(texts, words, width)).astype(np.float32)
    counted = np.ones((texts, words), np.float32)
    counted[-1, max(1, words // 2) :] = 0
    tower = open_session(exported.run.bundle / taggers.TEXT_TOWER)
    names = [entry.name for entry in tower.get_inputs()]
    (vectors,) = tower.run(None, dict(zip(names, (rows, counted), strict=True)))
    np.testing.assert_allclose(vectors, exported.tagger.model.text_tower(rows, counted), atol=HALF)


def test_the_bundle_s_scorer_reads_words_and_sentences_as_keras_does(exported):
    table = exported.tagger.table
    texts = [*table.words[: table.learned], "red dog", "There is a WHITE tree, a blue boat in the picture!"]
    vectors = exported.scorer.text_vectors(texts)
    expected = np.concatenate([exported.tagger.model.read(np.array([table.encode(text)])) for text in texts])
    np.testing.assert_allclose(vectors, expected, atol=HALF)
    assert exported.scorer.unknown(texts) == ()


def test_the_bundle_s_scorer_reads_what_only_the_word_embedding_knows(exported):
    """ "wolf" is in no caption: its row is its vector and zeros."""
    found = find_vectors(["wolf"], "glove_6b_50d")["wolf"]
    row = np.zeros((1, 1, exported.tagger.model.rows(np.array([[1]])).shape[-1]), np.float32)
    row[0, 0, : len(found)] = found
    expected = exported.tagger.model.text_tower(row, np.ones((1, 1), np.float32))
    np.testing.assert_allclose(exported.scorer.text_vectors(["Wolf"]), expected, atol=HALF)
    assert exported.scorer.unknown(["wolf", "qwrtzpx"]) == ("qwrtzpx",)


def test_the_manifest_tells_of_the_tagger(exported):
    assert exported.manifest.tagger == {
        "name": "dual_encoder",
        "scale": pytest.approx(30),  # of single words: they are what is tagged with
        "sentence_scale": pytest.approx(20),
        "word_embedding": "glove_6b_50d",
        "embedding_dim": 50,
        "width": 512,
        "words": exported.tagger.table.learned,
    }
    assert exported.scorer.scale == pytest.approx(30)
    assert sorted(exported.manifest.files) == sorted({*CAPTIONER_FILES, *TAGGER_FILES} - {"bundle.json"})
    assert json.loads((exported.run.bundle / "bundle.json").read_text())["vocabulary_size"] == len(
        exported.prepared.vocabulary
    )


def test_key_words_outside_the_vocabulary_are_in_the_bundle_s_table(exported, tmp_path):
    """ "dogs" is in the vocabulary, "dog" is what images are tagged with."""
    images = [replace(image, captions=("two dogs run",)) for image in exported.labelled.images]
    labelled = replace(exported.labelled, images=images)
    prepared = replace(exported.prepared, vocabulary=build_vocabulary(["dogs"], 1))
    tagger, run = make_tagger(labelled, prepared), RunDir.at(tmp_path)
    manifest = export_bundle(exported.model, tagger, prepared, TrainConfig(run_dir=""), run)
    scorer = load_tag_scorer(None, run.bundle, manifest)
    assert (run.bundle / taggers.WORDS).read_text().split() == ["dogs", "dog"]
    assert tagger.table.words == ("dogs", "dog", "run", "two")
    expected = tagger.model.read(np.array([[1], [2]]))
    np.testing.assert_allclose(scorer.text_vectors(["dogs", "dog"]), expected, atol=HALF)


def test_a_tagger_that_learned_without_word_vectors_knows_its_own_words_alone(exported, tmp_path):
    embedding = tmp_path / "glove.txt"
    embedding.write_text("wolf 0.1 0.2 0.3\n")
    tagger, run = make_tagger(exported.labelled, exported.prepared, str(embedding)), RunDir.at(tmp_path)
    config = TrainConfig(run_dir="", word_embedding=str(embedding))
    manifest = export_bundle(exported.model, tagger, exported.prepared, config, run)
    assert load_tag_scorer(None, run.bundle, manifest).unknown(["dog", "wolf"]) == ("wolf",)


def test_an_export_takes_the_place_of_the_old_one_and_leaves_nothing_else(exported, tmp_path):
    """First without a tagger, in place of one with a tagger and a stray file; then with one again."""
    run = RunDir.at(tmp_path / "run")
    run.bundle.mkdir()
    (run.bundle / "old.onnx").write_text("old")
    shutil.copytree(exported.run.bundle, run.bundle, dirs_exist_ok=True)
    manifest = export_bundle(exported.model, None, exported.prepared, TrainConfig(run_dir=str(run.path)), run)
    assert sorted(path.name for path in run.bundle.iterdir()) == CAPTIONER_FILES
    assert {path.name for path in run.path.iterdir()} == {"bundle", "figures"}
    assert manifest.tagger == {}
    assert Bundle(run.bundle).manifest == manifest
    assert load_tag_scorer(None, run.bundle, manifest) is None
    export_bundle(exported.model, exported.tagger, exported.prepared, TrainConfig(run_dir=str(run.path)), run)
    assert sorted(path.name for path in run.bundle.iterdir()) == sorted([*CAPTIONER_FILES, *TAGGER_FILES])
