"""Monitors: callbacks around each training step, in one task, or now and then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class BaseMonitor:
    """Base class of monitors; each callback does nothing but check the order of the calls.

    The loop calls `begin` once, then for each step `step_begin`, `step_end` and `post_step`, and
    `end` once. A step that fails has no `step_end`, and its number may begin again. A monitor runs
    in the chief only, unless `run_on_all_workers`.

    Example::

        class LossHistory(BaseMonitor):
            def __init__(self, loss):
                super().__init__()
                self.loss, self.values = loss, []

            def step_begin(self, step):
                super().step_begin(step)
                return [self.loss]

            def step_end(self, step, output):
                super().step_end(step, output)
                self.values.append(output[self.loss.name])
                return False
    """

    def __init__(self) -> None:
        self._begun = False
        self._max_steps: int | None = None
        self._current_step: int | None = None
        self._current_epoch: int | None = None
        self._estimator: Any = None

    @property
    def run_on_all_workers(self) -> bool:
        """True if tasks other than the chief run this monitor too."""
        return False

    def set_estimator(self, estimator: Any) -> None:
        """Tells the monitor whose training it watches.

        Args:
            estimator: Any object with the attributes that the monitor needs, such as `model_dir`
                and `evaluate`.

        Raises:
            ValueError: `estimator` is None.
        """
        if estimator is None:
            raise ValueError("Missing estimator: estimator=None, pass the object that trains")
        self._estimator = estimator

    def begin(self, max_steps: int | None = None) -> None:
        """Called once before the first step, while ops may still be added to the default graph.

        Args:
            max_steps: The global step at which training ends; None if unknown.

        Raises:
            ValueError: The monitor began before, and did not end.
        """
        if self._begun:
            raise ValueError(f"{type(self).__name__}: begin called twice without end in between")
        self._begun = True
        self._max_steps = max_steps
        self._current_step = None
        self._current_epoch = None

    def end(self, session: Any = None) -> None:
        """Called once after the last step; the monitor may begin again afterwards.

        Args:
            session: The session of the steps, or None if it is lost.

        Raises:
            ValueError: The monitor did not begin.
        """
        if not self._begun:
            raise ValueError(f"{type(self).__name__}: end called without begin")
        self._begun = False
        self._max_steps = None

    def epoch_begin(self, epoch: int) -> None:
        """Called when pass number `epoch` over the data begins; the loops here never do.

        Raises:
            ValueError: `epoch` is negative, or another epoch has not ended.
        """
        if self._current_epoch is not None:
            raise ValueError(
                f"epoch_begin({epoch}): epoch {self._current_epoch} has not ended; call epoch_end"
            )
        if epoch < 0:
            raise ValueError(f"epoch_begin({epoch}): epochs count from 0")
        self._current_epoch = epoch

    def epoch_end(self, epoch: int) -> None:
        """Called when pass number `epoch` over the data is over.

        Raises:
            ValueError: It is not this epoch that began.
        """
        if self._current_epoch != epoch:
            raise ValueError(f"epoch_end({epoch}): the epoch that began is {self._current_epoch}")
        self._current_epoch = None

    def step_begin(self, step: int) -> list[Any]:
        """Called before step number `step`.

        Args:
            step: The global step that this step leads to: 1 for the first of all.

        Returns:
            Tensors, ops, variables, or names of them, to evaluate together with the step.

        Raises:
            ValueError: `step` is negative or beyond the last step.
        """
        if step < 0 or (self._max_steps is not None and step > self._max_steps):
            raise ValueError(
                f"step_begin({step}): steps of this run are in 0..{self._max_steps or 'infinity'}"
            )
        self._current_step = step
        return []

    def step_end(self, step: int, output: Mapping[Any, Any]) -> bool:
        """Called after step number `step`.

        Args:
            step: As in `step_begin`.
            output: Values that all monitors and the loop requested, numpy arrays. The key of a
                tensor is its name; anything else is its own key.

        Returns:
            True to stop training.

        Raises:
            ValueError: Another step has begun.
        """
        if self._current_step != step:
            raise ValueError(f"step_end({step}): the step that began is {self._current_step}")
        self._current_step = None
        return False

    def post_step(self, step: int, session: Any) -> None:
        """Called after `step_end`, and after a step that failed in a session that still lives.

        Args:
            step: As in `step_begin`.
            session: The session of the step, for runs of the monitor's own.
        """


class EveryN(BaseMonitor):
    """Base class of monitors that act in the first steps, in each N-th after, and in the last.

    A step is active if its number is at most `first_n_steps`, or the number at which training ends.
    It is also active at `every_n_steps` or more beyond the last active step (0 before the first).

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
        """Called before an active step; returns requests as `step_begin` does."""
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
        if self._is_active and self._last_finished_step == step:
            self.every_n_post_step(step, session)
            self._last_active_step = step

    def end(self, session: Any = None) -> None:
        """Makes up for the last step if it was not active."""
        super().end(session=session)
        if self._last_finished_step not in (None, self._last_active_step):
            self.every_n_post_step(self._last_finished_step, session)
