"""`LoggingTensorHook`: a variable's name stands for its value."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..loops.fetches import resolve


class LoggingTensorHook(tf.compat.v1.train.LoggingTensorHook):
    """Hook that logs tensors at intervals of runs or seconds, or at the end.

    Takes the arguments of `tf.compat.v1.train.LoggingTensorHook`, which logs the bytes of a handle
    for a resource variable that is given by its name; this one logs the value.

    Args:
        tensors: A dict that maps tags to tensors or their names, or several tensors or names.
        every_n_iter: Runs of this task between two lines.
        every_n_secs: Seconds between two lines. Give this or `every_n_iter`.
        at_end: Whether to log at the end as well, or only, if neither of the former is given.
        formatter: Takes a dict of tags and values, and returns the line.

    Raises:
        ValueError: Both or none of the periods are given, or `every_n_iter` is not positive.
    """

    def begin(self) -> None:
        """Looks names up in the graph."""
        graph = tf.compat.v1.get_default_graph()
        self._tensors: dict[Any, Any] = {
            tag: resolve(graph, tensor) for tag, tensor in self._tensors.items()
        }
        super().begin()
