"""The membership service: translates between messages and `Membership`."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import grpc

from ...cluster.applicant import Applicant
from ...cluster.spec import ClusterView, Role, Task
from ...protos import membership_pb2 as pb
from ...protos.membership_pb2_grpc import MembershipServicer as Base
from ..membership.membership import Wanted
from ..membership.places import TaskHeld
from ..membership.registry import JobClosed
from ..membership.tasks import TaskRecord
from ..paced_call import make_nothing
from ..recovery import PROCESS_GONE, is_refused
from ..state import JobState
from .attendance import Attendance
from .limits import MAX_SUMMARY_BYTES, MAX_TASKS, Limits
from .status_codes import with_status_codes
from .wakeups import Wakeups

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

# A waiter that asks for longer is answered after so long, and asks again.
MAX_WAIT_SECS = 30.0
# For so long the text of what is missing stays as it is.
MISSING_SECS = 0.2


class MembershipServicer(Base):
    """Serves a job's membership.

    Args:
        state: The job.
        config: The settings for every task that registers, with the number of parameter servers of
            that time.
        on_change: Awaited after a task has joined or left, before the task has its answer: the next
            chief has to know of it.
    """

    def __init__(
        self,
        state: JobState,
        config: pb.JobConfig,
        on_change: Callable[[], Awaitable[None]] = make_nothing,
        limits: Limits | None = None,
    ) -> None:
        self._state = state
        self._membership = state.membership
        self._config = config
        self._on_change = on_change
        membership = state.membership
        self._limits = limits or Limits()
        self._attendance = Attendance(state, self._limits)
        self._told_view: ClusterView | None = None
        self._answer = pb.AwaitReadyResponse()
        self._missing_text, self._missing_at = "", -math.inf
        self._readiness = Wakeups(membership.changed, lambda: membership.readiness)

    @with_status_codes
    async def Register(self, request: pb.RegisterRequest, context: Context) -> pb.RegisterResponse:
        """Takes a task in."""
        self._limits.check_size(request.ByteSize())
        tasks = self._membership.size + 1
        self._limits.check("registered tasks", tasks, MAX_TASKS, "start a job of its own for more")
        try:
            task = self._register(request)
        except TaskHeld as held:
            if not await asyncio.to_thread(self._lose_those_gone, held.holders, request.address):
                raise
            task = self._register(request)
        await self._on_change()
        job = pb.JobConfig()
        job.CopyFrom(self._config)
        job.num_ps, job.layout = self._membership.num_ps, self._membership.layout
        return pb.RegisterResponse(task=pb.TaskId(role=task.role, index=task.index), job=job)

    @with_status_codes
    async def Attend(
        self, request_iterator: AsyncIterator[pb.TaskReport], context: Context
    ) -> None:
        """Keeps a task in the job, and tells it the news."""
        await self._attendance.attend(request_iterator, context)

    def end_streams(self) -> None:
        """Ends the streams of all tasks; to be called in the server's loop."""
        self._attendance.end_all()

    @with_status_codes
    async def AwaitReady(
        self, request: pb.AwaitReadyRequest, context: Context
    ) -> pb.AwaitReadyResponse:
        """Waits for an initialized model."""
        wanted = Wanted(
            request.min_generation,
            lost_generation=request.lost_generation,
            before_ready=request.before_ready,
            task=_task(request.task),
        )
        timeout_secs = min(request.timeout_secs, MAX_WAIT_SECS)
        self._membership.note_wanted(wanted)
        try:
            view = await self._readiness.wait_for(
                lambda: self._membership.find_ready(wanted), timeout_secs
            )
        except JobClosed:
            return pb.AwaitReadyResponse(stop=True)
        if view is None:
            return pb.AwaitReadyResponse(missing=self._missing())
        return self._ready(view)

    @with_status_codes
    async def GiveNotice(self, request: pb.NoticeRequest, context: Context) -> pb.NoticeResponse:
        """Keeps a task with a notice until its part of the model is safe."""
        task, life = _task(request.task), request.incarnation
        self._state.notices.give(task, life, request.grace_secs)
        may_go = self._state.notices.is_released(task, life)
        if may_go:
            await self._on_change()
        return pb.NoticeResponse(may_go=may_go)

    @with_status_codes
    async def Leave(self, request: pb.LeaveRequest, context: Context) -> pb.LeaveResponse:
        """Records that a task leaves."""
        self._limits.check_size(request.ByteSize())
        report = request.report if request.HasField("report") else None
        self._membership.leave(
            _task(request.task), request.incarnation, request.reason, request.error, report
        )
        await self._on_change()
        return pb.LeaveResponse()

    @with_status_codes
    async def WriteSummary(
        self, request: pb.WriteSummaryRequest, context: Context
    ) -> pb.WriteSummaryResponse:
        """Writes a worker's summaries."""
        self._limits.check_size(request.ByteSize(), MAX_SUMMARY_BYTES)
        if self._state.write_summary is not None:
            self._state.write_summary(request.summary, request.global_step)
        return pb.WriteSummaryResponse()

    def _ready(self, view: ClusterView) -> pb.AwaitReadyResponse:
        """Returns the answer with a view; thousands of tasks get the same one."""
        if self._told_view is not view:
            self._told_view = view
            self._answer = pb.AwaitReadyResponse(ready=True, view=_view_proto(view))
        return self._answer

    def _missing(self) -> str:
        now = time.monotonic()
        if now - self._missing_at > MISSING_SECS:
            self._missing_text, self._missing_at = self._membership.missing(), now
        return self._missing_text

    def _register(self, request: pb.RegisterRequest) -> Task:
        applicant = Applicant(
            Role.parse(request.role),
            address=request.address,
            incarnation=request.incarnation,
            index=request.index if request.HasField("index") else None,
            metrics_address=request.metrics_address,
            pid=request.pid,
            spare=request.spare,
        )
        return self._membership.register(applicant)

    def _lose_those_gone(self, holders: Sequence[TaskRecord], address: str) -> list[Task]:
        """Marks silent tasks as lost if another process, or none, has their address now."""
        silence_secs = 2 * self._config.heartbeat_secs
        return [
            task
            for record in holders
            if self._membership.heartbeat_age(record) > silence_secs
            and (record.address == address or is_refused(record.address))
            for task in self._membership.lose(record.incarnation, PROCESS_GONE)
        ]


def _task(task: pb.TaskId) -> Task:
    return Task(Role.parse(task.role), task.index)


def _view_proto(view: ClusterView) -> pb.View:
    servers = [pb.ParameterServer(address=m.address, incarnation=m.incarnation) for m in view.ps]
    return pb.View(generation=view.generation, ps=servers, layout=view.layout)
