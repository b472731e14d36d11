"""Equivalence of ops that can be joined into one op, and the names of the joint variables.

Both follow from the graph alone. So each task that builds the same model gets the same answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import tensorflow as tf

from ..placed_graph import Op, PlacedGraph, Tensor, needs

# The prefix of the names of stored variables.
PREFIX = "flat/"
_HYPERPARAMETER_DEPTH = 6


class Structure:
    """Keys of hyperparameters; tensors that are computed alike have the same key."""

    def __init__(self) -> None:
        self._ids: dict[Any, int] = {}

    def key(self, tensor: Tensor, depth: int = _HYPERPARAMETER_DEPTH) -> int:
        """Returns a number that is the same for tensors of the same value."""
        op = tensor.op
        # By default an op equals only itself. Stateful ops stay so, since two of them may differ in
        # value (random numbers). Reads that wait for the same ops and take the same handle do not.
        description: Any = (op, tensor.value_index)
        if depth and (not op.op_def.is_stateful or op.type == "ReadVariableOp"):
            inputs = tuple(self.key(each, depth - 1) for each in op.inputs)
            waits_for = frozenset(op.control_inputs)
            description = (op.type, attributes(op), inputs, waits_for, tensor.value_index)
        return self._ids.setdefault(description, len(self._ids))


def attributes(op: Op) -> tuple[tuple[str, bytes], ...]:
    """Returns an op's attributes without its colocation."""
    return tuple(
        (name, value.SerializeToString(deterministic=True))
        for name, value in sorted(op.node_def.attr.items())
        if name != "_class"
    )


def levels(placed: PlacedGraph, joined: Collection[Op]) -> dict[Op, int]:
    """Returns for each op the largest number of ops in `joined` on a path to it.

    Ops of `joined` at one level do not wait for each other, so they can be joined without a cycle.
    """
    found = dict.fromkeys(placed.ops, 0)
    changed = True
    while changed:  # Twice: to compute and to confirm. Loops of the old kind take more passes.
        changed = False
        for op in placed.ops:
            level = max((found[other] + (other in joined) for other in needs(op)), default=0)
            if level > found[op]:
                found[op], changed = level, True
    return found


def shared_name(handle: Op) -> str:
    """Returns the name by which tasks share a variable."""
    return str(handle.get_attr("shared_name").decode())


def is_stored(handle: Op) -> bool:
    """Returns whether a variable is a stored one, made of others by this pass."""
    return shared_name(handle).startswith(PREFIX)


def stored_name(variables: Iterable[Sequence[Op]]) -> str:
    """Returns a name for variables that are stored together, with the slots of each.

    It is the same for equal variables in an equal order, in every process.
    """
    # The hash covers names, shapes and dtype, so that two layouts never share a stored variable.
    parts = [
        (shared_name(handle), tf.TensorShape(handle.get_attr("shape")).as_list())
        for handles in variables
        for handle in handles
    ]
    dtype = next(iter(variables))[0].get_attr("dtype")
    described = repr((parts, dtype.name))
    return PREFIX + hashlib.sha256(described.encode()).hexdigest()[:16]
