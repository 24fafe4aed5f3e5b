"""Show the network the same tile in other ways. Seen from above, a tile has no right way up."""

from __future__ import annotations

import tensorflow as tf

__all__ = ["random_view", "view"]

_BRIGHTNESS = 0.1
_CONTRAST = 0.15


def view(images: tf.Tensor, index: int) -> tf.Tensor:
    """Return one of the eight symmetries of the square.

    Args:
        images: `[n, s, s, 3]`.
        index: 0 is the image itself, 1 its mirror image, 2 and 3 their half turns, 4 to 7 the same with rows and
            columns swapped. The order makes few views differ much: the first two already differ in left and right.

    Returns:
        The images, same shape and dtype.
    """
    if index & 1:
        images = tf.reverse(images, [2])
    if index & 2:
        images = tf.reverse(images, [1, 2])
    if index & 4:
        images = tf.transpose(images, [0, 2, 1, 3])
    return images


def random_view(images: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Flip, turn, brighten and stretch each image of a batch at random, the same way for the same key.

    Args:
        images: `uint8 [n, s, s, 3]`.
        key: `int64 [2]`, the seed of TensorFlow's stateless random numbers.

    Returns:
        `uint8 [n, s, s, 3]`.
    """
    count = tf.shape(images)[0]
    coins = tf.random.stateless_uniform([3, count, 1, 1, 1], key) < 0.5
    images = tf.where(coins[0], tf.reverse(images, [1]), images)
    images = tf.where(coins[1], tf.reverse(images, [2]), images)
    images = tf.where(coins[2], tf.transpose(images, [0, 2, 1, 3]), images)
    change = tf.random.stateless_uniform([2, count, 1, 1, 1], key + 1, -1.0, 1.0)
    pixels = tf.cast(images, tf.float32)
    mean = tf.reduce_mean(pixels, axis=[1, 2, 3], keepdims=True)
    pixels = (pixels - mean) * (1 + _CONTRAST * change[0]) + mean + 255 * _BRIGHTNESS * change[1]
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)
