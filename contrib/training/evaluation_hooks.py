"""Hooks of an evaluation: a limit of its steps, and summaries at its end."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from ...data_plane.graph_collections import merge_summaries

_logger = logging.getLogger(__name__)
# Fewer evaluations than this are each logged, more of them ten times in all.
_LOGGED_EACH = 20


def get_or_create_eval_step() -> Any:
    """Returns the counter of evaluation steps, which the graph's collection `EVAL_STEP` holds.

    It is a local variable, a scalar of `tf.int64`: each evaluation counts from 0.

    Raises:
        ValueError: If the collection holds several counters.
    """
    keys = tf.compat.v1.GraphKeys
    counters = tf.compat.v1.get_collection(keys.EVAL_STEP)
    if len(counters) > 1:
        names = ", ".join(counter.name for counter in counters)
        raise ValueError(f"the collection EVAL_STEP holds multiple counters, {names}: keep one")
    if counters:
        return counters[0]
    return tf.compat.v1.get_variable(
        "eval_step",
        [],
        tf.int64,
        initializer=tf.compat.v1.zeros_initializer(),
        trainable=False,
        collections=[keys.LOCAL_VARIABLES, keys.EVAL_STEP],
    )


class StopAfterNEvalsHook(tf.compat.v1.train.SessionRunHook):
    """Hook that stops an evaluation after some steps.

    `evaluate_once` and `evaluate_repeatedly` count the steps and tell this hook where. Anywhere
    else it reads the counter of `get_or_create_eval_step`, which something has to increment.

    Args:
        num_evals: Steps of `eval_ops` after which to stop; None continues until the input ends.
        log_progress: Whether to log each step at level INFO; ten times in all from 20 steps on.
    """

    def __init__(self, num_evals: int | None, log_progress: bool = True) -> None:
        self._num_evals = num_evals
        self._log_progress = log_progress
        self._log_every = 1
        if num_evals is not None and num_evals >= _LOGGED_EACH:
            self._log_every = num_evals // 10
        self._counter: Any = None

    def count_with(self, counter: Any) -> None:
        """Sets the scalar `Tensor` that has the number of steps, the present one included."""
        self._counter = counter

    def begin(self) -> None:
        """Called before the session is created."""
        graph = tf.compat.v1.get_default_graph()
        if self._counter is None or self._counter.graph is not graph:
            self._counter = get_or_create_eval_step().read_value()

    def before_run(
        self, run_context: tf.compat.v1.train.SessionRunContext
    ) -> tf.compat.v1.train.SessionRunArgs:
        """Called before each step."""
        return tf.compat.v1.train.SessionRunArgs(self._counter)

    def after_run(
        self,
        run_context: tf.compat.v1.train.SessionRunContext,
        run_values: tf.compat.v1.train.SessionRunValues,
    ) -> None:
        """Called after each step."""
        done = int(run_values.results)
        self._log(done)
        if self._num_evals is not None and done >= self._num_evals:
            run_context.request_stop()

    def _log(self, done: int) -> None:
        if not self._log_progress:
            return
        if self._num_evals is None:
            _logger.info("Evaluation [%d]", done)
        elif done % self._log_every == 0 or done == self._num_evals:
            _logger.info("Evaluation [%d/%d]", done, self._num_evals)


class SummaryAtEndHook(tf.compat.v1.train.SessionRunHook):
    """Hook that writes summaries when an evaluation ends, at the global step of its checkpoint.

    Args:
        log_dir: Where to write; one writer serves each directory.
        summary_writer: A `tf.compat.v1.summary.FileWriter` to use in place of `log_dir`.
        summary_op: A scalar string `Tensor`; None merges all summaries that the graph has when
            the evaluation begins, which may be none.
        feed_dict: Feeds for `summary_op`.

    Raises:
        ValueError: Neither `log_dir` nor `summary_writer` is given.
    """

    def __init__(
        self,
        log_dir: str | None = None,
        summary_writer: Any = None,
        summary_op: Any = None,
        feed_dict: Mapping[Any, Any] | None = None,
    ) -> None:
        if log_dir is None and summary_writer is None:
            raise ValueError("log_dir and summary_writer are both None: give one of them")
        self._log_dir = log_dir
        self._writer = summary_writer
        self._given_op = summary_op
        self._feed_dict = feed_dict
        self._summary_op: Any = None
        self._global_step: Any = None

    def begin(self) -> None:
        """Called before the session is created."""
        graph = tf.compat.v1.get_default_graph()
        if self._global_step is not None and self._global_step.graph is graph:
            return  # The next checkpoint of the same graph: do not merge its summaries once more.
        given = self._given_op
        self._summary_op = merge_summaries() if given is None else given
        self._global_step = tf.compat.v1.train.get_or_create_global_step()

    def after_create_session(
        self, session: tf.compat.v1.Session, coord: tf.train.Coordinator
    ) -> None:
        """Called when the session was created."""
        if self._writer is None:
            self._writer = tf.compat.v1.summary.FileWriterCache.get(self._log_dir)

    def end(self, session: tf.compat.v1.Session) -> None:
        """Called after the last step."""
        step = int(session.run(self._global_step))
        if self._summary_op is not None:
            summary = session.run(self._summary_op, feed_dict=self._feed_dict)
            self._writer.add_summary(summary, step)
        self._writer.flush()
