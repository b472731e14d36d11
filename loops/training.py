"""The loop of `contrib.training.train`: one fetch a step, and hooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from .loop import Loop, Services, Step

# The original does not let its caller choose how often `global_step/sec` is written either.
LOG_STEP_COUNT_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Arguments of `contrib.training.train` for the loop itself."""

    scaffold: tf.compat.v1.train.Scaffold | None = None
    hooks: Sequence[tf.compat.v1.train.SessionRunHook] | None = None
    chief_only_hooks: Sequence[tf.compat.v1.train.SessionRunHook] | None = None
    save_checkpoint_secs: float | None = 600
    save_summaries_steps: int | None = 100
    run_metadata: Any = None


def training_loop(train_op: Any, options: TrainingOptions, *, step_after: Any = None) -> Loop:
    """Makes the loop.

    Args:
        train_op: Fetched in each step.
        options: The options of the loop.
        step_after: int64 scalar, the global step once `train_op` is done; None if nothing is
            written.
    """
    hooks, chief_only_hooks = tuple(options.hooks or ()), tuple(options.chief_only_hooks or ())
    scaffold = options.scaffold

    def step(step: Step) -> Any:
        return step.run(train_op, run_metadata=options.run_metadata)

    return Loop(
        step=step,
        train_ops=(train_op,),
        # Hooks and session creator have to share the scaffold.
        scaffold=tf.compat.v1.train.Scaffold() if scaffold is None else scaffold,
        hooks=hooks,
        chief_only_hooks=chief_only_hooks,
        services=Services(
            save_checkpoint_secs=options.save_checkpoint_secs,
            save_summaries_steps=options.save_summaries_steps,
            log_rate_steps=LOG_STEP_COUNT_STEPS,
            mark_sessions=True,
        ),
        step_after=step_after,
        is_sync=_has_sync_hook([*hooks, *chief_only_hooks]),
    )


def _has_sync_hook(hooks: Sequence[Any]) -> bool:
    # The type of `SyncReplicasOptimizer.make_session_run_hook`'s result has no public name.
    return any("SyncReplicas" in type(hook).__name__ for hook in hooks)
