"""Random sequences of calls, replayed and forged incarnations included, against a small model.

The model is a table: which life has which place, whether it is alive, and when it was heard of.
"""

from dataclasses import dataclass

import grpc
import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from paramserve.chief.membership.membership import Membership
from paramserve.chief.process import job_config
from paramserve.chief.services.membership_servicer import MembershipServicer
from paramserve.chief.services.server import ControlServer
from paramserve.chief.services.status_servicer import StatusServicer
from paramserve.chief.state import JobState
from paramserve.jobs.options import JobOptions
from paramserve.protos import membership_pb2 as pb, status_pb2
from paramserve.protos.membership_pb2_grpc import MembershipStub
from paramserve.protos.status_pb2_grpc import StatusStub
from support.clock import Clock

NUM_PS = 2
LEASE_SECS = 10.0
CALL_SECS = 60.0
OK = grpc.StatusCode.OK
FREE_AGAIN = ("lost", "done", "preempted")
LEFT = {
    pb.LeaveRequest.DONE: "done",
    pb.LeaveRequest.END_OF_INPUT: "end of input",
    pb.LeaveRequest.FAILED: "failed",
    pb.LeaveRequest.PREEMPTED: "preempted",
}

roles = st.sampled_from(["ps", "worker"])
indices = st.none() | st.integers(0, 2)
lives = st.sampled_from([f"life-{number}" for number in range(5)])
# Mostly of its own; else forged, malformed, or left over from a former life.
hosts = st.none() | st.sampled_from(["life-0.invalid:2222", "life-1.invalid:2222", "nowhere", ""])


@dataclass
class Life:
    """The newest life of a task, in the model."""

    incarnation: str
    address: str
    heard: float
    state: str = "up"


