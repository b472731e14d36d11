"""Evaluation of checkpoints: of one, or of each as training writes it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from ...cluster.address import parse_master
from ...loops.static_sessions import ChiefSessionCreator
from ...tf_internals import unfinalize
from .evaluation_hooks import StopAfterNEvalsHook, get_or_create_eval_step
from .new_checkpoints import checkpoints_iterator

_logger = logging.getLogger(__name__)


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
        eval_ops: What to run in each step: one op or `Tensor`, or any structure of them. None
            makes no steps.
        feed_dict: Feeds for `eval_ops`.
        final_ops: What to run after the last step, any structure of fetches, or None.
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
    """Returns `eval_ops` and an op that counts their runs; tells the hooks what to count with."""
    counter = get_or_create_eval_step()
    increment = tf.compat.v1.assign_add(counter, 1, use_locking=True)
    # Of a resource variable, an increment's value would be a read of its own.
    with tf.control_dependencies([increment]):
        count = tf.identity(counter.read_value())
    for hook in hooks:
        if isinstance(hook, StopAfterNEvalsHook):
            hook.count_with(count)
    return [eval_ops, count]
