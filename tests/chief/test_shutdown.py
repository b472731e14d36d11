"""The end of a job: the tasks that the chief waits for, and the others."""

import socket
import threading

import pytest

from paramserve.chief.ending import MARGIN_SECS, dismiss_all
from paramserve.chief.membership.membership import Membership
from paramserve.chief.membership.registry import JobClosed, UnknownTask
from paramserve.cluster.spec import Role
from paramserve.protos import membership_pb2 as pb
from support.membership import register

LEASE_SECS = 3.0
WAIT_SECS = 30.0


@pytest.fixture
def membership(clock):
    return Membership(num_ps=1, lease_secs=LEASE_SECS, clock=clock)


@pytest.fixture
def listening():
    """The address of a live process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def deserted():
    """An address where no process listens any more."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def join(membership, address, life, spare=False):
    return register(membership, Role.PS, address=address, incarnation=life, spare=spare)


def run_out(membership, clock):
    clock.now += LEASE_SECS + 0.1
    return membership.expire()


@pytest.fixture
def farewell(membership):
    """Ends the job in a thread, and gives that."""
    thread = threading.Thread(target=dismiss_all, args=(membership, 0.1, LEASE_SECS), daemon=True)
    yield thread
    thread.join(WAIT_SECS)
    assert not thread.is_alive()


def is_over(thread, secs=WAIT_SECS):
    thread.join(secs)
    return not thread.is_alive()


def test_all_that_are_there_leave_first(membership, listening, farewell):
    task = join(membership, listening, "a")
    farewell.start()
    assert not is_over(farewell, 0.5)
    membership.leave(task, "a", pb.LeaveRequest.DONE)
    assert is_over(farewell)


def test_a_spare_that_was_cut_off_hears_of_the_end(membership, clock, listening, farewell):
    spare = join(membership, listening, "b", spare=True)
    assert run_out(membership, clock) == [spare]
    farewell.start()
    assert not is_over(farewell, 0.5)
    with pytest.raises(UnknownTask, match="declared lost"):
        membership.heartbeat(spare, "b", None)
    assert is_over(farewell)
    with pytest.raises(JobClosed):
        join(membership, listening, "c")


def test_nobody_waits_for_a_process_that_is_gone(membership, clock, deserted, farewell):
    join(membership, deserted, "a")
    run_out(membership, clock)
    farewell.start()
    assert is_over(farewell)


def test_nobody_waits_for_what_was_lost_long_ago(membership, clock, listening, farewell):
    join(membership, listening, "a")
    run_out(membership, clock)
    clock.now += LEASE_SECS + MARGIN_SECS
    farewell.start()
    assert is_over(farewell)
