"""Construction of the `Loop` that a `TrainSpec` names, for a task of the service."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..data_plane.tensors import Tensor, Variable
from ..errors import UsageError
from ..loops.learn import learn_loop
from ..loops.loop import Loop, LoopContext, TrainingOptions, training_loop
from ..loops.slim import pruning_loop
from ..loops.slim_options import SlimOptions
from .job_options import JobDefaults
from .spec import TrainSpec

# Arguments set by the service, which a model cannot give in `loop_args`.
_PLACED = frozenset(
    {"train_op", "loss_op", "global_step", "task", "sync_optimizer", "step_after", "options"}
)
# Arguments of pruning beside the options of the slim loop.
_MASKS = frozenset({"mask_update_op", "mask_update_on"})


def make_loop(
    spec: TrainSpec,
    *,
    train_op: Tensor,
    global_step: Variable,
    task: LoopContext,
    defaults: JobDefaults,
) -> Loop:
    """Makes the loop that `spec` names, in the current graph.

    Args:
        spec: The result of the build function.
        train_op: Scalar tensor: makes one step of a worker, and gives the loss from before it.
        global_step: The job's global step.
        task: The context of the loop.
        defaults: Values of arguments that the model omits.

    Raises:
        UsageError: `loop_args` has an argument that the loop does not take, or lacks one.
        ValueError: The loop refuses an argument.
    """
    if spec.loop == "learn":
        given = {
            "supervisor_save_model_secs": defaults.save_checkpoint_secs,
            "supervisor_save_summaries_steps": defaults.save_summaries_steps,
            "keep_checkpoint_max": defaults.keep_checkpoints,
            **_checked(spec, learn_loop),
        }
        return learn_loop(train_op, spec.loss, global_step=global_step, task=task, **given)
    if spec.loop == "model_pruning":
        given = {
            "save_interval_secs": defaults.save_checkpoint_secs,
            **_checked(spec, pruning_loop, SlimOptions),
        }
        masks = {name: given[name] for name in _MASKS & given.keys()}
        options = SlimOptions(**{name: given[name] for name in given.keys() - _MASKS})
        loop = pruning_loop(train_op, options=options, global_step=global_step, task=task, **masks)
        return loop if "save_summaries_secs" in given else _by_steps(loop, defaults)
    given = {
        "save_checkpoint_secs": defaults.save_checkpoint_secs,
        "save_summaries_steps": defaults.save_summaries_steps,
        **_checked(spec, TrainingOptions),
    }
    return training_loop(train_op, TrainingOptions(**given))


def _by_steps(loop: Loop, defaults: JobDefaults) -> Loop:
    """Applies the job's summary period in steps if the model gives no period in seconds."""
    services = loop.services
    if not services.save_summaries_secs:
        return loop  # There are none.
    steps = defaults.save_summaries_steps
    services = replace(services, save_summaries_secs=None, save_summaries_steps=steps)
    return replace(loop, services=services)


def _checked(spec: TrainSpec, *makers: Callable[..., Any]) -> Mapping[str, Any]:
    parameters = {
        name: parameter
        for make in makers
        for name, parameter in inspect.signature(make).parameters.items()
        if name not in _PLACED
    }
    unknown = sorted(set(spec.loop_args) - set(parameters))
    if unknown:
        raise UsageError(
            f"TrainSpec.loop_args[{unknown[0]!r}] is no argument of the loop {spec.loop!r} in the "
            f"service; it takes {', '.join(parameters)}"
        )
    needed = [name for name, each in parameters.items() if each.default is each.empty]
    missing = [name for name in needed if name not in spec.loop_args]
    if missing:
        raise UsageError(
            f"TrainSpec.loop_args lacks {missing[0]!r}, which the loop {spec.loop!r} needs"
        )
    return spec.loop_args
