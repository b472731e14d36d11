"""The loop of `contrib.model_pruning.train`: the slim loop, with the masks updated each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .defaults import USE_DEFAULT
from .loop import Loop, LoopContext
from .slim import slim_loop
from .slim_step import TrainStepFunction
from .train_step import train_step

v1 = tf.compat.v1


def pruning_loop(
    train_op: Any,
    mask_update_op: Any,
    *,
    global_step: Any,
    task: LoopContext,
    train_step_fn: TrainStepFunction = train_step,
    train_step_kwargs: Any = USE_DEFAULT,
    log_every_n_steps: int | None = 1,
    number_of_steps: int | None = None,
    init_op: Any = USE_DEFAULT,
    init_feed_dict: Any = None,
    local_init_op: Any = USE_DEFAULT,
    init_fn: Callable[[tf.compat.v1.Session], Any] | None = None,
    ready_op: Any = USE_DEFAULT,
    summary_op: Any = USE_DEFAULT,
    save_summaries_secs: float | None = 600,
    summary_writer: Any = USE_DEFAULT,
    startup_delay_steps: int = 0,
    saver: Any = None,
    save_interval_secs: float | None = 600,
    sync_optimizer: Any = None,
    trace_every_n_steps: int | None = None,
    mask_update_on: str = "all",
) -> Loop:
    """Makes the loop; the arguments are those of `contrib.model_pruning.train`.

    Of `global_step` there has to be one, and `task` says where the loop runs.

    Raises:
        ValueError: `mask_update_op` is None, `mask_update_on` is neither "all" nor "chief", or
            `sync_optimizer` is something else, or has no gradients.
    """
    check_mask_update(mask_update_op, mask_update_on)
    updates = mask_update_on == "all" or task.is_chief
    return slim_loop(
        train_op,
        global_step=global_step,
        task=task,
        after_step=(lambda session: session.run(mask_update_op)) if updates else None,
        train_step_fn=train_step_fn,
        train_step_kwargs=train_step_kwargs,
        log_every_n_steps=log_every_n_steps,
        number_of_steps=number_of_steps,
        init_op=init_op,
        init_feed_dict=init_feed_dict,
        local_init_op=local_init_op,
        init_fn=init_fn,
        ready_op=ready_op,
        summary_op=summary_op,
        save_summaries_secs=save_summaries_secs,
        summary_writer=summary_writer,
        startup_delay_steps=startup_delay_steps,
        saver=saver,
        save_interval_secs=save_interval_secs,
        sync_optimizer=sync_optimizer,
        trace_every_n_steps=trace_every_n_steps,
    )


def check_mask_update(mask_update_op: Any, mask_update_on: str) -> None:
    """Raises ValueError for what the loop could not run after its first step."""
    if mask_update_op is None:
        raise ValueError(
            "mask_update_op cannot be None: give Pruning.conditional_mask_update_op(), or train "
            "with contrib.slim.learning.train, which updates no masks"
        )
    if mask_update_on not in ("all", "chief"):
        raise ValueError(
            f"mask_update_on={mask_update_on!r}: expected 'all' for every worker, or 'chief'"
        )
