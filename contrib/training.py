"""`tf.contrib.training.train`, which TensorFlow 2 removed, on today's TensorFlow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from ..cluster.address import parse_master
from ..worker.loop import run_until_stop
from ..worker.session import ChiefSessionCreator, ReleaseThreadsHook, WorkerSessionCreator

# Seconds that queue runners and other threads get to end before the session is closed on them.
# TensorFlow gives them 120, which a synchronous chief always used up: its queue runner waits for
# gradients that will not come, and only the close ends it.
STOP_GRACE_SECS = 3.5
# Seconds that TensorFlow waits for them in all, looking after 1 ms, 3 ms, ..., 2 s, 4.1 s.
JOIN_GRACE_SECS = 8.0
# The original does not let its caller choose how often `global_step/sec` is written either.
LOG_STEP_COUNT_STEPS = 100


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
) -> Any:
    """Runs the training loop on the default graph, until a hook stops it or the input ends.

    The chief restores the newest checkpoint of `logdir`, or else initializes the model; the other
    workers wait for it. A task that loses a parameter server goes on in a new session, which for
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
    * `max_wait_secs` bounds how long the chief waits for servers too, and a wait for servers that
      do not answer, which used to last for ever. The error says what was missing.
    * A session whose parameter server is dead is abandoned if it does not close within 2 s;
      closing it used to block the loop.
    * Events are flushed when the loop ends, also by an error.
    * Outside a graph, where nothing can be trained, there is a clear error.

    As in the original, a `StopAtStepHook` decides after each step, so that a call that resumes at
    or beyond `last_step` runs one more step, and with several workers each may add one.

    Args:
        train_op: What to run in each step: a `Tensor` that applies the gradients and gives the
            loss, or any structure of fetches.
        logdir: Where the chief writes the graph, summaries and checkpoints, and finds the
            checkpoint to resume from. None or "" writes nothing.
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
            model; None waits for ever. Keep it short to notice mistakes.
        run_metadata: A `tf.compat.v1.RunMetadata` that each step fills, or None.

    Returns:
        The last step's value of `train_op`, normally the loss; None if no step ended.

    Raises:
        ValueError: `logdir` is None in the chief although summaries or checkpoints are to be
            written, or `master` is malformed.
        RuntimeError: There is no graph, or no global step in it although `logdir` is given, or
            initialization left variables uninitialized.
        tf.errors.DeadlineExceededError: The servers or the model were not ready in time.
    """
    _check(logdir if is_chief else "", master, save_checkpoint_secs, save_summaries_steps)
    # Hooks and session creator have to share the scaffold.
    scaffold = tf.compat.v1.train.Scaffold() if scaffold is None else scaffold
    all_hooks = [*(hooks or ()), ReleaseThreadsHook(STOP_GRACE_SECS)]
    if is_chief:
        saving = _saving_hooks(scaffold, logdir, save_checkpoint_secs, save_summaries_steps)
        all_hooks = [*(chief_only_hooks or ()), *saving, *all_hooks]
        creator: tf.compat.v1.train.SessionCreator = ChiefSessionCreator(
            scaffold, master, config, checkpoint_dir=logdir, max_wait_secs=max_wait_secs
        )
    else:
        creator = WorkerSessionCreator(scaffold, master, config, max_wait_secs)
    with (
        _tidied_up(tf.compat.v1.get_default_graph(), logdir if is_chief else None),
        tf.compat.v1.train.MonitoredSession(
            creator, all_hooks, stop_grace_period_secs=JOIN_GRACE_SECS
        ) as session,
    ):
        return run_until_stop(session, train_op, run_metadata)


def _check(
    logdir: str | None,
    master: str,
    save_checkpoint_secs: float | None,
    save_summaries_steps: int | None,
) -> None:
    """Refuses what cannot work, in the original's order where that had an order."""
    if logdir is None:
        if save_summaries_steps:
            raise ValueError("logdir cannot be None when save_summaries_steps is not None")
        if save_checkpoint_secs:
            raise ValueError("logdir cannot be None when save_checkpoint_secs is not None")
    parse_master(master)
    if tf.executing_eagerly():
        raise RuntimeError(
            "train() runs a graph, and there is none: build the model and call train() inside "
            "`with tf.Graph().as_default():`"
        )


@contextlib.contextmanager
def _tidied_up(graph: tf.Graph, logdir: str | None) -> Iterator[None]:
    """Leaves the graph as it was found, and the events on disk, however training ends."""
    was_finalized = graph.finalized
    try:
        yield
    finally:
        # A `MonitoredSession` does this when it ends, but not when it could not begin.
        if not was_finalized:
            graph._unsafe_unfinalize()
        if logdir:
            tf.compat.v1.summary.FileWriterCache.get(logdir).flush()


def _saving_hooks(
    scaffold: tf.compat.v1.train.Scaffold,
    logdir: str | None,
    save_checkpoint_secs: float | None,
    save_summaries_steps: int | None,
) -> list[tf.compat.v1.train.SessionRunHook]:
    """The hooks with which the chief writes to `logdir`, in the order in which they run."""
    if not logdir:
        return []
    train = tf.compat.v1.train
    hooks = [train.StepCounterHook(every_n_steps=LOG_STEP_COUNT_STEPS, output_dir=logdir)]
    if save_summaries_steps and save_summaries_steps > 0:
        hooks.append(
            train.SummarySaverHook(
                save_steps=save_summaries_steps, output_dir=logdir, scaffold=scaffold
            )
        )
    if save_checkpoint_secs and save_checkpoint_secs > 0:
        hooks.append(
            train.CheckpointSaverHook(logdir, save_secs=save_checkpoint_secs, scaffold=scaffold)
        )
    return hooks
