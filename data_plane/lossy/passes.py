"""The options that change numerics: their passes before coalescing, their hooks, and a check."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf

from ...errors import UsageError
from ..options import DataPlane, async_only, check_combination, lagging
from ..placed_graph import Op
from .local_state import start
from .local_steps import LocalStepsHook, keep_copies
from .staleness import LEASE_SECS, StalenessHook, count_steps
from .top_k import send_largest
from .wire import cast_to_wire_dtype


def apply_lossy_passes(
    graph: tf.Graph, options: DataPlane, roots: Sequence[Op], unchanged: Iterable[Op]
) -> list[Op]:
    """Applies the passes that change numerics, before coalescing.

    Args:
        graph: The graph, changed in place.
        options: The passes to apply; none by default.
        roots: The training steps.
        unchanged: Ops that are run at other times, with the ops they need.

    Returns:
        Ops that run between steps, whose tensors cross as those of the steps do.

    Raises:
        UsageError: The graph's optimizer does not support an option, or aggregates gradients of
            several workers, which some options exclude.
    """
    is_sync = any("ConditionalAccumulator" in op.type for op in graph.get_operations())
    check_combination(options, sync=is_sync)
    wire_dtype = tf.as_dtype(options.wire_dtype)
    added = []
    # Top-k comes before the wire dtype: it rounds the values that it sends by itself, and keeps the
    # rounding error with the rest. The op between local steps is a root for the wire dtype as well.
    if options.local_steps > 1:
        exchange = keep_copies(graph, roots, unchanged)
        added += [] if exchange is None else [exchange]
    if options.max_staleness is not None:
        count_steps(graph, roots)
    if options.top_k is not None:
        send_largest(graph, roots, unchanged, options.top_k, wire_dtype)
    if wire_dtype == tf.bfloat16:
        cast_to_wire_dtype(graph, [*roots, *added], unchanged)
    return added


def check_without_hooks(options: DataPlane) -> None:
    """Rejects options that need hooks, for sessions without hooks.

    Raises:
        UsageError: The message names the option and the remedy.
    """
    for name, value in lagging(options).items():
        raise UsageError(
            f"{name}={value} needs a session with hooks: use a MonitoredTrainingSession"
        )


def transfer_hooks(
    options: DataPlane,
    *,
    lease_secs: float = LEASE_SECS,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[Any]:
    """Returns the hooks that the options need; none if they change no numerics.

    They belong before all hooks that look at parameters.

    Args:
        options: The options of the data plane.
        lease_secs: Seconds that a worker may make no step while other workers wait for it.
        cancelled: Returns whether this worker has to stop.
    """
    hooks: list[Any] = []
    if async_only(options):
        hooks.append(StartHook())
    if options.local_steps > 1:
        hooks.append(LocalStepsHook(options.local_steps))
    if options.max_staleness is not None:
        hooks.append(
            StalenessHook(options.max_staleness, lease_secs=lease_secs, cancelled=cancelled)
        )
    return hooks


class StartHook(tf.compat.v1.train.SessionRunHook):
    """Hook that fills the worker's local state in each new session."""

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Fills the state; the model is ready at this time."""
        start(session)
