"""The coordinator of a supervisor's threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf


class GraphCoordinator(tf.compat.v1.train.Coordinator):
    """Coordinator that runs the threads of a supervisor in its graph, and abandons stuck ones.

    In TensorFlow 2, a new thread has no current graph. TensorFlow then treats the global step,
    which the supervisor's services read, as an eager value.

    Args:
        graph: The graph.
    """

    def __init__(self, graph: tf.Graph) -> None:
        super().__init__()
        self._graph = graph

    @contextlib.contextmanager
    def stop_on_exception(self) -> Iterator[None]:
        """Stops all threads if the code inside raises something."""
        with self._graph.as_default(), super().stop_on_exception():
            yield

    def request_stop(self, ex: Any = None) -> None:
        """Stops all threads, and remembers the first error."""
        # A queue runner that `stop` abandoned: it ends with its session, as it should.
        if not (self.joined and isinstance(ex, tf.errors.CancelledError)):
            super().request_stop(ex)
