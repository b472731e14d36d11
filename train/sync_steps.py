"""The chief's threads in synchronous training: one makes steps, one looks after the workers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ..data_plane.sync.stall_clock import StallClock
from ..data_plane.sync.tokens import LEFT, deal, newest_rounds

v1 = tf.compat.v1
_logger = logging.getLogger(__name__)

# How a thread ends whose queue or session is closed.
_ENDS = (tf.errors.OutOfRangeError, tf.errors.CancelledError)
_LONGEST_POLL_SECS = 0.25


@dataclass(frozen=True)
class ChiefOps:
    """What the chief runs, and looks at.

    Attributes:
        step: Waits for enough gradients, applies their mean, issues tokens.
        counts: int32 placeholder of shape [queues], for the next two.
        issue: Issues so many tokens for the round under way.
        deal: Has each step issue so many tokens from now on.
        round: int64 scalar: the round under way, see `model.tokens`.
        waiting: int32 scalar: gradients that wait for the rest of their step.
        sizes: int32 of shape [queues]: tokens that nobody has taken.
        ledger: What every worker pushed: keys and rows.
        probe: Tensors of all parameter servers that hold gradients.
        close: Closes the queues of tokens.
    """

    step: tf.Operation
    counts: tf.Tensor
    issue: tf.Operation
    deal: tf.Operation
    round: tf.Tensor
    waiting: tf.Tensor
    sizes: tf.Tensor
    ledger: tuple[tf.Tensor, tf.Tensor]
    probe: Sequence[tf.Tensor]
    close: tf.Operation


@dataclass(frozen=True)
class SyncControls:
    """What hooks need of a `SyncReplicasOptimizer` beside its documented methods.

    Attributes:
        make_runner: Makes a runner of a step of the chief.
        step: That step.
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
    step: tf.Operation
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
        workers: Workers that have a queue of their own; None: there is one queue for all.
        chief: The chief's row in the ledger, as a worker.
        tokens: Tokens in a step.
        replicas: Gradients in a step.
        lease_secs: Seconds without a step after which tokens are issued again.
    """

    def __init__(
        self,
        queue: Any,
        step: tf.Operation,
        ops: ChiefOps,
        *,
        workers: int | None,
        chief: int,
        tokens: int,
        replicas: int,
        lease_secs: float,
    ) -> None:
        super().__init__(queue, [step], close_op=tf.no_op(), cancel_op=tf.no_op())
        self._step, self._ops = step, ops
        self._workers, self._chief = workers, chief
        self._tokens, self._replicas = tokens, replicas
        self._lease_secs = lease_secs

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
        watch = _SharedQueueWatch if self._workers is None else _OwnQueuesWatch
        try:
            watcher = watch(
                session,
                self._ops,
                workers=self._workers or 1,
                chief=self._chief,
                tokens=self._tokens,
                replicas=self._replicas,
                clock=StallClock(self._lease_secs),
            )
            watcher.look()
            while not coord.wait_for_stop(min(_LONGEST_POLL_SECS, self._lease_secs / 10)):
                watcher.look()
        except (tf.errors.OpError, RuntimeError) as error:
            # Whoever makes steps finds out the same, and tells of it.
            _logger.debug("No longer watching the workers: %s", error)


class _Watch:
    """What there is to see on the parameter servers, and tokens to issue again."""

    def __init__(
        self,
        session: tf.compat.v1.Session,
        ops: ChiefOps,
        *,
        workers: int,
        chief: int,
        tokens: int,
        replicas: int,
        clock: StallClock,
    ) -> None:
        self._session, self._ops = session, ops
        self._workers, self._chief = workers, chief
        self._tokens, self._replicas = tokens, replicas
        self._clock = clock
        fetches = [ops.round, ops.waiting, ops.sizes, *ops.ledger]
        self._fetch = session.make_callable(fetches)

    def look(self) -> None:
        """Looks, and acts."""
        number, waiting, sizes, keys, rows = self._fetch()
        pushed = newest_rounds(keys, rows)
        self._meet_leavers(pushed)
        if self._clock.is_stalled(int(number)):
            if int(waiting) < self._replicas:
                self._end_stall(int(number), self._replicas - int(waiting), list(sizes), pushed)
            self._clock.restart()

    def _meet_leavers(self, pushed: dict[int, tuple[int, int]]) -> None:
        raise NotImplementedError

    def _end_stall(
        self, number: int, missing: int, sizes: list[int], pushed: dict[int, tuple[int, int]]
    ) -> None:
        raise NotImplementedError

    def _issue(self, counts: list[int]) -> None:
        if any(counts):
            self._session.run(self._ops.issue, {self._ops.counts: counts})


class _SharedQueueWatch(_Watch):
    """Each token of a worker that is gone is for anybody else."""

    _left: frozenset[int] | None = None

    def _meet_leavers(self, pushed: dict[int, tuple[int, int]]) -> None:
        left = frozenset(worker for worker, (_, newest) in pushed.items() if newest == LEFT)
        # Those that had left before have no token now.
        newly = left - self._left if self._left is not None else frozenset()
        self._left = left
        if newly:
            _logger.info("%d workers have left; others get their tokens.", len(newly))
            self._issue([len(newly)])

    def _end_stall(
        self, number: int, missing: int, sizes: list[int], pushed: dict[int, tuple[int, int]]
    ) -> None:
        if not sizes[0]:
            _logger.warning("Step %d lacks %d gradients: issuing tokens again.", number, missing)
            self._issue([missing])


class _OwnQueuesWatch(_Watch):
    """The tokens of a worker that is gone are dealt to the others, until it pushes again."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # What they had pushed when they were given up.
        self._absent: dict[int, int] = {}
        self._shares = [1] * self._workers

    def _meet_leavers(self, pushed: dict[int, tuple[int, int]]) -> None:
        absent = {
            worker: count
            for worker, count in self._absent.items()
            if pushed.get(worker, (0, 0))[0] == count
        }
        for worker, (count, newest) in pushed.items():
            if newest == LEFT and worker < self._workers and worker != self._chief:
                absent[worker] = count
        self._deal(absent)

    def _end_stall(
        self, number: int, missing: int, sizes: list[int], pushed: dict[int, tuple[int, int]]
    ) -> None:
        silent = {
            worker: pushed.get(worker, (0, -1))[0]
            for worker in range(self._workers)
            if worker != self._chief and pushed.get(worker, (0, -1))[1] < number
        }
        if silent.keys() - self._absent.keys():
            _logger.warning("Step %d lacks gradients of the workers %s.", number, sorted(silent))
            self._deal({**self._absent, **silent})
        elif not any(size for size, share in zip(sizes, self._shares, strict=True) if share):
            # Whoever is there has pushed: a token was lost with a session.
            self._issue([missing if each == self._chief else 0 for each in range(self._workers)])

    def _deal(self, absent: dict[int, int]) -> None:
        if absent == self._absent:
            return
        self._absent = absent
        present = set(range(self._workers)) - absent.keys()
        before = self._shares
        self._shares = deal(present, self._workers + 1, self._tokens)[:-1]
        self._session.run(self._ops.deal, {self._ops.counts: self._shares})
        self._issue([max(0, now - then) for now, then in zip(self._shares, before, strict=True)])
