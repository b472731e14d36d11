"""The global step: found although it is a resource variable, and a scalar for certain."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ..loops.fetches import resolve

_KEY = tf.compat.v1.GraphKeys.GLOBAL_STEP


def assert_global_step(global_step_tensor: Any) -> None:
    """Checks that something can be a global step.

    Args:
        global_step_tensor: A `Variable` or `Tensor`.

    Raises:
        TypeError: It is neither, or no scalar, or not of an integer type.
    """
    try:
        tf.compat.v1.train.assert_global_step(global_step_tensor)
    except TypeError as error:
        raise TypeError(
            f"{error} A global step is a scalar of an integer type: make one with "
            "get_or_create_global_step()"
        ) from None


def get_global_step(graph: tf.Graph | None = None) -> Any:
    """Returns the global step of a graph, or None.

    It is the element of the collection `GLOBAL_STEP`, or else the variable (or tensor) with the
    name "global_step". TensorFlow takes the handle of a resource variable for a number, and raises
    `TypeError`.

    Args:
        graph: The graph; the default graph if None.

    Raises:
        TypeError: The element cannot be a global step.
    """
    graph = tf.compat.v1.get_default_graph() if graph is None else graph
    if not graph.get_collection(_KEY):
        for variable in graph.get_collection(tf.compat.v1.GraphKeys.GLOBAL_VARIABLES):
            if variable.op.name == _KEY:
                assert_global_step(variable)
                return variable
    return tf.compat.v1.train.get_global_step(graph)


def create_global_step(graph: tf.Graph | None = None) -> Any:
    """Makes the global step of a graph: a variable of type int64, with the value 0.

    Args:
        graph: Where to make it; the default graph if None.

    Raises:
        ValueError: There is one already.
    """
    if get_global_step(graph) is not None:
        raise ValueError(
            '"global_step" already exists. Use get_or_create_global_step() to have it if so'
        )
    return tf.compat.v1.train.create_global_step(graph)


def get_or_create_global_step(graph: tf.Graph | None = None) -> Any:
    """Returns the global step of a graph, made if there was none.

    A global step found by its name is in the collection `GLOBAL_STEP` afterwards, where
    TensorFlow's hooks find it too.

    Args:
        graph: The graph; the default graph if None.

    Raises:
        TypeError: The element cannot be a global step.
    """
    graph = tf.compat.v1.get_default_graph() if graph is None else graph
    step = get_global_step(graph)
    if step is None:
        return tf.compat.v1.train.create_global_step(graph)
    if not graph.get_collection(_KEY):
        graph.add_to_collection(_KEY, step)
    return step


def global_step(sess: tf.compat.v1.Session | None, global_step_tensor: Any) -> int:
    """Reads the value of a global step.

    Args:
        sess: The session; None for a step of eager execution.
        global_step_tensor: The global step, or its name in the session's graph.

    Raises:
        TypeError: It is no scalar.
    """
    # Not for whether eager execution is on: it always is in a new thread, graph or not.
    if sess is None:
        value = global_step_tensor.numpy()
    else:
        value = sess.run(resolve(sess.graph, global_step_tensor))
    if np.ndim(value) != 0:
        name = getattr(global_step_tensor, "name", global_step_tensor)
        raise TypeError(
            f"the global step {name!r} is not scalar, it has the shape {np.shape(value)}: make "
            "one with get_or_create_global_step()"
        )
    return int(value)
