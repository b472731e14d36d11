"""The state of the job that the chief's main loop writes and its services read."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..cluster.signals import GRACE_SECS
from ..cluster.spec import Role
from ..data_plane.placement import ServerLoad
from ..data_plane.sync.tokens import SyncCounters
from ..data_plane.traffic import Traffic
from ..errors import JobFailed
from ..jobs.options import JobOptions
from ..protos import status_pb2 as pb
from .checkpoints.files import Checkpoint
from .checkpoints.holds import Holds
from .input.ledger import NoDataset, ShardLedger
from .membership.membership import Membership
from .membership.notices import Notices
from .membership.tasks import TaskRecord, TaskState
from .progress import Progress
from .resize.plan import ScaleTarget
from .stalls.stalls import StallWatch

# Ranges of records that a status lists.
MOST_SET_ASIDE = 100


class Phase(enum.StrEnum):
    """Where a job is.

    ::

        WAITING -> INITIALIZING -> TRAINING -> STOPPING -> EVALUATING -> DONE
                        ^             |
                        +- RECOVERING +      any of them -> FAILED
                        +-- SCALING --+
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


class NotTraining(Exception):
    """What was asked for needs an initialized model, and there is none now."""


@dataclass
class JobState:
    """One job, as people and programs may ask about it.

    Attributes:
        options: What the job was asked to do.
        job_id: Unique to this run.
        membership: Its tasks.
        progress: Its figures.
        ledger: Its input, if that is read in shards.
        holds: Holds its workers, in async mode, while the model is saved or moved.
        plan: How many workers and parameter servers are wanted.
        notices: Parameter servers that have to go soon.
        is_supervised: Whether somebody starts tasks again that are gone, the chief too.
        grace_secs: How long this process can stay once it is asked to end.
        is_handing_over: Whether it has to go, and another chief is to follow.
        stall_watch: Finds out that no step is made, over all generations.
        last_step: Global step at which training ends; None: when the input does.
        phase: Where it is.
        detail: For people: what it waits for, or why it failed.
        checkpoint: The newest one written or restored in this run.
        checkpoint_trouble: Why the newest one was not written or restored; empty when it was.
        save_checkpoint: Writes a checkpoint; set while the model is initialized.
        loads: What each parameter server holds, by its index.
        traffic: What crosses between it and a worker in a step, by its index.
        gradients: Sync mode: what became of the workers' gradients in this run.
        stop_requested: Set when someone asked for the end.
        stop_error: Why the job should end as failed; empty for a plain stop.
        lost_at: Monotonic time at which a parameter server was missed, until steps are made again.
        recoveries: Losses of parameter servers that this run has recovered from.
        recovery_secs: How long the newest recovery took, from the loss to the next step.
        recovered_step: The global step that it went back to.
        moved_at: Monotonic time at which a move to other parameter servers began, until steps are
            made again.
        resizes: Changes of the number of parameter servers in this run.
        resize_secs: How long steps stood still for the newest one.
        stall: Who makes no step and who waits for whom, for people; empty while steps are made.
        stalls: Stalls of this run.
        stepped_at: Monotonic time of the newest global step; None while the job does not train.
        restore_step: Gives the global step that a loss now would go back to.
    """

    options: JobOptions
    job_id: str
    membership: Membership
    progress: Progress = field(default_factory=Progress)
    last_step: int | None = None
    phase: Phase = Phase.WAITING
    detail: str = ""
    checkpoint: Checkpoint | None = None
    checkpoint_trouble: str = ""
    save_checkpoint: Callable[[], Checkpoint] | None = None
    write_summary: Callable[[bytes, int], None] | None = None
    loads: Mapping[int, ServerLoad] = field(default_factory=dict)
    traffic: Mapping[int, Traffic] = field(default_factory=dict)
    gradients: SyncCounters = field(default_factory=SyncCounters)
    stop_requested: threading.Event = field(default_factory=threading.Event)
    stop_error: str = ""
    started: float = field(default_factory=time.monotonic)
    lost_at: float | None = None
    recoveries: int = 0
    recovery_secs: float = 0.0
    recovered_step: int = 0
    stall: str = ""
    stalls: int = 0
    stepped_at: float | None = None
    restore_step: Callable[[], int] = lambda: 0
    moved_at: float | None = None
    resizes: int = 0
    resize_secs: float = 0.0

    is_supervised: bool = False
    grace_secs: float = GRACE_SECS
    is_handing_over: Callable[[], bool] = lambda: False

    ledger: ShardLedger = field(init=False)
    holds: Holds = field(init=False)
    notices: Notices = field(init=False)
    plan: ScaleTarget = field(init=False)
    stall_watch: StallWatch = field(init=False)

    def __post_init__(self) -> None:
        self.plan = ScaleTarget(self.options, self.membership.num_ps)
        self.notices = Notices(self.membership)
        self.ledger = ShardLedger(
            sync=self.options.sync, max_bad_records=self.options.max_bad_records
        )
        self.stall_watch = StallWatch(self.options.stall_secs, sync=self.options.sync)
        self.holds = Holds(
            lambda: {(r.task, r.incarnation) for r in self.membership.up(Role.WORKER)}
        )

    def recovered(self, secs: float, step: int) -> None:
        """Counts a loss that was recovered from."""
        self.recoveries += 1
        self.recovery_secs, self.recovered_step = secs, step

    def resized(self, secs: float) -> None:
        """Counts a change of the number of parameter servers, after which steps are made again."""
        self.moved_at = None
        self.resizes += 1
        self.resize_secs = secs

    @property
    def is_awaiting_step(self) -> bool:
        """Whether the first step after a loss or a move is awaited."""
        return self.lost_at is not None or self.moved_at is not None

    @property
    def secs_since_step(self) -> float:
        """Seconds since the newest global step; 0 while the job does not train."""
        return time.monotonic() - self.stepped_at if self.stepped_at is not None else 0.0

    def request_stop(self, error: str = "") -> None:
        """Asks the job to end; the first reason given stays."""
        if not self.stop_requested.is_set():
            self.stop_error = error
            self.stop_requested.set()

    def raise_if_failed(self) -> None:
        """Raises why the job has to end as failed, if it has to.

        Raises:
            JobFailed: A task said that the job cannot go on, or someone stopped it as failed.
        """
        for record in self.membership.failures():
            raise JobFailed(f"{record.task} failed: {record.error}")
        if self.stop_requested.is_set() and self.stop_error:
            raise JobFailed(self.stop_error)

    @property
    def is_ending(self) -> bool:
        """Whether someone asked for the end, or a task failed."""
        return self.stop_requested.is_set() or bool(self.membership.failures())

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
        """What of the input is set aside: the newest ranges, as in status.proto."""
        return [each.to_dict() for each in self.ledger.set_aside[-MOST_SET_ASIDE:]]

    def to_proto(self) -> pb.JobStatus:
        """The state as the status service gives it out."""
        progress = self.progress.snapshot
        status = pb.JobStatus(
            phase=self.phase,
            detail=self._detail(),
            generation=self.membership.generation,
            global_step=progress.global_step,
            max_steps=self.last_step or self.options.max_steps or 0,
            steps_per_second=progress.steps_per_second,
            examples_per_second=progress.examples_per_second,
            examples=progress.examples,
            recoveries=self.recoveries,
            recovery_secs=self.recovery_secs,
            recovered_step=self.recovered_step,
            restore_step=self.restore_step(),
            loss=progress.loss,
            metrics=progress.metrics,
            sync=self.options.sync,
            logdir=self.options.logdir,
            tasks=[self._task(record) for record in self.membership.records()],
            job_id=self.job_id,
            uptime_secs=time.monotonic() - self.started,
            gradients_applied=self.gradients.applied,
            gradients_dropped=self.gradients.dropped,
            tokens_reissued=self.gradients.reissued,
            wanted_workers=self.plan.workers,
            wanted_ps=self.plan.ps,
            num_ps=self.membership.num_ps,
            resizes=self.resizes,
            resize_secs=self.resize_secs,
            preemptions=self.membership.preemptions,
            stalls=self.stalls,
            secs_since_step=self.secs_since_step,
            bad_records=self.ledger.bad_records,
            set_aside=[pb.SetAside(**each) for each in self.newest_set_aside()],
        )
        if self.checkpoint is not None:
            status.checkpoint = self.checkpoint.path
            status.checkpoint_step = self.checkpoint.global_step
            status.checkpoint_time = self.checkpoint.written
        return status

    def _detail(self) -> str:
        if self.phase in (Phase.WAITING, Phase.RECOVERING, Phase.SCALING):
            return self.detail or self.membership.missing()
        return self.detail or self.stall or self.checkpoint_trouble or self._describe_input()

    def _describe_input(self) -> str:
        """How far the input is, where it is read in shards."""
        try:
            return self.ledger.progress.describe()
        except NoDataset:
            return ""

    def _task(self, record: TaskRecord) -> pb.TaskStatus:
        task, report = record.task, record.report
        age = self.membership.heartbeat_age(record) if record.state is TaskState.UP else 0.0
        status = pb.TaskStatus(
            role=task.role,
            index=task.index,
            state=record.state,
            address=record.address,
            metrics_address=record.metrics_address,
            pid=record.pid,
            heartbeat_age_secs=age,
            leaves_in_secs=self.notices.remaining_secs(record),
            local_steps=report.local_steps,
            examples=report.examples,
            loss=report.loss if report.HasField("loss") else None,
            recoveries=report.recoveries,
            error=record.error,
            incarnation=record.incarnation,
        )
        if task.role is Role.PS:
            self._add_load(status)
        return status

    def _add_load(self, status: pb.TaskStatus) -> None:
        load, traffic = self.loads.get(status.index), self.traffic.get(status.index)
        if load is not None:
            status.parameter_bytes = load.bytes
            status.variables = load.variables
            status.largest_variable = load.largest
            status.largest_variable_bytes = load.largest_bytes
        if traffic is not None:
            status.pulled_bytes = traffic.pulled_bytes
            status.pushed_bytes = traffic.pushed_bytes
            status.transfers = traffic.transfers
