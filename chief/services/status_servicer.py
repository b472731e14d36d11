"""The status service: the requests of people and programs to a job."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from ...protos import status_pb2 as pb
from ...protos.status_pb2_grpc import StatusServicer as Base
from ..paced_call import make_nothing
from ..recovery import PROCESS_GONE
from ..state import JobState, Phase
from .job_status import MOST_TASKS, job_status, list_tasks
from .limits import MAX_SAVES, MAX_WATCHERS, Limits, TooMuch
from .status_codes import status_code, with_status_codes
from .wakeups import Wakeups

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger(__name__)

# Between two statuses for one watcher.
SOONEST_SECS = 0.1
# For so long one status serves all watchers; longer in proportion for thousands of tasks.
SHARED_SECS = 0.05


class StatusServicer(Base):
    """Serves the state of a job.

    Args:
        state: The job.
        on_change: Awaited when another number of tasks was requested, or a task was lost, before
            the caller has its answer.
    """

    def __init__(
        self,
        state: JobState,
        on_change: Callable[[], Awaitable[None]] = make_nothing,
        limits: Limits | None = None,
    ) -> None:
        self._state = state
        self._limits = limits or Limits()
        self._saves = 0
        self._made, self._made_at = pb.JobStatus(), -math.inf
        self._on_change = on_change
        self._changes = Wakeups(state.membership.changed)

    @with_status_codes
    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.JobStatus:
        """Returns the present status."""
        is_large = self._state.membership.size > MOST_TASKS
        return self._status() if is_large else job_status(self._state)

    @with_status_codes
    async def ListTasks(self, request: pb.ListTasksRequest, context: Context) -> pb.TaskList:
        """Returns a page of the tasks."""
        return list_tasks(self._state, request.offset, request.limit)

    async def WatchStatus(
        self, request: pb.WatchStatusRequest, context: Context
    ) -> AsyncIterator[pb.JobStatus]:
        """Yields the status now and at each interval."""
        interval = max(0.05, request.interval_secs or 1.0)
        try:
            with self._limits.stream("watchers", context.peer(), MAX_WATCHERS):
                while True:
                    status = self._status()
                    yield status
                    if Phase(status.phase).is_final:
                        return
                    await self._await_news(interval)
        except TooMuch as error:
            await context.abort(status_code(error), str(error))

    def _status(self) -> pb.JobStatus:
        """Returns the status; a thousand watchers at the same moment get the same one."""
        now, phase = time.monotonic(), self._state.phase
        shared_secs = SHARED_SECS * (1 + self._state.membership.size / 1_000)
        if now - self._made_at > shared_secs or self._made.phase != phase:
            self._made, self._made_at = job_status(self._state), now
        return self._made

    async def _await_news(self, interval: float) -> None:
        """Waits for a change, at least for a moment; the end of the job ends every wait."""
        count, soonest = self._changes.count, min(interval, SOONEST_SECS)
        await self._changes.wait_for(lambda: self._state.phase.is_final or None, soonest)
        await self._changes.wait_beyond(count, interval - soonest)

    @with_status_codes
    async def SaveCheckpoint(
        self, request: pb.SaveCheckpointRequest, context: Context
    ) -> pb.SaveCheckpointResponse:
        """Writes a checkpoint."""
        self._limits.check(
            "checkpoints under way", self._saves + 1, MAX_SAVES, "wait for one of them"
        )
        self._saves += 1
        try:
            checkpoint = await asyncio.to_thread(self._state.save_now)
        finally:
            self._saves -= 1
        return pb.SaveCheckpointResponse(path=checkpoint.path, global_step=checkpoint.global_step)

    @with_status_codes
    async def Stop(self, request: pb.StopRequest, context: Context) -> pb.StopResponse:
        """Ends the job."""
        self._state.request_stop(request.error)
        return pb.StopResponse()

    @with_status_codes
    async def Scale(self, request: pb.ScaleRequest, context: Context) -> pb.ScaleResponse:
        """Asks for another number of workers or parameter servers."""
        self._state.plan.ask(
            workers=request.workers if request.HasField("workers") else None,
            ps=request.ps if request.HasField("ps") else None,
        )
        await self._on_change()
        return pb.ScaleResponse()

    @with_status_codes
    async def ReportEnded(
        self, request: pb.ReportEndedRequest, context: Context
    ) -> pb.ReportEndedResponse:
        """Marks tasks as lost whose process has ended."""
        for incarnation in request.incarnations:
            for task in self._state.membership.lose(incarnation, PROCESS_GONE):
                log.warning("%s is lost: its process has ended", task)
        await self._on_change()
        return pb.ReportEndedResponse()
