"""Hooks of the loops: limits, the global step, and what a chief writes beside the steps."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ..cluster.deadline import growing_pauses

v1 = tf.compat.v1
_logger = logging.getLogger(__name__)
BASENAME = "model.ckpt"


class _StepAfterHook(tf.compat.v1.train.SessionRunHook):
    """Base of hooks that need the global step after the train op of the same run."""

    _step_after: Any

    def before_run(self, run_context: Any) -> Any:
        """Asks for the global step after this step."""
        return v1.train.SessionRunArgs(self._step_after)


class StopAtLimitHook(_StepAfterHook):
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

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Stops at the limit."""
        if run_values.results >= self._last_step:
            run_context.request_stop()


class GlobalStepHook(_StepAfterHook):
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


class StepRateHook(_StepAfterHook):
    """Hook that writes and logs `global_step/sec`.

    Args:
        timer: A `SecondOrStepTimer`: says when it is due.
        writer: The `tf.compat.v1.summary.FileWriter`.
        global_step: The global step's variable, which gives the summary its name.
        step_after: int64 scalar that gives the global step after the train op of the same run.
    """

    def __init__(self, timer: Any, writer: Any, global_step: Any, step_after: Any) -> None:
        self._timer = timer
        self._writer = writer
        self._tag = f"{global_step.op.name}/sec"
        self._step_after = step_after

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Writes the rate when it is due."""
        step = int(run_values.results)
        if not self._timer.should_trigger_for_step(step):
            return
        secs, steps = self._timer.update_last_triggered_step(step)
        if secs is None:
            return
        rate = steps / secs
        value = v1.Summary.Value(tag=self._tag, simple_value=rate)
        self._writer.add_summary(v1.Summary(value=[value]), step)
        _logger.info("%s: %g", self._tag, rate)


class SummaryHook(tf.compat.v1.train.SessionRunHook):
    """Evaluates the model's summaries with a step that is made anyway, and hands them on.

    Args:
        summary_op: Gives the serialized summaries, when asked; None: there are none.
        step_after: int64 scalar that gives the global step after the train op of the same run.
        timer: A `SecondOrStepTimer`, which tells when the next ones are due.
        write: Takes the global step and a serialized `tf.Summary`.
        is_writer: Returns whether this task writes them at present.
    """

    def __init__(
        self,
        summary_op: Callable[[], Any],
        step_after: Any,
        timer: Any,
        write: Callable[[int, bytes], None],
        is_writer: Callable[[], bool] = lambda: True,
    ) -> None:
        self._summary_op = summary_op
        self._step_after = step_after
        self._timer = timer
        self._write = write
        self._is_writer = is_writer
        self._next_step = 0

    def before_run(self, run_context: Any) -> Any:
        """Asks for the summaries when they are due."""
        fetches = {"step": self._step_after}
        if self._timer.should_trigger_for_step(self._next_step) and self._is_writer():
            summary_op = self._summary_op()
            if summary_op is not None:
                fetches["summary"] = summary_op
        return v1.train.SessionRunArgs(fetches)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Hands the summaries on."""
        step = int(run_values.results["step"])
        if "summary" in run_values.results:
            self._write(step, run_values.results["summary"])
            self._timer.update_last_triggered_step(step)
        self._next_step = step + 1


class CheckpointHook(_StepAfterHook):
    """Hook that saves checkpoints: at the start of each session, by the clock, and at the end.

    scaffold: Has the saver.
        scaffold: Its saver saves.
        logdir: The directory.
        every_secs: Seconds between checkpoints; None or 0: only the one at the end.
        global_step: The global step's variable.
        step_after: int64 scalar that gives the global step after the train op of the same run.
        writer: The events in which checkpoints are marked; None marks none.
    """

    def __init__(
        self,
        scaffold: tf.compat.v1.train.Scaffold,
        logdir: str,
        every_secs: float | None,
        global_step: Any,
        step_after: Any,
        writer: Any,
    ) -> None:
        self._scaffold = scaffold
        self._logdir = logdir
        self._timer = v1.train.SecondOrStepTimer(every_secs=every_secs) if every_secs else None
        self._global_step = global_step
        self._step_after = step_after
        self._writer = writer
        self._saved_step: int | None = None

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Writes the graph, and the first checkpoint of the session."""
        graph = session.graph
        if self._saved_step is None:
            tf.io.write_graph(graph.as_graph_def(add_shapes=True), self._logdir, "graph.pbtxt")
            if self._writer is not None:
                self._writer.add_graph(graph)
                saver = self._scaffold.saver.saver_def
                self._writer.add_meta_graph(v1.train.export_meta_graph(saver_def=saver))
        if self._timer is not None:
            self._save(session, int(session.run(self._global_step)))

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Saves when it is due."""
        step = int(run_values.results)
        if self._timer is not None and self._timer.should_trigger_for_step(step):
            # Other tasks made steps meanwhile.
            self._save(run_context.session, int(run_context.session.run(self._global_step)))

    def end(self, session: Any) -> None:
        """Saves the last checkpoint, unless it is saved already."""
        step = int(session.run(self._global_step))
        if step != self._saved_step:
            self._save(session, step)

    def _save(self, session: Any, step: int) -> None:
        prefix = tf.io.gfile.join(self._logdir, BASENAME)
        path = self._scaffold.saver.save(session, prefix, global_step=step)
        _logger.info("Saving checkpoint for step %d to checkpoint: %s.", step, path)
        self._saved_step = step
        if self._timer is not None:
            self._timer.update_last_triggered_step(step)
        if self._writer is not None:
            status = v1.SessionLog(status=v1.SessionLog.CHECKPOINT, checkpoint_path=prefix)
            self._writer.add_session_log(status, step)
