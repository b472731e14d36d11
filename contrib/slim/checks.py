"""Checks of the slim loop's arguments before it adds to the graph, in the original's order."""

from __future__ import annotations

from typing import Any

from ...loops.defaults import is_default


def check_arguments(
    train_op: Any,
    logdir: str | None,
    *,
    number_of_steps: int | None,
    summary_op: Any,
    startup_delay_steps: int,
    saver: Any,
    sync_optimizer: Any,
    trace_every_n_steps: int | None,
) -> None:
    """Checks arguments of `contrib.slim.learning.train`.

    Raises:
        ValueError: One cannot be, or two do not go together.
    """
    if train_op is None:
        raise ValueError("train_op cannot be None.")
    if logdir is None:
        _check_without_logdir(summary_op, saver, trace_every_n_steps)
    if sync_optimizer is not None and startup_delay_steps > 0:
        raise ValueError(
            "startup_delay_steps must be zero when sync_optimizer is supplied, but is "
            f"{startup_delay_steps}: synchronous workers begin together"
        )
    if number_of_steps is not None and number_of_steps <= 0:
        raise ValueError(
            "`number_of_steps` must be either None or a positive number, but is "
            f"{number_of_steps}: it is the global step at which training ends"
        )
    if trace_every_n_steps is not None and trace_every_n_steps <= 0:
        raise ValueError(
            "trace_every_n_steps must be either None or a positive number, but is "
            f"{trace_every_n_steps}"
        )


def _check_without_logdir(summary_op: Any, saver: Any, trace_every_n_steps: int | None) -> None:
    if not is_default(summary_op):
        raise ValueError(
            f"Cannot provide summary_op={summary_op!r} because logdir=None: summaries need a "
            "directory"
        )
    if saver is not None:
        raise ValueError(
            f"Cannot provide saver={saver!r} because logdir=None: checkpoints need a directory"
        )
    if trace_every_n_steps is not None:
        raise ValueError(
            f"Cannot provide trace_every_n_steps={trace_every_n_steps} because logdir=None: "
            "traces need a directory"
        )
