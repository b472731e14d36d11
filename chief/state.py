"""The state of the job that the chief writes and its services read, its phases and context."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..cluster.logdir.interface import LogDirectory
from ..cluster.spec import Role
from ..data_plane.placement import ServerLoad
from ..data_plane.sync.tokens import SyncCounters
from ..data_plane.traffic import Traffic
from ..errors import JobFailed
from ..jobs.options import JobOptions
from .checkpoints.files import Checkpoint
from .checkpoints.holds import Holds
from .control_figures import ControlFigures
from .input.failures import Failures
from .input.ledger import ShardLedger
from .membership.membership import Membership
from .membership.notices import Notices
from .metrics import ChiefMetrics
from .progress import Interruptions, Progress
from .resize.scaling import ScaleTarget
from .stalls.figures import StallFigures
from .stalls.stalls import StallWatch
from .summaries import SummaryService

# Ranges of records that a status lists.
MOST_SET_ASIDE = 100


class Phase(enum.StrEnum):
    """The phase of a job, as the status names it.

    ::

        WAITING -> INITIALIZING -> TRAINING -> STOPPING -> EVALUATING -> DONE
                     ^     ^           |
                     |     +- SCALING -+
                     |
                     +- RECOVERING <- WAITING, INITIALIZING, TRAINING, SCALING, STOPPING

        WAITING, RECOVERING, SCALING, STOPPING -> DONE: a stop, without an evaluation
        any of them -> FAILED
    """

    WAITING = "waiting"
    INITIALIZING = "initializing"
    TRAINING = "training"
    RECOVERING = "recovering"
    SCALING = "scaling"
    STOPPING = "stopping"
    EVALUATING = "evaluating"
    DONE = "done"
    FAILED = "failed"

    def enter(self, following: Phase) -> Phase:
        """Returns the phase that follows, which may be this one.

        Raises:
            IllegalTransition: A job in this phase cannot enter that one.
        """
        if following not in (self, Phase.FAILED) and following not in _FOLLOWING[self]:
            raise IllegalTransition(f"a job that is {self} cannot become {following}")
        return following

    @property
    def is_final(self) -> bool:
        """True if the job has ended."""
        return self in (Phase.DONE, Phase.FAILED)


class IllegalTransition(RuntimeError):
    """A phase was to follow another that it cannot follow: a defect of the chief."""


_FOLLOWING: dict[Phase, tuple[Phase, ...]] = {
    Phase.WAITING: (Phase.INITIALIZING, Phase.RECOVERING, Phase.DONE),
    Phase.INITIALIZING: (Phase.TRAINING, Phase.RECOVERING),
    Phase.TRAINING: (Phase.STOPPING, Phase.RECOVERING, Phase.SCALING),
    Phase.RECOVERING: (Phase.INITIALIZING, Phase.DONE),
    Phase.SCALING: (Phase.INITIALIZING, Phase.RECOVERING, Phase.DONE),
    Phase.STOPPING: (Phase.EVALUATING, Phase.RECOVERING, Phase.DONE),
    Phase.EVALUATING: (Phase.DONE,),
    Phase.DONE: (),
    Phase.FAILED: (),
}


class NotTraining(Exception):
    """A request that needs an initialized model, while there is none."""


@dataclass
class JobState:
    """One job, in the form that people and programs may ask about.

    The phase changes by `enter` alone, and only as `Phase` draws it.

    Attributes:
        options: The options of the job.
        job_id: Unique to this run.
        membership: Its tasks.
        progress: Its figures.
        interruptions: Its losses and moves.
        stalls: Its newest step and its stalls.
        control: Whether the chief keeps up with its tasks.
        gradients: Sync mode: the counts of the workers' gradients in this run.
        ledger: Its input, if that is read in shards.
        holds: Holds its workers, in async mode, while the model is saved or moved.
        plan: The wanted numbers of workers and parameter servers.
        notices: Parameter servers that have to leave soon.
        stall_watch: Detects stalls, over all generations.
        last_step: Global step at which training ends; None: when the input does.
        detail: For people: the awaited tasks, or the reason of a failure.
        checkpoint: The newest one written or restored in this run.
        checkpoint_trouble: The error of the newest save or restore; empty if it succeeded.
        save_checkpoint: Writes a checkpoint; set while the model is initialized.
        write_summary: Writes a worker's summaries, given those and their global step.
        restore_step: Returns the global step to which a loss now would return.
        loads: The load of each parameter server, by its index.
        traffic: Traffic between it and a worker in a step, by its index.
    """

    options: JobOptions
    job_id: str
    membership: Membership
    progress: Progress = field(default_factory=Progress)
    interruptions: Interruptions = field(default_factory=Interruptions)
    stalls: StallFigures = field(default_factory=StallFigures)
    control: ControlFigures = field(default_factory=ControlFigures)
    gradients: SyncCounters = field(default_factory=SyncCounters)
    started: float = field(default_factory=time.monotonic)
    last_step: int | None = None
    detail: str = ""
    checkpoint: Checkpoint | None = None
    checkpoint_trouble: str = ""
    save_checkpoint: Callable[[], Checkpoint] | None = None
    write_summary: Callable[[bytes, int], None] | None = None
    restore_step: Callable[[], int] = lambda: 0
    loads: Mapping[int, ServerLoad] = field(default_factory=dict)
    traffic: Mapping[int, Traffic] = field(default_factory=dict)

    ledger: ShardLedger = field(init=False)
    holds: Holds = field(init=False)
    notices: Notices = field(init=False)
    plan: ScaleTarget = field(init=False)
    stall_watch: StallWatch = field(init=False)

    def __post_init__(self) -> None:
        self._phase = Phase.WAITING
        self._stop_requested = threading.Event()
        self._stop_error = ""
        self.plan = ScaleTarget(self.options, self.membership.num_ps)
        self.notices = Notices(self.membership)
        self.ledger = ShardLedger(
            sync=self.options.sync, failures=Failures(self.options.max_bad_records)
        )
        self.stall_watch = StallWatch(self.options.stall_secs, sync=self.options.sync)
        self.holds = Holds(
            lambda: {(r.task, r.incarnation) for r in self.membership.up(Role.WORKER)}
        )

    @property
    def phase(self) -> Phase:
        """The phase of the job."""
        return self._phase

    def enter(self, phase: Phase) -> None:
        """Enters a phase.

        Raises:
            IllegalTransition: It cannot follow the present one.
        """
        self._phase = self._phase.enter(phase)

    def request_stop(self, error: str = "") -> None:
        """Requests the end of the job; the first reason given stays.

        Args:
            error: The reason of a failure; empty for a plain stop.
        """
        if not self._stop_requested.is_set():
            self._stop_error = error
            self._stop_requested.set()

    def raise_if_failed(self) -> None:
        """Raises the reason if the job has to end as failed.

        Raises:
            JobFailed: A task reported that the job cannot continue, or the job was stopped as
                failed.
        """
        for record in self.membership.failures():
            raise JobFailed(f"{record.task} failed: {record.error}")
        if self._stop_requested.is_set() and self._stop_error:
            raise JobFailed(self._stop_error)

    @property
    def is_ending(self) -> bool:
        """True if the end was requested, or a task failed."""
        return self._stop_requested.is_set() or bool(self.membership.failures())

    def save_now(self) -> Checkpoint:
        """Writes a checkpoint.

        Raises:
            NotTraining: The model is not initialized at present.
            JobFailed: It could not be written.
        """
        save = self.save_checkpoint
        if save is None:
            raise NotTraining(f"the job is {self.phase}, there is no model to save")
        return save()

    def newest_set_aside(self) -> list[dict[str, Any]]:
        """Returns the input set aside: the newest ranges, as in status.proto."""
        return [each.to_dict() for each in self.ledger.failures.set_aside[-MOST_SET_ASIDE:]]


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
