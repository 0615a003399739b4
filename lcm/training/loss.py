"""The training loss: cross entropy of the next word, at the positions that hold one.

Knows how to take it in few passes over the logits, which are by far the largest array of a step. Refuses to
know models and optimizers.

Shapes: B images, W texts of each image, T positions, P real positions of a batch, V words, D width.
"""

import tensorflow as tf

from lcm.data.vocabulary import PAD


def cross_entropy(logits: tf.Tensor, targets: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Return the mean over P of the cross entropy of softmax(logits) with the targets; [P, V] and [P].

    `smoothing` is the share of the target that all words hold in equal parts (Szegedy et al., "Rethinking the
    Inception Architecture", 2016, section 7). Without it, value and gradient are those of TensorFlow's
    sparse_softmax_cross_entropy_with_logits, whose CPU kernel takes twice as long: here the softmax is kept, and
    its gradient is softmax - target.
    """

    @tf.custom_gradient
    def mean_loss(logits):
        positions = tf.shape(targets)[0]
        probabilities = tf.nn.softmax(logits)
        places = tf.stack([tf.range(positions), targets], axis=1)  # [P, 2]
        loss = -tf.reduce_mean(tf.math.log(tf.gather_nd(probabilities, places) + 1e-30))
        if smoothing:
            target_logits = tf.gather_nd(logits, places)
            loss += smoothing * tf.reduce_mean(target_logits - tf.reduce_mean(logits, axis=1))

        def gradient(upstream):
            share = upstream / tf.cast(positions, logits.dtype)
            towards = tf.fill([positions], (1.0 - smoothing) * share)
            spread = probabilities * share
            if smoothing:
                spread -= smoothing * share / tf.cast(tf.shape(logits)[1], logits.dtype)
            return tf.tensor_scatter_nd_sub(spread, places, towards)

        return loss, gradient

    return mean_loss(logits)


def caption_loss(model, features, inputs, targets, training: bool, smoothing: float = 0.0) -> tf.Tensor:
    """Return the model's mean loss over the real positions of a batch; the softmax is taken at no other.

    `features` [B, ...], `inputs` and `targets` [B, W, T]; PAD in `targets` marks what is not a position.
    """
    words = tf.boolean_mask(targets, targets != PAD)
    return cross_entropy(real_logits(model, features, inputs, targets, training), words, smoothing)


def real_logits(model, features, inputs, targets, training: bool = False) -> tf.Tensor:
    """Return the model's logits [P, V] at the real positions of a batch, as caption_loss takes it."""
    hidden = model.hidden(features, inputs, training=training)  # [B, W, T, D]
    logits = model.logits(tf.gather_nd(hidden, tf.where(targets != PAD)))
    return tf.cast(logits, tf.float32)  # where products are in 16 bits, a mean of thousands of losses may not be
