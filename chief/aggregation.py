"""Sync mode on the chief: applies aggregated gradients step by step, and issues tokens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import tensorflow as tf

from ..model.stalls import StallClock
from ..model.sync import SyncOps
from ..model.tokens import SyncCounters, count_up, deal

log = logging.getLogger(__name__)

# What drops a token of an earlier epoch waits for ever if somebody else takes it at that moment.
_CLEAR_TIMEOUT_MS = 2_000


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
        self._steps = 0
        self._stalls = StallClock(lease_secs)
        self._workers: dict[int, str] = {}
        self._shares = deal((), ops.queues, ops.tokens_per_step)
        self._reissued = 0
        self._before: SyncCounters | None = None

    def start(self, num_workers: int = 0, workers: Mapping[int, str] | None = None) -> None:
        """Brings queues and accumulators to the model's global step, issues tokens, starts.

        Args:
            num_workers: Workers that may still wait for a token in a session of an earlier epoch.
                If the queue's parameter server lives on they do so unharmed, and would take a token
                of this epoch with them when that session ends at last.
            workers: The workers that tokens are for, as in `set_workers`; None: those that were
                planned.
        """
        self._session.run(self._ops.start)
        if num_workers:
            self._issue([num_workers] * self._ops.queues)
        self._clear()
        self._before = self.counters()
        self._workers = dict(workers or {})
        self._shares = self._deal()
        self._session.run(self._ops.deal_tokens, {self._ops.counts: self._shares})
        self._issue(self._shares)
        self._thread.start()

    def stop(self) -> None:
        """Starts no further step. One that waits for gradients ends with the session."""
        self._ended.set()

    @property
    def is_running(self) -> bool:
        """Whether the thread lives."""
        return self._thread.is_alive()

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
        self._workers = dict(workers)
        before, self._shares = self._shares, self._deal()
        if self._shares != before:
            self._session.run(self._ops.deal_tokens, {self._ops.counts: self._shares})
        self._reissue(self._for_the_gone(gone, before))

    def release(self) -> None:
        """Issues a token more for every worker, so that each sees that it should stop."""
        self._issue([max(1, len(self._workers))] * self._ops.queues)

    def watch(self) -> None:
        """Issues tokens again if no step was made for too long and nobody has one to take.

        A worker that lives may have lost its token with a session. A gradient too many does no
        harm: it is averaged in, or comes too late.
        """
        if not self._workers or not self._stalls.is_stalled(self._steps):
            return
        fetches = [self._ops.waiting, self._ops.queue_sizes]
        waiting, sizes = self._session.run(fetches)
        missing = self._ops.replicas - int(waiting)
        if missing > 0:
            log.warning("no step for too long, %d gradients are missing", missing)
            self._reissue([min(s, missing) if n == 0 else 0 for s, n in self._per_queue(sizes)])
        self._stalls.restart()

    def counters(self) -> SyncCounters:
        """What became of the gradients in this epoch; asks the parameter server."""
        (_, rows), waiting = self._session.run([self._ops.ledger, self._ops.waiting])
        now, before = count_up(rows, int(waiting)), self._before or SyncCounters(0, 0, 0)
        return SyncCounters(
            now.applied - before.applied, now.dropped - before.dropped, self._reissued
        )

    @contextmanager
    def paused(self, timeout_secs: float) -> Iterator[bool]:
        """Holds training between two global steps; yields whether it got there in time.

        Workers go on computing gradients; they are applied afterwards. When no gradients come at
        all, the step under way cannot end, and nothing is applied either.
        """
        self._hold.set()
        held = self._between_steps.acquire(timeout=timeout_secs)
        try:
            yield held
        finally:
            self._hold.clear()
            if held:
                self._between_steps.release()

    def _deal(self) -> list[int]:
        if self._ops.queues == 1:
            return [self._ops.tokens_per_step]
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

    def _per_queue(self, sizes: Any) -> list[tuple[int, int]]:
        return [(share, int(size)) for share, size in zip(self._shares, sizes, strict=True)]

    def _reissue(self, counts: list[int]) -> None:
        self._reissued += sum(counts)
        self._issue(counts)

    def _issue(self, counts: list[int]) -> None:
        if any(counts):
            self._session.run(self._ops.issue_tokens, {self._ops.counts: counts})

    def _clear(self) -> None:
        """Drops the gradients and tokens of an earlier epoch."""
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
                self._steps += 1
        except (tf.errors.OpError, RuntimeError) as error:
            # A session closed under a waiting step is how the thread ends.
            if not self._ended.is_set():
                self._error = error
