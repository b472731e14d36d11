"""The chief's threads in synchronous training: one makes steps, one looks after the workers."""

from __future__ import annotations

import logging
import threading
from typing import Any

import tensorflow as tf

from ..data_plane.sync.builder import SyncGraph
from ..data_plane.sync.dealer import Look, TokenDealer
from ..data_plane.sync.ledger_watch import LedgerWatch
from ..data_plane.sync.tokens import newest_rounds

v1 = tf.compat.v1
_logger = logging.getLogger(__name__)

_LONGEST_POLL_SECS = 0.25


class ChiefQueueRunner(tf.compat.v1.train.QueueRunner):
    """The chief's steps in a thread, and the reissue of tokens in another.

    The end of training does not wait for these threads: the thread of steps waits for gradients
    that will not come, and ends only with its session.

    Args:
        graph: Its other ops beside the step.
        step: A step of the chief.
        chief: The chief's row in the ledger, as a worker.
        lease_secs: Seconds without a step after which tokens are issued again.
    """

    def __init__(self, graph: SyncGraph, step: tf.Operation, chief: int, lease_secs: float) -> None:
        queue, nothing = graph.tokens.queues[0], tf.no_op()
        super().__init__(queue, [step], close_op=nothing, cancel_op=nothing)
        self._graph, self._step, self._chief, self._lease_secs = graph, step, chief, lease_secs

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
            coord: Ends the threads, and receives their errors.
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

    def _make_steps(self, session: Any, coord: tf.compat.v1.train.Coordinator) -> None:
        try:
            make_step = session.make_callable(self._step)
            while not coord.should_stop():
                make_step()
        except (tf.errors.OutOfRangeError, tf.errors.CancelledError):
            pass  # The session is closed.
        except (tf.errors.OpError, RuntimeError) as error:
            if not coord.should_stop():
                coord.request_stop(error)

    def _watch(self, session: Any, coord: tf.compat.v1.train.Coordinator) -> None:
        graph, plan = self._graph, self._graph.plan
        dealer = TokenDealer(plan, self._lease_secs)
        watch = LedgerWatch(dealer, self._chief)
        try:
            look = session.make_callable(
                [graph.round, graph.waiting, graph.queue_sizes, *graph.ledger_rows]
            )
            while not coord.should_stop():
                number, waiting, sizes, keys, rows = look()
                pushed, before = newest_rounds(keys, rows), dealer.shares
                given = frozenset(i for i, (_, newest) in pushed.items() if newest >= number)
                seen = Look(int(number), int(waiting), plan.replicas, tuple(sizes), given)
                counts = watch.judge(seen, pushed)
                if dealer.shares != before:
                    session.run(graph.deal_tokens, {graph.counts: dealer.shares})
                if any(counts):
                    session.run(graph.reissue_tokens, {graph.counts: counts})
                coord.wait_for_stop(min(_LONGEST_POLL_SECS, self._lease_secs / 10))
        except (tf.errors.OpError, RuntimeError) as error:
            # The thread that makes steps meets the same error, and reports it.
            _logger.debug("No longer watching the workers: %s", error)
