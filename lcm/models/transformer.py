"""The transformer: a small decoder that looks at the whole grid of image features at every word.

From Vaswani et al., "Attention Is All You Need" (2017), with normalisation before each block (Xiong et al., "On Layer
Normalization in the Transformer Architecture", 2020) and one table for words read and written (Press and Wolf, "Using
the Output Embedding to Improve Language Models", 2017).

Shapes: B images, W texts of each image, T positions, N grid positions, F numbers in a feature, D width, H heads,
E = D / H, V words.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf
from keras import ops

from lcm.models.attention import DecoderLayer, EncoderLayer, Norm, as_rows

Tensor = keras.KerasTensor
MAX_POSITIONS = 64  # words of a caption that have a place of their own; later ones share the last


class Transformer(keras.Model):
    """One encoder layer over the grid, then decoder layers that read the words before and look at the grid.

    What the decoder looks at is computed once an image, for all texts of it; a step remembers keys and values of the
    words before, so that no word is read twice.
    """

    feature_kind = "grid"
    captions_together = True
    unrolled = False

    def __init__(
        self,
        feature_shape: Sequence[int],
        vocabulary_size: int,
        embedding_dim: int = 50,
        width: int = 256,
        heads: int = 8,
        encoder_layers: int = 1,
        decoder_layers: int = 2,
        dropout: float = 0.2,
        feature_dropout: float = 0.1,
    ):
        """Make the layers; `feature_shape` is (N, F), `width` is D. Words learn their vectors."""
        super().__init__()
        self.settings = {"feature_shape": list(feature_shape), "vocabulary_size": vocabulary_size}
        self.settings |= {"embedding_dim": embedding_dim, "width": width, "heads": heads}
        self.settings |= {"encoder_layers": encoder_layers, "decoder_layers": decoder_layers}
        self.settings |= {"dropout": dropout, "feature_dropout": feature_dropout}
        self.feature_shape = tuple(feature_shape)
        # Of what a step remembers of a text: keys and values of each layer, one more a word.
        self.row_shapes = ((heads, None, width // heads),) * (2 * decoder_layers)
        positions, _ = feature_shape
        self.feature_dropout = keras.layers.Dropout(feature_dropout, name="feature_dropout")
        self.feature_dense = keras.layers.Dense(width, name="feature_dense")
        self.places = self.add_weight(shape=(positions, width), initializer=_normal(width), name="places")
        self.encoder = [EncoderLayer(width, heads, dropout, name=f"encoder_{n}") for n in range(encoder_layers)]
        self.encoder_norm = Norm(epsilon=1e-5, name="encoder_norm")
        self.words = self.add_weight(shape=(vocabulary_size, width), initializer=_normal(width), name="words")
        self.positions = self.add_weight(shape=(MAX_POSITIONS, width), initializer=_normal(width), name="positions")
        self.word_dropout = keras.layers.Dropout(dropout, name="word_dropout")
        self.decoder = [DecoderLayer(width, heads, dropout, name=f"decoder_{n}") for n in range(decoder_layers)]
        self.decoder_norm = Norm(epsilon=1e-5, name="decoder_norm")
        self.word_bias = self.add_weight(shape=(vocabulary_size,), initializer="zeros", name="word_bias")

    def take_word_vectors(self, word_vectors) -> None:
        """Ignore pretrained vectors: with the image at every word, its own do better."""

    def see(self, features: Tensor, training: bool = False) -> Tensor:
        """Return what the decoder looks at, [B, N, D], from features [B, N, F]."""
        seen = self.feature_dense(self.feature_dropout(features, training=training)) + self.places
        for layer in self.encoder:
            seen = layer(seen, training=training)
        return self.encoder_norm(seen)

    def start(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return what is remembered of each image: keys and values of the grid [B, H, N, E], of each decoder layer."""
        seen = self.see(features)
        return tuple(array for layer in self.decoder for array in layer.keys_values(seen))

    def read(self, token_ids: Tensor, first: int | Tensor, training: bool = False) -> Tensor:
        """Return the vectors [B, W, T, D] of words [B, W, T], of which the first has the position `first`."""
        positions = ops.minimum(first + ops.arange(ops.shape(token_ids)[-1]), MAX_POSITIONS - 1)
        token_ids = ops.cast(token_ids, "int32")  # to build a saved model, Keras calls it with other numbers
        # TensorFlow's, for Keras's own `take` has nine operations more in the graph: it counts from the end below 0.
        vectors = tf.gather(self.words, token_ids, axis=0) * self.settings["width"] ** 0.5
        return self.word_dropout(vectors + tf.gather(self.positions, positions, axis=0), training=training)

    def hidden(self, features: Tensor, token_ids: Tensor, training: bool = False) -> Tensor:
        """Return what is known at each position, [B, W, T, D], from features [B, N, F] and words before [B, W, T]."""
        seen = self.see(features, training)
        hidden = self.read(token_ids, 0, training)
        for layer in self.decoder:
            hidden = layer(hidden, layer.keys_values(seen), training=training)
        return self.decoder_norm(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return unnormalised log-probabilities of the next word, [..., V], from hidden [..., D]."""
        return ops.matmul(hidden, ops.transpose(self.words)) + self.word_bias

    def call(self, inputs: tuple[Tensor, Tensor], training: bool = False) -> Tensor:
        """Return the probabilities of the next word at each position, [B, W, T, V], from (features, token_ids)."""
        features, token_ids = inputs
        return ops.softmax(self.logits(self.hidden(features, token_ids, training)))

    def step(
        self, token_ids: Tensor, images: tuple[Tensor, ...], rows: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """Return log-probabilities [B, W, V] of the word after `token_ids` [B, W], and the next rows.

        And where the last layer looked, the mean over heads [B, W, N], sums are 1.
        """
        hidden = as_rows(self.read(token_ids[..., None], ops.shape(rows[0])[3]))  # [B * W, D]
        next_rows, looked = [], None
        for place, layer in enumerate(self.decoder):
            pair = slice(2 * place, 2 * place + 2)
            hidden, kept, looked = layer.step(hidden, images[pair], rows[pair], ops.shape(token_ids))
            next_rows += kept
        log_probs = ops.log_softmax(self.logits(self.decoder_norm(hidden)))
        return ops.reshape(log_probs, (*ops.shape(token_ids), self.words.shape[0])), tuple(next_rows), looked


def _normal(width: int) -> keras.initializers.Initializer:
    """Return a fresh initializer: one that is used twice gives the same numbers twice."""
    return keras.initializers.RandomNormal(stddev=width**-0.5)
