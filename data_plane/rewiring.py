"""Queries and edits of ops that the graph passes share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from ..tf_internals import add_control_inputs, set_input
from .placed_graph import Crossing, Op, PlacedGraph, Tensor

v1 = tf.compat.v1

# Smaller tensors cost hardly any bytes, and may be hyperparameters.
SMALLEST_BYTES = 1024
VARIABLES = ("VarHandleOp", "Variable", "VariableV2")
# Stateful ops that take a handle and do not change the variable.
READS = ("ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape")


@contextmanager
def adding_to(graph: tf.Graph, scope: str) -> Iterator[None]:
    """Adds the ops made inside to a graph under a name, independent of the caller's scopes."""
    name = f"{scope}/"  # The slash makes the name absolute.
    with graph.as_default(), v1.device(None), tf.control_dependencies(None), tf.name_scope(name):
        yield


def is_variable(tensor: Tensor) -> bool:
    """Returns whether a tensor is a variable's handle, or the reference of a ref variable."""
    return bool(tensor.op.type in VARIABLES)


def changes(op: Op, index: int) -> bool:
    """Returns whether an op may change the variable that it takes as one of its inputs."""
    if op.inputs[index].dtype == tf.resource:
        return op.type not in READS
    # An op without a reference input takes the value alone.
    return any(argument.is_ref for argument in op.op_def.input_arg)


def replace(crossing: Crossing, tensor: Tensor) -> None:
    """Replaces a crossing tensor by another tensor in all its uses."""
    for op, index in crossing.uses:
        set_input(op, index, tensor)


def is_in_control_flow(placed: PlacedGraph, crossing: Crossing) -> bool:
    """Returns whether a crossing leaves or enters a loop or a condition of the old kind."""
    return any(map(placed.in_control_flow, (crossing.tensor.op, *(op for op, _ in crossing.uses))))


def is_large_enough(tensor: Tensor) -> bool:
    """Returns whether a tensor is large enough to treat, and so no hyperparameter."""
    shape = tensor.shape
    if not shape.is_fully_defined():
        return shape.rank is not None and shape.rank > 0
    return int(shape.num_elements() * tensor.dtype.size) >= SMALLEST_BYTES


def outermost(placed: PlacedGraph, roots: Sequence[Op], mask: int = -1) -> list[Op]:
    """Returns the roots in a bit mask that no other root needs."""
    distinct = enumerate(dict.fromkeys(roots))
    return [root for bit, root in distinct if mask & 1 << bit and placed.roots_of[root] == 1 << bit]


def run_with(roots: Sequence[Op], operation: Any) -> None:
    """Makes each root wait for an operation, so that it runs in every step."""
    for root in roots:
        add_control_inputs(root, [operation])
