"""The log of the library, which follows the verbosity of TensorFlow's.

The original functions write to TensorFlow's log. Scripts made for them ask for the lines about the
loss with `tf.compat.v1.logging.set_verbosity`, and need not set up Python's logging.
"""

from __future__ import annotations

import logging

import tensorflow as tf

_OURS = __name__.partition(".")[0]


def follow_tensorflow() -> None:
    """Makes TensorFlow's logger the parent of the library's: its level and handlers hold for both.

    A level that is set for the library's own logger goes first. Calling this again does nothing.
    """
    tensorflow = tf.get_logger()
    logging.getLogger(_OURS).parent = tensorflow
    for handler in tensorflow.handlers:
        handler.addFilter(_is_left_to_tensorflow)


def _is_left_to_tensorflow(record: logging.LogRecord) -> bool:
    """Leaves out lines of the library that the program's own handlers write as well."""
    if record.name.partition(".")[0] != _OURS:
        return True
    reaches_root = tf.get_logger().propagate
    return not (
        logging.getLogger(_OURS).handlers or (reaches_root and logging.getLogger().handlers)
    )
