"""The slim loop, and that of pruning: a step function makes each step and says when to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .hooks import StartupDelayHook, StopAtLimitHook
from .loop import Loop, LoopContext, Services
from .slim_options import SlimOptions, is_default, make_train_step_kwargs
from .slim_step import SlimStep
from .sync import SyncChiefHook, SyncReplicasHook, as_sync_optimizers

v1 = tf.compat.v1


def slim_loop(
    train_op: Any,
    options: SlimOptions,
    *,
    global_step: Any,
    task: LoopContext,
    after_step: Callable[[tf.compat.v1.Session], None] | None = None,
    session_wrapper: Callable[[Any], Any] | None = None,
) -> Loop:
    """Makes the loop.

    Args:
        train_op: Makes a step and gives the loss.
        options: The arguments of `contrib.slim.learning.train` that control the loop.
        global_step: The integer scalar variable, or a tensor that reads it.
        task: The context of the loop.
        after_step: Called with the session after each step.
        session_wrapper: As of `contrib.slim.learning.train`.

    Raises:
        ValueError: `sync_optimizer` is something else, or has no gradients.
    """
    optimizers = as_sync_optimizers(options.sync_optimizer)
    limit = options.number_of_steps
    kwargs = make_train_step_kwargs(options, global_step=global_step, task=task)
    chief_hooks, sync_hooks = [], [SyncReplicasHook(each, is_chief=False) for each in optimizers]
    if optimizers and task.is_chief:
        chief_hooks = sync_hooks = [SyncChiefHook(optimizers, global_step, limit)]
    step = SlimStep(
        train_op,
        global_step,
        train_step_fn=options.train_step_fn,
        kwargs=kwargs,
        last_step=limit,
        after_step=after_step,
        session_wrapper=session_wrapper,
        sync_hooks=chief_hooks,
    )
    hooks = [*sync_hooks, step.progress]
    if limit is not None:
        hooks.append(StopAtLimitHook(limit, global_step, step.step_after))
    if (delay := options.startup_delay_steps) > 0 and not task.is_chief:
        hooks.append(StartupDelayHook(min(delay, limit or delay), global_step))
    return Loop(
        step=step,
        train_ops=(train_op,),
        scaffold=_scaffold(options, optimizers),
        hooks=hooks,
        services=_services(options),
        step_after=step.step_after,
        last_step=limit,
        is_sync=bool(optimizers),
    )


def _scaffold(options: SlimOptions, optimizers: list[Any]) -> tf.compat.v1.train.Scaffold:
    init_fn = options.init_fn
    return v1.train.Scaffold(
        init_op=_chosen(options.init_op, tf.no_op),
        init_feed_dict=options.init_feed_dict,
        init_fn=None if init_fn is None else lambda _, session: init_fn(session),
        ready_op=_chosen(options.ready_op, _always_ready),
        ready_for_local_init_op=_ready_for_local_init_op(optimizers, options.ready_op),
        local_init_op=_chosen(options.local_init_op, tf.no_op),
        summary_op=None if is_default(options.summary_op) else options.summary_op,
        saver=options.saver,
    )


def _services(options: SlimOptions) -> Services:
    writer, summaries_secs = options.summary_writer, options.save_summaries_secs
    writes = writer is not None
    return Services(
        save_checkpoint_secs=options.save_interval_secs,
        save_last_checkpoint=True,
        save_summaries_secs=summaries_secs if writes and options.summary_op is not None else None,
        log_rate_secs=summaries_secs if writes else None,
        mark_sessions=writes,
        writes_events=writes,
        summary_writer=None if is_default(writer) else writer,
    )


def _ready_for_local_init_op(optimizers: list[Any], ready_op: Any) -> Any:
    if optimizers:
        return tf.concat([each.ready_for_local_init_op for each in optimizers], 0)
    # A caller with a readiness op of its own need not have its global variables initialized first.
    return None if is_default(ready_op) else _always_ready()


def _always_ready() -> Any:
    return tf.constant([], tf.string)


def _chosen(given: Any, make_nothing: Callable[[], Any]) -> Any:
    """Returns a `Scaffold` argument: None for the default, and an op without effect for None."""
    if is_default(given):
        return None
    return make_nothing() if given is None else given


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
