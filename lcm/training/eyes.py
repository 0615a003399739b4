"""Fine-tuning the eyes: the last blocks of EfficientNet-Lite learn to see what the captions of a data set speak of.

By the contrastive loss of the tag scorer, whose image tower then reads the blocks' output. What comes before them stays
as it is, so it runs once for each view of an image, and is kept: an epoch costs the last blocks alone. As 6,000 photos
are soon learned by heart, the views are stronger than those that a captioner is trained on: down to 40 % of the
picture, with changed light, contrast and colour (Chen et al., "A Simple Framework for Contrastive Learning of Visual
Representations", 2020).

Shapes: B images, S a side of the input of the blocks, C its channels, N grid positions, D numbers in a feature.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from tqdm import tqdm

from lcm.config import PrepareConfig, TrainConfig
from lcm.data.dataset import LabelledImage
from lcm.data.images import WHOLE, read_views
from lcm.errors import ConfigError, require
from lcm.features.cache import LabelledFeatures, PreparedRun, map_in_order, tells_sides, view_keys, view_of
from lcm.features.encoders import GRAPH, TUNED, Encoder, is_kept, keep_tuned, load_encoder, open_session
from lcm.models import build_tagger
from lcm.models.dual_encoder import DualEncoder
from lcm.paths import RunDir
from lcm.training.contrastive import Contrastive, build_word_table, readable

TUNED_BLOCKS = 5  # the last ones, and the convolution after them: a third of the network's work
VIEWS = 8  # of each image, beside the whole
VIEW_AREA = (0.4, 1.0)  # share of the picture that a view shows
COLOUR = 0.3  # light, contrast and saturation are multiplied by 1 - COLOUR to 1 + COLOUR
HEAD_EPOCHS = (
    20  # of the tag scorer, first, on what the encoder gives as it is: a fresh one would only spoil the blocks
)
LEARNING_RATE = 4e-4  # of blocks and tag scorer together, at its highest
PART = 4  # images that a worker reads in one call


class Blocks(keras.layers.Layer):
    """The end of an encoder's graph, as layers whose kernels can be trained."""

    def __init__(self, graph):
        """Read an ONNX graph of EfficientNet-Lite; raises ConfigError for another network."""
        super().__init__(name="blocks")
        onnx = require("onnx", "encoder")
        arrays = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
        blocks = 1 + max(
            [int(name.split(".")[2]) for name in arrays if name.startswith("network._blocks.")], default=-1
        )
        names = [node.input[1] if node.op_type == "Conv" else "" for node in graph.node]
        first = f"network._blocks.{blocks - TUNED_BLOCKS}._expand_conv.weight"
        if first not in names:
            raise ConfigError(
                "tune_epochs is for efficientnet_lite0 and efficientnet_lite2; set it to 0 for another encoder"
            )
        start, end = names.index(first), [node.op_type for node in graph.node].index("Reshape")
        self.nodes = list(graph.node)[start:end]
        self.starts_at = self.nodes[0].input[0]  # the name of what the blocks read
        self.kernels = {}
        for node in self.nodes:
            for name in node.input[1:] if node.op_type == "Conv" else ():
                array = to_tensorflow(arrays[name])
                self.kernels[name] = self.add_weight(array.shape, keras.initializers.Constant(array), name=name)

    def call(self, inputs):
        """Return [B, N, D] of what the blocks read, [B, S, S, C]."""
        values = {self.starts_at: inputs}
        for node in self.nodes:
            seen = values[node.input[0]]
            if node.op_type == "Conv":
                kernel, bias = (self.kernels[name] for name in node.input[1:])
                stride = next(each.ints[0] for each in node.attribute if each.name == "strides")
                convolve = tf.nn.depthwise_conv2d if kernel.shape[3] == 1 else tf.nn.conv2d
                seen = convolve(seen, kernel, [1, stride, stride, 1], "SAME") + bias
            else:
                seen = tf.nn.relu6(seen) if node.op_type == "Clip" else seen + values[node.input[1]]
            values[node.output[0]] = seen
        return ops.reshape(seen, (-1, seen.shape[1] * seen.shape[2], seen.shape[3]))

    def as_initializers(self) -> dict[str, np.ndarray]:
        """Return the arrays by name, as the graph has them."""
        return {name: to_onnx(kernel.numpy()) for name, kernel in self.kernels.items()}


def to_tensorflow(array: np.ndarray) -> np.ndarray:
    """Return a kernel of ONNX, [filters, channels, height, width], with the axes of TensorFlow; a bias as it is.

    [height, width, channels, filters]; of a depthwise convolution, whose filters see one channel each, with 1 filter.
    """
    if array.ndim == 1:
        return array
    return array.transpose((2, 3, 0, 1) if array.shape[1] == 1 else (2, 3, 1, 0))


def to_onnx(array: np.ndarray) -> np.ndarray:
    """Return what to_tensorflow has made of a kernel or a bias as it was."""
    if array.ndim == 1:
        return array
    return array.transpose((2, 3, 0, 1) if array.shape[3] == 1 else (3, 2, 0, 1))


class Eyes(keras.Model):
    """A tag scorer that sees through the blocks: what contrastive training trains, and what it reads."""

    def __init__(self, scorer: DualEncoder, blocks: Blocks):
        """Put one before the other."""
        super().__init__()
        self.scorer, self.blocks = scorer, blocks

    @property
    def log_scales(self) -> keras.Variable:
        """The tag scorer's."""
        return self.scorer.log_scales

    def read(self, word_ids, training: bool = False):
        """Return what the tag scorer does of texts."""
        return self.scorer.read(word_ids, training)

    def call(self, inputs, training: bool = False):
        """Return unit vectors of images and texts, from (what the blocks read [B, S, S, C], word ids [B, T])."""
        read_by_blocks, word_ids = inputs
        return self.scorer((ops.mean(self.blocks(read_by_blocks), axis=1), word_ids), training=training)


