"""Turn encoded images into model input. Training, export and scoring all use this module, so they decode alike.

Model input is `uint8`. The first layer of the model scales it, as its backbone's entry in `backbones.py` defines.
"""

from __future__ import annotations

import tensorflow as tf

__all__ = ["decode", "decode_and_resize", "resize"]


def decode(data: tf.Tensor) -> tf.Tensor:
    """Decode a JPEG, a PNG, a WebP without transparency or a GIF with one frame.

    Args:
        data: Scalar string, the encoded image.

    Returns:
        `uint8 [h, w, 3]`. An alpha channel is dropped, grey is repeated, 16 bits become 8.
    """
    # The accurate inverse DCT equals libjpeg-turbo's and Pillow's; TensorFlow's default differs by up to 5 levels,
    # which moved probabilities by up to 0.07. In spite of its name the operation detects the format, but it returns a
    # WebP with an extra dimension. Use no other channels than 3: with 0 or 4, an animated WebP makes TensorFlow 2.21
    # write past its buffer.
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
        `uint8`, rounded, so that stored and freshly decoded pixels give the same model input.
    """
    # TensorFlow skips resizing to the same size only if the size is known when the graph is built; a tile's isn't.
    fits = tf.reduce_all(tf.shape(images)[-3:-1] == size)
    resized = tf.cond(fits, lambda: images, lambda: _resampled(images, size))
    return tf.ensure_shape(resized, [*images.shape[:-3], size, size, 3])


def _resampled(images: tf.Tensor, size: int) -> tf.Tensor:
    resized = tf.image.resize(images, (size, size), method="bilinear", antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)


def decode_and_resize(data: tf.Tensor, size: int) -> tf.Tensor:
    """Return the model input of an encoded image: `uint8 [size, size, 3]` from a scalar string."""
    return tf.ensure_shape(resize(decode(data), size), [size, size, 3])
