"""Analysis of the updates in training steps: variables that can be stored with others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import tensorflow as tf

from ..placed_graph import Op, PlacedGraph, Tensor
from .likeness import is_stored
from .rules import Rules, elements

# Variables begin at multiples of this. Then TensorFlow splits a received tensor without a copy, and
# its kernels treat each element with the same vector instructions as in a variable alone.
ROW_BYTES = 64
_APPLIES = "ResourceApply"
_GRADIENT_NAMES = ("grad", "delta")
# Kernels that use only operations with one correct result (IEEE 754). Other kernels may round the
# last elements of a variable, which do not fill a vector, differently.
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
    """The update of a variable in a training step.

    Attributes:
        apply: The op that applies the gradient.
        gradient: The gradient, of the variable's shape.
        handles: Handle ops of the variable and of its slots.
        places: Indices of the handles among the inputs of `apply`.
        size: Elements of the variable, and of each slot.
        rows: Rows of `ROW_BYTES` that the variable takes, and each slot.
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
        placed: The ops of its training steps.
        roots: The training steps.
        largest_bytes: Bytes above which a variable stays by itself.

    Returns:
        The updates in the order of the graph, and the number of variables that stay by themselves,
        by reason.
    """
    rules = Rules(graph, placed, may_be_read=True)
    steps = set(roots)
    found: list[Update] = []
    left_alone: Counter[str] = Counter()
    for op in sorted(placed.ops, key=placed.index.__getitem__):
        if op.type.startswith(_APPLIES) and not _is_flat(op):
            update = _update(op)
            if update is None:
                left_alone["it is no variable"] += 1
            elif reason := _reason_to_leave(placed, update, rules, steps, largest_bytes):
                left_alone[reason] += 1
            else:
                found.append(update)
        elif op.type.startswith("Apply"):
            left_alone["it is a ref variable"] += 1
    return found, left_alone


def _reason_to_leave(
    placed: PlacedGraph,
    update: Update,
    rules: Rules,
    roots: Collection[Op],
    largest_bytes: int,
) -> str | None:
    apply, gradient = update.apply, update.gradient
    if placed.in_control_flow(apply) or apply in roots:
        return "its update is in a condition, or a step by itself"
    if not gradient.dtype.size or ROW_BYTES % gradient.dtype.size:
        return f"its type is {gradient.dtype.name}"
    if update.size * gradient.dtype.size > largest_bytes:
        return f"it has more than {largest_bytes} bytes"
    if not update.size:
        return "it is empty, or its shape is not known"
    if update.handles[0].get_attr("dtype") != gradient.dtype.base_dtype:
        return "its gradient has another type"
    is_whole = update.size * gradient.dtype.size % ROW_BYTES == 0
    if not is_whole and apply.type not in _SAME_IN_ANY_PLACE:
        return f"{apply.type} may round its last elements in another way"
    return rules.reason_to_leave(update.handles, {apply})


def _is_flat(apply: Op) -> bool:
    """Returns whether an op updates a stored variable of an earlier pass."""
    return any(is_stored(tensor.op) for tensor in apply.inputs if tensor.op.type == "VarHandleOp")


def _update(apply: Op) -> Update | None:
    """Returns an apply op's parts; None if its variable is not the output of a handle op."""
    names = [argument.name for argument in apply.op_def.input_arg]
    places = [place for place, tensor in enumerate(apply.inputs) if tensor.dtype == tf.resource]
    handles = [apply.inputs[place].op for place in places]
    gradients = [names.index(name) for name in _GRADIENT_NAMES if name in names]
    if len(gradients) != 1 or any(handle.type != "VarHandleOp" for handle in handles):
        return None
    gradient, size = apply.inputs[gradients[0]], elements(handles[0])
    rows = -(-size * gradient.dtype.size // ROW_BYTES)
    return Update(apply, gradient, tuple(handles), tuple(places), size, rows)
