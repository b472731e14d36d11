"""Sync mode on the chief: applies aggregated gradients step by step, and issues tokens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import tensorflow as tf

from ..cluster.deadline import Deadline
from ..data_plane.sync.builder import SyncOps
from ..data_plane.sync.stall_clock import StallClock
from ..data_plane.sync.tokens import SyncCounters, count_up, deal, newest_rounds
from .checkpoints.holds import LOOK_SECS, given_up_error
from .stalls.diagnosis import StepObservation
from .stalls.lost_tokens import LostTokens, NewSession

log = logging.getLogger(__name__)

# What drops a token of an earlier generation waits for ever if somebody else takes it at that
# moment.
_CLEAR_TIMEOUT_MS = 2_000
# A parameter server that gives no answer for so long is gone.
_ANSWER_TIMEOUT_MS = 10_000


class Aggregator:
    """Runs `apply_step` again and again in a thread.

    Args:
        ops: The graph's sync operations.
        session: The chief's session.
        lease_secs: Seconds without a step after which tokens are issued again.
    """

    def __init__(self, ops: SyncOps, session: Any, lease_secs: float = 10.0) -> None:
        self._ops = ops
        self._session = session
        self._ended = threading.Event()
        self._between_steps = threading.Lock()
        self._hold = threading.Event()
        self._thread = threading.Thread(target=self._run, name="aggregator", daemon=True)
        self._error: Exception | None = None
        self._rounds = 0
        self._stalls = StallClock(lease_secs)
        self._workers: dict[int, str] = {}
        self._shares = deal((), ops.queues, ops.tokens_per_step)
        self._reissued = 0
        self._before: SyncCounters | None = None
        # What each worker had pushed before this generation, and when it last did in an earlier
        # one.
        self._pushed_before: dict[int, tuple[int, int]] = {}
        self._lost_tokens = LostTokens()
        # With a step's number of gradients that follows the workers: those who were there when its
        # tokens were dealt, and what was seen of it when somebody had come or gone.
        self._computing: set[int] = set()
        self._must_refill, self._refill_at = False, 0
        self._seen: tuple[StepObservation, list[int]] | None = None

    def start(self, num_workers: int = 0, workers: Mapping[int, str] | None = None) -> None:
        """Brings queues and accumulators to the model's global step, issues tokens, starts.

        Args:
            num_workers: Workers that may still wait for a token in a session of an earlier
                generation. If the queue's parameter server lives on they do so unharmed, and would
                take a token of this generation with them when that session ends at last.
            workers: The workers that tokens are for, as in `set_workers`; None: those that were
                planned.
        """
        self._session.run(self._ops.start)
        if num_workers:
            self._issue([num_workers] * self._ops.queues)
        self._clear()
        self._before = self.counters()
        self._pushed_before = newest_rounds(*self._ask(self._ops.ledger))
        self._workers = dict(workers or {})
        self._computing = set(self._workers)
        self._shares = self._deal()
        self._set(self._ops.deal_tokens, self._shares)
        if self._ops.count_replicas is not None:
            self._set(self._ops.count_replicas, self._shares)
        self._issue(self._shares)
        self._thread.start()

    def stop(self) -> None:
        """Starts no further step. One that waits for gradients ends with the session."""
        self._ended.set()

    @property
    def is_held(self) -> bool:
        """Whether training is held between two steps."""
        return self._hold.is_set()

    @property
    def is_running(self) -> bool:
        """Whether the thread lives."""
        return self._thread.is_alive()

    @property
    def rounds(self) -> int:
        """Means that the optimizer was given in this generation, whatever it made of them."""
        return self._rounds

    def check(self) -> None:
        """Raises what ended the thread, if anything did."""
        if self._error is not None:
            raise self._error

    def set_workers(self, workers: Mapping[int, str]) -> None:
        """Deals the tokens to those who are there from now on.

        Whoever left held a token; the others would wait for its gradient for ever. So its token for
        the step under way is issued again, to those who get its tokens from now on.

        Args:
            workers: A life of each worker, by its index; "" for one that is expected.
        """
        if workers == self._workers:
            return
        gone = {i for i, life in self._workers.items() if life and workers.get(i) != life}
        if self._must_refill and self._rounds > self._refill_at:
            self._computing = set(self._workers)
        self._computing = {i for i in self._computing if workers.get(i) == self._workers.get(i)}
        self._workers = dict(workers)
        before, self._shares = self._shares, self._deal()
        if self._shares != before:
            self._set(self._ops.deal_tokens, self._shares)
        if self._ops.count_replicas is not None:
            # The step under way, once it is clear what that lacks.
            self._must_refill, self._refill_at, self._seen = True, self._rounds, None
            return
        self._reissue(self._for_the_gone(gone, before))

    def release(self) -> None:
        """Issues a token more for every worker, so that each sees that it should stop."""
        self._issue([max(1, len(self._workers))] * self._ops.queues)

    def watch(self) -> None:
        """Issues tokens again if no step was made for too long and nobody has one to take.

        They are for those alone whose gradient is missing, and who have none to take. One that only
        is slow then has a token too many, whose gradient comes too late and is dropped.
        """
        if self._must_refill and self._workers:
            self._refill()
        if not self._workers or not self._stalls.is_stalled(self._rounds):
            return
        sight, sizes = self._look()
        missing = sight.replicas - sight.waiting - sum(self._untaken(sizes))
        if missing > 0:
            log.warning("no step for too long, %d gradients are missing", missing)
            self._reissue(self._for_the_late(missing, sizes, sight.given))
        self._stalls.restart()

    def supply(self, waiting: Mapping[int, NewSession]) -> None:
        """Issues tokens to those who need one for a new session: theirs went with an earlier one.

        Args:
            waiting: The workers, by index, that have said that they wait for the first token of a
                session.
        """
        if self._ops.queues == 1:
            return  # Nobody could tell whose token is missing; `watch` issues some.
        mine = {i: each for i, each in waiting.items() if i in self._workers}
        if not self._lost_tokens.is_any_new(mine):
            return
        _, sizes = self._look()
        queues = {index: min(index, self._ops.queues - 1) for index in mine}
        lacking = self._lost_tokens.find(
            mine, {index for index, queue in queues.items() if not sizes[queue]}
        )
        counts = [0] * self._ops.queues
        for index in lacking:
            log.info("worker:%d gets another token: it lost the one before with its session", index)
            counts[queues[index]] += 1
        self._reissue(counts)

    def sight(self) -> StepObservation:
        """Which gradients of the step under way are there; asks the parameter server."""
        return self._look()[0]

    def counters(self) -> SyncCounters:
        """What became of the gradients in this generation; asks the parameter server."""
        (_, rows), waiting = self._ask([self._ops.ledger, self._ops.waiting])
        now, before = count_up(rows, int(waiting)), self._before or SyncCounters(0, 0, 0)
        return SyncCounters(
            now.applied - before.applied, now.dropped - before.dropped, self._reissued
        )

    @contextmanager
    def paused(
        self, timeout_secs: float, *, given_up: Callable[[], bool] = lambda: False
    ) -> Iterator[bool]:
        """Holds training between two global steps; yields whether it got there in time.

        Workers go on computing gradients; they are applied afterwards. When no gradients come at
        all, the step under way cannot end, and nothing is applied either.

        Args:
            timeout_secs: Seconds to wait for the step under way.
            given_up: Asked meanwhile: whether there is nothing left to be held.

        Raises:
            tf.errors.CancelledError: It was given up.
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

    def _deal(self) -> list[int]:
        if self._ops.queues == 1:
            return [self._ops.tokens_per_step]
        if self._ops.count_replicas is not None:
            return deal(self._workers, self._ops.queues, 1)
        return deal(self._workers, self._ops.queues, self._ops.tokens_per_step)

    def _for_the_gone(self, gone: set[int], before: list[int]) -> list[int]:
        """Tokens to issue at once, by queue."""
        if self._ops.queues == 1:
            return [len(gone)]
        counts = [max(0, now - then) for now, then in zip(self._shares, before, strict=True)]
        for index in gone & set(self._workers):  # Another life with the same queue.
            queue = min(index, self._ops.queues - 1)
            counts[queue] = max(1, counts[queue])
        return counts

    def _look(self) -> tuple[StepObservation, list[int]]:
        """What is there of the step under way, and how many tokens each queue has."""
        ops = self._ops
        (keys, rows), waiting, sizes, number, step, replicas = self._ask(
            [ops.ledger, ops.waiting, ops.queue_sizes, ops.round, ops.global_step, ops.replicas]
        )
        given = frozenset(
            index
            for index, pushed in newest_rounds(keys, rows).items()
            # Of a model that was put back meanwhile the number of the round says nothing.
            if pushed[1] == number and pushed != self._pushed_before.get(index)
        )
        sight = StepObservation(int(step), int(waiting), int(replicas), given)
        return sight, [int(size) for size in sizes]

    def _refill(self) -> None:
        """Issues the tokens that the step under way lacks, to those who are there.

        It waits for as many gradients as it had tokens at its beginning; those of workers that are
        gone, and had not given theirs, are computed by the others. What the parameter server says
        is not of one moment, so it has to say the same twice.
        """
        if self._rounds > self._refill_at:  # One has begun since, with tokens for all.
            self._must_refill, self._computing = False, set(self._workers)
            return
        seen, self._seen = self._seen, self._look()
        sight, sizes = self._seen
        is_applied_now = bool(sight.given) and not sight.waiting
        if seen != self._seen or is_applied_now:
            return
        queue_of = {index: min(index, self._ops.queues - 1) for index in self._workers}
        computing = [
            i for i in self._computing - sight.given if i in queue_of and not sizes[queue_of[i]]
        ]
        missing = sight.replicas - sight.waiting - sum(self._untaken(sizes)) - len(computing)
        counts = [0] * self._ops.queues
        takers = sorted(self._workers, key=lambda index: (index not in self._computing, index))
        for number in range(max(0, missing)):
            counts[queue_of[takers[number % len(takers)]]] += 1
        self._reissue(counts)
        # Who came meanwhile, and got none of these, gets its first one with the next step.
        self._must_refill = False
        self._computing |= {index for index in takers if counts[queue_of[index]]}

    def _untaken(self, sizes: list[int]) -> list[int]:
        """Tokens that somebody who is there will take."""
        return [size if share else 0 for share, size in zip(self._shares, sizes, strict=True)]

    def _for_the_late(self, missing: int, sizes: list[int], given: Collection[int]) -> list[int]:
        """Tokens for those who have none to take and have not given their gradient; by queue."""
        if self._ops.queues == 1:
            return [min(self._shares[0], missing)]
        counts = [0] * self._ops.queues
        for index in sorted(set(self._workers) - set(given)):
            queue = min(index, self._ops.queues - 1)
            if not sizes[queue] and sum(counts) < missing:
                counts[queue] += 1
        # All have given theirs, so whoever computes for one that is missing has lost its token.
        for queue, share in enumerate(self._shares):
            if not sum(counts) and not sizes[queue]:
                counts[queue] = min(share, missing)
        return counts

    def _set(self, operation: Any, counts: list[int]) -> None:
        options = tf.compat.v1.RunOptions(timeout_in_ms=_ANSWER_TIMEOUT_MS)
        self._session.run(operation, {self._ops.counts: counts}, options=options)

    def _ask(self, fetches: Any) -> Any:
        options = tf.compat.v1.RunOptions(timeout_in_ms=_ANSWER_TIMEOUT_MS)
        return self._session.run(fetches, options=options)

    def _reissue(self, counts: list[int]) -> None:
        self._reissued += sum(counts)
        self._issue(counts)

    def _issue(self, counts: list[int]) -> None:
        if any(counts):
            self._set(self._ops.issue_tokens, counts)

    def _clear(self) -> None:
        """Drops the gradients and tokens of an earlier generation."""
        counts = self._session.run([each.count for each in self._ops.leftovers])
        left = [each.drop for each, n in zip(self._ops.leftovers, counts, strict=True) if n]
        options = tf.compat.v1.RunOptions(timeout_in_ms=_CLEAR_TIMEOUT_MS)
        for drop in (*left, *self._ops.clear_tokens):
            with suppress(tf.errors.DeadlineExceededError):
                self._session.run(drop, options=options)
        self._session.run(self._ops.start)  # What was dropped counted as a step.

    def _run(self) -> None:
        try:
            apply_step: Callable[[], Any] = self._session.make_callable(self._ops.apply_step)
            while not self._ended.is_set():
                if self._hold.is_set():  # Lets a waiting checkpoint have the lock.
                    self._ended.wait(0.005)
                    continue
                with self._between_steps:
                    apply_step()
                self._rounds += 1
        except (tf.errors.OpError, RuntimeError) as error:
            # A session closed under a waiting step is how the thread ends.
            if not self._ended.is_set():
                self._error = error
