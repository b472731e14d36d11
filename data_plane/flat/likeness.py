"""Which ops of a graph can be one op, and what that is called.

Everything here follows from the graph alone, so that each task that builds the same model arrives
at the same answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import tensorflow as tf

from ..placed_graph import Op, PlacedGraph, Tensor, needs

# What the names of stored variables begin with.
PREFIX = "flat/"
_HYPERPARAMETER_DEPTH = 6


class Structure:
    """Tells which hyperparameters have the same value because they are computed alike."""

    def __init__(self) -> None:
        self._ids: dict[Any, int] = {}

    def key(self, tensor: Tensor, depth: int = _HYPERPARAMETER_DEPTH) -> int:
        """A number that is the same for tensors of the same value."""
        op = tensor.op
        description: Any = (op, tensor.value_index)
        if depth and (not op.op_def.is_stateful or op.type == "ReadVariableOp"):
            inputs = tuple(self.key(each, depth - 1) for each in op.inputs)
            waits_for = frozenset(op.control_inputs)
            description = (op.type, attributes(op), inputs, waits_for, tensor.value_index)
        return self._ids.setdefault(description, len(self._ids))


def attributes(op: Op) -> tuple[tuple[str, bytes], ...]:
    """An op's attributes, but for what it is colocated with."""
    return tuple(
        (name, value.SerializeToString(deterministic=True))
        for name, value in sorted(op.node_def.attr.items())
        if name != "_class"
    )


def levels(placed: PlacedGraph, joined: Collection[Op]) -> dict[Op, int]:
    """How many of `joined` lie, at most, on a way to an op. Those of one level can be joined."""
    found = dict.fromkeys(placed.ops, 0)
    changed = True
    while changed:  # Once and again, and more often only if there are loops.
        changed = False
        for op in placed.ops:
            level = max((found[other] + (other in joined) for other in needs(op)), default=0)
            if level > found[op]:
                found[op], changed = level, True
    return found


def shared_name(handle: Op) -> str:
    """The name by which tasks share a variable."""
    return str(handle.get_attr("shared_name").decode())


def is_stored(handle: Op) -> bool:
    """Whether a variable was made here, of others."""
    return shared_name(handle).startswith(PREFIX)


def stored_name(variables: Iterable[Sequence[Op]]) -> str:
    """A name for variables that are stored together, with the slots of each.

    It is the same for equal variables in an equal order, in every process.
    """
    parts = [
        (shared_name(handle), tf.TensorShape(handle.get_attr("shape")).as_list())
        for handles in variables
        for handle in handles
    ]
    dtype = next(iter(variables))[0].get_attr("dtype")
    described = repr((parts, dtype.name))
    return PREFIX + hashlib.sha256(described.encode()).hexdigest()[:16]
