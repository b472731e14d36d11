"""The status service: what people and programs ask of a job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import grpc

from ...protos import status_pb2 as pb
from ...protos.status_pb2_grpc import StatusServicer as Base
from ..phases import Phase
from ..recovery import PROCESS_GONE
from ..state import JobState
from .job_status import job_status
from .status_codes import with_status_codes

log = logging.getLogger(__name__)


class StatusServicer(Base):
    """Serves the state of a job.

    Args:
        state: The job.
        on_change: Called when another number of tasks was asked for, or one was lost.
    """

    def __init__(self, state: JobState, on_change: Callable[[], None] = lambda: None) -> None:
        self._state = state
        self._on_change = on_change

    @with_status_codes
    def GetStatus(
        self, request: pb.GetStatusRequest, context: grpc.ServicerContext
    ) -> pb.JobStatus:
        """The status now."""
        return job_status(self._state)

    def WatchStatus(
        self, request: pb.WatchStatusRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.JobStatus]:
        """The status now and at each interval."""
        interval = max(0.05, request.interval_secs or 1.0)
        changed = self._state.membership.changed
        while context.is_active():
            status = job_status(self._state)
            yield status
            if Phase(status.phase).is_final:
                return
            with changed:
                changed.wait(interval)

    @with_status_codes
    def SaveCheckpoint(
        self, request: pb.SaveCheckpointRequest, context: grpc.ServicerContext
    ) -> pb.SaveCheckpointResponse:
        """Writes a checkpoint."""
        checkpoint = self._state.save_now()
        return pb.SaveCheckpointResponse(path=checkpoint.path, global_step=checkpoint.global_step)

    @with_status_codes
    def Stop(self, request: pb.StopRequest, context: grpc.ServicerContext) -> pb.StopResponse:
        """Ends the job."""
        self._state.request_stop(request.error)
        return pb.StopResponse()

    @with_status_codes
    def Scale(self, request: pb.ScaleRequest, context: grpc.ServicerContext) -> pb.ScaleResponse:
        """Asks for another number of workers or parameter servers."""
        self._state.plan.ask(
            workers=request.workers if request.HasField("workers") else None,
            ps=request.ps if request.HasField("ps") else None,
        )
        self._on_change()
        return pb.ScaleResponse()

    @with_status_codes
    def ReportEnded(
        self, request: pb.ReportEndedRequest, context: grpc.ServicerContext
    ) -> pb.ReportEndedResponse:
        """Takes tasks as lost whose process has ended."""
        for incarnation in request.incarnations:
            for task in self._state.membership.lose(incarnation, PROCESS_GONE):
                log.warning("%s is lost: its process has ended", task)
        self._on_change()
        return pb.ReportEndedResponse()
