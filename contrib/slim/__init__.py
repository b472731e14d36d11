"""The training part of `tf.contrib.slim`, which TensorFlow 2 removed, on today's TensorFlow."""

from . import learning

__all__ = ["learning"]
