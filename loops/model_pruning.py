"""The loop of `contrib.model_pruning.train`: the slim loop, with the masks updated each step."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .loop import Loop, LoopContext
from .slim import slim_loop
from .slim_options import SlimOptions

v1 = tf.compat.v1


def pruning_loop(
    train_op: Any,
    mask_update_op: Any,
    options: SlimOptions,
    *,
    global_step: Any,
    task: LoopContext,
    mask_update_on: str = "all",
) -> Loop:
    """Makes the loop.

    Args:
        train_op: Makes a step and gives the loss.
        mask_update_op: As of `contrib.model_pruning.train`, as is `mask_update_on`.
        options: The arguments of `contrib.model_pruning.train` that control the loop.
        global_step: The integer scalar variable, or a tensor that reads it.
        task: The context of the loop.
        mask_update_on: "all" or "chief".

    Raises:
        ValueError: `mask_update_op` is None, `mask_update_on` is neither "all" nor "chief", or
            `sync_optimizer` is something else, or has no gradients.
    """
    check_mask_update(mask_update_op, mask_update_on)
    updates = mask_update_on == "all" or task.is_chief
    return slim_loop(
        train_op,
        options,
        global_step=global_step,
        task=task,
        after_step=(lambda session: session.run(mask_update_op)) if updates else None,
    )


def check_mask_update(mask_update_op: Any, mask_update_on: str) -> None:
    """Raises ValueError for arguments that the loop could not run with after its first step."""
    if mask_update_op is None:
        raise ValueError(
            "mask_update_op cannot be None: give Pruning.conditional_mask_update_op(), or train "
            "with contrib.slim.learning.train, which updates no masks"
        )
    if mask_update_on not in ("all", "chief"):
        raise ValueError(
            f"mask_update_on={mask_update_on!r}: expected 'all' for every worker, or 'chief'"
        )
