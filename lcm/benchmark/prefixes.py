"""The original's training method, as the reference to measure ours against.

Knows one zero-padded prefix per example with a one-hot next word, from a Python generator. Refuses to be used
for training: training/batches.py and training/fit.py compute the same loss with a small part of the work.

Shapes: P prefixes in a step, L the longest caption, F numbers in the image features, V words.
"""

from collections.abc import Iterator

import keras
import numpy as np

from lcm.data.text import PAD, Vocabulary
from lcm.features.cache import LabelledFeatures
from lcm.models.merge import Merge

IMAGES_PER_STEP = 5  # the original's batch


def prefix_examples(token_ids: list[int], longest: int, vocabulary_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return every prefix of a caption, padded in front, [P, L], and its next word, one-hot, [P, V]."""
    prefixes = np.full((len(token_ids) - 1, longest), PAD, dtype=np.int32)
    next_words = np.zeros((len(token_ids) - 1, vocabulary_size), dtype=np.float32)
    for length in range(1, len(token_ids)):
        prefixes[length - 1, longest - length :] = token_ids[:length]
        next_words[length - 1, token_ids[length]] = 1.0
    return prefixes, next_words


def prefix_batches(
    labelled: LabelledFeatures, vocabulary: Vocabulary, images_per_step: int = IMAGES_PER_STEP
) -> Iterator[tuple[tuple[np.ndarray, np.ndarray], np.ndarray]]:
    """Yield ((features [P, F], prefixes [P, L]), next words [P, V]) for a few images at a time, without end."""
    captions = [[vocabulary.encode(caption) for caption in image.captions] for image in labelled.images]
    longest = max(len(token_ids) - 1 for each in captions for token_ids in each)
    while True:
        for start in range(0, len(captions), images_per_step):
            features, prefixes, next_words = [], [], []
            for place in range(start, min(start + images_per_step, len(captions))):
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
