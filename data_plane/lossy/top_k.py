"""Top-k sparsification: the largest entries of a gradient are pushed, with error feedback.

A gradient is cut into runs of consecutive entries. Of each run the largest few by magnitude are
sent, as values and positions (chunk-wise selection as in ScaleCom, Chen et al. 2020,
https://arxiv.org/abs/2104.11125). To find the largest of a whole tensor takes several times as
long. The remaining entries stay with the worker and are added to its next gradient (error feedback,
Stich et al. 2018, https://arxiv.org/abs/1809.07599). So nothing is lost: pushed and kept entries
add up to the gradients.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from ..placed_graph import HOME, Crossing, Op, PlacedGraph, Tensor
from ..rewiring import adding_to, is_in_control_flow, is_large_enough, outermost, replace, run_with
from .local_state import LocalState, add_start

v1 = tf.compat.v1
log = logging.getLogger(__name__)

_APPLY = re.compile(r"(Resource)?Apply[A-Z]")
_GRADIENT = ("grad", "delta")
# The allowed difference between the fraction that is sent and the requested one.
_TOLERANCE = 0.05


def send_largest(
    graph: tf.Graph,
    roots: Sequence[Op],
    unchanged: Iterable[Op],
    fraction: float,
    wire_dtype: Any = tf.float32,
) -> int:
    """Rewrites a graph to send only the largest entries of each dense gradient.

    Gradients of less than 1 KB, sparse gradients, and gradients whose apply operation is not one of
    TensorFlow's cross as they are.

    Args:
        graph: The graph, changed in place. Doing it twice changes nothing more.
        roots: The training steps.
        unchanged: Ops that are run at other times, with the ops they need.
        fraction: Entries to send, of all entries; above 0 and up to 1.
        wire_dtype: The dtype of the values when they cross. The rounding error stays with the
            worker as well.

    Returns:
        The number of gradients that are treated.
    """
    placed = PlacedGraph(graph, roots)
    kept = placed.needed_by(unchanged)
    gradients = [each for each in placed.crossings() if _is_gradient(placed, each, kept)]
    with adding_to(graph, "top_k"):
        for crossing in gradients:
            _send_largest(placed, roots, crossing, fraction, wire_dtype)
    log.info("of %d gradients a fraction of %g is sent in each step", len(gradients), fraction)
    return len(gradients)


def run_length(fraction: float) -> tuple[int, int]:
    """Returns the entries to send of a run, and its length: the shortest run near the fraction."""
    sent = 1
    while abs(sent / round(sent / fraction) - fraction) > _TOLERANCE * fraction:
        sent *= 2
    return sent, round(sent / fraction)


def _is_gradient(placed: PlacedGraph, crossing: Crossing, kept: set[Op]) -> bool:
    return (
        crossing.source == HOME
        and crossing.tensor.dtype == tf.float32
        and crossing.tensor.shape.is_fully_defined()
        and is_large_enough(crossing.tensor)
        and not is_in_control_flow(placed, crossing)
        and all(op not in kept and _takes_gradient(op, index) for op, index in crossing.uses)
    )


def _takes_gradient(op: Op, index: int) -> bool:
    return bool(_APPLY.match(op.type)) and op.op_def.input_arg[index].name in _GRADIENT


def _send_largest(
    placed: PlacedGraph, roots: Sequence[Op], crossing: Crossing, fraction: float, wire_dtype: Any
) -> None:
    gradient = crossing.tensor
    size = int(gradient.shape.num_elements())
    count, length = run_length(fraction)
    count, length = min(count, size), min(length, size)
    runs = -(-size // length)
    with v1.device(placed.device(HOME)):
        rest = LocalState("rest", tf.float32, [runs * length])
        add_start(gradient.graph, rest.assign(tf.zeros([runs * length])))
        flat = tf.pad(tf.reshape(gradient, [-1]), [[0, runs * length - size]])
        values, positions, left = _take_largest(rest, flat, runs, count, length, wire_dtype)
        # Each root that sends the values has to update the rest, even if nothing else needs it.
        run_with(outermost(placed, roots, crossing.roots), left)
        # A position needs two bytes, if runs are not very long.
        positions = tf.cast(positions, tf.uint16 if length <= 1 << 16 else tf.int32)
    with v1.device(placed.device(crossing.target)):
        flat = _spread(tf.cast(values, tf.float32), positions, runs, length)
        replace(crossing, tf.reshape(flat[:size], gradient.shape))


def _take_largest(
    rest: LocalState, flat: Tensor, runs: int, count: int, length: int, wire_dtype: Any
) -> tuple[Tensor, Tensor, Op]:
    """Adds a gradient to the rest, and takes the largest entries of the sum.

    Returns:
        Values and positions in their run, both of shape [runs, count], and the op that removes the
        sent values from the rest.
    """
    # The rest is updated in place, since it is as large as the model.
    added = tf.raw_ops.AssignAddVariableOp(resource=rest.handle, value=flat)
    with tf.control_dependencies([added]):
        total = rest.read()
    magnitudes = tf.abs(tf.reshape(total, [runs, length]))
    positions = tf.math.top_k(magnitudes, count, sorted=False).indices
    places = _places(positions, runs, length)
    taken = tf.gather(total, places)
    sent = tf.cast(taken, wire_dtype)
    unsent = taken - tf.cast(sent, tf.float32)
    left = tf.raw_ops.ResourceScatterUpdate(resource=rest.handle, indices=places, updates=unsent)
    return tf.reshape(sent, [runs, count]), positions, left


def _places(positions: Tensor, runs: int, length: int) -> Tensor:
    """Returns the indices in the whole vector for positions in each run."""
    return tf.reshape(positions + tf.range(0, runs * length, length)[:, tf.newaxis], [-1])


def _spread(values: Tensor, positions: Tensor, runs: int, length: int) -> Tensor:
    """Returns a vector with the values at their positions and 0 elsewhere."""
    places = _places(tf.cast(positions, tf.int32), runs, length)
    return tf.math.unsorted_segment_sum(tf.reshape(values, [-1]), places, runs * length)
