"""What training steps do with variables, and which of them can be stored with others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from .flat_conditions import CONDITIONALS, Conditionals
from .placed_graph import Op, PlacedGraph, Tensor

v1 = tf.compat.v1

# Variables begin at multiples of this. Then TensorFlow splits what it has received without copying
# it, and its kernels treat each element with the same vector instructions as in a variable alone.
ROW_BYTES = 64
# What the names of stored variables begin with.
PREFIX = "flat/"
READS = frozenset({"ReadVariableOp", "VariableShape", "ResourceGather", "ResourceGatherNd"})

_ASIDE = frozenset({"AssignVariableOp", "VarIsInitializedOp", "DisableCopyOnRead"})
_APPLIES = "ResourceApply"
_GRADIENT_NAMES = ("grad", "delta")
# Kernels that use nothing but operations with one right result (IEEE 754). Those of the others
# round the last elements of a variable, which do not fill a vector, in their own way.
_SAME_IN_ANY_PLACE = frozenset(
    {
        "ResourceApplyGradientDescent",
        "ResourceApplyMomentum",
        "ResourceApplyKerasMomentum",
        "ResourceApplyAdam",
    }
)


@dataclass(frozen=True, eq=False)
class Update:
    """What a training step does with a variable.

    Attributes:
        apply: The op that applies the gradient.
        gradient: The gradient, of the variable's shape.
        handles: Handle ops of the variable and of its slots.
        places: At which inputs of `apply` they are.
        size: Elements of each of them.
        rows: Rows of `ROW_BYTES` that each takes.
    """

    apply: Op
    gradient: Tensor
    handles: tuple[Op, ...]
    places: tuple[int, ...]
    size: int
    rows: int


def find_updates(
    graph: tf.Graph, placed: PlacedGraph, roots: Sequence[Op], largest_bytes: int
) -> tuple[list[Update], Counter[str]]:
    """Finds the updates whose variables and slots can be stored with others.

    Args:
        graph: The graph.
        placed: What its training steps run.
        roots: The training steps.
        largest_bytes: Bytes above which a variable stays by itself.

    Returns:
        The updates in the order in which they are in the graph, and how many other variables there
        are, by the reason why they stay by themselves.
    """
    rules = _Rules(graph, placed, roots, largest_bytes)
    found: list[Update] = []
    left_alone: Counter[str] = Counter()
    for op in sorted(placed.ops, key=placed.index.__getitem__):
        if op.type.startswith(_APPLIES) and not _is_flat(op):
            update = _update(op)
            reason = "it is no variable" if update is None else rules.reason_to_leave(update)
            if update is None or reason:
                left_alone[str(reason)] += 1
            else:
                found.append(update)
        elif op.type.startswith("Apply"):
            left_alone["it is a ref variable"] += 1
    return found, left_alone


def shared_name(handle: Op) -> str:
    """The name by which tasks share a variable."""
    return str(handle.get_attr("shared_name").decode())


class _Rules:
    """Which variables can be stored with others without any change of what they do."""

    def __init__(
        self, graph: tf.Graph, placed: PlacedGraph, roots: Sequence[Op], largest_bytes: int
    ) -> None:
        self._roots = set(roots)
        self._largest_bytes = largest_bytes
        self._in_step = set(placed.ops)
        self._conditionals = Conditionals(graph)
        self._shared = {
            handle.op
            for variable in graph.get_collection(v1.GraphKeys.GLOBAL_VARIABLES)
            if isinstance(handle := getattr(variable, "handle", None), tf.Tensor)
        }
        self._names = Counter(
            shared_name(op) for op in graph.get_operations() if op.type == "VarHandleOp"
        )

    def reason_to_leave(self, update: Update) -> str | None:
        apply, gradient = update.apply, update.gradient
        if apply._get_control_flow_context() is not None or apply in self._roots:
            return "its update is in a condition, or a step by itself"
        if not gradient.dtype.size or ROW_BYTES % gradient.dtype.size:
            return f"its type is {gradient.dtype.name}"
        if update.size * gradient.dtype.size > self._largest_bytes:
            return f"it has more than {self._largest_bytes} bytes"
        if not update.size:
            return "it is empty, or its shape is not known"
        is_whole = update.size * gradient.dtype.size % ROW_BYTES == 0
        if not is_whole and apply.type not in _SAME_IN_ANY_PLACE:
            return f"{apply.type} may round its last elements in another way"
        reasons = (self._reason_of_handle(handle, update) for handle in update.handles)
        return next((reason for reason in reasons if reason), None)

    def _reason_of_handle(self, handle: Op, update: Update) -> str | None:
        if handle not in self._shared or not _task_is_given(handle):
            return "it is not shared, or on no given task"
        if handle.device != update.handles[0].device:
            return "its slots are elsewhere"
        if self._names[shared_name(handle)] > 1:
            return "it has several handles"
        if handle.get_attr("dtype") != update.gradient.dtype.base_dtype:
            return "its slots have another type"
        if _size(handle) != update.size:
            return "its slots have another shape"
        if handle._get_control_flow_context() is not None:
            return "it is made in a condition or a loop"
        for op in handle.outputs[0].consumers():
            reason = self._reason_of_use(op, handle.outputs[0], update)
            if reason:
                return reason
        return None

    def _reason_of_use(self, op: Op, handle: Tensor, update: Update) -> str | None:
        if op is update.apply:
            return None
        if op._get_control_flow_context() is not None:
            return "it is used in a condition or a loop"
        is_in_step = op in self._in_step
        if op.type == "ReadVariableOp" or (op.type in READS | _ASIDE and not is_in_step):
            return None
        if op.type in CONDITIONALS and not is_in_step and self._conditionals.only_reads(op, handle):
            return None
        return f"{op.type} uses it" + (" in the step" if is_in_step else "")


def _is_flat(apply: Op) -> bool:
    """Whether an op updates what an earlier pass has made."""
    return any(
        shared_name(tensor.op).startswith(PREFIX)
        for tensor in apply.inputs
        if tensor.op.type == "VarHandleOp"
    )


def _update(apply: Op) -> Update | None:
    """An apply op's parts; None if its variable does not come straight from a handle op."""
    names = [argument.name for argument in apply.op_def.input_arg]
    places = [place for place, tensor in enumerate(apply.inputs) if tensor.dtype == tf.resource]
    handles = [apply.inputs[place].op for place in places]
    gradients = [names.index(name) for name in _GRADIENT_NAMES if name in names]
    if len(gradients) != 1 or any(handle.type != "VarHandleOp" for handle in handles):
        return None
    gradient, size = apply.inputs[gradients[0]], _size(handles[0])
    rows = -(-size * gradient.dtype.size // ROW_BYTES)
    return Update(apply, gradient, tuple(handles), tuple(places), size, rows)


def _size(handle: Op) -> int:
    """Elements of a variable; 0 if not known."""
    return int(tf.TensorShape(handle.get_attr("shape")).num_elements() or 0)


def _task_is_given(handle: Op) -> bool:
    return tf.DeviceSpec.from_string(handle.device or "").job is not None
