"""`MembershipClient`: the client of parameter servers and workers for the chief's service."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import grpc

from ..errors import JobFailed, UsageError, WaitTimeout
from ..protos import membership_pb2 as pb
from ..protos.membership_pb2_grpc import MembershipStub
from .access import Access
from .applicant import Applicant
from .diagnosis import diagnose
from .spec import ClusterView, Member, Role, Task
from .token import Right

log = logging.getLogger(__name__)

CALL_TIMEOUT_SECS = 10.0
_SHORTEST_CALL_SECS = 1.0
# AwaitReady is called again after so many seconds, so that no call lasts for hours.
POLL_SECS = 5.0
LEAVE_SECS = 15.0
_NOBODY_THERE = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)
_REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_OPEN = Access()
# Calls that have just begun may end at a chief that has moved.
_LINGER_SECS = 0.2


def new_incarnation() -> str:
    """Returns a name for one life of a process."""
    return uuid.uuid4().hex


class JobStopping(Exception):
    """The job is ending, so it will not become ready."""


class LeaseLost(Exception):
    """The chief declared this task lost; it has to register again."""


@dataclass(frozen=True)
class Registration:
    """The chief's answer to a task that joins."""

    task: Task
    incarnation: str
    job: pb.JobConfig


class MembershipClient:
    """One task's side of the membership service.

    Args:
        address: `host:port` of the chief.
        access: The token and TLS of its calls.

    Example::

        client = MembershipClient("localhost:7077")
        applicant = Applicant(Role.WORKER, server.address, new_incarnation())
        client.register(applicant, max_wait_secs=60.0)
        view = client.await_ready(min_generation=1, max_wait_secs=600.0)
    """

    def __init__(self, address: str, access: Access = _OPEN) -> None:
        self._access = access
        self._connect(address)
        self._registration: Registration | None = None

    def _connect(self, address: str) -> None:
        self.address = address
        self._channel = self.open_channel()
        self._stub = MembershipStub(self._channel)

    def open_channel(self) -> grpc.Channel:
        """Returns one more channel to the same chief."""
        return self._access.open_channel(self.address, Right.MEMBER)

    def turn_to(self, address: str) -> None:
        """Asks the chief at another address from now on: the same job's, which has moved."""
        log.warning("the chief is at %s now, it was at %s", address, self.address)
        former = self._channel
        self._connect(address)
        # Ends the calls that still wait for an answer there, after a pause for calls just begun.
        timer = threading.Timer(_LINGER_SECS, former.close)
        timer.daemon = True
        timer.start()

    @property
    def call_timeout_secs(self) -> float:
        """Bound of an answer in seconds: a chief that has moved is found within a lease."""
        lease_secs = self.registration.job.lease_secs
        return min(CALL_TIMEOUT_SECS, max(_SHORTEST_CALL_SECS, lease_secs / 2))

    @property
    def registration(self) -> Registration:
        """The task's registration; asking for it before `register` is an error of the caller."""
        if self._registration is None:
            raise RuntimeError("not registered yet: call register() first")
        return self._registration

    def register(
        self, applicant: Applicant, *, max_wait_secs: float, stop: threading.Event | None = None
    ) -> Registration:
        """Joins the job, waiting for the chief and for a place in it.

        Raises:
            WaitTimeout: No chief answered, or the place was held by another task, for
                `max_wait_secs`.
            JobFailed: The chief refused.
            UsageError: The chief refused the token or certificate, or serves in another way.
            JobStopping: The job is ending, or `stop` was set meanwhile.
        """
        request = pb.RegisterRequest(**asdict(applicant))
        reply = self._register(request, max_wait_secs, stop or threading.Event())
        task = Task(Role(reply.task.role), reply.task.index)
        self._registration = Registration(task, applicant.incarnation, reply.job)
        return self._registration

    def _register(
        self, request: pb.RegisterRequest, max_wait_secs: float, stop: threading.Event
    ) -> pb.RegisterResponse:
        deadline = time.monotonic() + max_wait_secs
        last = "nothing listens there"
        while not stop.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeout(
                    f"max_wait_secs={max_wait_secs:g} ran out: the chief at {self.address} did not "
                    f"take this {request.role} in ({last}); is the chief running, and is --chief "
                    "right?"
                )
            try:
                timeout = min(left, POLL_SECS)
                return self._stub.Register(request, timeout=timeout, wait_for_ready=True)
            except grpc.RpcError as error:
                code, details = error.code(), error.details()
                if code == grpc.StatusCode.FAILED_PRECONDITION:
                    raise JobStopping(details) from error
                if code == grpc.StatusCode.ALREADY_EXISTS:
                    last = str(details)
                    stop.wait(min(0.5, left))
                elif code in _REFUSED:
                    raise UsageError(f"the chief at {self.address} refused: {details}") from error
                elif code not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                    raise JobFailed(f"the chief at {self.address} refused: {details}") from error
                elif reason := diagnose(self.address, self._access):
                    raise UsageError(reason) from error
        raise JobStopping

    def attend(self, reports: Iterator[pb.TaskReport]) -> Any:
        """Opens the stream that keeps this task in its job; see `Heartbeat`.

        Args:
            reports: The reports of the task; the stream takes them from a thread of gRPC's.

        Returns:
            The call: an iterator of `pb.TaskNews` that can be cancelled.
        """
        return self._stub.Attend(reports)

    def task_report(
        self, report: pb.WorkerReport | None, hears_holds: bool = False, answered_hold: int = 0
    ) -> pb.TaskReport:
        """Returns this task's heartbeat."""
        return pb.TaskReport(
            task=self._task(),
            incarnation=self.registration.incarnation,
            report=report,
            hears_holds=hears_holds,
            answered_hold=answered_hold,
        )

    def note_task(self, named: pb.TaskId) -> None:
        """Records the chief's name of this task: a spare may take the place of a lost server."""
        task = self.registration.task
        if (named.role, named.index) != (task.role, task.index):
            now = Task(Role(named.role), named.index)
            log.info("%s is %s now", task, now)
            self._registration = replace(self.registration, task=now)

    def await_ready(
        self,
        *,
        min_generation: int,
        max_wait_secs: float,
        lost_generation: int = 0,
        before_ready: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> ClusterView:
        """Waits until the model is initialized on the parameter servers of a new enough generation.

        Args:
            min_generation: The oldest generation of use to the caller.
            max_wait_secs: Seconds to wait at most.
            lost_generation: The generation in which the caller's session broke, for the chief to
                look into; 0: none did.
            before_ready: Whether to return as soon as the servers of a later generation are there;
                the caller asks again before it uses the model.
            cancelled: Called now and then; True ends the wait.

        Raises:
            WaitTimeout: Time ran out; the message names the missing part.
            JobStopping: The job is ending, or `cancelled` returned True.
        """
        deadline = time.monotonic() + max_wait_secs
        missing = f"no answer from the chief at {self.address}"
        while not cancelled():
            left = deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeout(f"max_wait_secs={max_wait_secs:g} ran out: {missing}")
            wait = min(left, POLL_SECS)
            request = pb.AwaitReadyRequest(
                task=self._task(),
                min_generation=min_generation,
                timeout_secs=wait,
                lost_generation=lost_generation,
                before_ready=before_ready,
            )
            try:
                # The server answers within `wait`; the margin is for a chief that is busy.
                reply = self._stub.AwaitReady(request, timeout=wait + 0.5, wait_for_ready=True)
            except grpc.RpcError as error:
                missing = f"the chief at {self.address} does not answer ({error.details()})"
                time.sleep(min(0.2, left))
                continue
            if reply.stop:
                break
            if reply.ready:
                return _view(reply.view)
            missing = reply.missing
        raise JobStopping

    def give_notice(self, grace_secs: float, timeout_secs: float) -> bool:
        """Gives the chief notice of this task; returns whether it may leave at once.

        Otherwise the news tell when; see `leave_on_notice`.

        Args:
            grace_secs: Seconds until it leaves in any case.
            timeout_secs: How long to wait for the chief's answer.

        Raises:
            grpc.RpcError: The chief did not answer.
        """
        request = pb.NoticeRequest(
            task=self._task(), incarnation=self.registration.incarnation, grace_secs=grace_secs
        )
        reply = self._stub.GiveNotice(request, timeout=timeout_secs, wait_for_ready=True)
        return bool(reply.may_go)

    def leave(
        self,
        reason: pb.LeaveRequest.Reason,
        error: str = "",
        report: pb.WorkerReport | None = None,
        max_wait_secs: float = LEAVE_SECS,
    ) -> None:
        """Leaves the job; it is no error if the chief is gone, or silent for `max_wait_secs`."""
        request = pb.LeaveRequest(
            task=self._task(),
            incarnation=self.registration.incarnation,
            reason=reason,
            error=error,
            report=report,
        )
        # A chief that was killed may be back in a moment, and would take the task as lost.
        deadline = time.monotonic() + max_wait_secs
        while True:
            try:
                self._stub.Leave(request, timeout=min(CALL_TIMEOUT_SECS, max(max_wait_secs, 0.1)))
                return
            except grpc.RpcError as failure:
                if failure.code() not in _NOBODY_THERE:
                    raise
            if time.monotonic() > deadline:
                return
            time.sleep(0.2)

    def write_summary(self, global_step: int, summary: bytes) -> None:
        """Sends the chief a serialized `tf.Summary`; its loss is no error."""
        request = pb.WriteSummaryRequest(
            task=self._task(), global_step=global_step, summary=summary
        )
        call = self._stub.WriteSummary.future(request, timeout=CALL_TIMEOUT_SECS)
        call.add_done_callback(lambda _: None)  # Keeps it: gRPC cancels a call without references.

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def _task(self) -> pb.TaskId:
        task = self.registration.task
        return pb.TaskId(role=task.role, index=task.index)


def _view(view: Any) -> ClusterView:
    servers = tuple(Member(p.address, p.incarnation) for p in view.ps)
    return ClusterView(view.generation, servers, view.layout)
