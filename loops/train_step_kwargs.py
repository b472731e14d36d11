"""The dictionary that the slim loop hands to its step function by default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from .defaults import is_default
from .loop import LoopContext
from .slim_options import SlimOptions
from .step_session import Decision
from .train_step import EveryN

v1 = tf.compat.v1


@dataclass(frozen=True)
class TrainStepKwargs:
    """The `train_step_kwargs` of a step function.

    Attributes:
        values: The dictionary itself: the loop's, or the caller's.
        decisions: Functions that compute the loop's own condition tensors at a global step without
            a run, by `Tensor.ref()`.
    """

    values: dict[str, Any]
    decisions: dict[Any, Decision] = field(default_factory=dict)


def make_train_step_kwargs(
    options: SlimOptions, *, global_step: Any, task: LoopContext
) -> TrainStepKwargs:
    """Makes the dictionary, or completes the caller's; see `contrib.slim.learning.train`.

    The caller's own gets nothing but "summary_writer".
    """
    given, writer = options.train_step_kwargs, options.summary_writer
    made = TrainStepKwargs({} if given is None or is_default(given) else given)
    if is_default(given):
        with v1.name_scope("train_step"):
            _add_should_stop(made, global_step, options.number_of_steps)
            if (log_every := options.log_every_n_steps) and log_every > 0:
                _add_cadence(made, "should_log", global_step, log_every)
            if task.is_chief and task.logdir and options.trace_every_n_steps is not None:
                _add_cadence(made, "should_trace", global_step, options.trace_every_n_steps)
                made.values["logdir"] = task.logdir
    if writer is not None:
        has_writer = task.is_chief and not is_default(writer)
        made.values["summary_writer"] = writer if has_writer else None
    return made


def _add_should_stop(made: TrainStepKwargs, global_step: Any, limit: int | None) -> None:
    should_stop = tf.constant(False) if limit is None else tf.greater_equal(global_step, limit)
    made.values["should_stop"] = should_stop
    made.decisions[should_stop.ref()] = lambda step: limit is not None and step >= limit


def _add_cadence(made: TrainStepKwargs, name: str, global_step: Any, every: int) -> None:
    is_due = tf.equal(tf.math.floormod(global_step, every), 0)
    made.values[name] = is_due
    made.decisions[is_due.ref()] = EveryN(every).is_due
