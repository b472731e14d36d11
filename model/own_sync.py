"""A model's own `SyncReplicasOptimizer`, which the service refuses."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..errors import UsageError
from .spec import TrainSpec

v1 = tf.compat.v1

_Sync = v1.train.SyncReplicasOptimizer
# Such an optimizer has a local variable of this name in each worker.
_LOCAL_STEP = "sync_rep_local_step"


def refuse_sync_replicas(spec: TrainSpec) -> None:
    """Refuses a `SyncReplicasOptimizer`, also inside another optimizer or a hook.

    Its workers would wait for the tokens of a chief of its own, and the service has none.

    Raises:
        UsageError: There is one.
    """
    given = [spec.optimizer, *spec.hooks, *tf.nest.flatten(list(spec.loop_args.values()))]
    if found := [each for one in given for each in _inside(one) if isinstance(each, _Sync)]:
        raise _refusal(vars(found[0]).get("_opt"))


def refuse_sync_steps() -> None:
    """Refuses a `SyncReplicasOptimizer` that has applied gradients in the current graph.

    Raises:
        UsageError: There is one.
    """
    if any(_LOCAL_STEP in variable.op.name for variable in v1.local_variables()):
        raise _refusal(None)


def _inside(given: Any, depth: int = 4) -> list[Any]:
    """Returns an optimizer or a hook, and the optimizers and hooks among its attributes."""
    kinds = (v1.train.Optimizer, v1.train.SessionRunHook)
    if not isinstance(given, kinds) or not depth:
        return []
    kept = [each for value in vars(given).values() for each in _inside(value, depth - 1)]
    return [given, *kept]


def _refusal(inner: Any) -> UsageError:
    inner = f"its {type(inner).__name__}" if inner is not None else "the optimizer inside it"
    return UsageError(
        "the model has a SyncReplicasOptimizer, but the service aggregates gradients itself "
        f"(--sync): give {inner} as TrainSpec.optimizer, without the hook of "
        "make_session_run_hook, and its replicas_to_aggregate as --replicas-to-aggregate"
    )
