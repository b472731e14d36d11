"""Restoring what a caller names by its path, be it a checkpoint or the directory of several."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

v1 = tf.compat.v1


def find_checkpoint(path: str) -> str:
    """Returns a checkpoint's path without suffix.

    Args:
        path: That, or a directory, whose newest checkpoint is taken.

    Raises:
        ValueError: There is no checkpoint.
    """
    checkpoint = tf.train.latest_checkpoint(path) if tf.io.gfile.isdir(path) else path
    if checkpoint is None or not v1.train.checkpoint_exists(checkpoint):
        raise ValueError(f"{path!r} is neither a checkpoint nor a directory that holds one")
    return checkpoint


def restore_variables(session: tf.compat.v1.Session, path: str, saver: Any = None) -> None:
    """Restores the variables of the default graph.

    Args:
        session: A session of that graph.
        path: See `find_checkpoint`.
        saver: What restores; by default a new one for all global variables and other objects that
            can be saved.

    Raises:
        ValueError: There is no checkpoint.
        tf.errors.OpError: It lacks a variable, or has one of another shape.
    """
    if saver is None:
        saver = v1.train.Saver(sharded=True, allow_empty=True)
    saver.restore(session, find_checkpoint(path))
