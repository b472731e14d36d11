"""The chief's threads in synchronous training: one makes steps, one looks after the workers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ..data_plane.sync.builder import ChiefOps
from ..data_plane.sync.dealer import Look
from ..data_plane.sync.ledger_watch import SharedQueueWatch
from ..data_plane.sync.tokens import newest_rounds

v1 = tf.compat.v1
_logger = logging.getLogger(__name__)

# How a thread ends whose queue or session is closed.
_ENDS = (tf.errors.OutOfRangeError, tf.errors.CancelledError)
_LONGEST_POLL_SECS = 0.25


@dataclass(frozen=True)
class SyncControls:
    """What hooks need of a `SyncReplicasOptimizer` beside its documented methods.

    Attributes:
        make_runner: Makes a runner of a step of the chief.
        release: Makes an operation that gives each worker a token more, of a bool scalar: whether
            to do it.
        close: Ends every worker that waits for a token, now or later.
        leave: Says that this worker computes no further gradient.
        is_closed: Whether an earlier training closed the queues.
        probe: Tensors of all parameter servers that hold gradients.
        lease_secs: Seconds for which anybody is waited for.
        first_tokens: Tokens without which there would be too few gradients for the first step.
    """

    make_runner: Callable[[tf.Operation], ChiefQueueRunner]
    release: Callable[[tf.Tensor], tf.Operation]
    close: tf.Operation
    leave: tf.Operation
    is_closed: tf.Tensor
    probe: Sequence[tf.Tensor]
    lease_secs: float
    first_tokens: int


class ChiefQueueRunner(tf.compat.v1.train.QueueRunner):
    """Makes the chief's steps in a thread, and issues tokens again in another.

    Nobody waits for these threads when training ends: the one that makes steps waits for gradients
    that will not come, and only the end of its session ends it.

    Args:
        queue: A token queue.
        step: What makes a step.
        ops: What else the chief runs.
        make_watch: Makes what judges which workers are there, for a session.
        replicas: Gradients in a step.
        lease_secs: Seconds without a step after which tokens are issued again.
    """

    def __init__(
        self,
        queue: Any,
        step: tf.Operation,
        ops: ChiefOps,
        make_watch: Callable[[], SharedQueueWatch],
        replicas: int,
        lease_secs: float,
    ) -> None:
        super().__init__(queue, [step], close_op=tf.no_op(), cancel_op=tf.no_op())
        self._step, self._ops, self._make_watch = step, ops, make_watch
        self._replicas, self._lease_secs = replicas, lease_secs

    def create_threads(
        self,
        sess: tf.compat.v1.Session,
        coord: tf.compat.v1.train.Coordinator | None = None,
        daemon: bool = False,
        start: bool = False,
    ) -> list[threading.Thread]:
        """Makes the threads for a session.

        Args:
            sess: The session.
            coord: Ends the threads, and is told of what went wrong.
            daemon: Has no effect: the process does not wait for them in any case.
            start: Whether to start them.
        """
        coord = coord or tf.compat.v1.train.Coordinator()
        runs = {"sync-steps": self._make_steps, "sync-watch": self._watch}
        threads = [
            threading.Thread(target=run, args=(sess, coord), name=name, daemon=True)
            for name, run in runs.items()
        ]
        for thread in threads if start else ():
            thread.start()
        return threads

    def _make_steps(
        self, session: tf.compat.v1.Session, coord: tf.compat.v1.train.Coordinator
    ) -> None:
        try:
            make_step = session.make_callable(self._step)
            while not coord.should_stop():
                make_step()
        except _ENDS:
            pass
        except (tf.errors.OpError, RuntimeError) as error:
            if not coord.should_stop():
                coord.request_stop(error)

    def _watch(self, session: tf.compat.v1.Session, coord: tf.compat.v1.train.Coordinator) -> None:
        watch, ops = self._make_watch(), self._ops
        try:
            fetch = session.make_callable([ops.round, ops.waiting, ops.queue_sizes, *ops.ledger])
            while not coord.should_stop():
                self._look_after_workers(session, watch, fetch())
                coord.wait_for_stop(min(_LONGEST_POLL_SECS, self._lease_secs / 10))
        except (tf.errors.OpError, RuntimeError) as error:
            # The thread that makes steps meets the same error, and reports it.
            _logger.debug("No longer watching the workers: %s", error)

    def _look_after_workers(
        self, session: tf.compat.v1.Session, watch: SharedQueueWatch, fetched: Sequence[Any]
    ) -> None:
        number, waiting, sizes, keys, rows = fetched
        pushed = newest_rounds(keys, rows)
        given = frozenset(worker for worker, (_, newest) in pushed.items() if newest >= number)
        look = Look(int(number), int(waiting), self._replicas, tuple(map(int, sizes)), given)
        before = watch.dealer.shares
        counts = watch.judge(look, pushed)
        if watch.dealer.shares != before:
            session.run(self._ops.deal_tokens, {self._ops.counts: watch.dealer.shares})
        if any(counts):
            session.run(self._ops.issue_tokens, {self._ops.counts: counts})
