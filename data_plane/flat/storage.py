"""Flat storage: variables on one parameter server are rows of a few large ones.

A training step then reads, sends and updates a few tensors in place of hundreds. Other users see
the variables as they were: initializers, savers and reads keep their ops, which get their values
from the stored variable. Checkpoints have the variables' own names and shapes.

All tasks that share the variables have to prepare their graphs with the same storage.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import tensorflow as tf

from ..placed_graph import Op, PlacedGraph, Tensor
from ..rewiring import adding_to
from .layout import Bucket, find_layout
from .rewiring import hand_over_order, redirect
from .variable import FlatVariable, Part

v1 = tf.compat.v1
log = logging.getLogger(__name__)

# Above this nothing is gained: the cost is in the bytes then, and they are the same (measured).
LARGEST_BYTES = 32 << 10
_SCOPE = "flat_storage"


def flatten(
    graph: tf.Graph, roots: Sequence[Op], bucket_bytes: int, largest_bytes: int = LARGEST_BYTES
) -> int:
    """Stores variables that are updated alike together.

    Call it when all ops that use the variables are in the graph: savers, initialization and
    summaries. Ops that are added later find variables without a value, and fail.

    Args:
        graph: The graph, changed in place. Doing it twice changes nothing more.
        roots: The training steps.
        bucket_bytes: Bytes of a stored variable, at most; more than 0.
        largest_bytes: Bytes above which a variable stays by itself.

    Returns:
        The number of variables, slots included, that are parts of stored ones now.
    """
    placed = PlacedGraph(graph, roots)
    layout = find_layout(graph, placed, roots, bucket_bytes, largest_bytes)
    with adding_to(graph, _SCOPE):
        parts = _store(graph, placed, layout.groups)
    stored = sum(len(bucket.updates[0].handles) for bucket in layout.groups)
    if parts:
        log.info("%d variables and slots are stored in %d", parts, stored)
    for reason, count in sorted(layout.left_alone.items()):
        log.info("%d variables are stored by themselves: %s", count, reason)
    return parts


def _store(graph: tf.Graph, placed: PlacedGraph, buckets: Sequence[Bucket]) -> int:
    before = set(graph.get_operations())
    stored = [_variables(bucket) for bucket in buckets]
    applies: dict[Op, Op] = {}
    for bucket, variables in zip(buckets, stored, strict=True):
        apply = _apply(graph, placed, bucket, variables)
        applies |= dict.fromkeys((update.apply for update in bucket.updates), apply)
    hand_over_order(before, applies)
    # The steps need the new ops as well.
    in_step = set(placed.ops) | set(graph.get_operations()) - before
    flat = [variable for variables in stored for variable in variables]
    for variable in flat:
        for part in variable.parts:
            for op in part.handle.outputs[0].consumers():
                if op not in applies:
                    redirect(placed, in_step, op, variable, part)
    return sum(len(variable.parts) for variable in flat)


def _variables(bucket: Bucket) -> list[FlatVariable]:
    """Returns one stored variable for the variables, and one for each of their slots."""
    variables = []
    for role in range(len(bucket.updates[0].handles)):
        parts, begin = [], 0
        for update in bucket.updates:
            end = begin + update.rows
            parts.append(Part(update.handles[role], begin, end, update.size))
            begin = end
        variables.append(FlatVariable(f"{bucket.name}/{role}", parts, bucket.width))
    return variables


def _apply(
    graph: tf.Graph, placed: PlacedGraph, bucket: Bucket, variables: Sequence[FlatVariable]
) -> Op:
    """Adds one update in place of many: gradients side by side, other inputs as in the first.

    The kernel computes each element from the same inputs as before, so weights keep every bit; see
    `updates` for the kernels and alignment that this takes.
    """
    first = bucket.updates[0]
    gradient = _joined(bucket)
    if gradient is None:
        tasks = Counter(placed.task(update.gradient.op) for update in bucket.updates)
        device = placed.device(tasks.most_common(1)[0][0])
        gradient = variables[0].pack([update.gradient for update in bucket.updates], device)
    inputs = [gradient if tensor is first.gradient else tensor for tensor in first.apply.inputs]
    for place, variable in zip(first.places, variables, strict=True):
        inputs[place] = variable.handle
    attributes = {
        name: value for name, value in first.apply.node_def.attr.items() if name != "_class"
    }
    with v1.device(bucket.device):
        return graph.create_op(first.apply.type, inputs, [], attrs=attributes)


def _joined(bucket: Bucket) -> Tensor | None:
    """Returns the tensor that was split into exactly these gradients; None if there is none.

    It saves a split and a concatenation where the gradients arrive joined.
    """
    sources = [_source(update.gradient) for update in bucket.updates]
    split = sources[0].op
    if (
        split.type not in ("Split", "SplitV")
        or len(sources) != len(split.outputs)
        or any(source is not output for source, output in zip(sources, split.outputs, strict=True))
        or sum(update.size for update in bucket.updates) != bucket.rows * bucket.width
    ):
        return None
    whole = split.inputs[0 if split.type == "SplitV" else 1]
    axis = tf.get_static_value(split.inputs[2 if split.type == "SplitV" else 0])
    if axis != 0:
        return None
    with v1.device(split.device):
        return tf.reshape(whole, [bucket.rows, bucket.width])


def _source(tensor: Tensor) -> Tensor:
    while tensor.op.type in ("Reshape", "Identity"):
        tensor = tensor.op.inputs[0]
    return tensor
