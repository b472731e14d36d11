"""Evaluation of checkpoints: of one, or of each as training writes it; and its hooks."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from ...cluster.address import parse_master
from ...data_plane.graph_collections import merge_summaries
from ...loops.static_sessions import ChiefSessionCreator
from ...tf_internals import unfinalize
from .new_checkpoints import checkpoints_iterator

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
        log_dir: Directory to write to; one writer serves each directory.
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
            return  # The next checkpoint of the same graph: do not merge its summaries again.
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


def evaluate_once(
    checkpoint_path: str | None,
    master: str = "",
    scaffold: tf.compat.v1.train.Scaffold | None = None,
    eval_ops: Any = None,
    feed_dict: Mapping[Any, Any] | None = None,
    final_ops: Any = None,
    final_ops_feed_dict: Mapping[Any, Any] | None = None,
    hooks: Sequence[tf.compat.v1.train.SessionRunHook] | None = None,
    config: Any = None,
) -> Any:
    """Evaluates a checkpoint with the default graph.

    Runs `eval_ops` until a hook stops it or the input ends, then `final_ops` once.

    Example::

        with tf.Graph().as_default():
            predictions, labels = build_model()
            accuracy, update = tf.compat.v1.metrics.accuracy(labels, predictions)
            value = evaluate_once(
                tf.train.latest_checkpoint("/tmp/model"),
                eval_ops=update,
                final_ops=accuracy,
                hooks=[StopAfterNEvalsHook(100)],
            )

    Args:
        checkpoint_path: The checkpoint's path without suffix; None initializes the model instead.
        master: Master string of a TensorFlow server, "grpc://host:port", or "" for this process.
        scaffold: Initialization, readiness and saver; made of defaults if None.
        eval_ops: The fetches of each step: one op or `Tensor`, or any structure of them. None
            makes no steps.
        feed_dict: Feeds for `eval_ops`.
        final_ops: Fetches to run after the last step, any structure of them, or None.
        final_ops_feed_dict: Feeds for `final_ops`.
        hooks: Hooks that run in the session, such as `StopAfterNEvalsHook`.
        config: A `tf.compat.v1.ConfigProto`, or None.

    Returns:
        The value of `final_ops`, or None.

    Raises:
        ValueError: There is no such checkpoint, or `master` is malformed.
        RuntimeError: There is no graph, or variables stay uninitialized.
        tf.errors.NotFoundError: The checkpoint lacks a variable of the graph.
    """
    evaluation = _Evaluation(master, scaffold, eval_ops, feed_dict, hooks, config)
    return evaluation.run(checkpoint_path, final_ops, final_ops_feed_dict)


def evaluate_repeatedly(
    checkpoint_dir: str,
    master: str = "",
    scaffold: tf.compat.v1.train.Scaffold | None = None,
    eval_ops: Any = None,
    feed_dict: Mapping[Any, Any] | None = None,
    final_ops: Any = None,
    final_ops_feed_dict: Mapping[Any, Any] | None = None,
    eval_interval_secs: float = 60,
    hooks: Sequence[tf.compat.v1.train.SessionRunHook] | None = None,
    config: Any = None,
    max_number_of_evaluations: int | None = None,
    timeout: float | None = None,
    timeout_fn: Callable[[], bool] | None = None,
) -> Any:
    """Evaluates each new checkpoint of a directory with the default graph.

    Each gets a session of its own, with the local variables initialized again. A checkpoint that
    training deleted before it was read is passed over.

    Further arguments are those of `evaluate_once`; hooks run in every session.

    * `checkpoint_dir`: Where training writes checkpoints; need not exist yet.
    * `eval_interval_secs`: Seconds at least between the beginnings of two evaluations.
    * `max_number_of_evaluations`: How many checkpoints to evaluate, at least 1; None sets no limit.
    * `timeout`: Seconds to wait for a new checkpoint; None waits without limit.
    * `timeout_fn`: Called when that time ran out; evaluation continues while it returns False. None
      ends it.

    Returns:
        The value of `final_ops` for the last checkpoint; None if none was evaluated.

    Raises:
        ValueError: `max_number_of_evaluations` is below 1, or `master` is malformed.
        RuntimeError: There is no graph, or variables stay uninitialized.
        tf.errors.NotFoundError: A checkpoint lacks a variable of the graph.
    """
    limit = max_number_of_evaluations
    if limit is not None and limit < 1:
        raise ValueError(f"max_number_of_evaluations={limit}: use at least 1, or None for no limit")
    evaluation = _Evaluation(master, scaffold, eval_ops, feed_dict, hooks, config)
    value, done = None, 0
    for checkpoint in checkpoints_iterator(checkpoint_dir, eval_interval_secs, timeout, timeout_fn):
        try:
            value = evaluation.run(checkpoint, final_ops, final_ops_feed_dict)
        except (ValueError, tf.errors.OpError):
            if tf.compat.v1.train.checkpoint_exists(checkpoint):
                raise
            _logger.warning("Passed over %s, which is gone already.", checkpoint)
            continue
        done += 1
        if done == limit:
            break
    return value


class _Evaluation:
    """Ops that the evaluations of several checkpoints share, so that the graph does not grow."""

    def __init__(
        self,
        master: str,
        scaffold: tf.compat.v1.train.Scaffold | None,
        eval_ops: Any,
        feed_dict: Mapping[Any, Any] | None,
        hooks: Sequence[tf.compat.v1.train.SessionRunHook] | None,
        config: Any,
    ) -> None:
        parse_master(master)
        if tf.executing_eagerly():
            raise RuntimeError(
                "evaluation runs a graph, and there is none: build the model and evaluate it "
                "inside `with tf.Graph().as_default():`"
            )
        self._master = master
        self._scaffold = tf.compat.v1.train.Scaffold() if scaffold is None else scaffold
        self._feed_dict = feed_dict
        self._hooks = list(hooks or ())
        self._config = config
        self._step = None if eval_ops is None else _counted(eval_ops, self._hooks)

    def run(
        self,
        checkpoint: str | None,
        final_ops: Any,
        final_ops_feed_dict: Mapping[Any, Any] | None,
    ) -> Any:
        """Evaluates one checkpoint and returns the value of `final_ops`."""
        train = tf.compat.v1.train
        final = train.FinalOpsHook(final_ops, final_ops_feed_dict)
        creator = ChiefSessionCreator(
            self._scaffold,
            self._master,
            self._config,
            checkpoint_filename_with_path=checkpoint,
        )
        _logger.info("Evaluation of %s begins.", checkpoint or "the initial model")
        with (
            _unfinalized_again(tf.compat.v1.get_default_graph()),
            train.MonitoredSession(creator, [*self._hooks, final]) as session,
        ):
            while self._step is not None and not session.should_stop():
                session.run(self._step, self._feed_dict)
        _logger.info("Evaluation of %s ended.", checkpoint or "the initial model")
        return final.final_ops_values


@contextlib.contextmanager
def _unfinalized_again(graph: tf.Graph) -> Iterator[None]:
    """Leaves the graph open to the next evaluation, also when a session could not begin."""
    was_finalized = graph.finalized
    try:
        yield
    finally:
        if not was_finalized:
            unfinalize(graph)


def _counted(eval_ops: Any, hooks: Sequence[tf.compat.v1.train.SessionRunHook]) -> Any:
    """Returns `eval_ops` and an op that counts their runs, and gives that op to the hooks."""
    counter = get_or_create_eval_step()
    increment = tf.compat.v1.assign_add(counter, 1, use_locking=True)
    # Of a resource variable, an increment's value would be a read of its own.
    with tf.control_dependencies([increment]):
        count = tf.identity(counter.read_value())
    for hook in hooks:
        if isinstance(hook, StopAfterNEvalsHook):
            hook.count_with(count)
    return [eval_ops, count]
