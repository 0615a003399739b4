"""The training loss: cross entropy of the next word, at the positions that hold one.

Knows how to take it in few passes over the logits, which are by far the largest array of a step. Refuses to
know models and optimizers.

Shapes: P real positions of a batch, V words, D width.
"""

import tensorflow as tf

from lcm.data.vocabulary import PAD


@tf.custom_gradient
def cross_entropy(logits: tf.Tensor, targets: tf.Tensor):
    """Return the mean over P of -log softmax(logits)[target]; `logits` is [P, V], `targets` [P].

    The same value and gradient as TensorFlow's sparse_softmax_cross_entropy_with_logits, whose CPU kernel
    takes twice as long: the softmax is kept, and its gradient is softmax - one_hot.
    """
    positions = tf.shape(targets)[0]
    probabilities = tf.nn.softmax(logits)
    places = tf.stack([tf.range(positions), targets], axis=1)  # [P, 2]
    loss = -tf.reduce_mean(tf.math.log(tf.gather_nd(probabilities, places) + 1e-30))

    def gradient(upstream):
        share = upstream / tf.cast(positions, logits.dtype)
        return tf.tensor_scatter_nd_sub(probabilities * share, places, tf.fill([positions], share)), None

    return loss, gradient


def caption_loss(model, features, inputs, targets, training: bool) -> tf.Tensor:
    """Return the model's mean loss over the real positions of a batch; the softmax is taken at no other.

    `features` [B, F], `inputs` and `targets` [B, T]; PAD in `targets` marks what is not a position.
    """
    hidden = model.hidden(features, inputs, training=training)  # [B, T, D]
    real = tf.where(targets != PAD)  # [P, 2]
    return cross_entropy(model.logits(tf.gather_nd(hidden, real)), tf.gather_nd(targets, real))
