"""Monitors that log values, write events and save; those of a training that was given none."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tensorflow as tf

from ....loops.fetches import output_key
from ..summary_writers import get_summary_writer
from .base import BaseMonitor, EveryN

_logger = logging.getLogger(__name__)
v1 = tf.compat.v1


class PrintTensor(EveryN):
    """Logs "Step N: tag = value, ...", at level INFO.

    Args:
        tensor_names: Names of tensors or variables, such as "loss:0"; or a dict from the
            labels in the log to their names.
        every_n: Steps from one line to the next.
        first_n: Number of the last of the first steps, which are all logged.
    """

    def __init__(
        self,
        tensor_names: Mapping[str, str] | Iterable[str],
        every_n: int = 100,
        first_n: int = 1,
    ) -> None:
        super().__init__(every_n_steps=every_n, first_n_steps=first_n)
        self._names = (
            dict(tensor_names)
            if isinstance(tensor_names, Mapping)
            else {name: name for name in tensor_names}
        )

    def every_n_step_begin(self, step: int) -> list[Any]:
        """Asks for the values."""
        return list(self._names.values())

    def every_n_step_end(self, step: int, outputs: Mapping[Any, Any]) -> bool:
        """Logs the present values."""
        _logger.info("Step %d: %s", step, _listed(self._names, outputs))
        return False


class LoggingTrainable(EveryN):
    """Logs "Logging Trainable: Step N: name = value, ...", at level INFO.

    Args:
        scope: A regular expression that matches the beginning of the names of the variables to
            log; None logs all trainable variables.
        every_n: Steps from one line to the next.
        first_n: Number of the last of the first steps, which are all logged.
    """

    def __init__(self, scope: str | None = None, every_n: int = 100, first_n: int = 1) -> None:
        super().__init__(every_n_steps=every_n, first_n_steps=first_n)
        self._scope = scope
        self._names: list[str] = []

    def every_n_step_begin(self, step: int) -> list[Any]:
        """Asks for the variables of the default graph."""
        trainable = tf.compat.v1.trainable_variables(scope=self._scope)
        self._names = [variable.name for variable in trainable]
        return list(self._names)

    def every_n_step_end(self, step: int, outputs: Mapping[Any, Any]) -> bool:
        """Logs the present values."""
        listed = _listed({name: name for name in self._names}, outputs)
        _logger.info("Logging Trainable: Step %d: %s", step, listed)
        return False


def _listed(names: Mapping[str, str], outputs: Mapping[Any, Any]) -> str:
    """Writes "tag = value, ..."; `names` are output names by tag."""
    found = {tag: outputs[name] for tag, name in names.items() if name in outputs}
    return ", ".join(f"{tag} = {value}" for tag, value in found.items())


class _Writing(EveryN):
    """Monitor with a writer of events: a given one, or that of a directory."""

    def __init__(self, every_n_steps: int, output_dir: str | None, summary_writer: Any) -> None:
        super().__init__(every_n_steps=every_n_steps)
        self._writer = summary_writer
        if summary_writer is None and output_dir:
            self._writer = get_summary_writer(output_dir)

    def set_estimator(self, estimator: Any) -> None:
        """Takes the estimator's `model_dir` if there is no other place to write to."""
        super().set_estimator(estimator)
        if self._writer is None:
            self._writer = get_summary_writer(estimator.model_dir)


class SummarySaver(_Writing):
    """Monitor that writes summaries.

    Args:
        summary_op: A scalar string tensor with a serialized `tf.compat.v1.Summary`, such as
            `tf.compat.v1.summary.merge_all()` makes, or its name.
        save_steps: Steps from one summary to the next.
        output_dir: Directory to write to, if no writer is given.
        summary_writer: Has `add_summary(summary, step)` and `flush()`. Without it and
            `output_dir`, summaries go to the estimator's `model_dir`.
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
        super().__init__(save_steps, output_dir, summary_writer)
        self._summary_op = summary_op
        self._scaffold = scaffold

    def every_n_step_begin(self, step: int) -> list[Any]:
        """Asks for the summary."""
        if self._summary_op is None and self._scaffold is not None:
            self._summary_op = self._scaffold.summary_op
        return [] if self._summary_op is None else [self._summary_op]

    def every_n_step_end(self, step: int, outputs: Mapping[Any, Any]) -> bool:
        """Writes the summary."""
        if self._summary_op is not None and self._writer is not None:
            self._writer.add_summary(outputs[output_key(self._summary_op)], step)
        return False

    def end(self, session: Any = None) -> None:
        """Flushes the written events to disk."""
        super().end(session=session)
        if self._writer is not None:
            self._writer.flush()


class StepCounter(_Writing):
    """Monitor that writes the steps per second, under the tag "global_step/sec".

    Args:
        every_n_steps: Steps from one figure to the next.
        output_dir: Directory to write to, if no writer is given.
        summary_writer: Has `add_summary(summary, step)`. Without it and `output_dir`, values go to
            the estimator's `model_dir`.
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
        super().__init__(every_n_steps, output_dir, summary_writer)
        self._clock = clock
        self._last_seen: tuple[int, float] | None = None

    def begin(self, max_steps: int | None = None) -> None:
        """Restarts the measurement."""
        super().begin(max_steps=max_steps)
        self._last_seen = None

    def every_n_step_end(self, step: int, outputs: Mapping[Any, Any]) -> bool:
        """Writes the figure since the last active step."""
        now = self._clock()
        if self._last_seen is not None and self._writer is not None:
            last_step, last_time = self._last_seen
            if now > last_time:
                rate = (step - last_step) / (now - last_time)
                value = tf.compat.v1.Summary.Value(tag=self._TAG, simple_value=rate)
                self._writer.add_summary(tf.compat.v1.Summary(value=[value]), step)
        self._last_seen = step, now
        return False


