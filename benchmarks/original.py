"""The way of the project that lcm descends from, as the reference: how it trained, and how it answered.

It trained on one zero-padded prefix per example with a one-hot next word, from a Python generator. For a photo it ran
ResNet50 by `predict`, one `predict` of the whole model a word, and a CLIP of the size of openai/clip-vit-large-patch14
over the words. Weights are random, for speed does not depend on them, and nothing is downloaded; a caption has a fixed
number of words, for random weights would end none.

`python -m benchmarks.original PHOTO` answers for one photo and reports the seconds and megabytes it took.

Shapes: P prefixes in a step, L the longest caption, F numbers in the image features, V words.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from benchmarks.common import report
from lcm.data.text import PAD, Vocabulary
from lcm.features.cache import LabelledFeatures
from lcm.models.merge import Merge

IMAGES_PER_STEP = 5  # the original's batch
WORDS = 10  # of a caption; the mean of Flickr8k's is 11
TAGS = 6  # words that CLIP scores
FEATURES, VOCABULARY, LONGEST = 2048, 5352, 34  # ResNet50's features; words and longest caption of the original
PIXELS = 224  # a side, of both networks
_TOWERS = {
    "text": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12},
    "vision": {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24},
}
CLIP_LARGE = {  # of openai/clip-vit-large-patch14
    "text_config": _TOWERS["text"] | {"projection_dim": 768},
    "vision_config": _TOWERS["vision"] | {"patch_size": 14, "projection_dim": 768},
    "projection_dim": 768,
}


def prefix_examples(token_ids: list[int], longest: int, vocabulary_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return every prefix of a caption, padded in front, [P, L], and its next word, one-hot, [P, V]."""
    prefixes = np.full((len(token_ids) - 1, longest), PAD, dtype=np.int32)
    next_words = np.zeros((len(token_ids) - 1, vocabulary_size), dtype=np.float32)
    for length in range(1, len(token_ids)):
        prefixes[length - 1, longest - length :] = token_ids[:length]
        next_words[length - 1, token_ids[length]] = 1.0
    return prefixes, next_words


def prefix_batches(
    labelled: LabelledFeatures, vocabulary: Vocabulary
) -> Iterator[tuple[tuple[np.ndarray, np.ndarray], np.ndarray]]:
    """Yield ((features [P, F], prefixes [P, L]), next words [P, V]) for a few images at a time, without end."""
    captions = [[vocabulary.encode(caption) for caption in image.captions] for image in labelled.images]
    longest = max(len(token_ids) - 1 for each in captions for token_ids in each)
    while True:
        for start in range(0, len(captions), IMAGES_PER_STEP):
            features, prefixes, next_words = [], [], []
            for place in range(start, min(start + IMAGES_PER_STEP, len(captions))):
                (image_features,) = labelled.read(np.array([place]))
                for token_ids in captions[place]:
                    some_prefixes, some_words = prefix_examples(token_ids, longest, len(vocabulary))
                    features.append(np.tile(image_features, (len(some_prefixes), 1)))
                    prefixes.append(some_prefixes)
                    next_words.append(some_words)
            yield (np.concatenate(features), np.concatenate(prefixes)), np.concatenate(next_words)


def build_prefix_model(model: Merge) -> keras.Model:
    """Return the original's graph with a copy of `model`'s weights, compiled as it was: one next word a prefix."""
    settings = model.settings
    features = keras.Input(model.feature_shape)
    prefixes = keras.Input((None,), dtype="int32")
    dropout, width = settings["dropout"], settings["width"]
    image_dense = keras.layers.Dense(width, activation="relu")
    image = image_dense(keras.layers.Dropout(dropout)(features))
    embedding = keras.layers.Embedding(
        settings["vocabulary_size"], settings["embedding_dim"], mask_zero=True, trainable=False
    )
    lstm = keras.layers.LSTM(width)
    read = lstm(keras.layers.Dropout(dropout)(embedding(prefixes)))
    merged_dense = keras.layers.Dense(width, activation="relu")
    output_dense = keras.layers.Dense(settings["vocabulary_size"], activation="softmax")
    next_word = output_dense(merged_dense(keras.layers.add([image, read])))
    reference = keras.Model([features, prefixes], next_word)
    reference.compile(loss="categorical_crossentropy", optimizer="adam")
    image_dense.set_weights(model.image_dense.get_weights())
    embedding.set_weights(model.word_embedding.get_weights())
    lstm.set_weights(model.lstm.get_weights())
    merged_dense.set_weights(model.merged_dense.get_weights())
    output_dense.set_weights(model.output_dense.get_weights())
    return reference


class OriginalService:
    """Everything that the original kept in memory to answer."""

    def __init__(self, clip: dict = CLIP_LARGE):
        """Make the three networks; a smaller CLIP is for tests."""
        from transformers import CLIPConfig, CLIPModel

        self._network = keras.applications.ResNet50(include_top=False, pooling="avg", weights=None)
        model = Merge((FEATURES,), VOCABULARY)
        model((np.zeros((1, FEATURES), np.float32), np.zeros((1, 1, 1), np.int32)))
        self._captioner = build_prefix_model(model)
        self._clip = CLIPModel(CLIPConfig(**clip)).eval()

    def caption(self, photo: Path) -> list[int]:
        """Write WORDS words about a photo, one `predict` a word."""
        pixels = keras.utils.img_to_array(keras.utils.load_img(photo, target_size=(PIXELS, PIXELS)))
        ready = keras.applications.resnet50.preprocess_input(pixels[None])
        features = self._network.predict(ready, verbose=0)
        written = [1]
        for _ in range(WORDS):
            prefix = np.zeros((1, LONGEST), np.int32)
            prefix[0, LONGEST - len(written) :] = written
            written.append(int(self._captioner.predict((features, prefix), verbose=0).argmax()))
        return written[1:]

    def tags(self, photo: Path) -> np.ndarray:
        """Score TAGS words of two tokens each against a photo; the scores sum to 1."""
        import torch

        size = self._clip.config.vision_config.image_size
        pixels = keras.utils.img_to_array(keras.utils.load_img(photo, target_size=(size, size)))
        image = torch.from_numpy(pixels.transpose(2, 0, 1)[None] / 127.5 - 1).float()
        ids = torch.arange(TAGS * 4).reshape(TAGS, 4) % self._clip.config.text_config.vocab_size
        with torch.no_grad():
            logits = self._clip(input_ids=ids, pixel_values=image).logits_per_image
        return logits.softmax(-1).numpy()[0]


if __name__ == "__main__":
    started = time.perf_counter()
    service = OriginalService()
    service.caption(Path(sys.argv[1]))
    service.tags(Path(sys.argv[1]))
    report(answer_seconds=time.perf_counter() - started)
