"""The membership service: translates between messages and `Membership`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import grpc

from ...cluster.spec import ClusterView, Role, Task
from ...protos import membership_pb2 as pb
from ...protos.membership_pb2_grpc import MembershipServicer as Base
from ..membership.places import TaskHeld
from ..membership.registry import JobClosed
from ..membership.tasks import TaskRecord, TaskState
from ..recovery import PROCESS_GONE, is_refused
from ..state import JobState
from .status_codes import with_status_codes

# A waiter that asks for longer is answered after so long, and asks again.
MAX_WAIT_SECS = 30.0
# How often a watch looks whether its caller is still there.
WATCH_SECS = 1.0


class MembershipServicer(Base):
    """Serves a job's membership.

    Args:
        state: The job.
        config: What every task is told when it registers, with the number of parameter servers
            of that time.
        on_change: Called after a task has come, or a worker has gone.
    """

    def __init__(
        self, state: JobState, config: pb.JobConfig, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._state = state
        self._membership = state.membership
        self._config = config
        self._on_change = on_change

    @with_status_codes
    def Register(
        self, request: pb.RegisterRequest, context: grpc.ServicerContext
    ) -> pb.RegisterResponse:
        """Takes a task in."""
        try:
            task = self._register(request)
        except TaskHeld as held:
            if not self._lose_those_gone(held.holders, request.address):
                raise
            task = self._register(request)
        self._on_change()
        job = pb.JobConfig()
        job.CopyFrom(self._config)
        job.num_ps, job.layout = self._membership.num_ps, self._membership.layout
        return pb.RegisterResponse(task=pb.TaskId(role=task.role, index=task.index), job=job)

    @with_status_codes
    def Heartbeat(
        self, request: pb.HeartbeatRequest, context: grpc.ServicerContext
    ) -> pb.HeartbeatResponse:
        """Renews a lease."""
        task = _task(request.task)
        report = request.report if request.HasField("report") else None
        task = self._membership.heartbeat(task, request.incarnation, report)
        next_num_ps, next_layout = self._state.plan.next or (0, 0)
        return pb.HeartbeatResponse(
            next_num_ps=next_num_ps,
            next_layout=next_layout,
            generation=self._membership.generation,
            stop=self._membership.is_stopping(task),
            write_summaries=self._writes_summaries(task),
            task=pb.TaskId(role=task.role, index=task.index),
            leave_session=self._membership.session_to_leave(task),
        )

    @with_status_codes
    def AwaitReady(
        self, request: pb.AwaitReadyRequest, context: grpc.ServicerContext
    ) -> pb.AwaitReadyResponse:
        """Waits for an initialized model."""
        timeout = min(request.timeout_secs, MAX_WAIT_SECS)
        try:
            view = self._membership.await_ready(
                request.min_generation,
                timeout,
                lost_generation=request.lost_generation,
                before_ready=request.before_ready,
                task=_task(request.task),
            )
        except JobClosed:
            return pb.AwaitReadyResponse(stop=True)
        if view is None:
            return pb.AwaitReadyResponse(missing=self._membership.missing())
        return pb.AwaitReadyResponse(ready=True, view=_view_proto(view))

    def WatchGenerations(
        self, request: pb.WatchGenerationsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.GenerationOver]:
        """Says when a generation is over."""
        told = 0
        while context.is_active():
            over = self._membership.await_over(told, WATCH_SECS)
            if over > told:
                told = over
                yield pb.GenerationOver(generation=over)

    @with_status_codes
    def GiveNotice(
        self, request: pb.NoticeRequest, context: grpc.ServicerContext
    ) -> pb.NoticeResponse:
        """Keeps a task that has to go until what it holds is safe."""
        task, life = _task(request.task), request.incarnation
        self._state.notices.give(task, life, request.grace_secs)
        timeout = min(request.timeout_secs, MAX_WAIT_SECS)
        may_go = self._state.notices.await_release(task, life, timeout)
        if may_go:
            self._on_change()
        return pb.NoticeResponse(may_go=may_go)

    @with_status_codes
    def Leave(self, request: pb.LeaveRequest, context: grpc.ServicerContext) -> pb.LeaveResponse:
        """Lets a task go."""
        report = request.report if request.HasField("report") else None
        self._membership.leave(
            _task(request.task), request.incarnation, request.reason, request.error, report
        )
        self._on_change()
        return pb.LeaveResponse()

    @with_status_codes
    def WriteSummary(
        self, request: pb.WriteSummaryRequest, context: grpc.ServicerContext
    ) -> pb.WriteSummaryResponse:
        """Writes a worker's summaries."""
        if self._state.write_summary is not None:
            self._state.write_summary(request.summary, request.global_step)
        return pb.WriteSummaryResponse()

    def _register(self, request: pb.RegisterRequest) -> Task:
        return self._membership.register(
            Role.parse(request.role),
            address=request.address,
            incarnation=request.incarnation,
            index=request.index if request.HasField("index") else None,
            metrics_address=request.metrics_address,
            pid=request.pid,
            spare=request.spare,
        )

    def _lose_those_gone(self, holders: Sequence[TaskRecord], address: str) -> list[Task]:
        """Marks silent tasks as lost whose address another process has now, or no process."""
        silence_secs = 2 * self._config.heartbeat_secs
        return [
            task
            for record in holders
            if self._membership.heartbeat_age(record) > silence_secs
            and (record.address == address or is_refused(record.address))
            for task in self._membership.lose(record.incarnation, PROCESS_GONE)
        ]

    def _writes_summaries(self, task: Task) -> bool:
        """One worker is enough: the first that is up."""
        workers = self._membership.up(Role.WORKER)
        return bool(workers) and workers[0].task == task and workers[0].state is TaskState.UP


def _task(task: pb.TaskId) -> Task:
    return Task(Role.parse(task.role), task.index)


def _view_proto(view: ClusterView) -> pb.View:
    servers = [pb.ParameterServer(address=m.address, incarnation=m.incarnation) for m in view.ps]
    return pb.View(generation=view.generation, ps=servers, layout=view.layout)
