"""`tf.contrib.learn.train`, which TensorFlow 2 removed, on today's TensorFlow."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from ...data_plane.graph_collections import merge_summaries
from ...data_plane.options import DataPlane
from ...loops.fetches import as_only_global_step, require_global_step, resolve
from ...loops.learn import check_limits, learn_loop
from ...loops.learn_steps import LearnSteps
from ...loops.loop import Loop, LoopContext
from ...loops.static_cluster import StaticPlace, check_place, run_in_static_cluster
from .monitors import BaseMonitor, get_default_monitors

v1 = tf.compat.v1


def train(
    graph: tf.Graph,
    output_dir: str,
    train_op: Any,
    loss_op: Any,
    global_step_tensor: Any = None,
    init_op: Any = None,
    init_feed_dict: Mapping[Any, Any] | None = None,
    init_fn: Callable[[tf.compat.v1.Session], None] | None = None,
    log_every_steps: int = 10,
    supervisor_is_chief: bool = True,
    supervisor_master: str = "",
    supervisor_save_model_secs: float | None = 600,
    keep_checkpoint_max: int | None = 5,
    supervisor_save_summaries_steps: int = 100,
    feed_fn: Callable[[], Mapping[Any, Any]] | None = None,
    steps: int | None = None,
    fail_on_nan_loss: bool = True,
    monitors: Sequence[BaseMonitor] | None = None,
    max_steps: int | None = None,
    *,
    data_plane: DataPlane | None = None,
) -> Any:
    """Trains a model for some steps, up to a global step, or until its input ends.

    The chief restores the newest checkpoint of `output_dir`, or else initializes the model; the
    other workers wait for it. A task that loses a parameter server continues in a new session. The
    chief's starts at the newest checkpoint again; the step to end at stays the same.

    Example::

        with tf.Graph().as_default() as graph:
            loss = build_model()
            step = tf.compat.v1.train.get_or_create_global_step()
            update = tf.compat.v1.train.AdamOptimizer().minimize(loss, global_step=step)
            with tf.control_dependencies([update]):
                loss = tf.identity(loss)
        last_loss = train(graph, "/tmp/model", update, loss, max_steps=1000)

    Differences from the original:

    * A lost parameter server no longer ends training, and a graph may be trained again.
    * Monitors' `post_step` is called, and their `end` on every worker, with the session. So
      monitors act every N steps, and no longer in every step from step N on.
    * `steps=0` makes no step; it used to train without end. Negative limits are refused.
    * A `loss_op` that is a variable gives the value after the step.
    * A checkpoint saved after a NaN is not the start of the next run.
    * Events are flushed when training ends, also with monitors of your own.
    * A worker that comes before its chief looks again within 1 s, and not after 30 s. Threads get
      3.5 s to end after the last step, and not 120 s.

    Args:
        graph: The graph, not in use elsewhere; it is finalized only while it trains.
        output_dir: Where the chief writes checkpoints and events, and finds the checkpoint to
            resume from.
        train_op: Makes a step: an operation, or a tensor. It has to increment the global step.
        loss_op: The loss, a scalar tensor or variable, or the name of one. If it does not depend
            on `train_op` by a control dependency, it may be computed before or after the step.
        global_step_tensor: The global step, an integer scalar variable; by default that in the
            graph's `GLOBAL_STEP` collection, or the one named "global_step".
        init_op: Initializes the variables if there is no checkpoint; by default the graph's
            `INIT_OP`, or else the initializers of all global variables.
        init_feed_dict: Feeds of `init_op`.
        init_fn: Called with the session after `init_op`, if there is no checkpoint.
        log_every_steps: Global steps between lines in the log, which show the loss and the seconds
            that the step took; 0 logs each step.
        supervisor_is_chief: Whether this task initializes, restores, saves and summarizes.
        supervisor_master: Master string of this task's TensorFlow server, "grpc://host:port", or
            "" to train in this process alone.
        supervisor_save_model_secs: Seconds between checkpoints, the first one at the start; None
            or 0 saves none by time. One is always saved at the end.
        keep_checkpoint_max: How many of the newest checkpoints are kept; None or 0 keeps all.
        supervisor_save_summaries_steps: Global steps (not seconds) between summaries, which are
            also written at the first and the last step; 0 writes them in each step. Without effect
            if there are `monitors`.
        feed_fn: Called before each step; returns its `feed_dict`. A `StopIteration` that it raises
            ends training.
        steps: Steps to train from the newest checkpoint on; None: no such limit.
        fail_on_nan_loss: Whether to raise when the loss is NaN; otherwise that is only logged.
        monitors: Called around each step, in the chief, and in other tasks those that
            `run_on_all_workers`. None or [] has the chief log the loss every 100 steps and write
            summaries; with other monitors it does neither.
        max_steps: Global step to end at: a second call with the same value makes no step. None: no
            such limit.
        data_plane: How tensors cross between tasks, a `paramserve.DataPlane`; None: as usual.

    Returns:
        The last loss, a numpy scalar; None if no step was made.

    Raises:
        ValueError: `steps` and `max_steps` are both given, or negative; `output_dir`, `train_op`,
            `loss_op` or `graph` is missing; there is no global step; the loss is no scalar; or
            `supervisor_master` is malformed.
        TypeError: The global step is no integer scalar.
        NanLossDuringTrainingError: The loss is NaN, and `fail_on_nan_loss` is set.
        RuntimeError: Initialization left variables uninitialized.
        tf.errors.DeadlineExceededError: The servers or the chief's model were not ready in time.
    """
    _check(output_dir, train_op, loss_op, steps, max_steps, graph)
    with graph.as_default():
        global_step = require_global_step(graph, global_step_tensor)
        check_place(supervisor_master)
        is_chief = supervisor_is_chief
        if not monitors and is_chief:
            monitors = get_default_monitors(
                resolve(graph, loss_op),
                _merged_summaries(graph),
                supervisor_save_summaries_steps,
                output_dir,
            )
        with as_only_global_step(global_step):
            loop = learn_loop(
                train_op,
                loss_op,
                global_step=global_step,
                task=LoopContext(
                    is_chief=is_chief,
                    logdir=output_dir if is_chief else None,
                    start_step=_saved_step(output_dir, global_step),
                ),
                init_op=init_op,
                init_feed_dict=init_feed_dict,
                init_fn=init_fn,
                log_every_steps=log_every_steps,
                supervisor_save_model_secs=supervisor_save_model_secs,
                # Its writing is a monitor's work here, which knows the step's number for certain.
                supervisor_save_summaries_steps=None,
                feed_fn=feed_fn,
                steps=steps,
                fail_on_nan_loss=fail_on_nan_loss,
                monitors=monitors,
                max_steps=max_steps,
                # In shards: each parameter server writes its own variables. It is built when
                # monitors have begun, because they may add variables.
                saver=v1.train.Saver(
                    sharded=True,
                    max_to_keep=keep_checkpoint_max,
                    defer_build=True,
                    allow_empty=True,
                ),
            )
            with _monitors_ended(loop):
                return run_in_static_cluster(
                    loop,
                    StaticPlace(
                        logdir=output_dir,
                        master=supervisor_master,
                        is_chief=is_chief,
                        data_plane=data_plane,
                    ),
                )


def _check(
    output_dir: str | None,
    train_op: Any,
    loss_op: Any,
    steps: int | None,
    max_steps: int | None,
    graph: tf.Graph | None,
) -> None:
    """Refuses invalid arguments, in the original's order where it had one."""
    check_limits(steps, max_steps)
    if not output_dir:
        raise ValueError(f"Output directory should be non-empty, output_dir={output_dir!r}")
    for name, value in (("train_op", train_op), ("loss_op", loss_op), ("graph", graph)):
        if value is None:
            raise ValueError(f"Missing {name}: {name}=None, give that of the model")


def _merged_summaries(graph: tf.Graph) -> Any:
    """Returns the op that a scaffold will take as well; None if the graph has no summaries."""
    collected = graph.get_collection_ref(v1.GraphKeys.SUMMARY_OP)
    if not collected:
        merged = merge_summaries()
        collected += [] if merged is None else [merged]
    return collected[0] if collected else None


def _saved_step(output_dir: str, global_step: Any) -> int:
    """Returns the global step of the checkpoint that training starts from; 0 if there is none."""
    checkpoint = tf.train.latest_checkpoint(output_dir)
    if checkpoint is None:
        return 0
    reader = tf.train.load_checkpoint(checkpoint)
    name = global_step.op.name
    return int(reader.get_tensor(name)) if reader.has_tensor(name) else 0


@contextlib.contextmanager
def _monitors_ended(loop: Loop) -> Iterator[None]:
    """Ends the monitors, also if no session could be made for them."""
    try:
        yield
    finally:
        for hook in loop.hooks:
            if isinstance(hook, LearnSteps):
                hook.monitors.abandon()
