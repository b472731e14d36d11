"""The loop of `contrib.learn.train`: a loss, monitors, and a limit of steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tensorflow as tf

from .fetches import output_key, read_after, read_late, resolve
from .hooks import StopAtLimitHook
from .learn_steps import LearnFetches, LearnSteps, Monitors
from .loop import Loop, LoopContext, Services

v1 = tf.compat.v1

# The original does not let its caller choose how often `global_step/sec` is written either.
LOG_RATE_SECS = 120.0


def learn_loop(
    train_op: Any,
    loss_op: Any,
    *,
    global_step: Any,
    task: LoopContext,
    init_op: Any = None,
    init_feed_dict: Mapping[Any, Any] | None = None,
    init_fn: Callable[[tf.compat.v1.Session], None] | None = None,
    log_every_steps: int = 10,
    supervisor_save_model_secs: float | None = 600,
    keep_checkpoint_max: int | None = 5,
    supervisor_save_summaries_steps: int | None = 100,
    feed_fn: Callable[[], Mapping[Any, Any]] | None = None,
    steps: int | None = None,
    fail_on_nan_loss: bool = True,
    monitors: Iterable[Any] | None = None,
    max_steps: int | None = None,
    saver: Any = None,
) -> Loop:
    """Makes the loop. The arguments are those of `contrib.learn.train`, except as follows.

    The `task` says where the loop runs. Summaries are written with monitors and without, but not
    if `supervisor_save_summaries_steps` is None or 0. Without `monitors`, none are run. A `saver`
    may be given; otherwise there is one that keeps `keep_checkpoint_max` checkpoints, each in one
    piece.

    Raises:
        ValueError: `steps` and `max_steps` are both given, or one is negative; or the loss is no
            scalar.
    """
    check_limits(steps, max_steps)
    limit = max_steps if steps is None else task.start_step + steps
    fetches = _make_fetches(train_op, loss_op, global_step)
    scaffold = _make_scaffold(
        init_op=init_op,
        init_feed_dict=init_feed_dict,
        init_fn=None if init_fn is None else lambda scaffold, session: init_fn(session),
        saver=_make_saver(keep_checkpoint_max) if saver is None else saver,
    )
    learn_steps = LearnSteps(
        fetches,
        global_step=global_step,
        limit=limit,
        monitors=Monitors(
            monitor for monitor in monitors or () if task.is_chief or monitor.run_on_all_workers
        ),
        feed_fn=feed_fn,
        log_every_steps=log_every_steps,
        fail_on_nan_loss=fail_on_nan_loss,
    )
    hooks: list[tf.compat.v1.train.SessionRunHook] = [learn_steps]
    if limit is not None:
        hooks.append(StopAtLimitHook(limit, global_step, fetches.step_after))
    return Loop(
        step=learn_steps.make_step,
        train_ops=(train_op,),
        scaffold=scaffold,
        hooks=hooks,
        services=Services(
            save_checkpoint_secs=supervisor_save_model_secs,
            save_last_checkpoint=True,
            save_summaries_steps=supervisor_save_summaries_steps or None,
            log_rate_secs=LOG_RATE_SECS,
            mark_sessions=True,
        ),
        step_after=fetches.step_after,
        last_step=limit,
        tolerates_nan=not fail_on_nan_loss,
    )


def check_limits(steps: int | None, max_steps: int | None) -> None:
    """Refuses limits that cannot be.

    Raises:
        ValueError: `steps` and `max_steps` are both given, or one is negative.
    """
    if steps is not None and max_steps is not None:
        raise ValueError(
            f"Can not provide both steps and max_steps: steps={steps} counts from the newest "
            f"checkpoint, max_steps={max_steps} from the beginning; give one of them"
        )
    for name, value in (("steps", steps), ("max_steps", max_steps)):
        if value is not None and value < 0:
            raise ValueError(f"{name}={value} is negative: give 0 or more, or None for no limit")


def _make_fetches(train_op: Any, loss_op: Any, global_step: Any) -> LearnFetches:
    """Finds or makes the fetches of each step: a further call on a graph makes no further ops."""
    graph = v1.get_default_graph()
    given_loss = resolve(graph, loss_op)
    _check_loss(given_loss)
    train_ops = [
        graph.as_graph_element(fetch) for fetch in tf.nest.flatten(train_op, expand_composites=True)
    ]
    names = [each.name for each in (*train_ops, given_loss, global_step)]
    made = graph.get_collection_ref(("paramserve", "learn", *names))
    if not made:
        # A caller that gives a variable as the loss wants its value after the step.
        after = [getattr(each, "op", each) for each in train_ops]
        made += [read_late(given_loss, after), read_after(train_op, global_step)]
    return LearnFetches(
        train_op=train_op,
        loss=made[0],
        step_after=made[1],
        train_op_key=None if isinstance(train_op, list | dict) else output_key(train_op),
        loss_keys={output_key(loss_op), given_loss.name, getattr(loss_op, "name", loss_op)},
    )


def _check_loss(loss: Any) -> None:
    if loss.shape.rank not in (0, None):
        raise ValueError(
            f"loss_op {loss.name!r} has the shape {loss.shape}, expected a scalar: reduce it, for "
            "example with tf.reduce_mean"
        )


def _make_scaffold(**given: Any) -> tf.compat.v1.train.Scaffold:
    """Makes a scaffold of the arguments, of the graph's collections, and of defaults."""
    keys = v1.GraphKeys
    for name, key in (
        ("init_op", keys.INIT_OP),
        ("ready_op", keys.READY_OP),
        ("local_init_op", keys.LOCAL_INIT_OP),
        ("ready_for_local_init_op", keys.READY_FOR_LOCAL_INIT_OP),
        ("summary_op", keys.SUMMARY_OP),
    ):
        # A scaffold refuses a collection of several, of which the original takes the first.
        collected = v1.get_collection(key)
        if given.get(name) is None and collected:
            given[name] = collected[0]
    if "local_init_op" in given and "ready_for_local_init_op" not in given:
        # An op of the caller's own may initialize everything: then it has nothing to wait for.
        given["ready_for_local_init_op"] = tf.constant([], tf.string)
    return tf.compat.v1.train.Scaffold(**given)


def _make_saver(keep_checkpoint_max: int | None) -> Any:
    # The writing is the task's own; no parameter server needs the checkpoint directory.
    with v1.device("/cpu:0"):
        return v1.train.Saver(
            max_to_keep=keep_checkpoint_max, allow_empty=True, save_relative_paths=True
        )
