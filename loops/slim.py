"""The slim loop: a step function makes each step and says when to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .defaults import USE_DEFAULT, is_default
from .hooks import StartupDelayHook, StopAtLimitHook
from .loop import Loop, LoopContext, Services
from .slim_step import SlimStep, TrainStepFunction
from .sync import (
    SyncChiefHook,
    SyncStartHook,
    SyncWorkerHook,
    as_sync_optimizers,
    ready_for_local_init,
)
from .train_step import train_step
from .train_step_kwargs import make_train_step_kwargs

v1 = tf.compat.v1


def slim_loop(
    train_op: Any,
    *,
    global_step: Any,
    task: LoopContext,
    after_step: Callable[[tf.compat.v1.Session], None] | None = None,
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
    session_wrapper: Callable[[Any], Any] | None = None,
    trace_every_n_steps: int | None = None,
) -> Loop:
    """Makes the loop; the arguments are those of `contrib.slim.learning.train`, and a few more.

    Of `global_step` there has to be one, `task` says where the loop runs, and `after_step` is
    called with the session after each step.

    Raises:
        ValueError: `sync_optimizer` is something else, or has no gradients.
    """
    optimizers = as_sync_optimizers(sync_optimizer)
    kwargs = make_train_step_kwargs(
        train_step_kwargs,
        global_step=global_step,
        task=task,
        log_every_n_steps=log_every_n_steps,
        number_of_steps=number_of_steps,
        trace_every_n_steps=trace_every_n_steps,
        summary_writer=summary_writer,
    )
    sync_hooks: list[Any] = [
        SyncChiefHook(
            each,
            global_step,
            number_of_steps,
            [other for other in optimizers if other is not each],
        )
        if task.is_chief
        else SyncWorkerHook(each)
        for each in optimizers
    ]
    step = SlimStep(
        train_op,
        global_step,
        train_step_fn=train_step_fn,
        kwargs=kwargs,
        last_step=number_of_steps,
        after_step=after_step,
        session_wrapper=session_wrapper,
        sync_hooks=sync_hooks if task.is_chief else (),
    )
    starts = [SyncStartHook(sync_hooks)] if task.is_chief and sync_hooks else []
    hooks = [*sync_hooks, *starts, step.progress]
    if number_of_steps is not None:
        hooks.append(StopAtLimitHook(number_of_steps, global_step, step.step_after))
    if startup_delay_steps > 0 and not task.is_chief:
        until = min(startup_delay_steps, number_of_steps or startup_delay_steps)
        hooks.append(StartupDelayHook(until, global_step))
    return Loop(
        step=step,
        train_ops=(train_op,),
        scaffold=tf.compat.v1.train.Scaffold(
            init_op=_chosen(init_op, tf.no_op),
            init_feed_dict=init_feed_dict,
            init_fn=None if init_fn is None else lambda _, session: init_fn(session),
            ready_op=_chosen(ready_op, _always_ready),
            ready_for_local_init_op=_ready_for_local_init_op(optimizers, ready_op),
            local_init_op=_chosen(local_init_op, tf.no_op),
            summary_op=None if is_default(summary_op) else summary_op,
            saver=saver,
        ),
        hooks=hooks,
        services=_services(summary_op, save_summaries_secs, summary_writer, save_interval_secs),
        step_after=step.step_after,
        last_step=number_of_steps,
        is_sync=bool(optimizers),
    )


def _services(
    summary_op: Any,
    save_summaries_secs: float | None,
    summary_writer: Any,
    save_interval_secs: float | None,
) -> Services:
    writes = summary_writer is not None
    return Services(
        save_checkpoint_secs=save_interval_secs,
        save_last_checkpoint=True,
        save_summaries_secs=save_summaries_secs if writes and summary_op is not None else None,
        log_rate_secs=save_summaries_secs if writes else None,
        mark_sessions=writes,
        writes_events=writes,
        summary_writer=None if is_default(summary_writer) else summary_writer,
    )


def _ready_for_local_init_op(optimizers: list[Any], ready_op: Any) -> Any:
    if optimizers:
        return ready_for_local_init(optimizers)
    # Whoever says when the model is ready need not have its global variables initialized first.
    return None if is_default(ready_op) else _always_ready()


def _always_ready() -> Any:
    return tf.constant([], tf.string)


def _chosen(given: Any, make_nothing: Callable[[], Any]) -> Any:
    """Returns a `Scaffold` argument: None for the default, and an op without effect for None."""
    if is_default(given):
        return None
    return make_nothing() if given is None else given
