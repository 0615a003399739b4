"""What a transformer is made of: attention, and the layers that look, read and think.

Knows how one layer works, over whole captions or word by word. Refuses to know how many there are, words and places.

Shapes: B images, W texts of each image, T positions, N grid positions, D width, H heads; Q queries that look at K keys,
X times.
"""

import keras
from keras import ops

Tensor = keras.KerasTensor


class Attention(keras.layers.Layer):
    """Multi-head attention whose keys and values can be kept."""

    def __init__(self, width: int, heads: int, **keras_options):
        """Make the layers; raises ValueError unless `heads` share `width` in equal parts."""
        super().__init__(**keras_options)
        if width % heads:
            raise ValueError(f"width is {width} and heads {heads}; the width must be a multiple of the heads")
        self.heads, self.head_width = heads, width // heads
        self.query = keras.layers.Dense(width, name="query")
        self.key = keras.layers.Dense(width, use_bias=False, name="key")  # a bias would shift all scores of a query
        self.value = keras.layers.Dense(width, name="value")
        self.output_dense = keras.layers.Dense(width, name="output_dense")

    def keys_values(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values [..., K, D] of what can be looked at, [..., K, D]."""
        return self.key(seen), self.value(seen)

    def weights_of(self, queries: Tensor, keys: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return how much each head looks where, [X, H, Q, K], from [X, Q, D] and keys [X, K, D].

        `hidden` [Q, K] is very negative where a query may not look.
        """
        scores = ops.matmul(self._split(self.query(queries)), ops.transpose(self._split(keys), (0, 1, 3, 2)))
        scores = scores * self.head_width**-0.5
        return ops.softmax(scores if hidden is None else scores + hidden)

    def look(self, queries: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return what is found, [X, Q, D], from [X, Q, D], keys and values [X, K, D]."""
        found = ops.matmul(self.weights_of(queries, keys, hidden), self._split(values))  # [X, H, Q, D / H]
        shape = ops.shape(queries)
        joined = ops.reshape(ops.transpose(found, (0, 2, 1, 3)), (shape[0], shape[1], self.heads * self.head_width))
        return self.output_dense(joined)

    def _split(self, vectors: Tensor) -> Tensor:
        """Return [X, H, K, D / H] of [X, K, D].

        Without a reshape: after a dense layer that has no bias, or one of zeros, tf2onnx would write a wrong one.
        """
        return ops.stack(ops.split(vectors, self.heads, axis=-1), axis=1)


class _Block(keras.layers.Layer):
    """What encoder and decoder layers share: two dense layers at each position, added to what was there."""

    def __init__(self, width: int, dropout: float, **keras_options):
        super().__init__(**keras_options)
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm")
        self.dense = keras.layers.Dense(4 * width, activation="relu", name="dense")
        self.dense_back = keras.layers.Dense(width, name="dense_back")
        self.dropout = keras.layers.Dropout(dropout, name="dropout")
        self.built = True  # the layers within build themselves as they are called; Keras would warn that it cannot

    def think(self, hidden: Tensor, training: bool = False) -> Tensor:
        """Return `hidden` [..., D] with what the dense layers add."""
        added = self.dense_back(self.dense(self.norm(hidden)))
        return hidden + self.dropout(added, training=training)


class EncoderLayer(_Block):
    """Every grid position looks at all others."""

    def __init__(self, width: int, heads: int, dropout: float, **keras_options):
        super().__init__(width, dropout, **keras_options)
        self.look_norm = keras.layers.LayerNormalization(epsilon=1e-5, name="look_norm")
        self.attention = Attention(width, heads, name="attention")

    def call(self, seen: Tensor, training: bool = False) -> Tensor:
        """Return [B, N, D] from [B, N, D]."""
        normal = self.look_norm(seen)
        found = self.attention.look(normal, *self.attention.keys_values(normal))
        return self.think(seen + self.dropout(found, training=training), training)


class DecoderLayer(_Block):
    """Every word reads the words before it and looks at the grid."""

    def __init__(self, width: int, heads: int, dropout: float, **keras_options):
        super().__init__(width, dropout, **keras_options)
        self.read_norm = keras.layers.LayerNormalization(epsilon=1e-5, name="read_norm")
        self.read = Attention(width, heads, name="read")
        self.look_norm = keras.layers.LayerNormalization(epsilon=1e-5, name="look_norm")
        self.look = Attention(width, heads, name="look")

    def call(self, hidden: Tensor, image: tuple[Tensor, Tensor], training: bool = False) -> Tensor:
        """Return [B, W, T, D] from [B, W, T, D] and the image's keys and values [B, N, D]."""
        return self._look_and_think(self._read_before(hidden, training), image, training)

    def looks(self, hidden: Tensor, keys: Tensor) -> Tensor:
        """Return how much each word looks where, the mean over heads [B, W, T, N], from [B, W, T, D] and [B, N, D]."""
        batch, texts, length, _ = ops.shape(hidden)
        weights = self.look.weights_of(self._queries(self._read_before(hidden, False)), keys)  # [B, H, W * T, N]
        return ops.reshape(ops.mean(weights, axis=1), (batch, texts, length, ops.shape(keys)[1]))

    def _read_before(self, hidden: Tensor, training: bool) -> Tensor:
        """Return [B, W, T, D] with what each word finds in itself and those before it."""
        length = ops.shape(hidden)[2]
        ahead = -1e9 * ops.cast(ops.arange(length)[:, None] < ops.arange(length)[None], hidden.dtype)  # [T, T]
        normal = _fold_texts(self.read_norm(hidden))
        found = self.read.look(normal, *self.read.keys_values(normal), ahead)
        return hidden + self.dropout(ops.reshape(found, ops.shape(hidden)), training=training)

    def step(
        self, hidden: Tensor, image: tuple[Tensor, Tensor], words: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return [B, W, 1, D] for the next word, and the words' keys and values [B, W, T + 1, D]."""
        normal = self.read_norm(hidden)
        keys, values = (
            ops.concatenate([before, new], axis=2)
            for before, new in zip(words, self.read.keys_values(normal), strict=True)
        )
        found = self.read.look(_fold_texts(normal), _fold_texts(keys), _fold_texts(values))
        hidden = hidden + ops.reshape(found, ops.shape(hidden))
        return self._look_and_think(hidden, image, False), (keys, values)

    def _look_and_think(self, hidden: Tensor, image: tuple[Tensor, Tensor], training: bool) -> Tensor:
        found = ops.reshape(self.look.look(self._queries(hidden), *image), ops.shape(hidden))
        return self.think(hidden + self.dropout(found, training=training), training)

    def _queries(self, hidden: Tensor) -> Tensor:
        """Return what the texts of an image look for, [B, W * T, D], from [B, W, T, D]."""
        shape = ops.shape(hidden)
        return ops.reshape(self.look_norm(hidden), (shape[0], shape[1] * shape[2], shape[3]))


def _fold_texts(rows: Tensor) -> Tensor:
    """Return [B * W, T, D] of [B, W, T, D]."""
    shape = ops.shape(rows)
    return ops.reshape(rows, (shape[0] * shape[1], shape[2], shape[3]))
