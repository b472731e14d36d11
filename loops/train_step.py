"""The training step that the slim loop makes unless it is given another, and its traces."""

from __future__ import annotations

import logging
import time
from collections.abc import MutableMapping
from typing import Any

import tensorflow as tf

from ..tf_internals import Timeline
from .step_session import StepSession

v1 = tf.compat.v1
_logger = logging.getLogger(__name__)


class EveryN:
    """Schedule of an action that is due every so many global steps.

    A worker that is not alone sees only some of the steps, and not always the multiple itself; so
    it is due at the first step seen after one as well.

    Args:
        every: Global steps, at least 1.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._seen: int | None = None

    def is_due(self, step: int) -> bool:
        """Returns whether it is due at the step; called once a step."""
        seen, self._seen = self._seen, step
        return step % self._every == 0 or (
            seen is not None and step // self._every > seen // self._every
        )


def train_step(
    sess: Any, train_op: Any, global_step: Any, train_step_kwargs: MutableMapping[str, Any]
) -> tuple[Any, bool]:
    """Makes one training step; logs the loss and writes a trace when they are due.

    It is the default of `train`, and may be called by other step functions::

        def validate_too(sess, train_op, global_step, train_step_kwargs):
            loss, should_stop = train_step(sess, train_op, global_step, train_step_kwargs)
            if loss < 0.1:
                _logger.info("accuracy %g", sess.run(accuracy))
            return loss, should_stop

    Args:
        sess: The session.
        train_op: Makes the step and gives the loss.
        global_step: The global step, an integer scalar variable or tensor.
        train_step_kwargs: Entries of `train`, or of the caller. Known are "should_stop",
            "should_log" and "should_trace", boolean scalar tensors; "logdir", the directory of
            traces; and "summary_writer", which is told of traces.

    Returns:
        The value of `train_op`, and whether training is over.

    Raises:
        ValueError: There is "should_trace" but no "logdir".
    """
    started = time.perf_counter()
    options = metadata = None
    if _is_trace_due(sess, train_step_kwargs):
        options = v1.RunOptions(trace_level=v1.RunOptions.FULL_TRACE)
        metadata = v1.RunMetadata()
    loss = sess.run(train_op, options=options, run_metadata=metadata)
    secs = time.perf_counter() - started
    step, answers = _look_after(sess, global_step, train_step_kwargs)
    if metadata is not None:
        _write_trace(metadata, step, train_step_kwargs)
    if answers.get("should_log", False):
        _logger.info("global step %d: loss = %.4f (%.3f sec/step)", step, loss, secs)
    return loss, bool(answers.get("should_stop", False))


def _is_trace_due(sess: Any, kwargs: MutableMapping[str, Any]) -> bool:
    """Asks "should_trace", before the step."""
    if "should_trace" not in kwargs:
        return False
    if "logdir" not in kwargs:
        raise ValueError(
            "train_step_kwargs has 'should_trace' but no 'logdir': logdir must be present when "
            "traces are written, to say where"
        )
    condition = kwargs["should_trace"]
    known = sess.decide(condition) if isinstance(sess, StepSession) else None
    return bool(sess.run(condition)) if known is None else known


def _look_after(
    sess: Any, global_step: Any, kwargs: MutableMapping[str, Any]
) -> tuple[int, dict[str, Any]]:
    """Finds the global step after the step, and the values of the conditions there.

    In the loop's own session all of it is known. Another session needs one more run: together
    with the train op, a resource variable would give the global step from before.
    """
    conditions = {name: kwargs[name] for name in ("should_log", "should_stop") if name in kwargs}
    values: dict[str, Any] = {}
    fetches: dict[str, Any] = {}
    if isinstance(sess, StepSession):
        values["step"] = sess.global_step
        known = {name: sess.decide(condition) for name, condition in conditions.items()}
        values.update({name: answer for name, answer in known.items() if answer is not None})
    else:
        fetches["step"] = global_step
    fetches |= {name: each for name, each in conditions.items() if name not in values}
    if fetches:
        values.update(sess.run(fetches))
    return int(values.pop("step")), values


def _write_trace(metadata: Any, step: int, kwargs: MutableMapping[str, Any]) -> None:
    """Writes the step's times for chrome://tracing, and its whole metadata to the events."""
    path = tf.io.gfile.join(kwargs["logdir"], f"tf_trace-{step}.json")
    trace = Timeline(metadata.step_stats).generate_chrome_trace_format()
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(trace)
    _logger.info("Wrote a trace of the step to %s.", path)
    if (writer := kwargs.get("summary_writer")) is None:
        return
    try:
        writer.add_run_metadata(metadata, f"run_metadata-{step}", step)
    except ValueError:
        # The writer was told of this step already, before the model went back to a checkpoint.
        _logger.warning("The events have a trace of step %d already.", step)
