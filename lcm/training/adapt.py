"""Adapting: a trained model learns further images, a user's own or contributed ones, and keeps what it knows.

The mixed objective: of the images to learn, the captions that people wrote; of the images to keep, what the parent
model said, word by word with all probabilities (Li and Hoiem, "Learning without Forgetting", 2016; on the model's own
captions after Kim and Rush, "Sequence-Level Knowledge Distillation", 2016). The weights that are kept are a mean with
the parent's (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022). The tag scorer's image side is adapted
likewise; its text side, which reads any word, stays as it is.

Shapes: B images, W texts of each, T positions, P real positions of a batch, V words, F numbers in pooled features, D in
a unit vector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, count, cycle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
from onnx import helper, numpy_helper

from lcm.captioning import taggers
from lcm.captioning.bundle import WEIGHTS, Bundle, Manifest
from lcm.captioning.decoding import caption_features
from lcm.config import TrainConfig
from lcm.data.text import Vocabulary, comparison_form, content_words
from lcm.data.word_vectors import find_vectors, liken
from lcm.errors import BundleError
from lcm.features.cache import LabelledFeatures, PreparedRun
from lcm.models import ADAPTED, build_model
from lcm.paths import RunDir
from lcm.retraining.select import ParentVersion
from lcm.training.batches import CaptionBatches
from lcm.training.contrastive import (
    CLIP_NORM,
    IMAGES_PER_STEP,
    LEARNING_RATE,
    contrastive_loss,
    key_word_loss,
    key_word_shares,
    share_rows,
)
from lcm.training.loop import (
    NOT_LEARNED,
    History,
    Stage,
    Stop,
    caption_loss,
    compile_step,
    load_weights,
    make_adam,
    open_log,
    real_logits,
    under_progress,
)

# Of the captions that the parent has written of each image to keep: the best of a beam, and some that were drawn.
OWN_BEAM_WIDTH, OWN_SAMPLES = 3, 2
FEATURE_DROPOUT = 0.5  # of the tag scorer's image side, as when it was trained


def find_parent_model(run: RunDir) -> ParentVersion | None:
    """Return the model that 01_prepare says to continue from, None where training is from scratch."""
    metrics = run.read_metrics()
    if not (start_from := metrics.get("start_from")):
        return None
    return ParentVersion(metrics["start_version"], Path(start_from), Manifest.load(Path(start_from)))


class Adaptation(Stage):
    """Every image to learn once an epoch, each step with images to keep beside.

    Nothing is measured: 03_evaluate does, or the gate, on more than one model's word.
    """

    def __init__(
        self, model, teacher, learned: CaptionBatches, kept: CaptionBatches, config: TrainConfig, parent: str = ""
    ):
        """`teacher` is the model of the name `parent`; `kept` holds captions that it wrote."""
        recipe = {name: value for name, value in asdict(config).items() if name not in NOT_LEARNED}
        recipe |= {"parent": parent, "learned": learned.fingerprint(), "kept": kept.fingerprint()}
        stop = Stop(config.epochs, config.patience, config.averaged_epochs)
        steps, stays = config.epochs * len(learned), config.constant_rate
        optimizer = make_adam(config.learning_rate, steps, 0, config.clip_norm, stays)
        super().__init__(model, optimizer, learned.images, stop, recipe, open_log(config, "adapt"))
        self._teacher, self._learned, self._config = teacher, learned, config
        self._learn, self._keep = (compile_step(step, model.unrolled) for step in (self._learning, self._keeping))
        self._apply = tf.function(self._step)
        # Images to keep without end, each once before any comes again.
        self._drawn = chain.from_iterable(kept.epoch(config.seed, number) for number in count(1))

    def train_epoch(self, number: int) -> dict[str, float]:
        losses = []
        for batch in under_progress(self._learned, self._config, number):
            loss, learning = self._learn(*batch)
            self._apply(learning, self._keep(*next(self._drawn)))
            losses.append(float(loss))
        return {"train_loss": float(np.mean(losses))}

    def _learning(self, features, inputs, targets):
        dropout = self._config.adapt_dropout
        return self.gradients_of(lambda: caption_loss(self.model, features, inputs, targets, dropout))

    def _keeping(self, features, inputs, targets):
        before = tf.nn.softmax(real_logits(self._teacher, features, inputs, targets))  # [P, V]

        def loss_of():
            now = real_logits(self.model, features, inputs, targets, self._config.adapt_dropout)
            return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(before, now))

        return self.gradients_of(loss_of)[1]

    def _step(self, learning, keeping):
        weight = self._config.keep_weight
        self.apply([new + weight * old for new, old in zip(learning, keeping, strict=True)])


def adapt(
    model, train: LabelledFeatures, vocabulary: Vocabulary, parent: ParentVersion, config: TrainConfig, checkpoint: Path
) -> History:
    """Train `model` from the weights of `parent`: on the contributed images of `train`, or on all where none is.

    What it must keep is what the parent says, in each of its languages, of the other images, where there are any, else
    of those that it learns. Images in a language that is new to it are learned, too. `checkpoint` is a folder, as
    Stage.fit takes it.
    """
    bundle = Bundle(parent.folder)  # which verifies its files
    likeness = liken(vocabulary.words[len(bundle.vocabulary) :], bundle.vocabulary.words, config.word_embedding)
    no_vectors = np.zeros((len(vocabulary), model.settings["embedding_dim"]), np.float32)
    teacher = build_model(config.model, train.shape, no_vectors, config.seed)
    for one in (model, teacher):
        load_weights(one, parent.folder / WEIGHTS, likeness)
    teacher.trainable = False
    before = model.get_weights()
    sent = np.array([image.is_contributed for image in train.images], bool)
    languages = [*bundle.vocabulary.starts]
    foreign = np.array([image.language not in languages for image in train.images], bool)
    to_learn, to_keep = np.flatnonzero(sent | foreign if sent.any() else sent | True), np.flatnonzero(~sent)
    chosen = np.random.default_rng(config.seed).permutation(to_keep if len(to_keep) else to_learn)
    base = train.at(np.repeat(np.sort(chosen[: -(-config.keep_images // len(languages))]), len(languages)))
    spoken = zip(base.images, cycle(languages), strict=False)  # each image in each language
    base = replace(base, images=[replace(image, language=language) for image, language in spoken])
    said, _ = caption_features(bundle, base, OWN_BEAM_WIDTH, config.max_words, OWN_SAMPLES)
    own = [replace(image, captions=tuple(its)) for image, its in zip(base.images, said, strict=True)]
    size, together = config.batch_size, model.captions_together
    learned = _batches(train.at(to_learn), vocabulary, size * config.new_share, together)
    kept = _batches(replace(base, images=own), vocabulary, size * (1 - config.new_share), together)
    history = Adaptation(model, teacher, learned, kept, config, parent.manifest.name).fit(checkpoint)
    model.set_weights(_mean_with(before, model.get_weights(), config.parent_images, len(to_learn)))
    return history


def _batches(labelled: LabelledFeatures, vocabulary: Vocabulary, images: float, together: bool) -> CaptionBatches:
    """Return batches of about so many images each, with all their captions."""
    each = sum(len(image.captions) for image in labelled.images) / max(len(labelled), 1) if together else 1
    return CaptionBatches(labelled, vocabulary, round(max(1, round(images)) * each), together=together)


def _mean_with(parent: list[np.ndarray], own: list[np.ndarray], parent_images: float, images: int) -> list[np.ndarray]:
    """Return the mean of the weights that were learned from `images`, and the parent's: few images teach little."""
    share = parent_images / (parent_images + images)
    return [share * old + (1 - share) * new for old, new in zip(parent, own, strict=True)]


