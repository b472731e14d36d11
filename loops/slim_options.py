"""The arguments of the slim loop, which pruning shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar, cast

import tensorflow as tf

from .defaults import USE_DEFAULT
from .train_step import train_step

# Gets the session, the train op, the global step and the dictionary; returns the loss and whether
# to stop.
Options = TypeVar("Options")
TrainStepFunction = Callable[[Any, Any, Any, MutableMapping[str, Any]], tuple[Any, Any]]


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
