"""Monitors that end training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ....loops.fetches import output_key
from .base import BaseMonitor
from .every_n import EveryN

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
        super().every_n_step_begin(step)
        return [self._loss_tensor]

    def every_n_step_end(self, step: int, outputs: Mapping[Any, Any]) -> bool:
        """Looks at the loss.

        Raises:
            NanLossDuringTrainingError: The loss is NaN, and that is to be an error.
        """
        super().every_n_step_end(step, outputs)
        if not np.isnan(outputs[output_key(self._loss_tensor)]):
            return False
        if self._fail_on_nan_loss:
            _logger.error("Model diverged with loss = NaN.")
            raise NanLossDuringTrainingError
        _logger.warning("Model diverged with loss = NaN.")
        return True
