"""The lease of a frozen server runs out also while the chief waits for its answer."""

import threading

import pytest
import tensorflow as tf

from paramserve.chief.lease_watch import LeaseWatch
from paramserve.chief.membership.membership import Membership
from paramserve.cluster.leavable_session import LeavableSession
from paramserve.cluster.spec import Role
from support.membership import register

v1 = tf.compat.v1
LEASE_SECS = 10.0


@pytest.fixture
def now():
    return [0.0]


@pytest.fixture
def membership(now):
    membership = Membership(num_ps=1, lease_secs=LEASE_SECS, clock=lambda: now[0])
    register(membership, Role.PS, address="a:1", incarnation="first")
    return membership


@pytest.fixture
def session():
    """A session whose call of `endless` never ends by itself."""
    with tf.Graph().as_default() as graph:
        v1.FIFOQueue(1, tf.int32, shapes=[()]).dequeue(name="endless")
        tf.constant(7, name="seven")
    with LeavableSession(graph=graph) as session:
        yield session


def test_a_call_fails_when_the_lease_of_a_server_runs_out(membership, session, now):
    with LeaseWatch(membership, membership.view, session):
        timer = threading.Timer(0.3, lambda: now.__setitem__(0, LEASE_SECS + 1))
        timer.start()
        with pytest.raises(tf.errors.AbortedError, match="waiting for ps:0"):
            session.run("endless:0")
        timer.join()


def test_a_call_fails_when_a_spare_has_taken_the_place_already(membership, session):
    with LeaseWatch(membership, membership.view, session):
        register(membership, Role.PS, address="b:1", incarnation="other", spare=True)
        timer = threading.Timer(
            0.3, lambda: membership.lose(membership.view.ps[0].incarnation, "it is gone")
        )
        timer.start()
        with pytest.raises(tf.errors.AbortedError, match="the session was left"):
            session.run("endless:0")
        timer.join()
    assert membership.view.ps[0].address == "b:1"


def test_with_all_servers_there_calls_go_on_and_the_thread_ends_with_the_session(
    membership, session, now
):
    watch = LeaseWatch(membership, membership.view, session)
    with watch:
        for second in range(30):
            now[0] = float(second)
            membership.heartbeat(membership.up(Role.PS)[0].task, "first", None)
            assert session.run("seven:0") == 7
        assert watch.is_running
    assert not watch.is_running
