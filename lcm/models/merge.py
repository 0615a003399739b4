"""The merge model: image and words meet only after the words have been read.

Knows its layers and how they run over whole captions or word by word. Refuses to know losses, data and
files. From Tanti, Gatt and Camilleri, "Where to put the image in an image caption generator" (2018), in the
sizes of the project that lcm descends from.

Shapes: B captions, T positions, F numbers in the image features, E in a word vector, D width, V words.
"""

import keras
from keras import ops

Tensor = keras.KerasTensor


@keras.saving.register_keras_serializable("lcm")
class Merge(keras.Model):
    """Image features and an LSTM over the words, added, then one dense layer before the softmax.

    The LSTM never sees the image, so all next words of a caption can be predicted in one pass: it is the same
    function as one prefix at a time, at a small part of the work.
    """

    feature_kind = "pooled"

    def __init__(
        self,
        feature_dim: int,
        vocabulary_size: int,
        embedding_dim: int = 50,
        width: int = 256,
        dropout: float = 0.3,
        **keras_options,
    ):
        """Make the layers; `feature_dim` is F, `width` is D. The word embedding is frozen."""
        super().__init__(**keras_options)
        self.settings = {
            "feature_dim": feature_dim,
            "vocabulary_size": vocabulary_size,
            "embedding_dim": embedding_dim,
            "width": width,
            "dropout": dropout,
        }
        self.image_dropout = keras.layers.Dropout(dropout, name="image_dropout")
        self.image_dense = keras.layers.Dense(width, activation="relu", name="image_dense")
        self.word_embedding = keras.layers.Embedding(
            vocabulary_size, embedding_dim, trainable=False, name="word_embedding"
        )
        self.word_dropout = keras.layers.Dropout(dropout, name="word_dropout")
        # Unrolled, it takes one graph a caption length and runs without a loop in the graph: a quarter faster.
        self.lstm = keras.layers.LSTM(width, return_sequences=True, unroll=True, name="lstm")
        self.merged_dense = keras.layers.Dense(width, activation="relu", name="merged_dense")
        self.output_dense = keras.layers.Dense(vocabulary_size, name="output_dense")

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """The shape of one image's features."""
        return (self.settings["feature_dim"],)

    def get_config(self) -> dict:
        return super().get_config() | self.settings

    def hidden(self, features: Tensor, token_ids: Tensor, training: bool = False) -> Tensor:
        """Return what is known at each position, [B, T, D], from features [B, F] and the words before, [B, T]."""
        image = self.image_dense(self.image_dropout(features, training=training))  # [B, D]
        words = self.word_dropout(self.word_embedding(token_ids), training=training)  # [B, T, E]
        return self.lstm(words) + image[:, None, :]

    def logits(self, hidden: Tensor) -> Tensor:
        """Return unnormalised log-probabilities of the next word, [..., V], from hidden [..., D]."""
        return self.output_dense(self.merged_dense(hidden))

    def call(self, inputs: tuple[Tensor, Tensor], training: bool = False) -> Tensor:
        """Return the probabilities of the next word at each position, [B, T, V], from (features, token_ids)."""
        features, token_ids = inputs
        return ops.softmax(self.logits(self.hidden(features, token_ids, training)))

    def start(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return the state before the first word, of arrays [B, D], from features [B, F]."""
        image = self.image_dense(features)
        nothing = ops.zeros_like(image)
        return image, nothing, nothing

    def step(self, token_ids: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return log-probabilities [B, V] of the word after `token_ids` [B], and the next state."""
        image, memory_hidden, memory_cell = state
        read, (memory_hidden, memory_cell) = self.lstm.cell(
            self.word_embedding(token_ids), [memory_hidden, memory_cell]
        )
        return ops.log_softmax(self.logits(read + image)), (image, memory_hidden, memory_cell)
