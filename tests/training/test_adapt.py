"""Continuing from a model: its weights in a model that knows more words, and what it learns and keeps."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from lcm.captioning.decoding import caption_features
from lcm.config import TrainConfig
from lcm.data.dataset import Dataset, LabelledImage
from lcm.data.text import START, Vocabulary, build_vocabulary
from lcm.data.word_vectors import liken
from lcm.errors import BundleError
from lcm.features.cache import EncodedImages, LabelledFeatures, PreparedRun
from lcm.paths import RunDir
from lcm.retraining.select import ParentVersion
from lcm.training import adapt as adapting
from lcm.training.adapt import Adaptation, adapt, cap_contributed
from lcm.training.batches import CaptionBatches
from lcm.training.export import export_bundle
from lcm.training.loop import KerasDecoder, Supervised, caption_loss, load_weights, real_logits, save_weights
from tests.fakes.tiny_graphs import use_tiny_encoder
from tests.training.test_self_critical import CAPTIONS, VOCABULARY, build, world

MODELS = ("merge", "transformer")
LARGER = Vocabulary((*VOCABULARY.words, "kite", "whale"))


def halved(model):
    """The model with weights as a bundle keeps them."""
    model.set_weights([array.astype(np.float16).astype(np.float32) for array in model.get_weights()])
    return model


def probabilities(model, name: str) -> np.ndarray:
    features = world(name).store
    words = np.tile(np.array(VOCABULARY.encode("red dog")[:-1], np.int32), (len(features), 1, 1))
    return model((features, words)).numpy()


# Weights


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("vocabulary", [VOCABULARY, LARGER], ids=["same words", "more words"])
def test_weights_come_back_as_a_bundle_computes_with_them(name, vocabulary, tmp_path):
    """A model that knows more words ranks the known ones as before."""
    model, other = build(name), build(name, seed=1, vocabulary=vocabulary)
    save_weights(model, tmp_path / "weights.npz")
    load_weights(other, tmp_path / "weights.npz")
    before, now = probabilities(halved(model), name), probabilities(other, name)[..., : len(VOCABULARY)]
    np.testing.assert_allclose(now / now.sum(-1, keepdims=True), before, rtol=1e-4)


def test_a_new_word_begins_with_the_least_bias_and_a_vector_of_its_own(tmp_path):
    model, larger = build("transformer"), build("transformer", seed=1, vocabulary=LARGER)
    fresh = larger.words.numpy()
    save_weights(model, tmp_path / "weights.npz")
    load_weights(larger, tmp_path / "weights.npz")
    assert larger.word_bias.numpy()[-2:].tolist() == [halved(model).word_bias.numpy().min()] * 2
    np.testing.assert_array_equal(larger.words.numpy()[-2:], fresh[-2:])


@pytest.mark.parametrize("name", MODELS)
def test_a_new_word_that_is_like_known_ones_begins_as_their_mean_where_words_are_trained(name, tmp_path):
    """Merge does not train what it reads words as: equal vectors would stay so."""
    model, larger = build(name), build(name, seed=1, vocabulary=LARGER)
    own = {id(weight): weight.numpy() for weight in larger.non_trainable_weights}
    likeness = np.zeros((2, len(VOCABULARY)), np.float32)
    likeness[0, 4:6] = 0.25, 0.75
    save_weights(model, tmp_path / "weights.npz")
    load_weights(larger, tmp_path / "weights.npz", likeness)
    grown = 0
    for old, weight in zip(halved(model).get_weights(), larger.weights, strict=True):
        new = weight.numpy()
        if id(weight) in own:
            np.testing.assert_array_equal(new[len(VOCABULARY) :], own[id(weight)][len(VOCABULARY) :])
        elif old.shape != new.shape:
            (axis,) = np.flatnonzero(np.array(old.shape) != new.shape)
            mean = 0.25 * old.take(4, axis) + 0.75 * old.take(5, axis)
            np.testing.assert_allclose(new.take(len(VOCABULARY), axis), mean, rtol=1e-5)
            grown += 1
    assert grown >= 2


def test_a_new_language_begins_as_the_first_one():
    likeness = liken(["kite", "<fr>", "<de>", "qzxqzx"], VOCABULARY.words, "glove_6b_50d")
    assert likeness.argmax(1)[1:3].tolist() == [START, START]
    assert likeness.sum(1).tolist() == pytest.approx([1, 1, 1, 0])
    assert not likeness[0, START]


@pytest.mark.parametrize(("name", "vocabulary"), [("transformer", VOCABULARY), ("merge", LARGER)])
def test_weights_of_another_model_or_of_more_words_are_refused(name, vocabulary, tmp_path):
    save_weights(build(name, vocabulary=vocabulary), tmp_path / "weights.npz")
    with pytest.raises(BundleError, match="of another model"):
        load_weights(build("merge"), tmp_path / "weights.npz")


# How many contributed images take part


def sent(labelled: LabelledFeatures, places) -> LabelledFeatures:
    """The images, those at `places` as if users had sent them."""
    images = [
        LabelledImage(f"contributions/{place:064x}", one.path, one.split, one.captions) if place in places else one
        for place, one in enumerate(labelled.images)
    ]
    return LabelledFeatures(images, labelled.rows, labelled.store)


@pytest.mark.parametrize(("share", "kept"), [(0.0, []), (0.25, [8]), (0.4, [7, 8]), (1.0, [4, 5, 6, 7, 8])])
def test_the_latest_contributed_images_take_part_up_to_their_share(share, kept):
    labelled = world("merge")
    capped = cap_contributed(sent(labelled, {4, 5, 6, 7, 8}), share)
    assert [image.path.stem for image in capped.images] == [str(place) for place in (0, 1, 2, 3, *kept)]
    np.testing.assert_array_equal(capped.read(slice(None)), labelled.store[[0, 1, 2, 3, *kept]])


# What is learned and what is kept


def continued(name: str, keep_weight: float, epochs: int = 30):
    """A model that learns one new caption for image 0 while it must keep what it says of the others."""
    model, teacher = build(name), build(name)
    labelled = world(name)
    new = labelled.at(np.array([0]))
    new = LabelledFeatures([LabelledImage("new", new.images[0].path, "train", ("blue boat",))], new.rows, new.store)
    base = labelled.at(np.arange(1, 9))
    config = TrainConfig(run_dir="", epochs=epochs, learning_rate=0.05, keep_weight=keep_weight, averaged_epochs=1)
    learned, kept = (CaptionBatches(one, VOCABULARY, 8, together=True) for one in (new, base))
    stage = Adaptation(model, teacher, learned, kept, config)
    losses = [stage.train_epoch(number)["train_loss"] for number in range(1, epochs + 1)]
    return model, teacher, losses, next(learned.epoch(0, 0)), next(kept.epoch(0, 0))


def distance(model, teacher, batch) -> float:
    """The Kullback-Leibler divergence from what the teacher says, nats a word."""
    before, now = (
        tf.nn.log_softmax(real_logits(one, batch.features, batch.inputs, batch.targets)) for one in (teacher, model)
    )
    return float(tf.reduce_mean(tf.reduce_sum(tf.exp(before) * (before - now), -1)))


@pytest.mark.parametrize("name", MODELS)
def test_what_is_contributed_is_learned_and_the_rest_is_kept(name):
    model, teacher, losses, new, base = continued(name, keep_weight=16.0)
    after = float(caption_loss(model, new.features, new.inputs, new.targets, False))
    assert after < 0.7 * losses[0]
    assert distance(teacher, teacher, base) == pytest.approx(0, abs=1e-6)
    loose, loose_teacher, _, _, base = continued(name, keep_weight=0.0)
    assert distance(model, teacher, base) < 0.2 * distance(loose, loose_teacher, base)


# Languages

SAID = {
    "en": CAPTIONS,
    "fr": [f"{thing} {colour}" for colour in ("rouge", "vert", "bleu") for thing in ("chien", "chat", "bateau")],
    "de": [f"{colour} {thing}" for colour in ("roter", "grüner", "blauer") for thing in ("hund", "kater", "kahn")],
}
KNOWN = build_vocabulary({code: SAID[code] for code in ("en", "fr")}, 1)


def spoken(*languages: str, contributed: str = "") -> LabelledFeatures:
    """The nine images with captions in each of the languages, those in one as if users had sent them."""
    labelled, images = world("transformer"), []
    for code in languages:
        for place, image in enumerate(labelled.images):
            image_id = f"contributions/{place:064x}" if code == contributed else image.image_id
            images.append(LabelledImage(image_id, image.path, "train", (SAID[code][place],), code))
    return LabelledFeatures(images, np.tile(labelled.rows, len(languages)), labelled.store)


def written(model, vocabulary: Vocabulary, *languages: str) -> list[str]:
    """Return what a model writes of the nine images in each of the languages."""
    captions, _ = caption_features(KerasDecoder(model, vocabulary), spoken(*languages), 2, 4, progress=False)
    return [best for best, *_ in captions]


def test_a_new_language_is_learned_and_those_before_are_kept(tmp_path, monkeypatch):
    """Of the images to keep, the data set has captions in English alone."""
    encoder, model = use_tiny_encoder(tmp_path, monkeypatch), build("transformer", vocabulary=KNOWN)
    config = TrainConfig(run_dir="", model="transformer", epochs=12, learning_rate=0.03, batch_size=9, max_words=4)
    batches, none = (CaptionBatches(one, KNOWN, 9, together=True) for one in (spoken("en", "fr"), spoken()))
    Supervised(model, batches, none, lambda: None, config).fit(tmp_path)
    assert written(model, KNOWN, "en", "fr") == SAID["en"] + SAID["fr"]
    prepared, run = PreparedRun(Dataset(()), KNOWN, EncodedImages(encoder, {}, {})), RunDir.at(tmp_path / "run")
    manifest = export_bundle(model, None, prepared, config, run)
    train = spoken("en", "de", contributed="de")
    vocabulary = build_vocabulary({"en": SAID["en"], "de": SAID["de"]}, 1, KNOWN)
    assert list(vocabulary.starts) == ["en", "fr", "de"]
    larger = build("transformer", vocabulary=vocabulary)
    monkeypatch.setattr(adapting, "build_model", lambda *_: build("transformer", vocabulary=vocabulary))  # as small
    config = replace(config, epochs=100, new_share=0.5, keep_weight=1.0, learning_rate=0.02, batch_size=18)
    adapt(larger, train, vocabulary, ParentVersion("", run.bundle, manifest), config, tmp_path / "adapted")
    assert {code: written(larger, vocabulary, code) for code in SAID} == SAID
