"""Pixels become model input here and nowhere else: training, export and scoring all call this module."""

from __future__ import annotations

import keras
import tensorflow as tf

__all__ = ["decode", "decode_and_resize", "normalisation", "resize"]


def decode(data: tf.Tensor) -> tf.Tensor:
    """Decode a JPEG, a PNG, a WebP without transparency or a GIF with one frame.

    Args:
        data: Scalar string, the encoded image.

    Returns:
        `uint8 [h, w, 3]`. An alpha channel is dropped, grey is repeated, 16 bits become 8.
    """
    # The accurate inverse DCT equals libjpeg-turbo's and Pillow's; TensorFlow's default differs by up to 5 levels,
    # which moved probabilities by up to 0.07. The operation tells the format by itself, whatever its name says, but
    # returns a WebP with a dimension more. Ask for no other channels than 3 of a WebP: with 0 or 4, an animated one
    # makes TensorFlow 2.21 write past its memory.
    image = tf.cond(
        tf.strings.substr(data, 0, 4) == "RIFF",
        lambda: tf.io.decode_image(data, channels=3, expand_animations=False),
        lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"),
    )
    return tf.ensure_shape(image, [None, None, 3])


def resize(images: tf.Tensor, size: int) -> tf.Tensor:
    """Resize to a square of `size` pixels, bilinear and antialiased.

    Args:
        images: `uint8 [h, w, 3]` or `[n, h, w, 3]`.
        size: Height and width of the result.

    Returns:
        `uint8`, rounded, so that stored and freshly decoded pixels are the same model input.
    """
    resized = tf.image.resize(images, (size, size), method="bilinear", antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)


def decode_and_resize(data: tf.Tensor, size: int) -> tf.Tensor:
    """Return the model input of an encoded image: `uint8 [size, size, 3]` from a scalar string."""
    image = decode(data)
    # To its own size, resizing changes nothing, but takes longer than decoding.
    same = tf.reduce_all(tf.shape(image)[:2] == size)
    return tf.ensure_shape(tf.cond(same, lambda: image, lambda: resize(image, size)), [size, size, 3])


def normalisation() -> keras.layers.Layer:
    """Return the first layer of every model: pixels in [0, 255] to [-1, 1], as both backbones' weights expect."""
    return keras.layers.Rescaling(scale=1 / 127.5, offset=-1.0, name="normalisation")
