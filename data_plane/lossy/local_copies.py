"""A worker's copies of parameters, and the training steps that work with them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ...errors import UsageError
from ...tf_internals import add_control_inputs, move_op, set_input
from ..placed_graph import HOME, Op, PlacedGraph, Tensor, is_reference
from ..rewiring import changes, is_variable, replace
from .local_state import LocalState

v1 = tf.compat.v1

_APPLY = re.compile(r"(?:Resource)?(?:Sparse)?Apply([A-Z]\w*)")
# The update has no state but the slots that it is given.
_SUPPORTED = ("GradientDescent", "Momentum", "KerasMomentum", "Adagrad", "AdagradV2", "RMSProp")
# How plain gradient descent applies sparse gradients.
_SCATTER = ("ResourceScatterAdd", "ResourceScatterSub", "ScatterAdd", "ScatterSub")


@dataclass(frozen=True)
class Update:
    """An operation that changes a variable, with the variable's slots."""

    op: Op
    variable: Op
    slots: tuple[Op, ...]


@dataclass(frozen=True)
class Copy:
    """A variable on a server, and a worker's copy of it."""

    original: Op
    local: LocalState


class Copies:
    """Copies of variables, made on demand, and the redirection of steps to them."""

    def __init__(self, placed: PlacedGraph, kept: set[Op], trained: Sequence[Op]) -> None:
        self._placed = placed
        self._kept = kept
        self._trained = trained
        self._copies: dict[Op, Copy] = {}
        self._clones: dict[Op, Op] = {}
        self._depends = dict.fromkeys(trained, True)

    def of(self, variable: Op) -> Copy:
        """Returns the copy of a variable."""
        if variable not in self._copies:
            reference = is_reference(variable.outputs[0].dtype)
            with v1.device(self._placed.device(HOME)):
                local = LocalState("copy", *value_type(variable), is_ref=reference)
            self._copies[variable] = Copy(variable, local)
        return self._copies[variable]

    def slots(self) -> Iterator[Copy]:
        """Yields the copies of variables that are not trained themselves."""
        return (copy for variable, copy in self._copies.items() if variable not in self._trained)

    def redirect_reads(self) -> None:
        """Replaces reads of variables that cross to the worker by reads of the copies."""
        for crossing in self._placed.crossings():
            is_used = not any(op in self._kept for op, _ in crossing.uses)
            if crossing.target == HOME and is_used and self._is_of_copies(crossing.tensor.op):
                replace(crossing, self._clone(crossing.tensor))

    def redirect_update(self, update: Update) -> None:
        """Moves an update, and the ops that compute its inputs, to the worker."""
        for index, tensor in enumerate(list(update.op.inputs)):
            if is_variable(tensor):
                set_input(update.op, index, self.of(tensor.op).local.handle)
            else:
                self._move(tensor.op)
        self._set_home(update.op)

    def _is_of_copies(self, op: Op) -> bool:
        """Returns whether an op on a server depends on a copied variable."""
        if op not in self._depends:
            self._depends[op] = False  # Ends the recursion in loops.
            if self._placed.task(op) != HOME and not _is_update(op):
                self._depends[op] = any(self._is_of_copies(tensor.op) for tensor in op.inputs)
        return self._depends[op]

    def _clone(self, tensor: Tensor) -> Tensor:
        """Returns the same tensor on the worker, computed from the copies.

        The original op stays, for uses outside of the steps.
        """
        op = tensor.op
        if is_variable(tensor):
            return self.of(op).local.handle
        if op not in self._clones:
            if self._placed.in_control_flow(op):
                raise UsageError(
                    f"local_steps: a parameter is read inside a loop or condition ({op.name!r}): "
                    "read it before (tf.identity), or use local_steps=1"
                )
            inputs = [self._clone(t) if self._is_of_copies(t.op) else t for t in op.inputs]
            attrs = {name: each for name, each in op.node_def.attr.items() if name != "_class"}
            types = [output.dtype.base_dtype for output in op.outputs]
            with v1.device(self._placed.device(HOME)):
                clone = op.graph.create_op(op.type, inputs, types, name="copied", attrs=attrs)
            add_control_inputs(clone, op.control_inputs)
            self._clones[op] = clone
        return self._clones[op].outputs[tensor.value_index]

    def _move(self, op: Op) -> None:
        """Moves an op without variables or state, and its inputs, to the worker."""
        is_pure = not op.op_def.is_stateful and not any(map(is_variable, (*op.inputs, *op.outputs)))
        if self._placed.task(op) != HOME and is_pure and op not in self._kept:
            for tensor in op.inputs:
                self._move(tensor.op)
            self._set_home(op)

    def _set_home(self, op: Op) -> None:
        move_op(op, self._placed.device(HOME))


def find_updates(placed: PlacedGraph, graph: tf.Graph) -> list[Update]:
    """Returns the operations that train variables of other tasks.

    Raises:
        UsageError: An operation changes such a variable in a way that copies do not support.
    """
    found = [_as_update(op) for op in placed.ops if _is_update(op) and placed.task(op) != HOME]
    trained = {update.variable for update in found}
    trained |= {each.op for each in graph.get_collection(v1.GraphKeys.TRAINABLE_VARIABLES)}
    known = {update.op for update in found}
    for op in placed.ops:
        for index, tensor in enumerate(op.inputs):
            is_other = tensor.op in trained and placed.task(op) != HOME and op not in known
            if is_other and changes(op, index):
                raise _unsupported(op, op.type)
    return found


def _as_update(op: Op) -> Update:
    match = _APPLY.match(op.type)
    if match is not None and match[1] not in _SUPPORTED:
        raise _unsupported(op, match[1])
    variable, *slots = [tensor.op for tensor in op.inputs if is_variable(tensor)]
    return Update(op, variable, tuple(slots))


def _unsupported(op: Op, name: str) -> UsageError:
    return UsageError(
        f"local_steps: a worker cannot do {name} on its own copy of the parameters ({op.name!r} "
        f"changes them); use an optimizer of {', '.join(_SUPPORTED)}, or local_steps=1"
    )


def _is_update(op: Op) -> bool:
    """Returns whether an op applies a gradient to a variable."""
    if not op.inputs or not is_variable(op.inputs[0]):
        return False
    return _APPLY.match(op.type) is not None or op.type in _SCATTER


def value_type(variable: Op) -> tuple[Any, Any]:
    """Returns the dtype and the shape of a variable's value."""
    return tf.as_dtype(variable.get_attr("dtype")), tf.TensorShape(variable.get_attr("shape"))
