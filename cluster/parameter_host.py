"""`ParameterHost`: a worker's process that holds parameters, as a parameter server does."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from ..protos import membership_pb2 as pb
from .access import Access
from .applicant import Applicant
from .chief_client import MembershipClient
from .heartbeat import Heartbeat
from .notice import leave_on_notice
from .spec import Role, Task

log = logging.getLogger(__name__)


class ParameterHost:
    """This process's place among the parameter servers of a job.

    The process has a TensorFlow server already, and is in the job as something else; here it is
    in the job as a parameter server too, from `join` until `serve` returns. It knows no other
    task: sessions bring the cluster.

    Args:
        chief: `host:port` of the chief's control service.
        access: The token and TLS of calls to it.
        max_wait_secs: Seconds to wait for the place, and for the chief whenever it is silent.
    """

    def __init__(self, chief: str, access: Access, max_wait_secs: float) -> None:
        self._client = MembershipClient(chief, access)
        self._heartbeat = Heartbeat(self._client, max_silence_secs=max_wait_secs)
        self._max_wait_secs = max_wait_secs

    def join(self, index: int, address: str, incarnation: str, stop: threading.Event) -> Task:
        """Takes the place, as soon as its former holder is gone, and holds it.

        Args:
            index: The place, from 0.
            address: `host:port` of this process's TensorFlow server.
            incarnation: Incarnation of this process in the job: all its roles share one lease.
            stop: Set from outside to give up.

        Raises:
            WaitTimeout: The place was held by another process for `max_wait_secs`.
            JobFailed: The chief refused.
            JobStopping: The job is ending, or `stop` was set meanwhile.
        """
        applicant = Applicant(Role.PS, address, incarnation, index=index, pid=os.getpid())
        task = self._client.register(applicant, max_wait_secs=self._max_wait_secs, stop=stop).task
        self._heartbeat.start()
        log.info("%s is held here, on %s", task, address)
        return task

    def serve(self, stop: threading.Event, grace_secs: Callable[[], float]) -> None:
        """Holds the parameters until the chief ends the job, or releases it after `stop` is set.

        Args:
            stop: Set when this process is asked to end.
            grace_secs: Seconds that it can stay then.

        Raises:
            ParamserveError: The chief is gone, or declared this process lost.
        """
        while not (self._heartbeat.stopping.wait(0.2) or stop.is_set()):
            pass
        has_left = stop.is_set() and leave_on_notice(self._client, self._heartbeat, grace_secs())
        self._heartbeat.stop()
        if not has_left:
            self._heartbeat.check()
            self._client.leave(pb.LeaveRequest.DONE)
        self._client.close()
