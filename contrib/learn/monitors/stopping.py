"""Monitors that end training: at a step, when the loss is NaN, when the model gets no better."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ....loops.fetches import output_key
from .base import BaseMonitor, EveryN

NanLossDuringTrainingError = tf.compat.v1.train.NanLossDuringTrainingError

_logger = logging.getLogger(__name__)


class StopAtStep(BaseMonitor):
    """Monitor that ends training after some steps, or at a global step; runs on all workers.

    Args:
        num_steps: Steps to train from the first one that this monitor sees.
        last_step: The global step to end at.

    Raises:
        ValueError: Both or none of them are given.
    """

    def __init__(self, num_steps: int | None = None, last_step: int | None = None) -> None:
        super().__init__()
        if (num_steps is None) == (last_step is None):
            raise ValueError(
                f"num_steps={num_steps} and last_step={last_step}: exactly one of num_steps and "
                "last_step must be given"
            )
        self._num_steps = num_steps
        self._last_step = last_step

    @property
    def run_on_all_workers(self) -> bool:
        """True: each task has to stop by itself."""
        return True

    def step_begin(self, step: int) -> list[Any]:
        """Settles the last step when the first one begins."""
        super().step_begin(step)
        if self._last_step is None:
            assert self._num_steps is not None
            self._last_step = step + self._num_steps - 1
        return []

    def step_end(self, step: int, output: Mapping[Any, Any]) -> bool:
        """Stops at the last step, or beyond."""
        super().step_end(step, output)
        assert self._last_step is not None
        return step >= self._last_step


class NanLoss(EveryN):
    """Monitor that ends training when the loss is NaN.

    Args:
        loss_tensor: A scalar floating-point tensor or variable, or the name of one.
        every_n_steps: Steps from one look to the next.
        fail_on_nan_loss: Whether to raise, or to stop training with a warning.
    """

    def __init__(
        self, loss_tensor: Any, every_n_steps: int = 100, fail_on_nan_loss: bool = True
    ) -> None:
        super().__init__(every_n_steps=every_n_steps)
        self._loss_tensor = loss_tensor
        self._fail_on_nan_loss = fail_on_nan_loss

    def every_n_step_begin(self, step: int) -> list[Any]:
        """Asks for the loss."""
        return [self._loss_tensor]

    def every_n_step_end(self, step: int, outputs: Mapping[Any, Any]) -> bool:
        """Looks at the loss.

        Raises:
            NanLossDuringTrainingError: The loss is NaN, and that is to be an error.
        """
        if not np.isnan(outputs[output_key(self._loss_tensor)]):
            return False
        if self._fail_on_nan_loss:
            _logger.error("Model diverged with loss = NaN.")
            raise NanLossDuringTrainingError
        _logger.warning("Model diverged with loss = NaN.")
        return True


class ValidationMonitor(EveryN):
    """Monitor that evaluates each new checkpoint with the estimator from `set_estimator`.

    The estimator is any object with a `model_dir`, the directory of the checkpoints, and an
    `evaluate(...)` that returns a dict of metrics. It receives those of `x`, `y`, `input_fn`,
    `batch_size`, `steps`, `metrics`, `hooks` and `name` that are not None.

    Args:
        x: Features for `evaluate`.
        y: Labels for `evaluate`.
        input_fn: Function that makes features and labels, in place of `x` and `y`.
        batch_size: Examples in a batch.
        eval_steps: Batches to evaluate; passed as `steps`. None: all.
        every_n_steps: Steps from one check for a new checkpoint to the next.
        metrics: Metrics for `evaluate`.
        hooks: Hooks for `evaluate`.
        early_stopping_rounds: Training ends when the metric has been no better for this many
            steps; None never ends it.
        early_stopping_metric: The metric's name.
        early_stopping_metric_minimize: Whether less is better.
        name: Name of the evaluation.
        check_interval_secs: Seconds between checks for a new checkpoint, at least; None: no limit.
        clock: Returns the time in seconds.

    Attributes:
        early_stopped: Whether this monitor ended training.
        best_step: The step at which the metric was best, None before the first evaluation.
        best_value: The metric at `best_step`.
        best_metrics: All metrics at `best_step`.

    Raises:
        ValueError: Both `x` and `input_fn` are None.
    """

    def __init__(
        self,
        x: Any = None,
        y: Any = None,
        input_fn: Callable[[], Any] | None = None,
        batch_size: int | None = None,
        eval_steps: int | None = None,
        every_n_steps: int = 100,
        metrics: Any = None,
        hooks: Sequence[Any] | None = None,
        early_stopping_rounds: int | None = None,
        early_stopping_metric: str = "loss",
        early_stopping_metric_minimize: bool = True,
        name: str | None = None,
        check_interval_secs: float | None = 5,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(every_n_steps=every_n_steps, first_n_steps=-1)
        if x is None and input_fn is None:
            raise ValueError("Either x or input_fn should be provided, and both are None")
        arguments = {
            "x": x,
            "y": y,
            "input_fn": input_fn,
            "batch_size": batch_size,
            "steps": eval_steps,
            "metrics": metrics,
            "hooks": hooks,
            "name": name,
        }
        self._arguments = {key: value for key, value in arguments.items() if value is not None}
        self._rounds = early_stopping_rounds
        self._metric = early_stopping_metric
        self._minimize = early_stopping_metric_minimize
        self._check_interval_secs = check_interval_secs or 0.0
        self._clock = clock
        self._last_look: float | None = None
        self._last_checkpoint: str | None = None
        self.early_stopped = False
        self.best_step: int | None = None
        self.best_value: Any = None
        self.best_metrics: Mapping[str, Any] | None = None

    def every_n_step_end(self, step: int, outputs: Mapping[Any, Any]) -> bool:
        """Evaluates if there is a new checkpoint.

        Raises:
            ValueError: `set_estimator` was not called, or there is no `early_stopping_metric` among
                the metrics.
        """
        if self._estimator is None:
            raise ValueError("Missing call to set_estimator: there is nothing to evaluate with")
        if not self._has_new_checkpoint():
            return False
        results = self._estimator.evaluate(**self._arguments) or {}
        listed = ", ".join(f"{key} = {value}" for key, value in sorted(results.items()))
        _logger.info("Validation (step %d): %s", step, listed)
        if self._rounds is None:
            return False
        self._keep_best(step, results)
        assert self.best_step is not None
        if step - self.best_step < self._rounds:
            return False
        _logger.info(
            "Stopping at step %d: %s was best at step %d, with %s.",
            *(step, self._metric, self.best_step, self.best_value),
        )
        self.early_stopped = True
        return True

    def _has_new_checkpoint(self) -> bool:
        """Returns whether there is a new checkpoint; looks only when a check is due."""
        now = self._clock()
        if self._last_look is not None and now < self._last_look + self._check_interval_secs:
            return False
        self._last_look = now
        checkpoint = tf.train.latest_checkpoint(self._estimator.model_dir)
        if checkpoint in (None, self._last_checkpoint):
            return False
        self._last_checkpoint = checkpoint
        return True

    def _keep_best(self, step: int, results: Mapping[str, Any]) -> None:
        if self._metric not in results:
            raise ValueError(
                f"early_stopping_metric={self._metric!r} is missing from outputs of the "
                f"evaluation, {sorted(results)}: name one of these"
            )
        value, best = results[self._metric], self.best_value
        if best is None or (value < best if self._minimize else value > best):
            self.best_step, self.best_value = step, value
            # The estimator may fill the same dictionary again.
            self.best_metrics = copy.deepcopy(results)
