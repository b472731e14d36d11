"""The parts of a chief that every generation of its job shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..cluster.logdir.interface import LogDirectory
from .metrics import ChiefMetrics
from .state import JobState
from .summaries import SummaryService


@dataclass(frozen=True)
class Tenure:
    """The end of this chief's stay, and the next chief.

    Attributes:
        is_supervised: True if a supervisor restarts lost tasks, the chief too.
        grace_secs: Seconds that this process can stay once it is asked to end.
        is_interrupted: Returns whether the job is to end, or this process.
        is_handing_over: Returns whether this process has to leave, and another chief follows.
    """

    is_supervised: bool
    grace_secs: float
    is_interrupted: Callable[[], bool]
    is_handing_over: Callable[[], bool]


@dataclass(frozen=True)
class JobContext:
    """The job and the services around it.

    Attributes:
        state: The job.
        tenure: The end of this chief's stay.
        storage: The log directory.
        summaries: The events of the job.
        metrics: Metrics for Prometheus.
    """

    state: JobState
    tenure: Tenure
    storage: LogDirectory
    summaries: SummaryService
    metrics: ChiefMetrics
