"""The steps of an evaluation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

_logger = logging.getLogger(__name__)


@dataclass
class EvaluationSteps:
    """The steps of `evaluate` in a session; the attributes are arguments of `evaluate`."""

    eval_dict: Mapping[str, Any]
    update_op: Any
    feed_fn: Callable[[], Mapping[Any, Any]] | None
    max_steps: int | None
    log_every_steps: int

    def run(
        self, session: tf.compat.v1.Session, should_stop: Callable[[], bool]
    ) -> dict[str, Any] | None:
        """Makes all steps.

        Args:
            session: A ready session.
            should_stop: Whether to make no more, whatever the limit.

        Returns:
            The values of `eval_dict` at the end; None if there was no input for even one step.
        """
        steps_made = 0
        results: dict[str, Any] | None = None
        feed_dict = None
        is_fresh = False
        try:
            while not should_stop() and (self.max_steps is None or steps_made < self.max_steps):
                began = time.monotonic()
                feed_dict = self.feed_fn() if self.feed_fn else None
                is_fresh = False
                if self.update_op is None:
                    results, is_fresh = session.run(self.eval_dict, feed_dict), True
                else:
                    session.run(self.update_op, feed_dict)
                steps_made += 1
                if steps_made % max(1, self.log_every_steps) == 0:
                    if not is_fresh:
                        results, is_fresh = session.run(self.eval_dict, feed_dict), True
                    self._log(steps_made, results, time.monotonic() - began)
        except (tf.errors.OutOfRangeError, StopIteration) as error:
            level = logging.INFO if self.max_steps is None else logging.WARNING
            _logger.log(level, "Input ended after %d steps (%s).", steps_made, type(error).__name__)
        if steps_made and not is_fresh and self.update_op is not None:
            results = session.run(self.eval_dict, feed_dict)
        return results

    def _log(self, step: int, results: Mapping[str, Any] | None, secs: float) -> None:
        listed = ", ".join(f"{name} = {value}" for name, value in (results or {}).items())
        _logger.info("Results after %d steps (%.3f sec/batch): %s.", step, secs, listed)
