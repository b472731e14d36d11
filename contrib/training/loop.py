"""`tf.contrib.training.train`, which TensorFlow 2 removed, on today's TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ...data_plane.options import DataPlane
from ...loops.fetches import read_after
from ...loops.loop import TrainingOptions, training_loop
from ...loops.static_cluster import StaticPlace, check_place, run_in_static_cluster


def train(
    train_op: Any,
    logdir: str | None,
    master: str = "",
    is_chief: bool = True,
    scaffold: tf.compat.v1.train.Scaffold | None = None,
    hooks: Sequence[tf.compat.v1.train.SessionRunHook] | None = None,
    chief_only_hooks: Sequence[tf.compat.v1.train.SessionRunHook] | None = None,
    save_checkpoint_secs: float | None = 600,
    save_summaries_steps: int | None = 100,
    config: Any = None,
    max_wait_secs: float | None = 7200,
    run_metadata: Any = None,
    *,
    data_plane: DataPlane | None = None,
) -> Any:
    """Runs the training loop on the default graph, until a hook stops it or the input ends.

    The chief restores the newest checkpoint of `logdir`, or else initializes the model; the other
    workers wait for it. A task that loses a parameter server continues in a new session, which for
    the chief starts at the newest checkpoint again. Nothing else stops the loop: pass a
    `tf.compat.v1.train.StopAtStepHook`, or let the input end. The graph is finalized only while
    the loop runs, so that it may be trained again.

    Example::

        with tf.Graph().as_default():
            loss = build_model()
            step = tf.compat.v1.train.get_or_create_global_step()
            update = tf.compat.v1.train.AdamOptimizer().minimize(loss, global_step=step)
            with tf.control_dependencies([update]):
                train_op = tf.identity(loss)
            stop = tf.compat.v1.train.StopAtStepHook(last_step=1000)
            last_loss = train(train_op, "/tmp/model", hooks=[stop])

    Differences from the original:

    * A worker that comes before its chief looks again after 0.1 s, later after at most 1 s, and
      not after 30 s: late chiefs used to cost half a minute.
    * Threads get 3.5 s to end after the last step, and not 120 s, which synchronous training
      always took.
    * `max_wait_secs` bounds the chief's wait for servers as well. Waits for servers that do not
      answer used to last without end. The error says what was missing.
    * A session whose parameter server is dead is abandoned if it does not close within 2 s;
      closing it used to block the loop.
    * When an error ends the loop, in a hook or in the step, the chief saves a checkpoint first;
      after a NaN without a mention in the directory's `checkpoint` file, so that the next run
      continues from an earlier one. Events are flushed as well.
    * Outside a graph, where nothing can be trained, there is a clear error.

    As in the original, a `StopAtStepHook` decides after each step. So a call that resumes at or
    beyond `last_step` runs one more step. With several workers each may add one.

    Args:
        train_op: The fetches of each step: a `Tensor` that applies the gradients and gives the
            loss, or any structure of fetches.
        logdir: Directory to which the chief writes the graph, summaries and checkpoints, and from
            which it resumes. None or "" writes nothing.
        master: Master string of this task's TensorFlow server, "grpc://host:port", or "" to train
            in this process alone.
        is_chief: Whether this task is the one that initializes, restores, saves and summarizes.
        scaffold: Initialization, readiness, summary ops and saver; made of defaults if None. Its
            `init_fn(scaffold, session)` runs only if no checkpoint was restored.
        hooks: Hooks that run in this task, after those that the chief adds: steps per second,
            summaries, checkpoints.
        chief_only_hooks: Hooks that run before all others in the chief, and not in other tasks.
        save_checkpoint_secs: Seconds between the chief's checkpoints; there is one at the start
            and one at the end as well. None or 0 saves none.
        save_summaries_steps: Global steps between the chief's summaries. None or 0 writes none.
        config: A `tf.compat.v1.ConfigProto`, or None.
        max_wait_secs: Seconds to wait for the servers, and in other tasks than the chief for the
            model; None waits without limit. Keep it short to notice mistakes.
        run_metadata: A `tf.compat.v1.RunMetadata` that each step fills, or None.
        data_plane: How tensors cross between tasks, a `paramserve.DataPlane`; None: as usual.

    Returns:
        The last step's value of `train_op`, normally the loss; None if no step ended.

    Raises:
        ValueError: `logdir` is None in the chief although summaries or checkpoints are to be
            written, or `master` is malformed.
        RuntimeError: There is no graph, or no global step in it although `logdir` is given, or
            initialization left variables uninitialized.
        tf.errors.DeadlineExceededError: The servers or the model were not ready in time.
    """
    _check_logdir(logdir if is_chief else "", save_checkpoint_secs, save_summaries_steps)
    check_place(master)
    writes = is_chief and bool(logdir)
    loop = training_loop(
        train_op,
        TrainingOptions(
            scaffold=scaffold,
            hooks=hooks,
            chief_only_hooks=chief_only_hooks,
            save_checkpoint_secs=save_checkpoint_secs,
            save_summaries_steps=save_summaries_steps,
            run_metadata=run_metadata,
        ),
        step_after=read_after(train_op, _require_global_step()) if writes else None,
    )
    place = StaticPlace(
        logdir=logdir,
        master=master,
        is_chief=is_chief,
        session_config=config,
        max_wait_secs=max_wait_secs,
        data_plane=data_plane,
    )
    return run_in_static_cluster(loop, place)


def _require_global_step() -> Any:
    step = tf.compat.v1.train.get_global_step()
    if step is None:
        raise RuntimeError(
            "Global step should be created to use StepCounterHook and its like, which write to "
            "logdir: call tf.compat.v1.train.get_or_create_global_step() when building the model"
        )
    return step


def _check_logdir(
    logdir: str | None, save_checkpoint_secs: float | None, save_summaries_steps: int | None
) -> None:
    """Refuses arguments that the original refuses, in its order."""
    if logdir is not None:
        return
    if save_summaries_steps:
        raise ValueError(
            f"logdir cannot be None when save_summaries_steps is not None (it is "
            f"{save_summaries_steps!r}): give a directory, or save_summaries_steps=None"
        )
    if save_checkpoint_secs:
        raise ValueError(
            f"logdir cannot be None when save_checkpoint_secs is not None (it is "
            f"{save_checkpoint_secs!r}): give a directory, or save_checkpoint_secs=None"
        )
