"""Runs of the slim loop, and of loops made from it, in one process or a static cluster."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from ...data_plane.graph_collections import merge_summaries
from ...loops.fetches import as_only_global_step
from ...loops.loop import Loop, LoopContext
from ...loops.slim_options import SlimOptions, is_default
from ...loops.static_cluster import StaticPlace, check_place, run_in_static_cluster

v1 = tf.compat.v1
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Place(StaticPlace):
    """The place of a loop: arguments of `contrib.slim.learning.train`."""

    graph: tf.Graph | None


def run_in_place(
    make_loop: Callable[..., Loop],
    place: Place,
    options: SlimOptions,
    *,
    global_step: Any,
    **arguments: Any,
) -> Any:
    """Makes a loop and runs it.

    Args:
        make_loop: Called with `options`, `global_step`, `task` and the other arguments.
        place: Where it runs.
        options: Of the loop.
        global_step: The integer scalar variable, or a tensor that reads it; None takes the
            graph's own, which is made if there is none.
        arguments: More of the loop.

    Returns:
        The last step's loss; None if there was no step.
    """
    with contextlib.nullcontext() if place.graph is None else place.graph.as_default():
        check_place(place.master)
        with _global_step_of_graph(global_step) as step:
            loop = make_loop(
                options=_with_defaults(place, options),
                global_step=step,
                task=LoopContext(
                    is_chief=place.is_chief, logdir=place.logdir if place.is_chief else None
                ),
                **arguments,
            )
            return run_in_static_cluster(
                _with_log_lines(_with_defaults_of_today(loop), bool(place.logdir)), place
            )


@contextlib.contextmanager
def _global_step_of_graph(global_step: Any) -> Iterator[Any]:
    """Finds or makes the global step, or makes the given one the graph's only one.

    Raises:
        TypeError: It is no integer scalar.
    """
    if global_step is None:
        yield v1.train.get_or_create_global_step()
        return
    v1.train.assert_global_step(global_step)
    with as_only_global_step(global_step):
        yield global_step


def _with_defaults(place: Place, options: SlimOptions) -> SlimOptions:
    """Returns the arguments with this process's writer and summaries in place of defaults."""
    writer, summary_op = options.summary_writer, options.summary_op
    if is_default(writer) and place.is_chief and place.logdir:
        writer = v1.summary.FileWriterCache.get(place.logdir)
    if is_default(summary_op):
        # It is None as well if the model has no summaries.
        summary_op = merge_summaries()
    return replace(options, summary_writer=writer, summary_op=summary_op)


def _with_defaults_of_today(loop: Loop) -> Loop:
    """Makes the ops that the loop's scaffold leaves to its defaults.

    The scaffold would put its own into collections of the graph. The next training would take them
    from there, without the variables that were made in between.
    """
    given = loop.scaffold
    with v1.name_scope("init_ops"):
        scaffold = tf.compat.v1.train.Scaffold(
            init_op=_or(given.init_op, v1.global_variables_initializer),
            ready_op=_or(given.ready_op, v1.report_uninitialized_variables),
            ready_for_local_init_op=_or(
                given.ready_for_local_init_op,
                lambda: v1.report_uninitialized_variables(v1.global_variables()),
            ),
            local_init_op=_or(
                given.local_init_op, tf.compat.v1.train.Scaffold.default_local_init_op
            ),
            saver=_or(given.saver, v1.train.Saver),
            copy_from_scaffold=given,
        )
    return replace(loop, scaffold=scaffold)


def _with_log_lines(loop: Loop, saves: bool) -> Loop:
    return replace(
        loop,
        hooks=[*loop.hooks, _BeginLine()],
        chief_only_hooks=[*loop.chief_only_hooks, *([_EndLine()] if saves else [])],
    )


class _BeginLine(tf.compat.v1.train.SessionRunHook):
    """Hook that logs each session."""

    def __init__(self) -> None:
        self._line = "Starting Session."

    def after_create_session(self, session: Any, coord: Any) -> None:
        _logger.info(self._line)
        self._line = "Retrying training!"


class _EndLine(tf.compat.v1.train.SessionRunHook):
    """Hook that logs the last checkpoint; it has to end before the hook that saves."""

    def end(self, session: Any) -> None:
        _logger.info("Finished training! Saving model to disk.")


def _or(given: Any, make_default: Callable[[], Any]) -> Any:
    return make_default() if given is None else given


def check_arguments(
    train_op: Any,
    logdir: str | None,
    options: SlimOptions,
) -> None:
    """Checks arguments of `contrib.slim.learning.train`.

    Raises:
        ValueError: One cannot be, or two do not go together.
    """
    if train_op is None:
        raise ValueError("train_op cannot be None.")
    if logdir is None:
        _check_without_logdir(options)
    if options.sync_optimizer is not None and options.startup_delay_steps > 0:
        raise ValueError(
            "startup_delay_steps must be zero when sync_optimizer is supplied, but is "
            f"{options.startup_delay_steps}: synchronous workers begin together"
        )
    if options.number_of_steps is not None and options.number_of_steps <= 0:
        raise ValueError(
            "`number_of_steps` must be either None or a positive number, but is "
            f"{options.number_of_steps}: it is the global step at which training ends"
        )
    if options.trace_every_n_steps is not None and options.trace_every_n_steps <= 0:
        raise ValueError(
            "trace_every_n_steps must be either None or a positive number, but is "
            f"{options.trace_every_n_steps}"
        )


def _check_without_logdir(options: SlimOptions) -> None:
    if not is_default(options.summary_op):
        raise ValueError(
            f"Cannot provide summary_op={options.summary_op!r} because logdir=None: "
            "summaries need a directory"
        )
    if options.saver is not None:
        raise ValueError(
            f"Cannot provide saver={options.saver!r} because logdir=None: checkpoints "
            "need a directory"
        )
    if options.trace_every_n_steps is not None:
        raise ValueError(
            f"Cannot provide trace_every_n_steps={options.trace_every_n_steps} because "
            "logdir=None: traces need a directory"
        )
