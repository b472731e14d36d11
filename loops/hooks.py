"""Hooks that more than one loop needs."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..cluster.deadline import growing_pauses

v1 = tf.compat.v1


class StopAtLimitHook(tf.compat.v1.train.SessionRunHook):
    """Hook that ends the loop at a global step, also before the first step.

    `tf.compat.v1.train.StopAtStepHook` looks only after a step, so that a call which resumes at the
    limit makes one more.

    Args:
        last_step: The global step.
        global_step: The variable.
        step_after: int64 scalar that gives the global step after the train op of the same run.
    """

    def __init__(self, last_step: int, global_step: Any, step_after: Any) -> None:
        self._last_step = last_step
        self._global_step = global_step
        self._step_after = step_after

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Looks before the first step, and after a recovery."""
        if session.run(self._global_step) >= self._last_step:
            coord.request_stop()

    def before_run(self, run_context: Any) -> Any:
        """Asks for the global step after this step."""
        return v1.train.SessionRunArgs(self._step_after)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Stops at the limit."""
        if run_values.results >= self._last_step:
            run_context.request_stop()


class GlobalStepHook(tf.compat.v1.train.SessionRunHook):
    """Hook that keeps the global step: of the model in a new session, and after each step.

    Args:
        global_step: The variable.
        step_after: int64 scalar that gives the global step after the train op of the same run.
    """

    def __init__(self, global_step: Any, step_after: Any) -> None:
        self.value = 0
        self._global_step = global_step
        self._step_after = step_after

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Reads the step that training starts from."""
        self.value = int(session.run(self._global_step))

    def before_run(self, run_context: Any) -> Any:
        """Asks for the global step after this step."""
        return v1.train.SessionRunArgs(self._step_after)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Notes it."""
        self.value = int(run_values.results)


class StartupDelayHook(tf.compat.v1.train.SessionRunHook):
    """Hook that makes a task wait at its start until the others have reached a global step.

    Args:
        wait_until_step: The global step.
        global_step: The variable.
    """

    def __init__(self, wait_until_step: int, global_step: Any) -> None:
        self._wait_until_step = wait_until_step
        self._global_step = global_step
        self._started = False

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Waits, but not again after a recovery."""
        pauses = growing_pauses()
        while not self._started and session.run(self._global_step) < self._wait_until_step:
            if coord.wait_for_stop(next(pauses)):
                return
        self._started = True


class SessionMarksHook(tf.compat.v1.train.SessionRunHook):
    """Hook that marks starts and stops in the events; TensorBoard drops what lies in between.

    Args:
        writer: The `tf.compat.v1.summary.FileWriter`.
        global_step: The global step's variable.
    """

    def __init__(self, writer: Any, global_step: Any) -> None:
        self._writer = writer
        self._global_step = global_step

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Marks the start."""
        step = int(session.run(self._global_step))
        self._writer.add_session_log(v1.SessionLog(status=v1.SessionLog.START), step)

    def end(self, session: Any) -> None:
        """Marks the end."""
        step = int(session.run(self._global_step))
        self._writer.add_session_log(v1.SessionLog(status=v1.SessionLog.STOP), step)
