"""Stale pull: parameters are read one step ahead, so that reading and computing overlap.

The worker keeps the parameters that it read during the previous step. A step computes with them,
reads the parameters meanwhile, and keeps these for the next step. So each gradient belongs to the
parameters at the beginning of the previous step. With one worker and plain SGD::

    w[t + 1] = w[t] - learning_rate * gradient(w[t - 1])

The parameters are read before the step's own gradient is applied, as without this option.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence

import tensorflow as tf

from ...tf_internals import add_control_inputs
from ..placed_graph import HOME, Crossing, Op, PlacedGraph, Tensor, is_reference, needs
from ..rewiring import (
    READS,
    VARIABLES,
    adding_to,
    changes,
    is_in_control_flow,
    is_variable,
    outermost,
    replace,
    run_with,
)
from .local_state import LocalState, add_start

v1 = tf.compat.v1
log = logging.getLogger(__name__)

_SCOPE = "read_ahead"
# Ops that set a variable to a new value, which may have been computed from the old one.
_ASSIGNMENTS = ("AssignVariableOp", "Assign")


def read_ahead(graph: tf.Graph, roots: Sequence[Op], unchanged: Iterable[Op]) -> int:
    """Rewrites steps to compute with the parameters that were read during the step before.

    It runs after coalescing, so that a few buckets are kept and not many variables. Reads that
    depend on something else in the step (an embedding's rows, the global step after it) stay as
    they are. Reads of variables that a step sets by `assign` stay as well.

    Args:
        graph: The graph, changed in place. Doing it twice changes nothing more.
        roots: The training steps.
        unchanged: Ops that are run at other times, with the ops they need.

    Returns:
        The number of tensors that are read ahead.
    """
    placed = PlacedGraph(graph, roots)
    reads = _Reads(placed)
    kept = placed.needed_by(unchanged)
    filled: dict[int, list[Op]] = defaultdict(list)
    with adding_to(graph, _SCOPE):
        for crossing in placed.crossings():
            if _may_be_ahead(placed, crossing, kept):
                variables = reads.variables(crossing.tensor)
                if variables and not reads.assigned.intersection(variables):
                    filled[crossing.roots].append(_keep(placed, crossing, reads, variables))
        # Each root that used a tensor has to fill its state, or the next step would compute with
        # values from more than one step before.
        for mask, operations in filled.items():
            with v1.device(placed.device(HOME)), tf.control_dependencies(operations):
                run_with(outermost(placed, roots, mask), tf.no_op())
    count = sum(map(len, filled.values()))
    log.info("%d tensors are read one step ahead", count)
    return count


class _Reads:
    """The steps' reads of variables, and the ops that write them."""

    def __init__(self, placed: PlacedGraph) -> None:
        self._pure: dict[Op, frozenset[Op] | None] = {}
        self.writers: dict[Op, list[Op]] = defaultdict(list)
        self.assigned: set[Op] = set()
        for op in placed.ops:
            for index, tensor in enumerate(op.inputs):
                if is_variable(tensor) and changes(op, index):
                    self.writers[tensor.op].append(op)
                    if op.type in _ASSIGNMENTS:
                        self.assigned.add(tensor.op)

    def variables(self, tensor: Tensor) -> frozenset[Op]:
        """Returns the variables that determine a tensor; none if it depends on anything else."""
        return self._variables(tensor.op) or frozenset()

    def _variables(self, op: Op) -> frozenset[Op] | None:
        if op not in self._pure:
            self._pure[op] = self._find(op)
        return self._pure[op]

    def _find(self, op: Op) -> frozenset[Op] | None:
        if op.type in VARIABLES:
            return frozenset((op,))
        if op.op_def.is_stateful and op.type not in READS:
            return None
        found = [self._variables(needed) for needed in needs(op)]
        return None if None in found else frozenset().union(*(each for each in found if each))


def _may_be_ahead(placed: PlacedGraph, crossing: Crossing, kept: set[Op]) -> bool:
    return (
        crossing.target == HOME
        and crossing.tensor.dtype.is_floating
        and not is_reference(crossing.tensor.dtype)
        and crossing.tensor.shape.is_fully_defined()
        and placed.stages[crossing.tensor.op] == 0
        and not is_in_control_flow(placed, crossing)
        and not any(op in kept or op.name.startswith(f"{_SCOPE}/") for op, _ in crossing.uses)
    )


def _keep(placed: PlacedGraph, crossing: Crossing, reads: _Reads, variables: Iterable[Op]) -> Op:
    """Puts local state between a crossing tensor and its uses; returns the op that fills it."""
    read = crossing.tensor
    if any(op.type != "VarHandleOp" for op in variables):
        # The value of a ref variable may share its memory, which is changed while this is sent.
        with v1.device(placed.device(crossing.source)):
            read = tf.raw_ops.DeepCopy(x=read)
    for variable in variables:
        for writer in reads.writers[variable]:
            # Without this option the gradient, and so its update, waits for the read. Now only this
            # edge keeps the read before the step's own update.
            add_control_inputs(writer, [read.op])
    with v1.device(placed.device(HOME)):
        kept = LocalState("kept", read.dtype, read.shape)
        value = kept.read()
        replace(crossing, value)
        add_start(read.graph, kept.assign(read))
        # The step takes the old value before the new one is kept.
        with tf.control_dependencies([value]):
            return kept.assign(read)
