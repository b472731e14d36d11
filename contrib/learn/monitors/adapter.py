"""Monitors where hooks are expected: in a `MonitoredSession`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from ....loops.learn_steps import Monitors
from .base import BaseMonitor

v1 = tf.compat.v1


class RunHookAdapterForMonitors(tf.compat.v1.train.SessionRunHook):
    """Hook that runs monitors.

    The number of a step is one more than the global step before it, so the graph has to have a
    global step. It is read in a run of its own after each step: with resource variables, a read in
    the same run may come before the step's own update.

    Args:
        monitors: The monitors, which are called in this order.
    """

    def __init__(self, monitors: Iterable[BaseMonitor]) -> None:
        self._monitors = Monitors(monitors)
        self._global_step: Any = None
        self._step: int | None = None

    def begin(self) -> None:
        """Begins the monitors.

        Raises:
            RuntimeError: The graph has no global step.
        """
        self._global_step = v1.train.get_global_step()
        if self._global_step is None:
            raise RuntimeError(
                "monitors need a global step to count: call "
                "tf.compat.v1.train.get_or_create_global_step() when building the model"
            )
        self._monitors.begin(max_steps=None)

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Forgets the step of the last session: a new one may be back at a checkpoint."""
        self._step = None

    def before_run(self, run_context: Any) -> Any:
        """Gathers the monitors' requests.

        Raises:
            ValueError: A monitor requests something else than a list, or uses an ambiguous name.
        """
        if self._step is None:
            self._step = self._next_step(run_context.session)
        fetches = self._monitors.step_begin(run_context.session.graph, self._step)
        return v1.train.SessionRunArgs(fetches) if fetches else None

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Hands out the values, and stops if a monitor asks for it."""
        assert self._step is not None
        if self._monitors.step_end(self._step, run_values.results or {}):
            run_context.request_stop()
        self._monitors.post_step(self._step, run_context.session)
        self._step = self._next_step(run_context.session)

    def end(self, session: Any) -> None:
        """Ends the monitors."""
        self._step = None
        self._monitors.end(session)

    def _next_step(self, session: Any) -> int:
        return int(session.run(self._global_step)) + 1


def replace_monitors_with_hooks(
    monitors_or_hooks: Iterable[Any] | None, estimator: Any
) -> list[Any]:
    """Makes a list of hooks of a list that may hold monitors too.

    Args:
        monitors_or_hooks: `tf.compat.v1.train.SessionRunHook`s and `BaseMonitor`s.
        estimator: The estimator that trains: the monitors are told of it, and its
            `config.is_chief` decides whether those run that do not run on all workers.

    Returns:
        The hooks, then one that runs the monitors, if there are any.
    """
    given = list(monitors_or_hooks or ())
    hooks = [each for each in given if isinstance(each, v1.train.SessionRunHook)]
    monitors = [each for each in given if not isinstance(each, v1.train.SessionRunHook)]
    if not estimator.config.is_chief:
        monitors = [monitor for monitor in monitors if monitor.run_on_all_workers]
    for monitor in monitors:
        monitor.set_estimator(estimator)
    return [*hooks, RunHookAdapterForMonitors(monitors)] if monitors else hooks
