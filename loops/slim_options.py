"""The arguments of the slim loop, which pruning shares, and those of its step function."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, cast

import tensorflow as tf

from .loop import LoopContext
from .train_step import Decision, EveryN, train_step

Options = TypeVar("Options")
# Gets the session, the train op, the global step and the dictionary; returns the loss and whether
# to stop.
TrainStepFunction = Callable[[Any, Any, Any, MutableMapping[str, Any]], tuple[Any, Any]]
v1 = tf.compat.v1


class Default(enum.Enum):
    """The only value of its type, so that nothing else is taken for it."""

    USE_DEFAULT = "default"

    def __repr__(self) -> str:
        # As the original's documents write it in signatures.
        return "_USE_DEFAULT"


USE_DEFAULT = Default.USE_DEFAULT


def is_default(value: Any) -> bool:
    """Returns whether an argument has its default; 0 counts as default, for old programs."""
    # A tensor or variable is never compared: that would add to the graph, or fail.
    return value is USE_DEFAULT or (isinstance(value, int) and value == 0)


@dataclass(frozen=True, kw_only=True)
class SlimOptions:
    """The caller's options of the loop; see `contrib.slim.learning.train` for each argument.

    The original fixes the signatures of both `train` functions, so these name the arguments, too.
    """

    train_step_fn: TrainStepFunction = train_step
    train_step_kwargs: Any = USE_DEFAULT
    log_every_n_steps: int | None = 1
    number_of_steps: int | None = None
    init_op: Any = USE_DEFAULT
    init_feed_dict: Any = None
    local_init_op: Any = USE_DEFAULT
    init_fn: Callable[[tf.compat.v1.Session], Any] | None = None
    ready_op: Any = USE_DEFAULT
    summary_op: Any = USE_DEFAULT
    save_summaries_secs: float | None = 600
    summary_writer: Any = USE_DEFAULT
    startup_delay_steps: int = 0
    saver: Any = None
    save_interval_secs: float | None = 600
    sync_optimizer: Any = None
    trace_every_n_steps: int | None = None


def among(kind: type[Options], arguments: Mapping[str, Any]) -> Options:
    """Makes a dataclass of those of a call's arguments that it has as fields."""
    names = [each.name for each in fields(cast(Any, kind))]
    return kind(**{name: arguments[name] for name in names if name in arguments})


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
