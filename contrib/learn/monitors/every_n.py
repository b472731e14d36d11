"""Monitors that act now and then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import BaseMonitor


class EveryN(BaseMonitor):
    """Base class of monitors that act in the first steps, in each N-th after, and in the last.

    A step is active if its number is at most `first_n_steps`, or at least `every_n_steps` beyond
    the last active step (0 before the first), or the number at which training ends.

    Args:
        every_n_steps: Steps from one active step to the next.
        first_n_steps: The number of the last of the first steps, which are all active; -1: none.
    """

    def __init__(self, every_n_steps: int = 100, first_n_steps: int = 1) -> None:
        super().__init__()
        self._every_n_steps = every_n_steps
        self._first_n_steps = first_n_steps
        self._is_active = False
        self._last_active_step = 0
        self._last_finished_step: int | None = None

    def begin(self, max_steps: int | None = None) -> None:
        """Restarts the count."""
        super().begin(max_steps=max_steps)
        self._is_active = False
        self._last_active_step = 0
        self._last_finished_step = None

    def every_n_step_begin(self, step: int) -> list[Any]:
        """Called before an active step; returns what to evaluate with it, see `step_begin`."""
        return []

    def every_n_step_end(self, step: int, outputs: Mapping[Any, Any]) -> bool:
        """Called after an active step; returns whether to stop training, see `step_end`."""
        return False

    def every_n_post_step(self, step: int, session: Any) -> None:
        """Called after `every_n_step_end`, and at the end if the last step was not active.

        Args:
            step: Number of the step.
            session: The session; None at the end if it is lost.
        """

    def step_begin(self, step: int) -> list[Any]:
        """Finds out whether the step is active."""
        super().step_begin(step)
        due = self._last_active_step + self._every_n_steps
        self._is_active = step <= self._first_n_steps or step >= due or step == self._max_steps
        return self.every_n_step_begin(step) if self._is_active else []

    def step_end(self, step: int, output: Mapping[Any, Any]) -> bool:
        """Acts if the step is active."""
        super().step_end(step, output)
        self._last_finished_step = step
        return self.every_n_step_end(step, output) if self._is_active else False

    def post_step(self, step: int, session: Any) -> None:
        """Acts if the step was active, and counts on from it; not after a step that failed."""
        super().post_step(step, session)
        if self._is_active and self._last_finished_step == step:
            self.every_n_post_step(step, session)
            self._last_active_step = step

    def end(self, session: Any = None) -> None:
        """Makes up for the last step if it was not active."""
        super().end(session=session)
        if self._last_finished_step not in (None, self._last_active_step):
            self.every_n_post_step(self._last_finished_step, session)
