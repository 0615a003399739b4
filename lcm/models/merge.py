"""The merge model: image and words meet only after the words have been read.

From Tanti, Gatt and Camilleri, "Where to put the image in an image caption generator" (2018), in the sizes of the
project that lcm descends from.

Shapes: B images, W texts of each image, T positions, F numbers in the image features, E in a word vector, D width,
V words.
"""

from collections.abc import Sequence

import keras
from keras import ops

Tensor = keras.KerasTensor


class Merge(keras.Model):
    """Image features and an LSTM over the words, added, then one dense layer before the softmax.

    The LSTM never sees the image, so all next words of a caption can be predicted in one pass: it is the same
    function as one prefix at a time, at a small part of the work.
    """

    feature_kind = "pooled"
    captions_together = False  # one dense layer is all that an image costs
    unrolled = True  # the LSTM: a quarter faster than a loop in the graph

    def __init__(
        self,
        feature_shape: Sequence[int],
        vocabulary_size: int,
        embedding_dim: int = 50,
        width: int = 256,
        dropout: float = 0.3,
    ):
        """Make the layers; `feature_shape` is (F,), `width` is D. The word embedding is frozen."""
        super().__init__()
        self.settings = {"feature_shape": list(feature_shape), "vocabulary_size": vocabulary_size}
        self.settings |= {"embedding_dim": embedding_dim, "width": width, "dropout": dropout}
        self.feature_shape = tuple(feature_shape)
        self.row_shapes = ((width,), (width,))  # of what a step remembers of a text: the LSTM's hidden and cell state
        self.image_dropout = keras.layers.Dropout(dropout, name="image_dropout")
        self.image_dense = keras.layers.Dense(width, activation="relu", name="image_dense")
        self.word_embedding = keras.layers.Embedding(
            vocabulary_size, embedding_dim, trainable=False, name="word_embedding"
        )
        self.word_dropout = keras.layers.Dropout(dropout, name="word_dropout")
        self.lstm = keras.layers.LSTM(width, return_sequences=True, unroll=True, name="lstm")
        self.merged_dense = keras.layers.Dense(width, activation="relu", name="merged_dense")
        self.output_dense = keras.layers.Dense(vocabulary_size, name="output_dense")

    def take_word_vectors(self, word_vectors) -> None:
        """Read words as pretrained vectors [V, E], for good."""
        self.word_embedding.set_weights([word_vectors])

    def hidden(self, features: Tensor, token_ids: Tensor, training: bool = False) -> Tensor:
        """Return what is known at each position, [B, W, T, D], from features [B, F] and the words before, [B, W, T]."""
        image = self.image_dense(self.image_dropout(features, training=training))  # [B, D]
        words = self.word_dropout(self.word_embedding(token_ids), training=training)  # [B, W, T, E]
        read = self.lstm(ops.reshape(words, (-1, *words.shape[2:])))  # [B * W, T, D]
        read = ops.reshape(read, (-1, ops.shape(token_ids)[1], *read.shape[1:]))  # [B, W, T, D]
        return read + image[:, None, None, :]

    def logits(self, hidden: Tensor) -> Tensor:
        """Return unnormalised log-probabilities of the next word, [..., V], from hidden [..., D]."""
        return self.output_dense(self.merged_dense(hidden))

    def call(self, inputs: tuple[Tensor, Tensor], training: bool = False) -> Tensor:
        """Return the probabilities of the next word at each position, [B, W, T, V], from (features, token_ids)."""
        features, token_ids = inputs
        return ops.softmax(self.logits(self.hidden(features, token_ids, training)))

    def start(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return what steps read of the images, one array [B, D], from features [B, F]."""
        return (self.image_dense(features),)

    def step(
        self, token_ids: Tensor, images: tuple[Tensor, ...], rows: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return log-probabilities [B, W, V] of the word after `token_ids` [B, W], and the next rows [B, W, D]."""
        (image,) = images
        words, *memory = (
            ops.reshape(array, (-1, array.shape[-1])) for array in (self.word_embedding(token_ids), *rows)
        )  # [B * W, E], twice [B * W, D]
        _, memory = self.lstm.cell(words, memory)
        memory_hidden, memory_cell = (ops.reshape(array, ops.shape(rows[0])) for array in memory)  # [B, W, D]
        return ops.log_softmax(self.logits(memory_hidden + image[:, None, :])), (memory_hidden, memory_cell)
