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

    All arguments but three, the differences from the original, the result and the errors are those
    of `paramserve.contrib.slim.learning.train`. Here is one difference more: the loss is returned,
    as documented; the original failed when training was over. The three arguments are:

    * `mask_update_op`: An op that updates the masks and thresholds, such as
      `Pruning.conditional_mask_update_op()`. It runs by itself after each step, the last one
      included. None is a `ValueError`.
    * `mask_update_on`: "all" to run `mask_update_op` in every task after each of its steps, or
      "chief" to run it in the chief only. Anything else is a `ValueError`.
    * `data_plane`: How tensors cross between tasks, a `paramserve.DataPlane`; None: as usual.
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
