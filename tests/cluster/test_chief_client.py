"""A task's search for its chief: the wait for it and for a place, and the timeout."""

import threading
import time

import pytest

from paramserve.chief.membership.membership import Membership
from paramserve.chief.process import job_config
from paramserve.chief.services.membership_servicer import MembershipServicer
from paramserve.chief.services.server import ControlServer
from paramserve.chief.services.status_servicer import StatusServicer
from paramserve.chief.state import JobState
from paramserve.cluster import chief_client
from paramserve.cluster.applicant import Applicant
from paramserve.cluster.chief_client import JobStopping, MembershipClient
from paramserve.cluster.spec import Role, Task
from paramserve.errors import JobFailed, WaitTimeout
from paramserve.jobs.options import JobOptions
from paramserve.protos import membership_pb2 as pb
from support.membership import register
from support.ports import free_port


@pytest.fixture
def start_chief():
    """Starts a chief's control plane at a port; returns its membership."""
    servers = []

    def start(port=0, num_ps=1):
        options = JobOptions(model="m.py:build", logdir="runs/test", num_ps=num_ps)
        state = JobState(options, "job-1", Membership(num_ps=num_ps, lease_secs=60.0))
        servicer = MembershipServicer(state, job_config(options, "job-1"))
        server = ControlServer(servicer, StatusServicer(state), port)
        server.start()
        servers.append(server)
        return state.membership, server

    yield start
    for server in servers:
        server.stop(0.1)


@pytest.fixture
def client_of():
    clients = []

    def make(port):
        clients.append(MembershipClient(f"127.0.0.1:{port}"))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def join(client, life="life", role=Role.WORKER, max_wait_secs=60.0, stop=None, **more):
    applicant = Applicant(role, f"{life}.host:1", life, **more)
    return client.register(applicant, max_wait_secs=max_wait_secs, stop=stop)


def test_without_a_chief_the_wait_is_bounded_and_names_the_address(client_of):
    port = free_port()
    began = time.monotonic()
    with pytest.raises(WaitTimeout) as caught:
        join(client_of(port), max_wait_secs=0.6)
    assert 0.6 <= time.monotonic() - began < 30
    message = str(caught.value)
    assert message.startswith(f"max_wait_secs=0.6 ran out: the chief at 127.0.0.1:{port} did not")
    assert "worker" in message
    assert "is the chief running" in message


def test_a_chief_that_comes_up_late_is_found_at_once(client_of, start_chief):
    port = free_port()
    started = []

    def start():
        start_chief(port)
        started.append(time.monotonic())

    timer = threading.Timer(1.5, start)
    timer.start()
    registration = join(client_of(port), max_wait_secs=300.0)
    joined = time.monotonic()
    timer.join()
    assert registration.task == Task(Role.WORKER, 0)
    assert joined - started[0] < 15  # gRPC's own back-off grows to two minutes.


def test_a_task_waits_for_its_place_until_it_is_free(client_of, start_chief):
    membership, server = start_chief()
    ps = register(membership, Role.PS, address="old.host:1", incarnation="old")
    timer = threading.Timer(0.5, membership.leave, [ps, "old", pb.LeaveRequest.DONE])
    timer.start()
    registration = join(client_of(server.port), role=Role.PS)
    timer.join()
    assert registration.task == ps
    assert [r.incarnation for r in membership.up(Role.PS)] == ["life"]


def test_who_holds_the_place_is_said_when_the_wait_runs_out(client_of, start_chief):
    membership, server = start_chief()
    register(membership, Role.WORKER, address="old.host:1", incarnation="old")
    with pytest.raises(WaitTimeout, match=r"worker:0 is held by old\.host:1"):
        join(client_of(server.port), index=0, max_wait_secs=0.6)


def test_a_job_that_is_ending_takes_nobody(client_of, start_chief):
    membership, server = start_chief()
    membership.begin_stop(Role.WORKER)
    with pytest.raises((JobFailed, JobStopping)):
        join(client_of(server.port))


@pytest.fixture
def short_polls(monkeypatch):
    """A wait looks up every few tenths of a second instead of every few seconds."""
    monkeypatch.setattr(chief_client, "POLL_SECS", 0.3)


def test_a_wait_for_the_chief_can_be_called_off(client_of, short_polls):
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    with pytest.raises(JobStopping):
        join(client_of(free_port()), max_wait_secs=300.0, stop=stop)
    timer.join()


@pytest.mark.parametrize("address", ["localhost", "http://localhost:7077", "localhost:0", ""])
def test_a_malformed_address_is_refused_at_once(address):
    with pytest.raises(ValueError, match="chief address"):
        MembershipClient(address)


def test_asking_before_registering_is_a_mistake_of_the_caller(client_of):
    with pytest.raises(RuntimeError, match=r"call register\(\) first"):
        client_of(free_port()).task_report(None)


def test_waiting_to_be_ready_survives_a_chief_that_is_away(client_of, start_chief):
    port = free_port()
    membership, server = start_chief(port)
    register(membership, Role.PS, address="p.host:1", incarnation="p")
    client = client_of(port)
    join(client)
    results = []
    waiter = threading.Thread(
        target=lambda: results.append(client.await_ready(min_generation=1, max_wait_secs=300.0))
    )
    waiter.start()
    server.stop(0.0)
    again, _ = start_chief(port)
    register(again, Role.PS, address="p.host:1", incarnation="p")
    again.mark_ready(1)
    waiter.join(60)
    assert [view.ps[0].incarnation for view in results] == ["p"]


def test_waiting_to_be_ready_says_when_it_is_the_chief_that_is_missing(client_of, start_chief):
    _, server = start_chief()
    client = client_of(server.port)
    join(client)
    server.stop(0.0)
    with pytest.raises(WaitTimeout, match=rf"max_wait_secs=0\.5 .*chief at {client.address}"):
        client.await_ready(min_generation=1, max_wait_secs=0.5)


def test_waiting_to_be_ready_can_be_called_off(client_of, start_chief, short_polls):
    _, server = start_chief()
    client = client_of(server.port)
    join(client)
    looks = iter([False, True])
    began = time.monotonic()
    with pytest.raises(JobStopping):
        client.await_ready(min_generation=1, max_wait_secs=300.0, cancelled=lambda: next(looks))
    assert time.monotonic() - began < 60


def test_leaving_a_chief_that_is_gone_is_no_error(client_of, start_chief):
    _, server = start_chief()
    client = client_of(server.port)
    join(client)
    server.stop(0.0)
    client.leave(pb.LeaveRequest.DONE)
