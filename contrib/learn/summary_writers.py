"""Event writers, one for each directory, shared by all code that writes there."""

from __future__ import annotations

import contextlib
from typing import Any

import tensorflow as tf


def get_summary_writer(output_dir: str) -> Any:
    """Returns the `tf.compat.v1.summary.FileWriter` for a directory: the same at each call.

    Args:
        output_dir: The directory, which is made if necessary.
    """
    # A writer begins with the default graph, and refuses to be made where there is none.
    graph = tf.Graph().as_default() if tf.executing_eagerly() else contextlib.nullcontext()
    with graph:
        return tf.compat.v1.summary.FileWriterCache.get(output_dir)


def clear_summary_writers() -> None:
    """Closes all writers, and forgets them: the next call for a directory starts a new file."""
    tf.compat.v1.summary.FileWriterCache.clear()
