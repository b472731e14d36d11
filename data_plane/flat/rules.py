"""Conditions under which a variable can be stored with others without a change of results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence

import tensorflow as tf

from ..placed_graph import Op, PlacedGraph, Tensor
from .conditions import CONDITIONALS, Conditionals
from .likeness import shared_name

v1 = tf.compat.v1

READS = frozenset({"ReadVariableOp", "VariableShape", "ResourceGather", "ResourceGatherNd"})
# Uses outside of the steps that `rewiring.redirect` knows, besides reads.
_ASIDE = frozenset({"AssignVariableOp", "VarIsInitializedOp", "DisableCopyOnRead"})


class Rules:
    """Checks of variables' handles and of the ops that use them.

    Args:
        graph: The graph.
        placed: The ops of its training steps.
        may_be_read: Whether the steps may read a variable in whole.
    """

    def __init__(self, graph: tf.Graph, placed: PlacedGraph, *, may_be_read: bool) -> None:
        self._placed, self._in_step = placed, set(placed.ops)
        self._may_be_read = may_be_read
        self._conditionals = Conditionals(graph)
        self._shared = {
            handle.op
            for variable in graph.get_collection(v1.GraphKeys.GLOBAL_VARIABLES)
            if isinstance(handle := getattr(variable, "handle", None), tf.Tensor)
        }
        self._names = Counter(
            shared_name(op) for op in graph.get_operations() if op.type == "VarHandleOp"
        )

    def reason_to_leave(self, handles: Sequence[Op], users: Container[Op]) -> str | None:
        """Returns why a variable has to stay as it is, with its slots; None if it can be stored.

        Args:
            handles: The handle ops of the variable and of its slots.
            users: Ops that the pass replaces; their use of the handles is no obstacle.
        """
        reasons = (self._reason_of_handle(handle, handles[0], users) for handle in handles)
        return next((reason for reason in reasons if reason), None)

    def _reason_of_handle(self, handle: Op, first: Op, users: Container[Op]) -> str | None:
        if handle not in self._shared or not _task_is_given(handle):
            return "it is not shared, or on no given task"
        if handle.device != first.device:
            return "its slots are elsewhere"
        if self._names[shared_name(handle)] > 1:
            return "it has several handles"
        if handle.get_attr("dtype") != first.get_attr("dtype"):
            return "its slots have another type"
        if elements(handle) != elements(first):
            return "its slots have another shape"
        if self._placed.in_control_flow(handle):
            return "it is made in a condition or a loop"
        for op in handle.outputs[0].consumers():
            reason = None if op in users else self._reason_of_use(op, handle.outputs[0])
            if reason:
                return reason
        return None

    def _reason_of_use(self, op: Op, handle: Tensor) -> str | None:
        if self._placed.in_control_flow(op):
            return "it is used in a condition or a loop"
        is_in_step = op in self._in_step
        if op.type == "ReadVariableOp" and self._may_be_read:
            return None
        if op.type in READS | _ASIDE and not is_in_step:
            return None
        if op.type in CONDITIONALS and not is_in_step and self._conditionals.only_reads(op, handle):
            return None
        return f"{op.type} uses it" + (" in the step" if is_in_step else "")


def elements(handle: Op) -> int:
    """Returns the number of elements of a variable; 0 if it is unknown."""
    return int(tf.TensorShape(handle.get_attr("shape")).num_elements() or 0)


def _task_is_given(handle: Op) -> bool:
    return tf.DeviceSpec.from_string(handle.device or "").job is not None
