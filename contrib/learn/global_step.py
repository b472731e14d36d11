"""The global step of a graph, found as a `Supervisor` finds it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ...loops.global_step import find_variable

v1 = tf.compat.v1


def require_global_step(graph: tf.Graph, given: Any = None) -> Any:
    """Returns the global step's variable, or its tensor if it is none.

    Args:
        graph: The graph.
        given: A variable, or a tensor that reads one; None takes the one of the graph: what is in
            its `GLOBAL_STEP` collection, or else is named "global_step".

    Raises:
        ValueError: There is none, or there are several.
        TypeError: It is no integer scalar, or neither variable nor tensor.
    """
    found = _find(graph) if given is None else given
    if found is None:
        count = len(graph.get_collection(v1.GraphKeys.GLOBAL_STEP))
        raise ValueError(
            f"No global_step_tensor is given, and the graph has {count or 'no'} "
            "global_step: give one, or call tf.compat.v1.train.get_or_create_global_step() when "
            "building the model"
        )
    variable = find_variable(found) if isinstance(found, tf.Tensor) else found
    v1.train.assert_global_step(variable)
    return variable


def _find(graph: tf.Graph) -> Any:
    collected = graph.get_collection(v1.GraphKeys.GLOBAL_STEP)
    if len(collected) > 1:
        return None
    if collected:
        return collected[0]
    try:
        return graph.get_tensor_by_name("global_step:0")
    except KeyError:
        return None
