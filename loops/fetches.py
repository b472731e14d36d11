"""Fetches of monitors, and the session's fetches in their place.

A monitor asks for tensors, ops, variables, or names of them. The name "v:0" of a resource variable
is that of its handle, which says nothing about the value; so its reader is fetched instead.

Also the global step: found, checked, and read after the step that raises it.
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


def find_variable(tensor: Any) -> Any:
    """Returns the variable that a tensor reads, or the tensor itself if there is none."""
    if isinstance(tensor, tf.Variable):
        return tensor
    sources = {tensor.op.name, *(source.op.name for source in tensor.op.inputs)}
    for variable in tensor.graph.get_collection(v1.GraphKeys.GLOBAL_VARIABLES):
        if variable.op.name in sources:
            return variable
    return tensor


@contextmanager
def as_only_global_step(global_step: Any) -> Iterator[None]:
    """Makes a step the default graph's only one meanwhile, since TensorFlow's hooks look there."""
    collection = v1.get_collection_ref(v1.GraphKeys.GLOBAL_STEP)
    before = list(collection)
    collection[:] = [global_step]
    try:
        yield
    finally:
        collection[:] = before


def read_after(train_op: Any, global_step: Any) -> tf.Tensor:
    """Returns the global step's value once `train_op` is done, when both are fetched in one run.

    Fetched without such an order, a resource variable gives the value from before the step nearly
    always, and a ref variable the one after it. The op is made once for a graph.

    Args:
        train_op: An operation, or tensor or variable, that makes the step.
        global_step: The integer scalar variable, or a tensor that reads it.
    """
    variable = find_variable(global_step)
    operations = _operations(train_op)
    names = [each.name for each in (*operations, variable)]
    made = v1.get_collection_ref(("paramserve", "step_after", *names))
    if not made:
        with tf.control_dependencies(operations), v1.device(variable.device or None):
            value = variable.read_value() if isinstance(variable, tf.Variable) else variable
            made.append(tf.identity(value, name="global_step_after"))
    return made[0]


def _operations(train_op: Any) -> list[Any]:
    """Returns the operations behind any structure of fetches."""
    graph = v1.get_default_graph()
    return [
        graph.as_graph_element(fetch, allow_tensor=True, allow_operation=True)
        for fetch in tf.nest.flatten(train_op, expand_composites=True)
    ]


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