def get_default_monitors(
    loss_op: Any = None,
    summary_op: Any = None,
    save_summary_steps: int = 100,
    output_dir: str | None = None,
    summary_writer: Any = None,
) -> list[BaseMonitor]:
    """Makes the monitors that print the loss and write the summaries.

    Args:
        loss_op: A scalar tensor to log at the first step, every 100 steps and at the last step;
            None logs nothing.
        summary_op: A scalar string tensor with a serialized summary; None writes nothing.
        save_summary_steps: Steps between summaries.
        output_dir: Directory of the summaries, if no writer is given.
        summary_writer: The writer of the summaries.
    """
    monitors: list[BaseMonitor] = []
    if loss_op is not None:
        monitors.append(PrintTensor({"loss": loss_op.name}))
    if summary_op is not None:
        monitors.append(
            SummarySaver(
                summary_op,
                save_steps=save_summary_steps,
                output_dir=output_dir,
                summary_writer=summary_writer,
            )
        )
    return monitors


class CheckpointSaver(BaseMonitor):
    """Monitor that saves a checkpoint after the first step, then at intervals, and at the end.

    Args:
        checkpoint_dir: Directory of the checkpoints.
        save_secs: Seconds from one checkpoint to the next.
        save_steps: Steps from one checkpoint to the next.
        saver: A `tf.compat.v1.train.Saver`; else that of the scaffold, else the one in the graph's
            `SAVERS` collection, else a new one.
        checkpoint_basename: Name of the files, before "-" and the step.
        scaffold: A `tf.compat.v1.train.Scaffold`, see `saver`.
        clock: Returns the time in seconds.

    Raises:
        ValueError: Both or none of `save_secs` and `save_steps` are given.
    """

    def __init__(
        self,
        checkpoint_dir: str,
        save_secs: float | None = None,
        save_steps: int | None = None,
        saver: Any = None,
        checkpoint_basename: str = "model.ckpt",
        scaffold: Any = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        if (save_secs is None) == (save_steps is None):
            raise ValueError(
                f"save_secs={save_secs} and save_steps={save_steps}: exactly one of save_secs and "
                "save_steps must be given"
            )
        self._dir = checkpoint_dir
        self._path = os.path.join(checkpoint_dir, checkpoint_basename)
        self._save_secs = save_secs
        self._save_steps = save_steps
        self._saver = saver
        self._scaffold = scaffold
        self._clock = clock
        self._last_begun_step: int | None = None
        self._last_saved: tuple[int, float] | None = None

    def begin(self, max_steps: int | None = None) -> None:
        """Finds or makes the saver, and restarts the count."""
        super().begin(max_steps=max_steps)
        self._last_begun_step = None
        self._last_saved = None
        tf.io.gfile.makedirs(self._dir)
        if self._saver is None and self._scaffold is None:
            savers = v1.get_collection(v1.GraphKeys.SAVERS)
            self._saver = savers[0] if savers else v1.train.Saver(sharded=True)

    def step_begin(self, step: int) -> list[Any]:
        """Remembers the step."""
        super().step_begin(step)
        self._last_begun_step = step
        return []

    def post_step(self, step: int, session: Any) -> None:
        """Saves if it is time."""
        if self._is_due(step):
            self._save(step, session)

    def end(self, session: Any = None) -> None:
        """Saves if there were steps since the last checkpoint."""
        super().end(session=session)
        step = self._last_begun_step
        if session is None or step is None:
            return
        if self._last_saved is None or self._last_saved[0] != step:
            self._save(step, session)

    def _is_due(self, step: int) -> bool:
        if self._last_saved is None:
            return True
        last_step, last_time = self._last_saved
        if self._save_steps is not None:
            return step >= last_step + self._save_steps
        assert self._save_secs is not None
        return self._clock() >= last_time + self._save_secs

    def _save(self, step: int, session: Any) -> None:
        _logger.info("Saving checkpoint for step %d to %s.", step, self._path)
        saver = self._scaffold.saver if self._saver is None else self._saver
        path = saver.save(session, self._path, global_step=step)
        self._last_saved = step, self._clock()
        log = v1.SessionLog(status=v1.SessionLog.CHECKPOINT, checkpoint_path=path)
        get_summary_writer(self._dir).add_session_log(log, step)
