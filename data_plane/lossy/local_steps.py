"""Local steps: a worker trains a copy of the parameters and pushes its change every few steps.

The worker keeps a copy of each variable that an optimizer trains, and of the optimizer's slots. Its
steps read and change the copies, so that nothing large crosses. Every `local_steps` steps, the
change of the copy is added to the parameters on the servers, and the copy is filled from there. So
the changes of several workers add up, as their gradients do without this option.

The slots (momentum, sums of squares) are local to each worker. They are filled from the servers
when a session begins and never pushed, because decaying sums of different workers' gradients cannot
be added. So a checkpoint has the slots of the time at which the job began. The global step counts
every local step of every worker.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from ..placed_graph import HOME, Op, PlacedGraph, Tensor
from ..rewiring import adding_to, outermost, run_with
from .local_copies import Copies, Copy, find_updates, value_type
from .local_state import LocalState, add_start

v1 = tf.compat.v1
log = logging.getLogger(__name__)

_SCOPE = "local_steps"
EXCHANGE = f"{_SCOPE}/exchange"
COUNT = f"{_SCOPE}/count:0"


def keep_copies(graph: tf.Graph, roots: Sequence[Op], unchanged: Iterable[Op]) -> Op | None:
    """Redirects the training steps to copies of the parameters on the worker.

    Args:
        graph: The graph, changed in place. Doing it twice changes nothing more.
        roots: The training steps.
        unchanged: Ops that are run at other times, with the ops they need.

    Returns:
        The operation that pushes the changes and fills the copies again. It has to be run between
        steps: see `LocalStepsHook`. None if all parameters are local anyway.

    Raises:
        UsageError: The optimizer has more state than slots, or a parameter is read in a way that a
            copy does not support.
    """
    if EXCHANGE in (operation.name for operation in graph.get_operations()):
        return graph.get_operation_by_name(EXCHANGE)
    placed = PlacedGraph(graph, roots)
    updates = find_updates(placed, graph)
    if not updates:
        return None
    trained = list(dict.fromkeys(update.variable for update in updates))
    with adding_to(graph, _SCOPE):
        copies = Copies(placed, placed.needed_by(unchanged), trained)
        copies.redirect_reads()
        for update in updates:
            copies.redirect_update(update)
        for copy in copies.slots():
            with v1.device(_device(placed, copy.original)):
                value = _read(copy.original)
            with v1.device(placed.device(HOME)):
                add_start(graph, copy.local.assign(value))
        exchange = _exchange(placed, [copies.of(each) for each in trained])
        run_with(outermost(placed, roots), _count(placed))
    log.info("%d variables are trained in copies", len(trained))
    return exchange


class LocalStepsHook(tf.compat.v1.train.SessionRunHook):
    """Exchanges a worker's changes every few steps, and at the end.

    Args:
        local_steps: Steps between two exchanges.
    """

    def __init__(self, local_steps: int) -> None:
        self._local_steps = local_steps
        self._count: Any = None
        self._exchange: Any = None
        self._exchanged = 0

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Finds the operations to run; `StartHook` has just filled the copies."""
        try:
            exchange = session.graph.get_operation_by_name(EXCHANGE)
        except KeyError:
            return
        self._exchange = session.make_callable(exchange)
        self._count = session.make_callable(COUNT)
        self._exchanged = 0

    def before_run(self, run_context: Any) -> Any:
        """Asks for the number of local steps before this one."""
        return None if self._exchange is None else v1.train.SessionRunArgs(COUNT)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Exchanges if enough steps were made since the last exchange."""
        if self._exchange is None:
            return
        # The count is from before this run, which may be a step or not. So when this run may have
        # been the last of the interval, the exact count is read.
        if int(run_values.results) - self._exchanged >= self._local_steps - 1:
            self._exchange_after(self._local_steps)

    def end(self, session: Any) -> None:
        """Pushes the remaining changes."""
        if self._exchange is not None:
            self._exchange_after(1)

    def _exchange_after(self, steps: int) -> None:
        count = int(self._count())
        if count - self._exchanged >= steps:
            self._exchange()
            self._exchanged = count


def _exchange(placed: PlacedGraph, copies: Sequence[Copy]) -> Op:
    """Adds the op that adds each copy's change to its original, and fills the copy from there.

    `base` is the value that the copy was filled with last. Their difference is this worker's own
    change, whatever the other workers have added to the original meanwhile.
    """
    home, filled = placed.device(HOME), []
    for copy in copies:
        with v1.device(home):
            base = LocalState("base", *value_type(copy.original))
            change = copy.local.read() - base.read()
        with v1.device(_device(placed, copy.original)):
            first = _read(copy.original)
            value = _add(copy.original, change)
        with v1.device(home):
            for state in (copy.local, base):
                filled.append(state.assign(value))
                add_start(value.graph, state.assign(first))
    with v1.device(home), tf.control_dependencies(filled):
        return tf.no_op(name="exchange")


def _count(placed: PlacedGraph) -> Op:
    """Adds the op that counts the worker's steps."""
    with v1.device(placed.device(HOME)):
        count = LocalState("counter", tf.int64, [])
        tf.identity(count.read(), name="count")
        one = tf.constant(1, tf.int64)
        add_start(one.graph, count.assign(tf.zeros([], tf.int64)))
        return tf.raw_ops.AssignAddVariableOp(resource=count.handle, value=one)


def _device(placed: PlacedGraph, variable: Op) -> str:
    return placed.device(placed.task(variable))


def _read(variable: Op) -> Tensor:
    handle = variable.outputs[0]
    if handle.dtype == tf.resource:
        return tf.raw_ops.ReadVariableOp(resource=handle, dtype=variable.get_attr("dtype"))
    return tf.identity(handle)


def _add(variable: Op, change: Tensor) -> Tensor:
    """Adds to a variable, and returns the value after that."""
    handle = variable.outputs[0]
    if handle.dtype != tf.resource:
        return tf.identity(tf.raw_ops.AssignAdd(ref=handle, value=change))
    with tf.control_dependencies([tf.raw_ops.AssignAddVariableOp(resource=handle, value=change)]):
        return _read(variable)
