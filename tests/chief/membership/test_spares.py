"""Spare parameter servers, and how the chief and its workers agree that a generation is over."""

import functools
import threading

import pytest

from paramserve.chief.membership.membership import Membership
from paramserve.chief.membership.registry import JobClosed, UnknownTask
from paramserve.chief.membership.tasks import TaskState
from paramserve.chief.recovery import find_lost
from paramserve.cluster.spec import Role, Task
from paramserve.protos import membership_pb2 as pb
from support.membership import ask_ready, register

LEASE_SECS = 10.0


@pytest.fixture
def membership(clock):
    """Two parameter servers, "a" and "b", up and ready; and worker 0, "w"."""
    made = Membership(num_ps=2, lease_secs=LEASE_SECS, clock=clock)
    for life in ("a", "b"):
        join(made, life)
    join(made, "w", Role.WORKER)
    made.mark_ready(made.generation)
    return made


def join(membership, life, role=Role.PS, **more):
    return register(membership, role, address=f"{life}.host:2222", incarnation=life, **more)


def lose(membership, life):
    return membership.lose(life, "its process is gone")


def lives(membership):
    return [member.incarnation for member in membership.view.ps]


def test_a_spare_changes_nothing_until_it_is_needed(membership):
    generation = membership.generation
    assert join(membership, "s", spare=True) == Task(Role.PS, 2)
    assert membership.generation == generation
    assert [r.state for r in membership.records(Role.PS)] == ["up", "up", "spare"]
    assert len(membership.up(Role.PS)) == 2


def test_a_spare_takes_the_place_of_a_lost_server_at_once(membership):
    join(membership, "s", spare=True)
    generation = membership.generation
    assert lose(membership, "b")
    assert membership.generation == generation + 1
    assert lives(membership) == ["a", "s"]


def test_a_spare_learns_from_its_heartbeat_what_it_has_become(membership):
    spare = join(membership, "s", spare=True)
    assert membership.heartbeat(spare, "s", None) == spare
    lose(membership, "a")
    assert membership.heartbeat(spare, "s", None) == Task(Role.PS, 0)


def test_without_a_spare_the_place_stays_empty_until_one_comes(membership):
    lose(membership, "b")
    assert membership.view is None
    assert join(membership, "s", spare=True) == Task(Role.PS, 1)
    assert lives(membership) == ["a", "s"]


def test_a_spare_waits_for_the_servers_that_were_planned():
    membership = Membership(num_ps=1, lease_secs=LEASE_SECS)
    join(membership, "s", spare=True)
    assert membership.view is None, "the planned server is merely late"
    assert join(membership, "a") == Task(Role.PS, 0)
    assert lives(membership) == ["a"]


def test_two_lost_servers_are_replaced_by_two_spares(membership):
    join(membership, "s", spare=True)
    join(membership, "t", spare=True)
    lose(membership, "a")
    lose(membership, "b")
    assert lives(membership) == ["s", "t"]


def test_a_spare_whose_lease_ran_out_takes_no_place(membership, clock):
    join(membership, "s", spare=True)
    clock.now += LEASE_SECS + 1
    for task, life in ((Task(Role.PS, 0), "a"), (Task(Role.PS, 1), "b")):
        membership.heartbeat(task, life, None)
    assert membership.expire() == [Task(Role.PS, 2), Task(Role.WORKER, 0)]
    lose(membership, "b")
    assert membership.view is None


def test_a_server_that_wakes_up_too_late_is_told_that_it_is_no_longer_in_the_job(membership):
    join(membership, "s", spare=True)
    lose(membership, "b")
    with pytest.raises(UnknownTask, match="ps:1 with incarnation b"):
        membership.heartbeat(Task(Role.PS, 1), "b", None)
    assert lives(membership) == ["a", "s"]


def test_losing_the_same_life_twice_does_not_touch_the_next_one(membership):
    join(membership, "s", spare=True)
    assert lose(membership, "b")
    assert not lose(membership, "b")
    assert lives(membership) == ["a", "s"]


def test_a_worker_whose_session_broke_has_the_chief_look_first(membership):
    worker = Task(Role.WORKER, 0)
    generation = membership.generation
    assert ask_ready(membership, 1, task=worker) is not None
    assert ask_ready(membership, generation, lost_generation=generation, task=worker) is None
    assert membership.is_suspected
    membership.cleared()
    assert ask_ready(membership, generation, task=worker).generation == generation


def test_a_worker_may_open_its_session_while_the_chief_restores(membership):
    worker, lost = Task(Role.WORKER, 0), membership.generation
    ask = functools.partial(ask_ready, membership, lost, lost_generation=lost, task=worker)
    assert ask(before_ready=True) is None, "these are the servers that it has lost"
    join(membership, "s", spare=True)
    lose(membership, "b")

    assert ask(before_ready=True) == membership.view
    assert ask() is None, "the model is not there yet"
    membership.mark_unready()
    assert membership.await_no_sessions(0.0) == [], "it has made no step over them"

    membership.mark_ready(membership.generation)
    assert ask() == membership.view
    membership.mark_unready()
    assert membership.await_no_sessions(0.0) == [worker]


