"""Sync mode on the chief: applies aggregated gradients step by step, and issues tokens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import tensorflow as tf

from ..cluster.deadline import Deadline
from ..data_plane.sync.builder import SyncOps
from ..data_plane.sync.dealer import Look, TokenDealer
from ..data_plane.sync.tokens import SyncCounters, count_up, newest_rounds
from .checkpoints.holds import LOOK_SECS, given_up_error
from .stalls.diagnosis import StepObservation
from .stalls.lost_tokens import LostTokens, NewSession

log = logging.getLogger(__name__)

# The operation that drops a token of an earlier generation waits forever if a worker takes that
# token at the same moment.
_CLEAR_TIMEOUT_MS = 2_000
# A parameter server without an answer for so long is gone.
_ANSWER_TIMEOUT_MS = 10_000


class Aggregator:
    """The chief's thread of synchronous steps, which also issues the dealer's tokens.

    Args:
        ops: The graph's sync operations.
        session: The chief's session.
        lease_secs: Seconds without a step after which tokens are issued again.

    Attributes:
        rounds: Means given to the optimizer in this generation, whether or not it applied them.
    """

    def __init__(self, ops: SyncOps, session: Any, lease_secs: float = 10.0) -> None:
        self._ops = ops
        self._session = session
        self._ended = threading.Event()
        self._between_steps = threading.Lock()
        self._hold = threading.Event()
        self._thread = threading.Thread(target=self._run, name="aggregator", daemon=True)
        self._error: Exception | None = None
        self.rounds = 0
        self._dealer = TokenDealer(ops.plan, lease_secs)
        self._before = SyncCounters()
        # Each worker's pushes before this generation, and the round of the last one.
        self._pushed_before: dict[int, tuple[int, int]] = {}
        self._lost_tokens = LostTokens()

    def start(self, num_workers: int = 0, workers: Mapping[int, str] | None = None) -> None:
        """Brings queues and accumulators to the model's global step, issues tokens, starts.

        Args:
            num_workers: Workers that may still wait for a token in a session of an earlier
                generation. If the queue's parameter server lives on, they continue to wait. Each
                would take a token of this generation with it when that session ends.
            workers: The workers that tokens are for, as in `set_workers`; None: the planned ones.
        """
        ops, dealer = self._ops, self._dealer
        self._session.run(ops.start)
        if num_workers:
            self._call(ops.issue_tokens, [num_workers] * ops.plan.queues)
        self._clear()
        (keys, rows), self._before = self._call(ops.ledger_rows), self._count()
        self._pushed_before = newest_rounds(keys, rows)
        dealer.begin(workers or {})
        self._call([ops.deal_tokens, ops.count_replicas], dealer.shares)
        self._call(ops.issue_tokens, dealer.shares)
        self._thread.start()

    def stop(self) -> None:
        """Starts no further step. A step that waits for gradients ends with the session."""
        self._ended.set()

    @property
    def is_held(self) -> bool:
        """True while training is held between two steps."""
        return self._hold.is_set()

    @property
    def is_running(self) -> bool:
        """True if the thread lives."""
        return self._thread.is_alive()

    def check(self) -> None:
        """Raises the error that ended the thread, if there was one."""
        if self._error is not None:
            raise self._error

    def set_workers(self, workers: Mapping[int, str]) -> None:
        """Deals the tokens to the present workers, see `TokenDealer.set_workers`.

        Args:
            workers: A life of each worker, by its index; "" for an expected one.
        """
        before = self._dealer.shares
        counts = self._dealer.set_workers(workers, self.rounds)
        if self._dealer.shares != before:
            self._call(self._ops.deal_tokens, self._dealer.shares)
        self._reissue(counts)

    def release(self) -> None:
        """Issues a token more for every worker, so that each sees that it should stop."""
        each = max(1, len(self._dealer.workers))
        self._call(self._ops.issue_tokens, [each] * self._ops.plan.queues)

    def watch(self) -> None:
        """Issues tokens again if no step was made for too long and no worker has one to take."""
        dealer = self._dealer
        if dealer.lacks_tokens(self.rounds):
            self._reissue(dealer.refill(self._look()))
        if not dealer.workers or not dealer.stalls.is_stalled(self.rounds):
            return
        look = self._look()
        missing = dealer.missing(look)
        if missing > 0:
            log.warning("no step for too long, %d gradients are missing", missing)
            self._reissue(dealer.for_the_late(look))
        dealer.stalls.restart()

    def supply(self, waiting: Mapping[int, NewSession]) -> None:
        """Issues tokens to workers whose tokens were lost with an earlier session.

        Args:
            waiting: The workers, by index, that have reported to wait for the first token of a
                session.
        """
        plan = self._ops.plan
        if not plan.has_own_queues:
            return  # In a shared queue a missing token has no owner; `watch` issues some.
        mine = {i: each for i, each in waiting.items() if i in self._dealer.workers}
        counts = [0] * plan.queues
        for index in self._lost_tokens.find(mine, self._empty):
            log.info("worker:%d gets another token: it lost the former one with its session", index)
            counts[plan.queue_of(index)] += 1
        self._reissue(counts)

    def sight(self) -> StepObservation:
        """Asks the parameter server for the present gradients of the step under way."""
        look = self._look()
        return StepObservation(look.step, look.waiting, look.replicas, look.given)

    def counters(self) -> SyncCounters:
        """Asks the parameter server for the counts of gradients in this generation."""
        return self._count().since(self._before)

    @contextmanager
    def paused(
        self, timeout_secs: float, *, given_up: Callable[[], bool] = lambda: False
    ) -> Iterator[bool]:
        """Holds training between two global steps; yields whether that was reached in time.

        Workers continue to compute gradients, which are applied afterwards. If no gradients come,
        the step under way cannot end, and nothing is applied either.

        Args:
            timeout_secs: Seconds to wait for the step under way.
            given_up: Called meanwhile; returns whether there is nothing left to be held.

        Raises:
            tf.errors.CancelledError: The hold was given up.
        """
        self._hold.set()
        held = False
        deadline = Deadline.after(timeout_secs)
        try:
            while not held and (left := deadline.remaining_secs()):
                if given_up():
                    raise given_up_error()
                held = self._between_steps.acquire(timeout=min(left, LOOK_SECS))
            yield held
        finally:
            self._hold.clear()
            if held:
                self._between_steps.release()

    def _look(self) -> Look:
        ops = self._ops
        (keys, rows), waiting, sizes, number, step, replicas = self._call(
            [
                ops.ledger_rows,
                ops.waiting,
                ops.queue_sizes,
                ops.round,
                ops.global_step,
                ops.replicas,
            ]
        )
        given = frozenset(
            index
            for index, pushed in newest_rounds(keys, rows).items()
            # Of a model that was restored meanwhile the number of the round says nothing.
            if pushed[1] == number and pushed != self._pushed_before.get(index)
        )
        return Look(int(step), int(waiting), int(replicas), tuple(map(int, sizes)), given)

    def _empty(self) -> set[int]:
        """Returns the workers whose queue has no token."""
        sizes = self._look().sizes
        return {i for i in self._dealer.workers if not sizes[self._ops.plan.queue_of(i)]}

    def _count(self) -> SyncCounters:
        (_, rows), waiting = self._call([self._ops.ledger_rows, self._ops.waiting])
        return count_up(rows, int(waiting))

    def _call(self, fetches: Any, counts: list[int] | None = None) -> Any:
        feed = None if counts is None else {self._ops.counts: counts}
        options = tf.compat.v1.RunOptions(timeout_in_ms=_ANSWER_TIMEOUT_MS)
        return self._session.run(fetches, feed, options=options)

    def _reissue(self, counts: list[int]) -> None:
        if any(counts):
            self._call(self._ops.reissue_tokens, counts)

    def _clear(self) -> None:
        """Drops the gradients and tokens of an earlier generation."""
        counts = self._session.run([each.count for each in self._ops.leftovers])
        left = [each.drop for each, n in zip(self._ops.leftovers, counts, strict=True) if n]
        options = tf.compat.v1.RunOptions(timeout_in_ms=_CLEAR_TIMEOUT_MS)
        for drop in (*left, *self._ops.clear_tokens):
            with suppress(tf.errors.DeadlineExceededError):
                self._session.run(drop, options=options)
        self._session.run(self._ops.start)  # Dropped gradients counted as a step.

    def _run(self) -> None:
        try:
            apply_step: Callable[[], Any] = self._session.make_callable(self._ops.apply_step)
            while not self._ended.is_set():
                if self._hold.is_set():  # Lets a waiting checkpoint have the lock.
                    self._ended.wait(0.005)
                    continue
                with self._between_steps:
                    apply_step()
                self.rounds += 1
        except (tf.errors.OpError, RuntimeError) as error:
            # A session closed under a waiting step is how the thread ends.
            if not self._ended.is_set():
                self._error = error
