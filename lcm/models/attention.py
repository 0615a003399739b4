"""What a transformer is made of: attention, and the layers that look, read and think; over whole captions or by word.

Within a layer, vectors are the rows of one matrix wherever they are, [R, D]: a dense layer of that is one product in
the exported graph, and of anything else ten operations that find out and change shapes.

Shapes: B images, W texts of each image, T positions, N grid positions, R rows, D width, H heads, E = D / H; Q queries
that look at K keys, X times.
"""

import keras
from keras import ops

Tensor = keras.KerasTensor


class Norm(keras.layers.LayerNormalization):
    """Layer normalisation, written so that ONNX Runtime makes one operation of it: Keras's own is nine there."""

    def call(self, inputs: Tensor) -> Tensor:
        """Return `inputs` [..., D] with mean 0 and variance 1 along D, then scaled and shifted as learned."""
        away = inputs - ops.mean(inputs, axis=-1, keepdims=True)
        variance = ops.mean(ops.power(away, 2.0), axis=-1, keepdims=True)  # not ops.square, which it does not know
        return away / ops.sqrt(variance + self.epsilon) * self.gamma + self.beta


class Attention(keras.layers.Layer):
    """Multi-head attention whose keys and values can be kept."""

    def __init__(self, width: int, heads: int, name: str):
        """Make the layers; `heads` share `width` in equal parts."""
        super().__init__(name=name)
        self.heads, self.head_width = heads, width // heads
        self.query = keras.layers.Dense(width, name="query")
        self.key = keras.layers.Dense(width, use_bias=False, name="key")  # a bias would shift all scores of a query
        self.value = keras.layers.Dense(width, name="value")
        self.output_dense = keras.layers.Dense(width, name="output_dense")

    def keys_values(self, rows: Tensor, times: Tensor | int) -> tuple[Tensor, Tensor]:
        """Return keys and values [X, H, K, E] of what can be looked at, [X * K, D]; `times` is X."""
        return self._split(self.key(rows), times), self._split(self.value(rows), times)

    def weights_of(self, queries: Tensor, keys: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return how much each head looks where, [..., Q, K], from queries [..., Q, E] and keys [..., K, E].

        `hidden` [Q, K] is very negative where a query may not look.
        """
        scores = ops.matmul(queries, ops.swapaxes(keys, -1, -2)) * self.head_width**-0.5
        return ops.softmax(scores if hidden is None else scores + hidden)

    def look(
        self, rows: Tensor, times: Tensor | int, keys: Tensor, values: Tensor, hidden: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return what rows [X * Q, D] find, [X * Q, D], in keys and values [X, H, K, E]; `times` is X.

        And how much each head looked where, [X, H, Q, K].
        """
        weights = self.weights_of(self._split(self.query(rows), times), keys, hidden)
        found = ops.matmul(weights, values)  # [X, H, Q, E]
        return self._join(ops.transpose(found, (0, 2, 1, 3))), weights

    def look_within(self, rows: Tensor, times: Tensor | int, hidden: Tensor | None = None) -> Tensor:
        """Return what rows [X * K, D] find among themselves, [X * K, D]; `times` is X."""
        return self.look(rows, times, *self.keys_values(rows, times), hidden)[0]

    def look_back(
        self, rows: Tensor, before: tuple[Tensor, Tensor], texts: tuple
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return what each text's next word finds in itself and the words before it, and the keys and values of all.

        From [B * W, D] and keys and values [B, W, H, T, E] to [B * W, D] and [B, W, H, T + 1, E]; `texts` is (B, W).
        """
        shape = (*texts, self.heads, 1, self.head_width)
        query, *new = (ops.reshape(dense(rows), shape) for dense in (self.query, self.key, self.value))
        keys, values = (ops.concatenate(both, axis=3) for both in zip(before, new, strict=True))
        return self._join(ops.matmul(self.weights_of(query, keys), values)), (keys, values)

    def _split(self, rows: Tensor, times: Tensor | int) -> Tensor:
        """Return [X, H, K, E] of [X * K, D]."""
        return ops.transpose(ops.reshape(rows, (times, -1, self.heads, self.head_width)), (0, 2, 1, 3))

    def _join(self, found: Tensor) -> Tensor:
        """Return [R, D] of what the heads found for each row, [..., H, E] or [..., H, 1, E]."""
        return self.output_dense(ops.reshape(found, (-1, self.heads * self.head_width)))


class _Block(keras.layers.Layer):
    """What encoder and decoder layers share: two dense layers at each position, added to what was there."""

    def __init__(self, width: int, dropout: float, name: str):
        super().__init__(name=name)
        self.norm = Norm(epsilon=1e-5, name="norm")
        self.dense = keras.layers.Dense(4 * width, activation="relu", name="dense")
        self.dense_back = keras.layers.Dense(width, name="dense_back")
        self.dropout = keras.layers.Dropout(dropout, name="dropout")
        self.built = True  # the layers within build themselves as they are called; Keras would warn that it cannot

    def think(self, rows: Tensor, training: bool = False) -> Tensor:
        """Return `rows` [R, D] with what the dense layers add."""
        added = self.dense_back(self.dense(self.norm(rows)))
        return rows + self.dropout(added, training=training)


class EncoderLayer(_Block):
    """Every grid position looks at all others."""

    def __init__(self, width: int, heads: int, dropout: float, name: str):
        super().__init__(width, dropout, name)
        self.look_norm = Norm(epsilon=1e-5, name="look_norm")
        self.attention = Attention(width, heads, name="attention")

    def call(self, seen: Tensor, training: bool = False) -> Tensor:
        """Return [B, N, D] from [B, N, D]."""
        rows = as_rows(seen)
        found = self.attention.look_within(self.look_norm(rows), ops.shape(seen)[0])
        return ops.reshape(self.think(rows + self.dropout(found, training=training), training), ops.shape(seen))


class DecoderLayer(_Block):
    """Every word reads the words before it and looks at the grid."""

    def __init__(self, width: int, heads: int, dropout: float, name: str):
        super().__init__(width, dropout, name)
        self.read_norm = Norm(epsilon=1e-5, name="read_norm")
        self.read = Attention(width, heads, name="read")
        self.look_norm = Norm(epsilon=1e-5, name="look_norm")
        self.look = Attention(width, heads, name="look")

    def keys_values(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return what every word looks at, keys and values [B, H, N, E] of the grid [B, N, D]."""
        return self.look.keys_values(as_rows(seen), ops.shape(seen)[0])

    def call(self, hidden: Tensor, image: tuple[Tensor, Tensor], training: bool = False) -> Tensor:
        """Return [B, W, T, D] from [B, W, T, D] and the image's keys and values [B, H, N, E]."""
        batch, texts, length, _ = ops.shape(hidden)
        ahead = -1e9 * ops.cast(ops.arange(length)[:, None] < ops.arange(length)[None], hidden.dtype)  # [T, T]
        rows = as_rows(hidden)
        found = self.read.look_within(self.read_norm(rows), batch * texts, ahead)
        rows, _ = self._look_and_think(rows + self.dropout(found, training=training), image, batch, training)
        return ops.reshape(rows, ops.shape(hidden))

    def step(
        self, rows: Tensor, image: tuple[Tensor, Tensor], words: tuple[Tensor, Tensor], texts: tuple
    ) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        """Return [B * W, D] for the next word, and the words' keys and values [B, W, H, T + 1, E]; `texts` is (B, W).

        And how much it looked where, the mean over heads [B, W, N]. Shapes are told rather than asked for: in the
        graph, asking takes five operations each time.
        """
        found, words = self.read.look_back(self.read_norm(rows), words, texts)
        rows, weights = self._look_and_think(rows + found, image, texts[0], False)
        return rows, words, ops.mean(weights, axis=1)

    def _look_and_think(
        self, rows: Tensor, image: tuple[Tensor, Tensor], images: Tensor | int, training: bool
    ) -> tuple[Tensor, Tensor]:
        """Return [R, D] with what is found in the image, and how much each head looked where; `images` is B."""
        found, weights = self.look.look(self.look_norm(rows), images, *image)
        return self.think(rows + self.dropout(found, training=training), training), weights


def as_rows(vectors: Tensor) -> Tensor:
    """Return [R, D] of [..., D]."""
    return ops.reshape(vectors, (-1, vectors.shape[-1]))