def test_the_loss_of_an_older_generation_is_no_news(membership):
    lost = membership.generation
    membership.renew_generation()
    membership.mark_ready(membership.generation)
    assert ask_ready(membership, 1, lost_generation=lost) is not None
    assert not membership.is_suspected


def test_the_chief_waits_until_every_worker_has_dropped_its_session(membership):
    worker = Task(Role.WORKER, 0)
    ask_ready(membership, 1, task=worker)
    membership.mark_unready()
    assert membership.await_no_sessions(0.0) == [worker]
    asks = threading.Timer(0.05, ask_ready, (membership, 1), {"task": worker})
    asks.start()
    assert membership.await_no_sessions(30.0) == []
    asks.join()


def test_the_generation_that_a_spare_has_begun_is_not_over(membership):
    """The chief hears of the loss only after the spare has taken the place."""
    join(membership, "s", spare=True)
    lost = membership.view
    lose(membership, "b")
    find_lost(membership, lost, 0.0, lambda: False)
    assert membership.view.generation == lost.generation + 1
    assert membership.over == lost.generation


def test_nobody_waits_for_a_worker_that_is_gone(membership, clock):
    ask_ready(membership, 1, task=Task(Role.WORKER, 0))
    membership.mark_unready()
    clock.now += LEASE_SECS + 1
    membership.expire()
    assert membership.await_no_sessions(0.0) == []
    assert membership.records(Role.WORKER)[0].state is TaskState.LOST


def test_the_end_of_an_generation_is_news_at_once(membership):
    generation = membership.generation
    assert membership.over == 0
    told = []
    membership.changed.listen(lambda: told.append(membership.over))
    lose(membership, "a")
    assert told[0] == generation


def test_spares_take_the_places_that_a_job_gets_beside_the_others(membership):
    assert membership.candidates(3) is None, "there is no server for the third place"
    join(membership, "s", spare=True)
    servers = membership.candidates(3)
    assert [member.incarnation for member in servers] == ["a", "b", "s"]
    generation = membership.generation

    membership.resize(servers)
    assert lives(membership) == ["a", "b", "s"]
    assert (membership.generation, membership.layout, membership.num_ps) == (generation + 1, 1, 3)
    assert membership.heartbeat(Task(Role.PS, 2), "s", None) == Task(Role.PS, 2)
    assert [r.state for r in membership.records(Role.PS)] == ["up"] * 3


def test_a_server_that_is_too_many_is_told_to_leave_and_takes_no_other_place(membership):
    membership.resize(membership.candidates(1))
    assert lives(membership) == ["a"]
    assert membership.num_ps == 1
    left = membership.heartbeat(Task(Role.PS, 1), "b", None)
    assert membership.is_stopping(left)
    assert not membership.is_stopping(Task(Role.PS, 0))

    assert lose(membership, "a")
    assert membership.view is None, "a server that is leaving is no spare"
    join(membership, "c")
    assert lives(membership) == ["c"]


def test_a_server_that_is_lost_while_the_model_moves_is_missed_in_its_new_place(membership):
    join(membership, "s", spare=True)
    servers = membership.candidates(3)
    membership.leave(Task(Role.PS, 2), "s", 0)
    membership.resize(servers)
    assert membership.view is None
    join(membership, "t", spare=True)
    assert lives(membership) == ["a", "b", "t"]


def test_workers_beyond_those_wanted_are_told_to_leave_and_the_job_goes_on(membership):
    join(membership, "x", Role.WORKER)
    membership.dismiss(Role.WORKER, above=1)
    assert not membership.is_stopping(Task(Role.WORKER, 0))
    assert membership.is_stopping(Task(Role.WORKER, 1))
    with pytest.raises(JobClosed):
        ask_ready(membership, 1, task=Task(Role.WORKER, 1))
    assert ask_ready(membership, 1, task=Task(Role.WORKER, 0)) == membership.view


def test_an_generation_that_begins_at_once_is_not_over_with_the_one_before(membership):
    """A spare was listed before the chief came to look."""
    before = membership.generation
    membership.renew_generation()
    membership.mark_unready(before)
    assert membership.over == before


def test_a_server_that_is_lost_after_the_end_of_training_calls_the_workers_back(membership):
    """Their last steps are lost with it, before the model was saved."""
    join(membership, "s", spare=True)
    membership.begin_stop(Role.WORKER)
    membership.leave(Task(Role.WORKER, 0), "w", pb.LeaveRequest.END_OF_INPUT)
    with pytest.raises(JobClosed):
        join(membership, "x", Role.WORKER)

    membership.reopen()
    assert [r.state for r in membership.records(Role.WORKER)] == ["lost"]
    assert lose(membership, "a")
    assert lives(membership) == ["s", "b"]
    assert join(membership, "x", Role.WORKER) == Task(Role.WORKER, 0)
