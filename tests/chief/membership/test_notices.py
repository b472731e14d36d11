"""Tasks with a preemption notice: the ones to keep, and the fate of their places."""

import pytest

from paramserve.chief.membership.membership import Membership
from paramserve.chief.membership.notices import Notices
from paramserve.chief.membership.tasks import TaskState
from paramserve.cluster.spec import Role, Task
from paramserve.protos import membership_pb2 as pb
from support.membership import register

PS, WORKER = Role.PS, Role.WORKER
A = Task(PS, 0)


@pytest.fixture
def membership(clock):
    """Two parameter servers, "a" and "b", and worker 0, "w"."""
    made = Membership(num_ps=2, lease_secs=10.0, clock=clock)
    for role, life in ((PS, "a"), (PS, "b"), (WORKER, "w")):
        join(made, role, life)
    return made


@pytest.fixture
def notices(membership, clock):
    return Notices(membership, clock)


def join(membership, role, life, **more):
    return register(membership, role, address=f"{life}.host:2222", incarnation=life, **more)


def pending(notices):
    return [(n.record.task, n.deadline.remaining_secs()) for n in notices.pending()]


def test_a_server_that_gave_notice_is_in_the_job_until_it_is_let_go(membership, notices, clock):
    view = membership.view
    notices.give(A, "a", 30.0)
    clock.now += 10.0
    assert pending(notices) == [(A, 20.0)]
    assert notices.remaining_secs(membership.up(PS)[0]) == 20.0
    assert membership.view == view
    assert not notices.is_released(A, "a")

    notices.release(notices.pending())
    assert notices.is_released(A, "a")
    assert pending(notices) == []
    assert membership.view is None
    assert membership.over == view.generation
    assert membership.records(PS)[0].state is TaskState.PREEMPTED


def test_that_a_server_may_go_is_news_at_once(membership, notices):
    notices.give(A, "a", 30.0)
    told = []
    membership.changed.listen(lambda: told.append(notices.is_released(A, "a")))
    notices.release(notices.pending())
    assert told[-1]


def test_of_two_notices_the_first_counts(notices, clock):
    notices.give(A, "a", 30.0)
    clock.now += 10.0
    notices.give(A, "a", 30.0)
    assert pending(notices) == [(A, 20.0)]


def test_a_spare_takes_the_place_of_who_was_let_go(membership, notices):
    join(membership, PS, "s", spare=True)
    notices.give(A, "a", 30.0)
    generation = membership.generation
    notices.release(notices.pending())
    assert [m.incarnation for m in membership.view.ps] == ["s", "b"]
    assert membership.generation == generation + 1
    assert notices.is_released(A, "a"), "the place is held again, but not by this life"
    assert pending(notices) == []
    notices.give(A, "a", 30.0)  # It asks again, because the answer was lost.
    assert pending(notices) == []


def test_a_spare_that_has_become_a_server_is_kept_like_one(membership, notices):
    spare = join(membership, PS, "s", spare=True)
    membership.leave(A, "a", pb.LeaveRequest.PREEMPTED)
    notices.give(spare, "s", 30.0)  # It does not know its new place yet.
    assert pending(notices) == [(A, 30.0)]


def test_who_holds_nothing_may_go_at_once(membership, notices):
    spare = join(membership, PS, "s", spare=True)
    for task, life in ((spare, "s"), (Task(WORKER, 0), "w")):
        notices.give(task, life, 30.0)
        assert notices.is_released(task, life)
    assert pending(notices) == []
    assert membership.view is not None


def test_before_there_is_a_model_a_server_may_go_at_once(clock):
    membership = Membership(num_ps=2, lease_secs=10.0, clock=clock)
    notices = Notices(membership, clock)
    join(membership, PS, "a")
    notices.give(A, "a", 30.0)
    assert notices.is_released(A, "a")


def test_a_life_that_is_not_in_the_job_may_go(notices):
    notices.give(A, "of yesterday", 30.0)
    assert notices.is_released(A, "of yesterday")
    assert pending(notices) == []


def test_preempted_tasks_are_counted_apart_and_leave_their_places_free(membership):
    membership.leave(Task(WORKER, 0), "w", pb.LeaveRequest.PREEMPTED)
    membership.leave(Task(WORKER, 0), "w", pb.LeaveRequest.PREEMPTED)
    assert membership.preemptions == {"worker": 1}
    assert membership.failures() == []
    assert join(membership, WORKER, "x") == Task(WORKER, 0)


def test_at_the_end_of_the_job_nobody_is_preempted(membership):
    membership.begin_stop(WORKER)
    membership.leave(Task(WORKER, 0), "w", pb.LeaveRequest.PREEMPTED)
    assert membership.preemptions == {}
