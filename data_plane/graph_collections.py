"""Collections of a graph, without elements that only its functions can run."""

from __future__ import annotations

import logging
from typing import Any

import tensorflow as tf

v1 = tf.compat.v1
log = logging.getLogger(__name__)


def runnable(graph: tf.Graph, key: str) -> list[Any]:
    """Returns the elements of a collection that a session of the graph can run.

    The branches of conditionals and the bodies of loops share the graph's collections. So some
    elements belong to a function, or run only if their branch is taken.

    Args:
        graph: The graph.
        key: The collection's key, one of ops or tensors.
    """
    return [each for each in graph.get_collection(key) if is_runnable(graph, each)]


def forget_unrunnable(graph: tf.Graph, key: str) -> None:
    """Removes from a collection the elements that `runnable` does not return, with a warning.

    Args:
        graph: The graph.
        key: The collection's key, one of ops or tensors.
    """
    left_out = [each for each in graph.get_collection(key) if not is_runnable(graph, each)]
    if left_out:
        graph.get_collection_ref(key)[:] = runnable(graph, key)
        log.warning(
            "%s in the collection %s: in a branch or a loop, so not run with the step; make them "
            "outside, or have the branch wait for them (tf.control_dependencies)",
            ", ".join(repr(each.name) for each in left_out),
            key,
        )


def merge_summaries() -> Any:
    """Merges the default graph's summaries, except those that no session can run.

    Returns:
        A string tensor; None if there are none.
    """
    forget_unrunnable(v1.get_default_graph(), v1.GraphKeys.SUMMARIES)
    return v1.summary.merge_all()


def is_runnable(graph: tf.Graph, element: Any) -> bool:
    """Returns whether a session of a graph can run an op, or fetch a tensor, by itself."""
    op = getattr(element, "op", element)
    return op.graph is graph and bool(graph.is_fetchable(op))
