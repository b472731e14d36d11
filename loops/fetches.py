"""Fetches of monitors, and the session's fetches in their place.

A monitor asks for tensors, ops, variables, or names of them. The name "v:0" of a resource variable
is that of its handle, which says nothing about the value; so its reader is fetched instead.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

v1 = tf.compat.v1

_REF_VARIABLES = frozenset({"Variable", "VariableV2"})


def output_key(request: Any) -> Hashable:
    """Returns the key under which a monitor finds the value of `request` in the outputs of a step.

    Args:
        request: A tensor, whose key is its name, or another request, which is its own key: a name,
            an op, a variable.
    """
    return str(request.name) if isinstance(request, tf.Tensor) else request


def resolve(graph: tf.Graph, request: Any) -> Any:
    """Returns the fetch for `request`, without a change to the graph.

    Args:
        graph: The graph with the requested element.
        request: A tensor, op or variable, the name of one, or any structure that `session.run`
            takes. The name of an op stands for its only output.

    Raises:
        KeyError: There is nothing of that name in the graph.
        ValueError: It names an op with several outputs, or a variable that nothing reads, or it
            is of another graph.
    """
    if isinstance(request, str):
        request = _by_name(graph, request)
    if isinstance(request, tf.Tensor) and request.op.type == "VarHandleOp":
        return _reader(request)
    if isinstance(request, tf.Variable):
        return graph.as_graph_element(request)
    return request


def read_late(tensor: Any, after: list[Any]) -> Any:
    """Returns the value that `tensor` has once the ops `after` are done, if it is a variable's.

    Args:
        tensor: A tensor. If it is a variable, or only reads one, there will be a new read of it;
            else the tensor itself is returned.
        after: Operations of the same graph.
    """
    # The control inputs of the given read have to run as well.
    after = [*after, tensor.op]
    source = tensor
    while source.op.type == "Identity":
        source = source.op.inputs[0]
    if source.op.type in _REF_VARIABLES:
        with _placed_after(source.op, after):
            return tf.identity(source)
    if source.op.type == "ReadVariableOp":
        handle = source.op.inputs[0]
        with _placed_after(handle.op, after):
            return tf.raw_ops.ReadVariableOp(resource=handle, dtype=tensor.dtype)
    return tensor


def _by_name(graph: tf.Graph, name: str) -> Any:
    element = graph.as_graph_element(name)
    if isinstance(element, tf.Tensor) or not element.outputs:
        return element
    if len(element.outputs) > 1:
        raise ValueError(
            f"{name!r} has {len(element.outputs)} outputs: name one of them, such as '{name}:0'"
        )
    return element.outputs[0]


def _reader(handle: Any) -> Any:
    for op in handle.consumers():
        # The first reader is made together with the variable, outside any control flow.
        if op.type == "ReadVariableOp":
            return op.outputs[0]
    raise ValueError(
        f"{handle.name!r} is the handle of a variable that nothing in the graph reads: ask for its "
        "`read_value()`, made before training begins"
    )


@contextmanager
def _placed_after(variable: tf.Operation, after: list[Any]) -> Iterator[None]:
    with tf.control_dependencies(after), v1.device(variable.device or None):
        yield
