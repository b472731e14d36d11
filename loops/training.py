"""The loop of `contrib.training.train`: one fetch a step, and hooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from .loop import Loop, Services, Step

# The original does not let its caller choose how often `global_step/sec` is written either.
LOG_STEP_COUNT_STEPS = 100


def training_loop(
    train_op: Any,
    *,
    step_after: Any = None,
    scaffold: tf.compat.v1.train.Scaffold | None = None,
    hooks: Sequence[tf.compat.v1.train.SessionRunHook] | None = None,
    chief_only_hooks: Sequence[tf.compat.v1.train.SessionRunHook] | None = None,
    save_checkpoint_secs: float | None = 600,
    save_summaries_steps: int | None = 100,
    run_metadata: Any = None,
) -> Loop:
    """Makes the loop; the arguments are those of `contrib.training.train`, except `step_after`.

    `step_after` is an int64 scalar, the global step once `train_op` is done; None if nothing is
    written.
    """

    def step(step: Step) -> Any:
        return step.run(train_op, run_metadata=run_metadata)

    return Loop(
        step=step,
        train_ops=(train_op,),
        # Hooks and session creator have to share the scaffold.
        scaffold=tf.compat.v1.train.Scaffold() if scaffold is None else scaffold,
        hooks=tuple(hooks or ()),
        chief_only_hooks=tuple(chief_only_hooks or ()),
        services=Services(
            save_checkpoint_secs=save_checkpoint_secs,
            save_summaries_steps=save_summaries_steps,
            log_rate_steps=LOG_STEP_COUNT_STEPS,
            mark_sessions=True,
        ),
        step_after=step_after,
        is_sync=_has_sync_hook([*(hooks or ()), *(chief_only_hooks or ())]),
    )


def _has_sync_hook(hooks: Sequence[Any]) -> bool:
    # The type of `SyncReplicasOptimizer.make_session_run_hook`'s result has no public name.
    return any("SyncReplicas" in type(hook).__name__ for hook in hooks)
