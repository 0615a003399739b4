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
HEAD_EPOCHS = 20  # of the tag scorer, first, on the encoder as it is: a fresh one would only spoil the blocks
LEARNING_RATE = 4e-4  # of blocks and tag scorer together, at its highest


class Blocks(keras.layers.Layer):
    """The end of an encoder's graph, as layers whose kernels can be trained."""

    def __init__(self, graph):
        """Read an ONNX graph of EfficientNet-Lite; raises ConfigError for another network."""
        super().__init__(name="blocks")
        onnx = require("onnx", "encoder")
        arrays = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
        names = [node.input[1] if node.op_type == "Conv" else "" for node in graph.node]
        first = [place for place, name in enumerate(names) if name.endswith("._expand_conv.weight")][-TUNED_BLOCKS:]
        if len(first) < TUNED_BLOCKS:
            raise ConfigError(
                "tune_epochs is for efficientnet_lite0 and efficientnet_lite2; set it to 0 for another encoder"
            )
        start, end = first[0], [node.op_type for node in graph.node].index("Reshape")
        self.nodes = list(graph.node)[start:end]
        self.starts_at = self.nodes[0].input[0]  # the name of what the blocks read
        self.kernels = {}  # and biases, as ONNX has them: [filters, channels, height, width]
        for node in self.nodes:
            for name in node.input[1:] if node.op_type == "Conv" else ():
                array = arrays[name]
                self.kernels[name] = self.add_weight(array.shape, keras.initializers.Constant(array), name=name)

    def call(self, inputs):
        """Return [B, N, D] of what the blocks read, [B, S, S, C]."""
        values = {self.starts_at: inputs}
        for node in self.nodes:
            seen = values[node.input[0]]
            if node.op_type == "Conv":
                kernel, bias = (self.kernels[name] for name in node.input[1:])
                stride = next(each.ints[0] for each in node.attribute if each.name == "strides")
                is_depthwise = kernel.shape[1] == 1  # its filters see one channel each
                kernel = tf.transpose(kernel, (2, 3, 0, 1) if is_depthwise else (2, 3, 1, 0))
                convolve = tf.nn.depthwise_conv2d if is_depthwise else tf.nn.conv2d
                seen = convolve(seen, kernel, [1, stride, stride, 1], "SAME") + bias
            else:
                seen = tf.nn.relu6(seen) if node.op_type == "Clip" else seen + values[node.input[1]]
            values[node.output[0]] = seen
        return ops.reshape(seen, (-1, seen.shape[1] * seen.shape[2], seen.shape[3]))


class Eyes(keras.Model):
    """A tag scorer that sees through the blocks: what contrastive training trains, and what it reads."""

    def __init__(self, scorer: DualEncoder, blocks: Blocks):
        """Put one before the other."""
        super().__init__()
        self.scorer, self.blocks = scorer, blocks

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
    scorer = build_tagger(pooled.read(slice(None)), table.vectors, table.learned, config.seed)
    training = TrainConfig(str(run.path), tagger_epochs=HEAD_EPOCHS, seed=config.seed)
    Contrastive(scorer, pooled, table, training).fit(run.checkpoint / "eyes_scorer")
    with tempfile.TemporaryDirectory(dir=run.path) as folder:
        onnx.utils.extract_model(encoder.path, f"{folder}/{GRAPH}", ["image"], [blocks.starts_at])
        features = read_below(pooled.images, prepared.encoded.keys, Path(folder) / GRAPH, encoder)
        training = replace(training, tagger_epochs=config.tune_epochs)
        eyes = Eyes(scorer, blocks)
        Contrastive(eyes, features, table, training, rate=LEARNING_RATE, scorer=scorer).fit(run.checkpoint / "eyes")
    for one in model.graph.initializer:
        if one.name in blocks.kernels:
            one.CopyFrom(onnx.numpy_helper.from_array(blocks.kernels[one.name].numpy(), one.name))
    keep_tuned(encoder.identity.name, weights, model.SerializeToString())
    return load_encoder(encoder.identity.name, weights, threads=1)


def read_below(
    images: Sequence[LabelledImage], keys: Mapping[str, str], graph: Path, encoder: Encoder
) -> LabelledFeatures:
    """Return what the blocks read of each image and of VIEWS views of it, [1 + VIEWS, images] places in [R, S, S, C].

    `graph` is the encoder's up to the blocks. It is a file beside `graph`, memory-mapped, in half precision.
    """
    session = open_session(graph, threads=1)
    channels, *sides = session.get_outputs()[0].shape[1:]
    paths = {image.image_id: image.path for image in images}  # there is an image for each language
    with_sides = {image.image_id for image in images if tells_sides(image)}
    shape = (len(paths), 1 + VIEWS, *sides, channels)
    store = np.lib.format.open_memmap(graph.with_suffix(".npy"), "w+", np.float16, shape)

    def work(part: Sequence[str]) -> np.ndarray:
        (image_id,) = part
        views = view_keys(keys[image_id], VIEWS)[1:]
        boxes, mirrored = zip(*(view_of(key, VIEW_AREA) for key in views), strict=True)
        pictures = read_views(paths[image_id], encoder.square, [WHOLE, *boxes])
        for picture, key, is_mirrored in zip(pictures[1:], views, mirrored, strict=True):
            picture[:] = recolour(picture[:, ::-1] if is_mirrored and image_id not in with_sides else picture, key)
        return session.run(None, {"image": pictures})[0].transpose(0, 2, 3, 1)

    seen = tqdm(map_in_order(work, paths, 1), "views for the eyes", len(paths), unit=" images")
    for of_image, its in zip(store, seen, strict=True):
        of_image[:] = its
    first = {image_id: place * (1 + VIEWS) for place, image_id in enumerate(paths)}
    places = np.array([first[image.image_id] for image in images]) + np.arange(1 + VIEWS)[:, None]
    return LabelledFeatures(images, places, store.reshape(-1, *shape[2:]))


def recolour(picture: np.ndarray, key: str) -> np.ndarray:
    """Return a picture, uint8 [S, S, 3], in the light, contrast and saturation that the digits of a key decide."""
    light, contrast, saturation = 1 - COLOUR + 2 * COLOUR * np.frombuffer(bytes.fromhex(key), ">u4")[5:] / 2**32
    levels = picture.astype(np.float32) * np.float32(light)
    levels = (levels - levels.mean()) * np.float32(contrast) + levels.mean()
    grey = levels.mean(axis=2, keepdims=True)
    return np.clip((levels - grey) * np.float32(saturation) + grey, 0, 255).round().astype(np.uint8)
