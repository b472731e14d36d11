"""A chief that follows another one finds the tasks that it had."""

import pytest

from paramserve.chief.job_files import adopt, to_json
from paramserve.chief.membership.membership import Membership
from paramserve.chief.membership.registry import UnknownTask
from paramserve.chief.membership.tasks import TaskState
from paramserve.chief.resize.scaling import ScaleTarget
from paramserve.cluster.spec import Role, Task
from paramserve.jobs.options import JobOptions
from paramserve.protos import membership_pb2 as pb
from support.membership import ask_ready, register

LEASE_SECS = 10.0


def make(num_ps=2):
    return Membership(num_ps=num_ps, lease_secs=LEASE_SECS)


def plan():
    return ScaleTarget(JobOptions(model="model.py:build", logdir="job", num_ps=2, num_workers=2), 2)


def join(membership, role, life, **more):
    return register(membership, role, address=f"{life}.host:2222", incarnation=life, pid=7, **more)


@pytest.fixture
def left():
    """Tasks without a chief: two parameter servers, a spare, two workers, one of them done."""
    membership = make()
    for life in ("a", "b"):
        join(membership, Role.PS, life)
    join(membership, Role.PS, "s", spare=True)
    for life in ("w", "x"):
        join(membership, Role.WORKER, life)
    membership.leave(Task(Role.WORKER, 1), "x", pb.LeaveRequest.END_OF_INPUT)
    membership.mark_ready(membership.generation)
    return to_json("job-1", membership, plan()), membership


def test_the_same_tasks_go_on_in_the_same_generation(left):
    text, before = left
    after = make()
    assert adopt(text, "job-1", after, plan())
    assert after.view == before.view
    assert after.generation == before.generation
    states = [(str(r.task), r.state, r.address, r.pid) for r in after.records()]
    assert states == [(str(r.task), r.state, r.address, r.pid) for r in before.records()]


def test_their_next_heartbeat_is_one_like_any_other(left):
    after = make()
    adopt(left[0], "job-1", after, plan())
    assert after.heartbeat(Task(Role.PS, 1), "b", None) == Task(Role.PS, 1)
    assert after.heartbeat(Task(Role.WORKER, 0), "w", None) == Task(Role.WORKER, 0)
    with pytest.raises(UnknownTask):
        after.heartbeat(Task(Role.WORKER, 0), "an earlier life", None)


def test_a_spare_is_still_one(left):
    after = make()
    adopt(left[0], "job-1", after, plan())
    after.lose(after.view.ps[0].incarnation, "its process is gone")
    assert [member.incarnation for member in after.view.ps] == ["s", "b"]


def test_a_worker_whose_input_had_ended_is_not_waited_for(left):
    after = make()
    adopt(left[0], "job-1", after, plan())
    assert after.records(Role.WORKER)[1].state is TaskState.END_OF_INPUT


def test_nobody_trains_before_the_model_was_looked_at(left):
    after = make()
    adopt(left[0], "job-1", after, plan())
    assert ask_ready(after, 1) is None


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "no JSON",
        "[]",
        "{}",
        '{"job_id": "job-1"}',
        '{"job_id": "job-1", "generation": 1}',
    ],
)
def test_without_what_an_earlier_chief_left_the_job_begins_as_usual(text):
    membership = make()
    assert not adopt(text, "job-1", membership, plan())
    assert membership.records() == []
    assert membership.generation == 0


def test_another_job_in_the_same_directory_is_not_taken_over(left):
    membership = make()
    assert not adopt(left[0], "job-2", membership, plan())
    assert membership.records() == []


def test_a_process_that_ended_without_a_chief_is_lost_to_the_next_one(left):
    """Each task starts with a whole lease; an exact report makes the wait for its end needless."""
    after = make()
    adopt(left[0], "job-1", after, plan())
    assert after.lose("w", "its process is gone") == [Task(Role.WORKER, 0)]
    assert join(after, Role.WORKER, "y", index=0) == Task(Role.WORKER, 0)
    assert after.lose("a", "its process is gone") == [Task(Role.PS, 0)]
    assert [member.incarnation for member in after.view.ps] == ["s", "b"]


def test_a_job_that_had_lost_a_server_is_taken_over_but_not_its_model(left):
    _, before = left
    before.lose(before.view.ps[0].incarnation, "gone")  # The spare takes its place,
    before.lose(before.view.ps[1].incarnation, "gone")  # and there is none for this one.
    after = make()
    assert not adopt(to_json("job-1", before, plan()), "job-1", after, plan())
    assert after.view is None
    assert "ps:1" in after.missing()


def test_the_number_of_workers_that_was_asked_for_is_not_forgotten(left):
    asked, after = plan(), plan()
    asked.ask(workers=5)
    assert adopt(to_json("job-1", left[1], asked), "job-1", make(), after)
    assert (after.workers, after.limits_workers) == (5, True)

    never_asked = plan()
    assert adopt(left[0], "job-1", make(), never_asked)
    assert (never_asked.workers, never_asked.limits_workers) == (2, False), "any is welcome"
