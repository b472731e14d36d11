"""Sync mode on the chief: applies aggregated gradients step by step, and issues tokens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from ..model.sync import SyncOps

log = logging.getLogger(__name__)


class Aggregator:
    """Runs `apply_step` again and again in a thread.

    Args:
        ops: The graph's sync operations.
        session: The chief's session.
    """

    def __init__(self, ops: SyncOps, session: Any) -> None:
        self._ops = ops
        self._session = session
        self._ended = threading.Event()
        self._between_steps = threading.Lock()
        self._hold = threading.Event()
        self._thread = threading.Thread(target=self._run, name="aggregator", daemon=True)
        self._error: Exception | None = None

    def start(self, num_workers: int = 0) -> None:
        """Brings queue and accumulators to the model's global step, issues tokens, starts.

        Args:
            num_workers: Workers that may still wait for a token in a session of an earlier epoch.
                If the queue's parameter server lives on they do so unharmed, and would take a token
                of this epoch with them when that session ends at last.
        """
        self._session.run(self._ops.start)
        self.issue_tokens(num_workers)
        self._session.run(self._ops.clear_tokens)
        self.issue_tokens(self._ops.tokens_per_step)
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

    def issue_tokens(self, count: int) -> None:
        """Issues tokens for the current global step: each is the right to compute one gradient."""
        for _ in range(count):
            self._session.run(self._ops.issue_token)

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

    def _run(self) -> None:
        while not self._ended.is_set():
            if self._hold.is_set():  # Lets a waiting checkpoint have the lock.
                self._ended.wait(0.005)
                continue
            with self._between_steps:
                try:
                    self._session.run(self._ops.apply_step)
                except (tf.errors.OpError, RuntimeError) as error:
                    # A session closed under a waiting step is how the thread ends.
                    if not self._ended.is_set():
                        self._error = error
                    return
