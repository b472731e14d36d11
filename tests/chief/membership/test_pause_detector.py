"""A chief that was suspended extends the leases of the tasks that it could not hear."""

import pytest

from paramserve.chief.membership.membership import Membership
from paramserve.chief.membership.pause_detector import PauseDetector
from paramserve.cluster.spec import Role
from support.membership import register

LEASE_SECS = 10.0


@pytest.fixture
def standstill(clock):
    return PauseDetector(clock)


def test_only_long_gaps_between_two_beats_are_standstills(clock, standstill):
    for _ in range(100):
        clock.advance(0.3)
        standstill.beat()
        assert standstill.total_secs() == 0.0
    clock.advance(20.0)
    assert standstill.total_secs() == 20.0, "it need not be over"
    clock.advance(10.0)
    standstill.beat()
    assert standstill.total_secs() == 30.0
    clock.advance(0.3)
    assert standstill.total_secs() == 30.0


def test_leases_do_not_run_while_the_chief_stands_still(clock, standstill):
    membership = Membership(
        num_ps=1, lease_secs=LEASE_SECS, clock=clock, stood_still_secs=standstill.total_secs
    )
    task = register(membership, Role.PS, address="a:1", incarnation="a")
    for _ in range(16):
        clock.advance(0.5)
        standstill.beat()
        assert membership.expire() == []

    clock.advance(60.0)
    assert membership.expire() == [], "it was heard of 8 s ago, not 68"
    standstill.beat()
    for _ in range(3):
        clock.advance(0.5)
        standstill.beat()
        assert membership.expire() == []
    clock.advance(0.9)
    assert membership.expire() == [task]


def test_leases_do_not_run_while_the_loop_that_takes_reports_is_stuck(clock, standstill):
    """The lease watch has a thread of its own, and runs on."""
    membership = Membership(
        num_ps=1, lease_secs=LEASE_SECS, clock=clock, stood_still_secs=standstill.total_secs
    )
    register(membership, Role.PS, address="a:1", incarnation="a")
    standstill.beat()
    for _ in range(100):
        clock.advance(0.5)
        assert membership.expire() == []
