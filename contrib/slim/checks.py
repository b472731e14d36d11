"""Checks of the slim loop's arguments before it adds to the graph, in the original's order."""

from __future__ import annotations

from typing import Any

from ...loops.defaults import is_default
from ...loops.slim_options import SlimOptions


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
