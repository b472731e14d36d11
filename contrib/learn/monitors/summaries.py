"""Monitors that write events for TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from ....loops.fetches import output_key
from ..summary_writers import get_summary_writer
from .every_n import EveryN


class SummarySaver(EveryN):
    """Monitor that writes summaries.

    Args:
        summary_op: A scalar string tensor with a serialized `tf.compat.v1.Summary`, such as
            `tf.compat.v1.summary.merge_all()` makes, or its name.
        save_steps: Steps from one summary to the next.
        output_dir: Where to write, if no writer is given.
        summary_writer: Has `add_summary(summary, step)` and `flush()`. Without it and
            `output_dir`, what is written goes to the estimator's `model_dir`.
        scaffold: Its `summary_op` is used if `summary_op` is None.
    """

    def __init__(
        self,
        summary_op: Any,
        save_steps: int = 100,
        output_dir: str | None = None,
        summary_writer: Any = None,
        scaffold: Any = None,
    ) -> None:
        super().__init__(every_n_steps=save_steps)
        self._summary_op = summary_op
        self._scaffold = scaffold
        self._writer = summary_writer
        if summary_writer is None and output_dir:
            self._writer = get_summary_writer(output_dir)

    def set_estimator(self, estimator: Any) -> None:
        """Takes the estimator's `model_dir` if there is no other place to write to."""
        super().set_estimator(estimator)
        if self._writer is None:
            self._writer = get_summary_writer(estimator.model_dir)

    def every_n_step_begin(self, step: int) -> list[Any]:
        """Asks for the summary."""
        super().every_n_step_begin(step)
        if self._summary_op is None and self._scaffold is not None:
            self._summary_op = self._scaffold.summary_op
        return [] if self._summary_op is None else [self._summary_op]

    def every_n_step_end(self, step: int, outputs: Mapping[Any, Any]) -> bool:
        """Writes the summary."""
        super().every_n_step_end(step, outputs)
        if self._summary_op is not None and self._writer is not None:
            self._writer.add_summary(outputs[output_key(self._summary_op)], step)
        return False

    def end(self, session: Any = None) -> None:
        """Flushes the written events to disk."""
        super().end(session=session)
        if self._writer is not None:
            self._writer.flush()


class StepCounter(EveryN):
    """Writes how many steps a second were made, under the tag "global_step/sec".

    Args:
        every_n_steps: Steps from one figure to the next.
        output_dir: Where to write, if no writer is given.
        summary_writer: Has `add_summary(summary, step)`. Without it and `output_dir`, what is
            written goes to the estimator's `model_dir`.
        clock: Returns the time in seconds.
    """

    _TAG = "global_step/sec"

    def __init__(
        self,
        every_n_steps: int = 100,
        output_dir: str | None = None,
        summary_writer: Any = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(every_n_steps=every_n_steps)
        self._clock = clock
        self._last_seen: tuple[int, float] | None = None
        self._writer = summary_writer
        if summary_writer is None and output_dir:
            self._writer = get_summary_writer(output_dir)

    def set_estimator(self, estimator: Any) -> None:
        """Takes the estimator's `model_dir` if there is no other place to write to."""
        super().set_estimator(estimator)
        if self._writer is None:
            self._writer = get_summary_writer(estimator.model_dir)

    def begin(self, max_steps: int | None = None) -> None:
        """Restarts the measurement."""
        super().begin(max_steps=max_steps)
        self._last_seen = None

    def every_n_step_end(self, step: int, outputs: Mapping[Any, Any]) -> bool:
        """Writes the figure since the last active step."""
        super().every_n_step_end(step, outputs)
        now = self._clock()
        if self._last_seen is not None and self._writer is not None:
            last_step, last_time = self._last_seen
            if now > last_time:
                rate = (step - last_step) / (now - last_time)
                value = tf.compat.v1.Summary.Value(tag=self._TAG, simple_value=rate)
                self._writer.add_summary(tf.compat.v1.Summary(value=[value]), step)
        self._last_seen = step, now
        return False
