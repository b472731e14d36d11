"""`tf.contrib.model_pruning.train`, which TensorFlow 2 removed, on today's TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ...data_plane.options import DataPlane
from ...loops.slim import check_mask_update, pruning_loop
from ...loops.slim_options import USE_DEFAULT as _USE_DEFAULT, SlimOptions, TrainStepFunction, among
from ...loops.train_step import train_step
from ..slim.running import Place, check_arguments, run_in_place

__all__ = ["train", "train_step"]


def train(
    train_op: Any,
    logdir: str | None,
    mask_update_op: Any,
    train_step_fn: TrainStepFunction = train_step,
    train_step_kwargs: Any = _USE_DEFAULT,
    log_every_n_steps: int | None = 1,
    graph: tf.Graph | None = None,
    master: str = "",
    is_chief: bool = True,
    global_step: Any = None,
    number_of_steps: int | None = None,
    init_op: Any = _USE_DEFAULT,
    init_feed_dict: Any = None,
    local_init_op: Any = _USE_DEFAULT,
    init_fn: Callable[[tf.compat.v1.Session], Any] | None = None,
    ready_op: Any = _USE_DEFAULT,
    summary_op: Any = _USE_DEFAULT,
    save_summaries_secs: float | None = 600,
    summary_writer: Any = _USE_DEFAULT,
    startup_delay_steps: int = 0,
    saver: tf.compat.v1.train.Saver | None = None,
    save_interval_secs: float | None = 600,
    sync_optimizer: Any = None,
    session_config: Any = None,
    trace_every_n_steps: int | None = None,
    *,
    mask_update_on: str = "all",
    data_plane: DataPlane | None = None,
) -> Any:
    """Runs the training loop on a graph, and updates the masks after each step.

    It ends when the step function says so, or the input ends. The chief restores the newest
    checkpoint of `logdir`, or else initializes the model; the other tasks wait for it.

    Example::

        with tf.Graph().as_default():
            loss = build_masked_model()
            step = tf.compat.v1.train.get_or_create_global_step()
            update = tf.compat.v1.train.AdamOptimizer().minimize(loss, global_step=step)
            with tf.control_dependencies([update]):
                train_op = tf.identity(loss)
            pruning = Pruning(get_pruning_hparams().parse("target_sparsity=0.9"))
            mask_update_op = pruning.conditional_mask_update_op()
            last_loss = train(train_op, "/tmp/model", mask_update_op, number_of_steps=1000)

    The differences from the original are those of `paramserve.contrib.slim.learning.train`, and
    one more: the loss is returned, as documented. The original failed when training was over.

    Args:
        train_op: Makes a step and gives the loss, a scalar `Tensor`.
        logdir: Directory to which the chief writes events, traces and checkpoints, and from which
            it resumes. None or "" writes nothing.
        mask_update_op: An op that updates the masks and thresholds, such as
            `Pruning.conditional_mask_update_op()`. It runs by itself after each step, the last one
            included.
        train_step_fn: Called for each step with the session, `train_op`, `global_step` and
            `train_step_kwargs`; returns the loss, and whether to stop. It has to run `train_op`
            in the session that it gets.
        train_step_kwargs: A dictionary for `train_step_fn`. The default one has the boolean
            scalar tensors "should_stop" (the global step is at `number_of_steps`), "should_log"
            and, if traces are written, "should_trace" and "logdir". "summary_writer" is added to
            it, and also to a given dictionary.
        log_every_n_steps: Global steps between two log lines with the loss; None or 0 logs none.
        graph: The graph to train; the default graph if None.
        master: Master string of this task's TensorFlow server, "grpc://host:port", or "" to train
            in this process alone.
        is_chief: Whether this task is the one that initializes, restores, saves and summarizes.
        global_step: The step counter, an integer scalar variable or tensor. None takes the
            graph's own, which is made if there is none.
        number_of_steps: Global step at which training ends, above 0; None: it does not.
        init_op: Initializes the model where there is no checkpoint, by default all global
            variables; None does nothing.
        init_feed_dict: Feeds of `init_op`.
        local_init_op: Initializes this task's own state, by default local variables and lookup
            tables; None does nothing.
        init_fn: Called with the session after `init_op`, only where there is no checkpoint.
        ready_op: Gives the names of uninitialized variables, a string tensor of shape [n], by
            default of all global and local variables; None takes the model for ready.
        summary_op: Gives the serialized summaries, by default all of the graph's; None writes
            none.
        save_summaries_secs: Seconds between the chief's summaries, and between values of
            `global_step/sec`; the first come with the first step. None or 0 writes none.
        summary_writer: A `tf.compat.v1.summary.FileWriter`, by default one for `logdir`; None
            writes no events.
        startup_delay_steps: Global step at which a task that is not the chief begins; 0 with
            `sync_optimizer`.
        saver: Saves and restores, by default all of the graph's variables.
        save_interval_secs: Seconds between the chief's checkpoints; there is one at the start,
            and one at the end in any case. None or 0 saves only that.
        sync_optimizer: The `tf.compat.v1.train.SyncReplicasOptimizer` behind `train_op`, or a list
            of them; None trains asynchronously.
        session_config: A `tf.compat.v1.ConfigProto`, or None.
        trace_every_n_steps: Global steps between two traces of a step of the chief, as
            `tf_trace-<step>.json` in `logdir` and in the events; None writes none.
        mask_update_on: "all" to run `mask_update_op` in every task after each of its steps, or
            "chief" to run it in the chief only.
        data_plane: How tensors cross between tasks, a `paramserve.DataPlane`; None: as usual.

    Returns:
        The last step's loss; None if there was no step.

    Raises:
        ValueError: `train_op` or `mask_update_op` is None; `logdir` is None although `summary_op`,
            `saver` or `trace_every_n_steps` is given; `startup_delay_steps` is not 0 although
            `sync_optimizer` is given; `number_of_steps` or `trace_every_n_steps` is not above 0;
            `sync_optimizer` or `mask_update_on` is something else; or `master` is malformed.
        TypeError: `global_step` is no integer scalar, or `train_step_fn` returned no pair.
        RuntimeError: There is no graph, or initialization left variables uninitialized.
        tf.errors.DeadlineExceededError: The servers or the model were not ready in 2 hours.
    """
    given = locals()
    options = among(SlimOptions, given)
    check_arguments(train_op, logdir, options)
    check_mask_update(mask_update_op, mask_update_on)
    return run_in_place(
        pruning_loop,
        among(Place, given),
        options,
        train_op=train_op,
        mask_update_op=mask_update_op,
        global_step=global_step,
        mask_update_on=mask_update_on,
    )
