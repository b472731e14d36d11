"""Variables that can be stored with others: conditions, equivalent ops, and joint names.

All follows from the graph alone. So each task that builds the same model gets the same answer.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Container, Iterable, Sequence
from functools import cached_property
from typing import Any

import tensorflow as tf

from ..placed_graph import Op, PlacedGraph, Tensor, needs

# The prefix of the names of stored variables.
PREFIX = "flat/"
_HYPERPARAMETER_DEPTH = 6
CONDITIONALS = frozenset({"If", "StatelessIf"})
_BRANCHES = ("then_branch", "else_branch")
v1 = tf.compat.v1
READS = frozenset({"ReadVariableOp", "VariableShape", "ResourceGather", "ResourceGatherNd"})
# Uses outside of the steps that `rewiring.redirect` knows, besides reads.
_ASIDE = frozenset({"AssignVariableOp", "VarIsInitializedOp", "DisableCopyOnRead"})


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


class Conditionals:
    """The branches of a graph's conditionals.

    Args:
        graph: The graph, which is read at the first query.
    """

    def __init__(self, graph: tf.Graph) -> None:
        self._graph = graph

    def only_reads(self, op: Op, handle: Tensor) -> bool:
        """Returns whether a conditional uses a handle only to read the variable."""
        # The first input is the condition; the others are the arguments of both branches.
        places = [place - 1 for place, tensor in enumerate(op.inputs) if tensor is handle]
        functions = [self._functions[op.get_attr(branch).name] for branch in _BRANCHES]
        return all(_only_reads(function, place) for function in functions for place in places)

    @cached_property
    def _functions(self) -> dict[str, Any]:
        library = self._graph.as_graph_def().library.function
        return {function.signature.name: function for function in library}


def _only_reads(function: Any, place: int) -> bool:
    argument = function.signature.input_arg[place].name
    uses = [node.op for node in function.node_def if argument in node.input]
    return set(uses) <= {"ReadVariableOp"} and argument not in function.ret.values()


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
