"""The wire dtype bfloat16: float32 tensors cross between worker and servers with half the bytes.

Parameters and the optimizer's state stay float32. The sending task rounds a tensor to the nearest
bfloat16 (8 bits of precision, the range of float32). The receiving task casts it back to float32
before any use: a gradient before it is applied or accumulated.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import tensorflow as tf

from ..placed_graph import HOME, Crossing, Op, PlacedGraph, needs
from ..rewiring import adding_to, changes, is_in_control_flow, is_large_enough, is_variable, replace

v1 = tf.compat.v1
log = logging.getLogger(__name__)


def cast_to_wire_dtype(graph: tf.Graph, roots: Sequence[Op], unchanged: Iterable[Op]) -> int:
    """Rewrites a graph so that float32 tensors cross as bfloat16 on the way to `roots`.

    Args:
        graph: The graph, changed in place.
        roots: The training steps.
        unchanged: Ops that are run at other times, with the ops they need. They keep full
            precision.

    Returns:
        The number of tensors that cross as bfloat16.
    """
    placed = PlacedGraph(graph, roots)
    kept, effects = placed.needed_by(unchanged), _effects(placed)
    crossings = [
        each
        for each in placed.crossings()
        if _may_be_narrow(placed, each, kept) and not _waits_for_effects(each.tensor.op, effects)
    ]
    with adding_to(graph, "wire"):
        for crossing in crossings:
            with v1.device(placed.device(crossing.source)):
                sent = tf.cast(crossing.tensor, tf.bfloat16)
            with v1.device(placed.device(crossing.target)):
                replace(crossing, tf.cast(sent, tf.float32))
    log.info("%d tensors cross as bfloat16 in each step", len(crossings))
    return len(crossings)


def _may_be_narrow(placed: PlacedGraph, crossing: Crossing, kept: set[Op]) -> bool:
    return (
        HOME in (crossing.source, crossing.target)
        and crossing.tensor.dtype == tf.float32  # References to variables are of another type.
        and is_large_enough(crossing.tensor)
        and not is_in_control_flow(placed, crossing)
        and not any(op in kept for op, _ in crossing.uses)
    )


def _effects(placed: PlacedGraph) -> dict[Op, int]:
    """Returns the ops that change variables before each op, itself included, as a bit mask."""
    masks: dict[Op, int] = {}
    bit = 1
    for op in placed.ops:
        mask = 0
        for needed in needs(op):
            mask |= masks.get(needed, 0)
        if any(
            is_variable(tensor) and changes(op, index) for index, tensor in enumerate(op.inputs)
        ):
            mask, bit = mask | bit, bit << 1
        masks[op] = mask
    return masks


def _waits_for_effects(op: Op, effects: dict[Op, int]) -> bool:
    """Returns whether an op is an identity that orders effects: it waits for changes of variables.

    TensorFlow 2.21 simplifies an identity next to a cast, and may lose the identity's control
    inputs (`arithmetic_optimization` of its graph optimizer). So such a tensor gets no cast.
    """
    if op.type != "Identity":
        return False
    waits_for = 0
    for other in op.control_inputs:
        waits_for |= effects.get(other, 0)
    return bool(waits_for & ~effects.get(op.inputs[0].op, 0))
