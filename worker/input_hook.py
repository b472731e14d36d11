"""The hook between a worker's steps and its leased input."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import tensorflow as tf

from .input import LeasedInput


class InputHook(tf.compat.v1.train.SessionRunHook):
    """Hook that reports a step's batches to the source, and keeps void batches away from steps.

    Args:
        source: This worker's shards.
        position: `TrainSpec.position`.
    """

    def __init__(self, source: LeasedInput, position: Any) -> None:
        self._source = source
        self._position = position
        self._sessions = 0
        self._started = 0.0

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Gives back leases after a new session: batches on their way in the former may be lost."""
        self._sessions += 1
        self._source.end_step()
        if self._sessions > 1:
            self._source.void()

    def before_run(self, run_context: Any) -> Any:
        """Asks for the positions of the step, once void leases are returned."""
        if not self._source.check():
            with suppress(tf.errors.OutOfRangeError):  # The step will see that for itself.
                self._source.discard_void(lambda: self._positions(run_context.session))
        self._source.begin_step()
        self._started = time.perf_counter()
        return tf.compat.v1.train.SessionRunArgs(self._position)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Records the batches of the step."""
        self._source.end_step()
        positions = run_values.results.reshape(-1, 3).tolist()
        self._source.complete(positions, time.perf_counter() - self._started)

    def end(self, session: Any) -> None:
        """Reports that the last step is done."""
        self._source.end_step()

    def _positions(self, session: Any) -> list[list[int]]:
        return session.run(self._position).reshape(-1, 3).tolist()
