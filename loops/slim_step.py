"""One step of the slim loop: the step function's, in a session that the hooks are part of."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from .fetches import read_after
from .hooks import GlobalStepHook
from .loop import Step
from .slim_options import TrainStepFunction, TrainStepKwargs
from .sync import SyncChiefHook, is_end_or_preemption
from .train_step import StepSession, TrainOpFinder

v1 = tf.compat.v1
_logger = logging.getLogger(__name__)


class SlimStep:
    """Step function of one loop.

    Args:
        train_op: Makes a step and gives the loss: a fetch, or a structure of them.
        global_step: The integer scalar variable, or a tensor that reads it.
        train_step_fn: The step function.
        kwargs: The step function's `train_step_kwargs`.
        last_step: Global step at which to stop, whatever the step function says; None: never.
        after_step: Called with the session after each step.
        session_wrapper: Makes the session of the step function from the loop's session.
        sync_hooks: The chief's hooks, whose workers have to be told of an error.

    Attributes:
        step_after: int64 scalar, the global step after the train op of the same run.
        progress: A hook of the loop, which knows the global step.
    """

    def __init__(
        self,
        train_op: Any,
        global_step: Any,
        *,
        train_step_fn: TrainStepFunction,
        kwargs: TrainStepKwargs,
        last_step: int | None,
        after_step: Callable[[tf.compat.v1.Session], None] | None,
        session_wrapper: Callable[[Any], Any] | None,
        sync_hooks: Sequence[SyncChiefHook],
    ) -> None:
        self._train_op = train_op
        self._global_step = global_step
        self._train_step_fn = train_step_fn
        self._kwargs = kwargs
        self._last_step = last_step
        self._after_step = after_step
        self._session_wrapper = session_wrapper
        self._sync_hooks = sync_hooks
        self.step_after = read_after(train_op, global_step)
        self.progress = GlobalStepHook(global_step, self.step_after)
        self._finder = TrainOpFinder(train_op, v1.get_default_graph())
        self._view: StepSession | None = None
        self._handed_out: Any = None

    def __call__(self, step: Step) -> Any:
        """Makes a step and returns its loss."""
        view = self._view_of(step.session)
        view.begin_iteration(step)
        try:
            result = self._train_step_fn(
                self._handed_out, self._train_op, self._global_step, self._kwargs.values
            )
        except BaseException as error:
            self._tell_of(error, step.session)
            raise
        view.end_iteration()
        loss, should_stop = _as_pair(result)
        if self._after_step is not None:
            self._after_step(step.session)
        at_limit = self._last_step is not None and self.progress.value >= self._last_step
        if should_stop or at_limit:
            _logger.info("Stopping Training.")
            step.request_stop()
        return loss

    def _view_of(self, session: tf.compat.v1.Session) -> StepSession:
        """Returns the view of a session, which is new at the start and after each recovery."""
        if self._view is None or self._view.inner is not session:
            self._view = StepSession(
                session,
                finder=self._finder,
                progress=self.progress,
                global_step=self._global_step,
                decisions=self._kwargs.decisions,
            )
            wrap = self._session_wrapper
            self._handed_out = self._view if wrap is None else wrap(self._view)
        return self._view

    def _tell_of(self, error: BaseException, session: tf.compat.v1.Session) -> None:
        if not is_end_or_preemption(error):
            for hook in self._sync_hooks:
                hook.close_queues(session)


def _as_pair(result: Any) -> tuple[Any, Any]:
    try:
        loss, should_stop = result
    except (TypeError, ValueError):
        raise TypeError(
            f"train_step_fn returned {result!r}; expected a pair: the loss, and whether to stop"
        ) from None
    return loss, should_stop
