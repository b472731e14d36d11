"""`tf.contrib.learn.evaluate`: metrics of a model, over some batches."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ...cluster.deadline import Deadline
from ...cluster.opening import open_ready_session
from ...cluster.readiness import find_missing, run_local_init
from ...cluster.session import BoundedCloseSession
from ...loops.fetches import require_global_step
from ...tf_internals import unfinalize
from .feeds import STOP_GRACE_SECS, find_checkpoint
from .summary_writers import get_summary_writer

v1 = tf.compat.v1
_logger = logging.getLogger(__name__)

MAX_WAIT_SECS = 7200.0


def evaluate(
    graph: tf.Graph,
    output_dir: str,
    checkpoint_path: str | None,
    eval_dict: Mapping[str, Any],
    update_op: Any = None,
    global_step_tensor: Any = None,
    supervisor_master: str = "",
    log_every_steps: int = 10,
    feed_fn: Callable[[], Mapping[Any, Any]] | None = None,
    max_steps: int | None = None,
) -> tuple[dict[str, Any] | None, int]:
    """Evaluates a model over some batches, and writes the results as summaries.

    With an `update_op`, each step runs that op; `eval_dict` gives the gathered values in logged
    steps and at the end. Without one, each step runs `eval_dict`, and the last values count. The
    graph is not finalized.

    Args:
        graph: The graph, not in use elsewhere.
        output_dir: Directory of the summaries, which are written at the model's global step.
        checkpoint_path: The checkpoint, or a directory whose newest one is taken. None takes the
            model as it is in the cluster, or else initializes it.
        eval_dict: Tensors to evaluate, by names of your choice.
        update_op: An op to run in each step, which gathers the values that `eval_dict` shows.
        global_step_tensor: The global step; by default that of the graph, see `train`.
        supervisor_master: Master string of a TensorFlow server, or "" for this process alone.
        log_every_steps: Steps between lines in the log; 0 logs each step.
        feed_fn: Called before each step; returns its `feed_dict`. A `StopIteration` from it ends
            the evaluation.
        max_steps: Number of steps; None evaluates until the input ends.

    Returns:
        A dict from the names in `eval_dict` to numpy values, None if there was no step to make;
        and the global step.

    Raises:
        ValueError: `output_dir` or `graph` is missing, there is no global step, or there is no
            such checkpoint.
        RuntimeError: Initialization left variables uninitialized.
    """
    if not output_dir:
        raise ValueError(f"Output directory should be non-empty, output_dir={output_dir!r}")
    if graph is None:
        raise ValueError("Missing graph: graph=None, give the graph to evaluate")
    with graph.as_default():
        global_step = require_global_step(graph, global_step_tensor)
        session = _open(graph, supervisor_master, checkpoint_path)
        try:
            step = int(session.run(global_step))
            results = _evaluate(
                session,
                _Steps(eval_dict, update_op, feed_fn, max_steps, log_every_steps),
            )
        finally:
            session.close()
        if results is not None:
            _write_results(output_dir, results, step)
    return results, step


def _open(graph: tf.Graph, master: str, checkpoint_path: str | None) -> BoundedCloseSession:
    checkpoint = find_checkpoint(checkpoint_path) if checkpoint_path else None
    scaffold = v1.train.Scaffold()
    was_finalized = graph.finalized
    scaffold.finalize()
    if not was_finalized:
        unfinalize(graph)
    deadline = Deadline.after(MAX_WAIT_SECS)

    def make_ready(session: BoundedCloseSession) -> None:
        _make_ready(session, scaffold, checkpoint, deadline)

    return open_ready_session(master, graph, None, make_ready, deadline)


def _make_ready(
    session: BoundedCloseSession, scaffold: Any, checkpoint: str | None, deadline: Deadline
) -> None:
    if checkpoint is not None:
        scaffold.saver.restore(session, checkpoint)
    if _find_missing(session, scaffold, deadline) is not None:
        # Not before, for a cluster may hold a model that is being trained.
        if checkpoint is None:
            _logger.warning("No checkpoint is given: the model is evaluated as initialized.")
        session.run(scaffold.init_op, feed_dict=scaffold.init_feed_dict)
        if checkpoint is not None:
            scaffold.saver.restore(session, checkpoint)
    missing = _find_missing(session, scaffold, deadline)
    if missing is not None:
        raise RuntimeError(f"Init operations did not make model ready. {missing}")


def _find_missing(session: BoundedCloseSession, scaffold: Any, deadline: Deadline) -> str | None:
    missing = run_local_init(session, scaffold, deadline)
    return find_missing(session, scaffold.ready_op, deadline) if missing is None else missing


def _evaluate(session: BoundedCloseSession, steps: _Steps) -> dict[str, Any] | None:
    """Makes the steps, with the graph's queue runners beside them."""
    coordinator = v1.train.Coordinator()
    threads = v1.train.start_queue_runners(session, coordinator)
    try:
        with session.as_default():
            return steps.run(session, coordinator.should_stop)
    finally:
        coordinator.request_stop()
        # Before the threads are waited for: some would wait without end in a call of the session.
        session.close()
        try:
            coordinator.join(threads, stop_grace_period_secs=STOP_GRACE_SECS)
        except (RuntimeError, tf.errors.CancelledError) as error:
            _logger.warning("Coordinator didn't stop cleanly: %s", error)


def _write_results(output_dir: str, results: Mapping[str, Any], step: int) -> None:
    summary = v1.Summary()
    for name, value in results.items():
        if isinstance(value, float | np.floating):
            summary.value.add(tag=name, simple_value=float(value))
        elif value is not None:
            _logger.warning("Skipping summary for %s, must be a float or np.float32.", name)
    writer = get_summary_writer(output_dir)
    writer.add_summary(summary, step)
    writer.flush()


@dataclass
class _Steps:
    """The steps of `evaluate` in a session; the attributes are arguments of `evaluate`."""

    eval_dict: Mapping[str, Any]
    update_op: Any
    feed_fn: Callable[[], Mapping[Any, Any]] | None
    max_steps: int | None
    log_every_steps: int

    def run(
        self, session: tf.compat.v1.Session, should_stop: Callable[[], bool]
    ) -> dict[str, Any] | None:
        """Makes all steps; returns None if there was no input for even one."""
        steps_made = 0
        results: dict[str, Any] | None = None
        feed_dict = None
        is_fresh = False
        try:
            while not should_stop() and (self.max_steps is None or steps_made < self.max_steps):
                began = time.monotonic()
                feed_dict = self.feed_fn() if self.feed_fn else None
                is_fresh = False
                if self.update_op is None:
                    results, is_fresh = session.run(self.eval_dict, feed_dict), True
                else:
                    session.run(self.update_op, feed_dict)
                steps_made += 1
                if steps_made % max(1, self.log_every_steps) == 0:
                    if not is_fresh:
                        results, is_fresh = session.run(self.eval_dict, feed_dict), True
                    self._log(steps_made, results, time.monotonic() - began)
        except (tf.errors.OutOfRangeError, StopIteration) as error:
            level = logging.INFO if self.max_steps is None else logging.WARNING
            _logger.log(level, "Input ended after %d steps (%s).", steps_made, type(error).__name__)
        if steps_made and not is_fresh and self.update_op is not None:
            results = session.run(self.eval_dict, feed_dict)
        return results

    def _log(self, step: int, results: Mapping[str, Any] | None, secs: float) -> None:
        listed = ", ".join(f"{name} = {value}" for name, value in (results or {}).items())
        _logger.info("Results after %d steps (%.3f sec/batch): %s.", step, secs, listed)
