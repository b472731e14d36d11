"""Bounded staleness: a worker waits while it is too many steps ahead of the slowest one.

Stale synchronous parallel (Ho et al. 2013, "More Effective Distributed ML via a Stale Synchronous
Parallel Parameter Server"). A hash table on a parameter server has a clock for each worker: its
number of steps, which each step advances. Before a step, a worker that is more than `max_staleness`
steps ahead of the slowest clock waits until the slower workers have come closer.

Every wait is bounded. A worker that ends removes its clock. If a clock does not advance for a
lease while other workers wait for it, they remove it: its worker is dead, or hangs. If the worker
was only slow, its next step adds the clock again, at the slowest of the other clocks. A worker that
joins begins there as well. Only workers and servers take part, so this works with and without a
chief's service.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ..placed_graph import Op, PlacedGraph, Tensor
from ..rewiring import adding_to, outermost, run_with
from .local_state import add_start

v1 = tf.compat.v1

LEASE_SECS = 10.0
_FIRST_PAUSE_SECS = 0.001
_LONGEST_PAUSE_SECS = 0.05
_SCOPE = "staleness"
_TABLE = "paramserve/clocks"
_WORKER = f"{_SCOPE}/worker:0"
_NAMES = f"{_SCOPE}/names:0"
_CLOCKS = f"{_SCOPE}/clocks:0"
_WITHOUT = f"{_SCOPE}/without:0"
_TAKE_AWAY = f"{_SCOPE}/take_away"
_ABSENT = -1


def count_steps(graph: tf.Graph, roots: Sequence[Op]) -> None:
    """Makes each training step advance this worker's clock, once its gradients are applied.

    Args:
        graph: A worker's graph, changed in place. Doing it twice changes nothing more.
        roots: The training steps.
    """
    placed = PlacedGraph(graph, roots)
    server = _server(graph, placed)
    if not server or _TAKE_AWAY in (op.name for op in graph.get_operations()):
        return
    with adding_to(graph, _SCOPE), v1.device(server):
        clocks = _Clocks(tf.constant(uuid.uuid4().hex, name="worker"))
        add_start(graph, clocks.join())
        for root in outermost(placed, roots):
            # The clock advances after everything that the root waits for, the updates included.
            before = [*(tensor.op for tensor in root.inputs), *root.control_inputs]
            with tf.control_dependencies(before):
                run_with([root], clocks.advance())


class StalenessHook(tf.compat.v1.train.SessionRunHook):
    """Hook that waits before a step while this worker is too far ahead of the slowest one.

    Args:
        max_staleness: Steps by which a worker may be ahead when it begins another step.
        lease_secs: Seconds without progress after which a clock that workers wait for is removed.
        cancelled: Returns whether this worker has to stop, so that it waits no longer.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        max_staleness: int,
        *,
        lease_secs: float = LEASE_SECS,
        cancelled: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_staleness = max_staleness
        self._lease_secs = lease_secs
        self._cancelled = cancelled
        self._clock = clock
        self._look: Any = None
        self._lead = 0
        self.waited_secs = 0.0

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Finds the clocks; this worker has just joined them."""
        if _TAKE_AWAY not in (op.name for op in session.graph.get_operations()):
            return
        self._look = session.make_callable([_NAMES, _CLOCKS])
        self._take_away = session.make_callable(_TAKE_AWAY, [_WITHOUT])
        self._worker = session.run(_WORKER)
        self._coord = coord
        self._lead = self._max_staleness + 1  # Unknown: the clocks are read before the first step.

    def before_run(self, run_context: Any) -> None:
        """Waits while the lead over the slowest worker is too large."""
        if self._look is None:
            return
        # The slowest clock never goes back, so the clocks are read only when the lead, one more
        # with each step, may be too large.
        if self._lead > self._max_staleness:
            began = self._clock()
            self._wait()
            self.waited_secs += self._clock() - began
        self._lead += 1

    def end(self, session: Any) -> None:
        """Removes the clock, so that no worker waits for it."""
        if self._look is not None:
            self._take_away([self._worker])

    def _wait(self) -> None:
        since: dict[bytes, tuple[int, float]] = {}
        pause = _FIRST_PAUSE_SECS
        while True:
            clocks = dict(zip(*map(list, self._look()), strict=True))
            mine = clocks.get(self._worker, _ABSENT)
            # A removed worker joins again with its next step, as the slowest, so it never waits.
            behind = {} if mine == _ABSENT else self._behind(clocks, mine)
            self._lead = 0 if mine == _ABSENT else mine - min(clocks.values())
            if not behind or self._cancelled():
                return
            since = {name: since.get(name, (-1, 0.0)) for name in behind}
            for name, clock in behind.items():
                if since[name][0] != clock:
                    since[name] = (clock, self._clock())
            late = [n for n in behind if self._clock() - since[n][1] >= self._lease_secs]
            if late:
                self._take_away(late)
            elif self._coord.wait_for_stop(pause):
                return
            pause = min(2 * pause, _LONGEST_PAUSE_SECS)

    def _behind(self, clocks: dict[bytes, int], mine: int) -> dict[bytes, int]:
        """Returns the workers that are too far behind, with their clocks."""
        return {name: each for name, each in clocks.items() if mine - each > self._max_staleness}


class _Clocks:
    """The operations on the table of clocks.

    Args:
        worker: The name of this worker's incarnation, a string scalar.
    """

    def __init__(self, worker: Tensor) -> None:
        self._table = tf.raw_ops.MutableHashTableV2(
            key_dtype=tf.string, value_dtype=tf.int64, shared_name=_TABLE
        )
        self._worker = worker
        names, clocks = self._all()
        tf.identity(names, name="names")
        tf.identity(clocks, name="clocks")
        without = v1.placeholder(tf.string, [None], name="without")
        with tf.control_dependencies(
            [tf.raw_ops.LookupTableRemoveV2(table_handle=self._table, keys=without)]
        ):
            tf.no_op(name="take_away")

    def join(self) -> Op:
        """Returns the op that sets the clock to the slowest worker's, or to 0 without workers."""
        return self._set(self._slowest())

    def advance(self) -> Op:
        """Returns the op that advances the clock by one step; a removed clock joins again."""
        absent = tf.constant(_ABSENT, tf.int64)
        mine = tf.raw_ops.LookupTableFindV2(
            table_handle=self._table, keys=self._worker, default_value=absent
        )
        return self._set(tf.where(tf.equal(mine, absent), self._slowest(), mine + 1))

    def _slowest(self) -> Tensor:
        _, clocks = self._all()
        return tf.where(
            tf.greater(tf.size(clocks), 0), tf.reduce_min(clocks), tf.zeros([], tf.int64)
        )

    def _set(self, clock: Tensor) -> Op:
        return tf.raw_ops.LookupTableInsertV2(
            table_handle=self._table, keys=self._worker, values=clock
        )

    def _all(self) -> tuple[Tensor, Tensor]:
        found = tf.raw_ops.LookupTableExportV2(
            table_handle=self._table, Tkeys=tf.string, Tvalues=tf.int64
        )
        return found.keys, found.values


def _server(graph: tf.Graph, placed: PlacedGraph) -> str:
    """Returns the parameter server with the global step, else the first; "" without servers.

    All workers get the same answer, also a worker that is a parameter server itself.
    """
    devices = {placed.device(placed.task(op)) for op in placed.ops}
    servers = {device for device in devices if device.startswith("/job:ps")}
    step = v1.train.get_global_step(graph)
    device = "" if step is None else placed.device(placed.task(step.op))
    return device if device in servers else min(servers, default="")