class Calls(RuleBasedStateMachine):
    """Calls to the servicers of a job, and what a table says of them."""

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        options = JobOptions(
            model="m.py:build",
            logdir="runs/test",
            num_ps=NUM_PS,
            lease_secs=LEASE_SECS,
        )
        self.membership = Membership(num_ps=NUM_PS, lease_secs=LEASE_SECS, clock=self.clock)
        state = JobState(options, "job-1", self.membership)
        config = job_config(options, "job-1")
        # Silent tasks are lost by their lease alone, and not because another asks for their place.
        config.heartbeat_secs = 1e6
        self.server = ControlServer(MembershipServicer(state, config), StatusServicer(state), 0)
        self.server.start()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.server.port}")
        self.tasks = {}
        self.generation = 0

    def teardown(self):
        self.channel.close()
        self.server.stop(0)

    # -- what callers do

    @rule(role=roles, index=indices, life=lives, host=hosts)
    def register(self, role, index, life, host):
        address = f"{life}.invalid:2222" if host is None else host
        request = pb.RegisterRequest(role=role, index=index, address=address, incarnation=life)
        code, reply = self._call(MembershipStub(self.channel).Register, request)
        known = [
            task
            for task, record in self.tasks.items()
            if record.incarnation == life and task[0] == role and record.state == "up"
        ]
        if again := [task for task in known if index in (None, task[1])]:
            # The answer to the first call may have been lost.
            assert code is OK
            task = (reply.task.role, reply.task.index)
            assert task in again
            self.tasks[task].heard = self.clock.now
            return
        expected, task = self._expected_place(role, index)
        if known or ":" not in address:
            expected, task = grpc.StatusCode.INVALID_ARGUMENT, None
        elif role == "ps" and self._is_taken(address):
            expected, task = grpc.StatusCode.ALREADY_EXISTS, None
        assert code is expected, (role, index, life, address, self.tasks)
        if task is not None:
            assert (reply.task.role, reply.task.index) == task
            self.tasks.pop(task, None)
            self.tasks[task] = Life(life, address, self.clock.now)
            if role == "ps" and self._is_whole():
                self.generation += 1

    @rule(role=roles, index=st.integers(0, 2), life=lives)
    def report(self, role, index, life):
        task = pb.TaskId(role=role, index=index)
        code = self._renew(task, life, pb.WorkerReport(local_steps=3))
        found = self._life(role, index, life)
        if found is None or found.state != "up":
            assert code is grpc.StatusCode.NOT_FOUND
            return
        assert code is OK
        for record in self.tasks.values():
            if record.incarnation == life:
                record.heard = self.clock.now

    @rule(role=roles, index=st.integers(0, 2), life=lives, reason=st.sampled_from(list(LEFT)))
    def leave(self, role, index, life, reason):
        request = pb.LeaveRequest(
            task=pb.TaskId(role=role, index=index), incarnation=life, reason=reason
        )
        code, _ = self._call(MembershipStub(self.channel).Leave, request)
        assert code is OK
        found = self._life(role, index, life)
        if found is not None and found.state == "up":
            found.state = LEFT[reason]

    @rule(life=lives)
    def process_ended(self, life):
        request = status_pb2.ReportEndedRequest(incarnations=[life])
        code, _ = self._call(StatusStub(self.channel).ReportEnded, request)
        assert code is OK
        for record in self.tasks.values():
            if record.incarnation == life and record.state == "up":
                record.state = "lost"

    @rule(role=roles, index=st.integers(0, 2))
    def ask_ready(self, role, index):
        request = pb.AwaitReadyRequest(
            task=pb.TaskId(role=role, index=index), before_ready=True, timeout_secs=0.0
        )
        code, reply = self._call(MembershipStub(self.channel).AwaitReady, request)
        assert code is OK
        assert reply.ready == self._is_whole()
        if reply.ready:
            holders = [self.tasks["ps", number].incarnation for number in range(NUM_PS)]
            assert [each.incarnation for each in reply.view.ps] == holders

    @precondition(lambda self: self.tasks)
    @rule(secs=st.sampled_from([1.0, 4.0, LEASE_SECS + 1.0]))
    def time_passes(self, secs):
        self.clock.advance(secs)
        lost = {(str(task.role), task.index) for task in self.membership.expire()}
        late = {
            task
            for task, record in self.tasks.items()
            if record.state == "up" and self.clock.now - record.heard > LEASE_SECS
        }
        assert lost == late
        for task in late:
            self.tasks[task].state = "lost"

    # -- what holds at all times

    @invariant()
    def the_status_is_that_of_the_model(self):
        code, status = self._call(StatusStub(self.channel).GetStatus, status_pb2.GetStatusRequest())
        assert code is OK
        shown = {(t.role, t.index): (t.incarnation, t.state) for t in status.tasks}
        assert shown == {
            task: (record.incarnation, record.state) for task, record in self.tasks.items()
        }
        assert status.generation == self.generation
        assert (self.membership.view is not None) == self._is_whole()

    # -- the model

    def _expected_place(self, role, index):
        limit = NUM_PS if role == "ps" else None
        if index is not None:
            if limit is not None and index >= limit:
                return grpc.StatusCode.INVALID_ARGUMENT, None
            held = self.tasks.get((role, index))
            if held is not None and held.state == "up":
                return grpc.StatusCode.ALREADY_EXISTS, None
            return OK, (role, index)
        index = 0
        while (held := self.tasks.get((role, index))) and held.state not in FREE_AGAIN:
            index += 1
        if limit is not None and index >= limit:
            return grpc.StatusCode.ALREADY_EXISTS, None
        return OK, (role, index)

    def _is_taken(self, address):
        servers = [record for task, record in self.tasks.items() if task[0] == "ps"]
        return any(r.address == address and r.state == "up" for r in servers)

    def _life(self, role, index, life):
        """A life is found by its task, or by any other that it is in the same role."""
        record = self.tasks.get((role, index))
        if record is not None and record.incarnation == life:
            return record
        same = (r for task, r in self.tasks.items() if task[0] == role and r.incarnation == life)
        return next(same, None)

    def _is_whole(self):
        held = [self.tasks.get(("ps", index)) for index in range(NUM_PS)]
        return all(record is not None and record.state == "up" for record in held)

    def _renew(self, task, life, report):
        """Reports once on a stream of its own, which replaces one that a task may have."""
        request = pb.TaskReport(task=task, incarnation=life, report=report)
        attend = MembershipStub(self.channel).Attend
        return self._call(lambda r, timeout: list(attend(iter([r]), timeout=timeout)), request)[0]

    def _call(self, method, request):
        try:
            return OK, method(request, timeout=CALL_SECS)
        except grpc.RpcError as error:
            return error.code(), None


SHORT = settings(max_examples=20, stateful_step_count=25, deadline=None)
TestCalls = Calls.TestCase
TestCalls.settings = SHORT


class TestManyCalls(Calls.TestCase):
    """The same for longer."""

    settings = settings(SHORT, max_examples=150, stateful_step_count=60)
    pytestmark = pytest.mark.faults