def tune_eyes(prepared: PreparedRun, encoder: Encoder, config: PrepareConfig, run: RunDir) -> Encoder:
    """Return the encoder with its last blocks tuned on the train split, for `config.tune_epochs` epochs; 0: as it is.

    `prepared` has the images' pooled features by `encoder`. What was tuned once on the same images and captions is
    found again in the cache; a run that was killed resumes from its last epoch. Raises ConfigError for an encoder that
    is no EfficientNet-Lite.
    """
    if not config.tune_epochs:
        return encoder
    pooled = prepared.labelled_features("train", "pooled")
    recipe = [encoder.identity.source_sha256, config.tune_epochs, config.seed, config.word_embedding, pooled.references]
    recipe += [prepared.encoded.keys[image.image_id] for image in pooled.images]
    weights = f"{TUNED}{hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]}"
    if is_kept(encoder.identity.name, weights):
        return load_encoder(encoder.identity.name, weights, threads=1)
    onnx = require("onnx", "encoder")
    model = onnx.load(encoder.path)
    blocks = Blocks(model.graph)
    table = build_word_table(pooled, prepared.vocabulary, config.word_embedding)
    pooled = readable(pooled, table)
    scorer = build_tagger("dual_encoder", pooled.read(slice(None)), table.vectors, table.learned, config.seed)
    training = TrainConfig(str(run.path), tagger_epochs=HEAD_EPOCHS, seed=config.seed)
    Contrastive(scorer, pooled, table, training).fit(run.checkpoint / "eyes_scorer")
    with tempfile.TemporaryDirectory(dir=run.path) as folder:
        onnx.utils.extract_model(encoder.path, f"{folder}/{GRAPH}", ["image"], [blocks.starts_at])
        features = read_below(pooled.images, prepared.encoded.keys, Path(folder) / GRAPH, encoder)
        training = replace(training, tagger_epochs=config.tune_epochs)
        eyes = Eyes(scorer, blocks)
        Contrastive(eyes, features, table, training, rate=LEARNING_RATE).fit(run.checkpoint / "eyes")
    tuned = blocks.as_initializers()
    for one in model.graph.initializer:
        if one.name in tuned:
            one.CopyFrom(onnx.numpy_helper.from_array(tuned[one.name], one.name))
    keep_tuned(encoder.identity.name, weights, model.SerializeToString())
    return load_encoder(encoder.identity.name, weights, threads=1)


def read_below(
    images: Sequence[LabelledImage], keys: Mapping[str, str], graph: Path, encoder: Encoder
) -> LabelledFeatures:
    """Return what the blocks read of each image and of VIEWS views of it, [1 + VIEWS, images] places in [R, S, S, C].

    `graph` is the encoder's up to the blocks. It is a file beside `graph`, memory-mapped, in half precision.
    """
    session = open_session(graph, threads=1)
    shape = session.get_outputs()[0].shape[1:]  # [C, S, S]
    paths = {image.image_id: image.path for image in images}
    with_sides = {image.image_id for image in images if tells_sides(image)}
    store = np.lib.format.open_memmap(
        graph.with_suffix(".npy"), "w+", np.float16, (len(paths) * (1 + VIEWS), *shape[1:], shape[0])
    )

    def work(part: Sequence[tuple[str, Path]]) -> list[np.ndarray]:
        return [look(path, keys[image_id], image_id in with_sides) for image_id, path in part]

    def look(path: Path, key: str, has_sides: bool) -> np.ndarray:
        views = [view_of(one, VIEW_AREA) for one in view_keys(key, VIEWS)[1:]]
        pictures = read_views(path, encoder.square, [WHOLE, *(box for box, _ in views)])
        for picture, view_key, (_, mirrored) in zip(pictures[1:], view_keys(key, VIEWS)[1:], views, strict=True):
            picture[:] = recolour(picture[:, ::-1] if mirrored and not has_sides else picture, view_key)
        return session.run(None, {"image": pictures})[0].transpose(0, 2, 3, 1)

    place = 0
    with tqdm(total=len(paths), unit=" images", desc="views for the eyes") as progress:
        for each in map_in_order(work, paths.items(), PART):
            for rows in each:
                store[place : place + len(rows)] = rows
                place += len(rows)
            progress.update(len(each))
    first = {image_id: number * (1 + VIEWS) for number, image_id in enumerate(paths)}
    places = np.array([first[image.image_id] for image in images])
    return LabelledFeatures(images, places + np.arange(1 + VIEWS)[:, None], store)


def recolour(picture: np.ndarray, key: str) -> np.ndarray:
    """Return a picture, uint8 [S, S, 3], in the light, contrast and saturation that the digits of a key decide."""
    light, contrast, saturation = 1 - COLOUR + 2 * COLOUR * np.frombuffer(bytes.fromhex(key), ">u4")[5:] / 2**32
    levels = picture.astype(np.float32) * np.float32(light)
    levels = (levels - levels.mean()) * np.float32(contrast) + levels.mean()
    grey = levels.mean(axis=2, keepdims=True)
    return np.clip((levels - grey) * np.float32(saturation) + grey, 0, 255).round().astype(np.uint8)
