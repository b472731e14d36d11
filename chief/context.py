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
    """How long this chief stays, and what follows.

    Attributes:
        is_supervised: Whether a supervisor starts tasks again that are gone, the chief too.
        grace_secs: How long this process can stay once it is asked to end.
        is_interrupted: Says whether the job is to end, or this process.
        is_handing_over: Says whether this process has to go, and another chief follows.
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
        tenure: How long this chief stays.
        storage: The log directory.
        summaries: Where events go.
        metrics: What Prometheus sees.
    """

    state: JobState
    tenure: Tenure
    storage: LogDirectory
    summaries: SummaryService
    metrics: ChiefMetrics
