"""The dual encoder: images and texts become vectors that lie close where they fit.

Contrastive learning after Radford et al., "Learning Transferable Visual Models From Natural Language Supervision"
(2021), with locked image features (Zhai et al., "LiT", 2022) and a text tower over a frozen word embedding, so that it
can read words it has not been trained on.

Shapes: B images or texts, F numbers in the image features, T words of a text, W words of the table, E numbers in a
word's pretrained vector, L in what is learned of it, D in a unit vector.
"""

import keras
from keras import ops

Tensor = keras.KerasTensor
KERNELS = (1, 3)  # words that a filter of the text tower sees at once


class DualEncoder(keras.Model):
    """One dense layer for images; for texts, filters over one and three words and their highest answers.

    A word's row is its pretrained vector and, for the first `learned_words` of the table, a learned vector beside it.
    The learned part is hidden now and then in training: words that have none must be readable too.
    """

    def __init__(
        self,
        feature_dim: int,
        table_size: int,
        learned_words: int,
        embedding_dim: int = 50,
        learned_dim: int = 256,
        width: int = 512,
    ):
        """Make the layers; `table_size` is W, `feature_dim` F, `learned_dim` L and `width` D. Word id 0 is no word."""
        super().__init__()
        self.feature_dim, self.learned_words, self.width = feature_dim, learned_words, width
        self.embedding_dim, self.row_width = embedding_dim, embedding_dim + learned_dim
        # Of the features it is trained with. Keras's own layer holds copies outside its weights, which ONNX takes for
        # further inputs.
        self.mean = self.add_weight(shape=(feature_dim,), initializer="zeros", trainable=False, name="mean")
        self.spread = self.add_weight(shape=(feature_dim,), initializer="ones", trainable=False, name="spread")
        self.image_dropout = keras.layers.Dropout(0.5, name="image_dropout")
        self.image_dense = keras.layers.Dense(width, name="image_dense")
        self.pretrained = keras.layers.Embedding(table_size + 1, embedding_dim, trainable=False, name="pretrained")
        self.learned = keras.layers.Embedding(
            learned_words + 1, learned_dim, keras.initializers.RandomNormal(stddev=0.1), name="learned"
        )
        self.learned_dropout = keras.layers.Dropout(0.3, name="learned_dropout")
        self.word_dropout = keras.layers.Dropout(0.1, name="word_dropout")
        self.filters = [keras.layers.Conv1D(width, kernel, padding="same") for kernel in KERNELS]
        self.text_dropout = keras.layers.Dropout(0.3, name="text_dropout")
        self.text_dense = keras.layers.Dense(width, name="text_dense")
        # One over the temperature, as logarithms: of sentences, and of single words.
        self.log_scales = self.add_weight(shape=(2,), initializer=keras.initializers.Constant(3.0), name="log_scales")

    def image_tower(self, features: Tensor, training: bool = False) -> Tensor:
        """Return unit vectors [B, D] of image features [B, F]."""
        normalised = self.image_dropout((features - self.mean) / self.spread, training=training)
        return ops.normalize(self.image_dense(normalised), axis=-1)

    def rows(self, word_ids: Tensor, training: bool = False) -> Tensor:
        """Return the rows of words [B, T, E + L] of ids [B, T]; the learned part is zeros where there is none."""
        has_learned = word_ids <= self.learned_words
        learned = self.learned(ops.where(has_learned, word_ids, 0))
        learned = learned * ops.cast(has_learned, learned.dtype)[..., None]
        if training:
            learned = learned * _kept(self.learned_dropout, learned[..., :1])
        return ops.concatenate([self.pretrained(word_ids), learned], axis=-1)

    def text_tower(self, rows: Tensor, counted: Tensor, training: bool = False) -> Tensor:
        """Return unit vectors [B, D] of texts, from rows of words [B, T, E + L]; `counted` [B, T] is 0 at no word."""
        counted = counted[..., None]
        rows = rows * counted
        seen = _gelu(ops.concatenate([one(rows) for one in self.filters], axis=-1))  # [B, T, D * filters]
        highest = ops.max(seen * counted - 1e4 * (1 - counted), axis=1)
        return ops.normalize(self.text_dense(self.text_dropout(highest, training=training)), axis=-1)

    def read(self, word_ids: Tensor, training: bool = False) -> Tensor:
        """Return unit vectors [B, D] of texts as word ids [B, T], 0 where a text is over."""
        counted = ops.cast(word_ids > 0, "float32")
        if training:  # some words are skipped, but never all: the first one stays
            kept = _kept(self.word_dropout, counted)
            counted = counted * ops.concatenate([ops.ones_like(kept[:, :1]), kept[:, 1:]], axis=1)
        return self.text_tower(self.rows(word_ids, training), counted, training)

    def call(self, inputs: tuple[Tensor, Tensor], training: bool = False) -> tuple[Tensor, Tensor]:
        """Return the unit vectors of images and of texts from (features [B, F], word ids [B, T])."""
        features, word_ids = inputs
        return self.image_tower(features, training), self.read(word_ids, training)


def _gelu(values: Tensor) -> Tensor:
    """Return the exact GELU. Keras's own becomes an operation, Erfc, for which ONNX has none."""
    return 0.5 * values * (1 + ops.erf(values * 0.5**0.5))


def _kept(dropout: keras.layers.Dropout, like: Tensor) -> Tensor:
    """Return 1 where a dropout keeps an entry and 0 where not, unscaled: what is kept stays as it is when serving."""
    return ops.cast(dropout(ops.ones_like(like), training=True) > 0, like.dtype)