def cap_contributed(train: LabelledFeatures, share: float) -> LabelledFeatures:
    """Return the images with no more contributed ones than this share of them, the latest."""
    sent = np.array([image.is_contributed for image in train.images], bool)
    most = int(share / max(1 - share, 1e-9) * (~sent).sum())
    left_out = np.flatnonzero(sent)[: max(0, sent.sum() - most)]
    return train.at(np.setdiff1d(np.arange(len(train)), left_out)) if len(left_out) else train


@dataclass(frozen=True)
class AdaptedTagger:
    """What the parent's tag scorer gets: another image side, and the key words that it has not had in its table."""

    weights: list[np.ndarray]  # kernel [F, D] and bias [D]
    new_words: Sequence[str] = ()
    loss: float | None = None  # of the last step; None: there was none

    def as_metrics(self) -> dict[str, float]:
        """Return what a run is known by, under the keys of metrics.json."""
        return {} if self.loss is None else {"tagger_loss": self.loss}

    def change(self, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Change the parent's files in a bundle's folder; returns what changes in the manifest's `settings` of it."""
        model, arrays = _read_image_tower(folder)
        for operation, values in zip(("MatMul", "Add"), self.weights, strict=True):
            array = arrays[operation]
            kind = helper.tensor_dtype_to_np_dtype(array.data_type)
            array.CopyFrom(numpy_helper.from_array(values.astype(kind), array.name))
        onnx.save(model, folder / taggers.IMAGE_TOWER)
        known = find_vectors(self.new_words, settings["word_embedding"]) if self.new_words else {}
        words = [word for word in self.new_words if word in known]
        rows = np.load(folder / taggers.WORD_ROWS)
        new_rows = np.zeros((len(words), rows.shape[1]), rows.dtype)  # what training learns of a word: nothing
        new_rows[:, : settings["embedding_dim"]] = [known[word] for word in words] or 0
        np.save(folder / taggers.WORD_ROWS, np.vstack([rows, new_rows]))
        with (folder / taggers.WORDS).open("a", encoding="utf-8") as lines:
            lines.writelines(f"{word}\n" for word in words)
        return {"words": len(rows) + len(words)}


def _read_image_tower(folder: Path) -> tuple[onnx.ModelProto, dict[str, onnx.TensorProto]]:
    """Return the graph of a dual encoder's image side: (features - mean) * scale, a dense layer, length 1.

    And its arrays by the operation that they are for: Sub, Mul, MatMul, Add.
    """
    model = onnx.load(folder / taggers.IMAGE_TOWER)
    arrays = {array.name: array for array in model.graph.initializer}
    widened = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    used = [(node.op_type, widened.get(name, name)) for node in model.graph.node for name in node.input]
    found = {operation: arrays[name] for operation, name in used if name in arrays}
    if missing := {"Sub", "Mul", "MatMul", "Add"} - found.keys():
        raise BundleError(
            f"{folder} holds a tag scorer that cannot be adapted ({', '.join(sorted(missing))} not found); keep it "
            "with -p tagger kept, or export it again with this version of lcm"
        )
    return model, found


def adapt_tagger(prepared: PreparedRun, parent: ParentVersion | None, config: TrainConfig) -> AdaptedTagger | None:
    """Train the image side of the parent's tag scorer on the train split, from where it is.

    As contrastive.Contrastive trains one from scratch, with the parent's scales. None unless `config.tagger` is
    "adapted", and for a text tower, which stays; raises BundleError where the parent has no tag scorer.
    """
    if config.tagger != ADAPTED or parent.manifest.tagger.get("name") == taggers.TOWER:
        return None
    settings = parent.manifest.tagger
    if not settings:
        raise BundleError(f"{parent.folder} was trained without a tag scorer; train one with -p tagger dual_encoder")
    scorer, (_, arrays) = (
        taggers.load_tag_scorer(None, parent.folder, parent.manifest),
        _read_image_tower(parent.folder),
    )
    tower = {operation: numpy_helper.to_array(array).astype(np.float32) for operation, array in arrays.items()}
    before = [tower["MatMul"], tower["Add"]]
    train = prepared.labelled_features("train", "pooled")
    reads = settings.get("languages", [prepared.vocabulary.language])
    train = train.at(np.flatnonzero([image.language in reads for image in train.images]))
    if not len(train):  # all are in a language that its text side does not read
        return AdaptedTagger(before)
    features = (train.read(slice(None)) - tower["Sub"]) * tower["Mul"]  # [images, F]
    captions = [scorer.text_vectors(image.captions) for image in train.images]
    texts = ((caption, image.language) for image in train.images for caption in image.captions)
    words = sorted({word for text in texts for word in content_words(*text)})
    word_vectors = scorer.text_vectors(words) if words else np.zeros((0, tower["Add"].size), np.float32)
    columns = {word: column for column, word in enumerate(words)}
    held = [key_word_shares(image, columns) for image in train.images]
    kernel, bias = map(tf.Variable, before)
    size = min(IMAGES_PER_STEP, len(train))
    steps = config.tagger_epochs * (len(train) // size)
    optimizer = make_adam(LEARNING_RATE, steps, max(steps // 10, 1), CLIP_NORM)
    optimizer.build([kernel, bias])
    scales = [np.float32(settings[name]) for name in ("sentence_scale", "scale")]

    @tf.function(reduce_retracing=True)
    def step(features, texts, shares, seed):
        with tf.GradientTape() as tape:
            kept = tf.cast(tf.random.stateless_uniform(tf.shape(features), seed) >= FEATURE_DROPOUT, tf.float32)
            images = tf.math.l2_normalize(features * kept / (1 - FEATURE_DROPOUT) @ kernel + bias, axis=1)
            loss = contrastive_loss(images, texts, scales[0])
            if len(words):
                loss += key_word_loss(images, tf.constant(word_vectors), scales[1], shares)
        optimizer.apply_gradients(zip(tape.gradient(loss, [kernel, bias]), [kernel, bias], strict=True))
        return loss

    random, loss = np.random.default_rng(config.seed), None
    for _ in range(config.tagger_epochs):
        order = random.permutation(len(train))
        for start in range(0, len(order) - size + 1, size):
            places = order[start : start + size]
            texts = np.stack([captions[place][random.integers(len(captions[place]))] for place in places])
            shares = share_rows([held[place] for place in places], len(words))
            loss = float(step(features[places], texts, shares, random.integers(2**31, size=2)))
    own = _mean_with(before, [kernel.numpy(), bias.numpy()], config.parent_images, len(train))
    known = set(map(comparison_form, (parent.folder / taggers.WORDS).read_text(encoding="utf-8").splitlines()))
    new_words = [word for word in words if word in prepared.vocabulary.ids and word not in known]
    return AdaptedTagger(own, new_words, loss)
