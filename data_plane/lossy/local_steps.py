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
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ...errors import UsageError
from ...tf_internals import add_control_inputs, move_op, set_input
from ..placed_graph import HOME, Op, PlacedGraph, Tensor, is_reference
from ..rewiring import adding_to, changes, is_variable, outermost, replace, run_with
from .local_state import LocalState, add_start

v1 = tf.compat.v1
log = logging.getLogger(__name__)

_SCOPE = "local_steps"
EXCHANGE = f"{_SCOPE}/exchange"
COUNT = f"{_SCOPE}/count:0"
_APPLY = re.compile(r"(?:Resource)?(?:Sparse)?Apply([A-Z]\w*)")
# The update has no state but the slots that it is given.
_SUPPORTED = ("GradientDescent", "Momentum", "KerasMomentum", "Adagrad", "AdagradV2", "RMSProp")
# How plain gradient descent applies sparse gradients.
_SCATTER = ("ResourceScatterAdd", "ResourceScatterSub", "ScatterAdd", "ScatterSub")


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
