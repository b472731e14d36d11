"""The state of the job that the chief's main loop writes and its services read."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..cluster.spec import Role
from ..errors import JobFailed
from ..protos import status_pb2 as pb
from .checkpoints import Checkpoint
from .membership import Membership, TaskRecord, TaskState
from .options import JobOptions
from .progress import Progress


class Phase(enum.StrEnum):
    """Where a job is.

    ::

        WAITING -> INITIALIZING -> TRAINING -> STOPPING -> EVALUATING -> DONE
                        ^             |
                        +- RECOVERING +      any of them -> FAILED
    """

    WAITING = "waiting"
    INITIALIZING = "initializing"
    TRAINING = "training"
    RECOVERING = "recovering"
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
        last_step: Global step at which training ends; None: when the input does.
        phase: Where it is.
        detail: For people: what it waits for, or why it failed.
        checkpoint: The newest one written or restored in this run.
        save_checkpoint: Writes a checkpoint; set while the model is initialized.
        bytes_per_ps: Bytes of variables and slots on each parameter server.
        stop_requested: Set when someone asked for the end.
        stop_error: Why the job should end as failed; empty for a plain stop.
    """

    options: JobOptions
    job_id: str
    membership: Membership
    progress: Progress = field(default_factory=Progress)
    last_step: int | None = None
    phase: Phase = Phase.WAITING
    detail: str = ""
    checkpoint: Checkpoint | None = None
    save_checkpoint: Callable[[], Checkpoint] | None = None
    write_summary: Callable[[bytes, int], None] | None = None
    bytes_per_ps: Mapping[int, int] = field(default_factory=dict)
    stop_requested: threading.Event = field(default_factory=threading.Event)
    stop_error: str = ""
    started: float = field(default_factory=time.monotonic)

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

    def to_proto(self) -> pb.JobStatus:
        """The state as the status service gives it out."""
        progress = self.progress.snapshot
        status = pb.JobStatus(
            phase=self.phase,
            detail=self._detail(),
            epoch=self.membership.epoch,
            global_step=progress.global_step,
            max_steps=self.last_step or self.options.max_steps or 0,
            steps_per_second=progress.steps_per_second,
            examples_per_second=progress.examples_per_second,
            examples=progress.examples,
            loss=progress.loss,
            metrics=progress.metrics,
            sync=self.options.sync,
            logdir=self.options.logdir,
            tasks=[self._task(record) for record in self.membership.records()],
            job_id=self.job_id,
            uptime_secs=time.monotonic() - self.started,
        )
        if self.checkpoint is not None:
            status.checkpoint = self.checkpoint.path
            status.checkpoint_step = self.checkpoint.global_step
            status.checkpoint_time = self.checkpoint.written
        return status

    def _detail(self) -> str:
        if self.detail or self.phase not in (Phase.WAITING, Phase.RECOVERING):
            return self.detail
        return self.membership.missing()

    def _task(self, record: TaskRecord) -> pb.TaskStatus:
        task, report = record.task, record.report
        age = self.membership.heartbeat_age(record) if record.state is TaskState.UP else 0.0
        is_ps = task.role is Role.PS
        return pb.TaskStatus(
            role=task.role,
            index=task.index,
            state=record.state,
            address=record.address,
            metrics_address=record.metrics_address,
            pid=record.pid,
            heartbeat_age_secs=age,
            local_steps=report.local_steps,
            examples=report.examples,
            loss=report.loss if report.HasField("loss") else None,
            recoveries=report.recoveries,
            error=record.error,
            parameter_bytes=self.bytes_per_ps.get(task.index, 0) if is_ps else 0,
        )
