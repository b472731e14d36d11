"""What the passes over a placed graph ask of its ops, and do to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from .placed_graph import Crossing, Op, PlacedGraph, Tensor

v1 = tf.compat.v1

# Smaller ones cost hardly any bytes, and may be hyperparameters.
SMALLEST_BYTES = 1024
VARIABLES = ("VarHandleOp", "Variable", "VariableV2")
# Stateful ops that take a handle and leave the variable as it is.
READS = ("ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape")


@contextmanager
def adding_to(graph: tf.Graph, scope: str) -> Iterator[None]:
    """Inside, ops are added to a graph under a name, whatever the surroundings are."""
    name = f"{scope}/"  # From the root, wherever we are.
    with graph.as_default(), v1.device(None), tf.control_dependencies(None), tf.name_scope(name):
        yield


def is_variable(tensor: Tensor) -> bool:
    """Whether a tensor is the handle of a variable, or the reference of one of the old kind."""
    return bool(tensor.op.type in VARIABLES)


def changes(op: Op, index: int) -> bool:
    """Whether an op may change the variable that it takes as one of its inputs."""
    if op.inputs[index].dtype == tf.resource:
        return op.type not in READS
    # An input that is no reference gets the value.
    return any(argument.is_ref for argument in op.op_def.input_arg)


def replace(crossing: Crossing, tensor: Tensor) -> None:
    """Has those that take a crossing tensor take another one."""
    for op, index in crossing.uses:
        op._update_input(index, tensor)


def is_in_control_flow(placed: PlacedGraph, crossing: Crossing) -> bool:
    """Whether the tensor comes from, or goes into, a loop or a condition of the old kind."""
    return any(map(placed.in_control_flow, (crossing.tensor.op, *(op for op, _ in crossing.uses))))


def is_large_enough(tensor: Tensor) -> bool:
    """Whether it is worth while to touch a tensor, and it cannot be a hyperparameter."""
    shape = tensor.shape
    if not shape.is_fully_defined():
        return shape.rank is not None and shape.rank > 0
    return int(shape.num_elements() * tensor.dtype.size) >= SMALLEST_BYTES


def outermost(placed: PlacedGraph, roots: Sequence[Op], mask: int = -1) -> list[Op]:
    """Returns those of the roots in a bit mask that no other root needs."""
    distinct = enumerate(dict.fromkeys(roots))
    return [root for bit, root in distinct if mask & 1 << bit and placed.roots_of[root] == 1 << bit]


def run_with(roots: Sequence[Op], operation: Any) -> None:
    """Has an operation be done before any of the roots is."""
    for root in roots:
        root._add_control_input(operation)
