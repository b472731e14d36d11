"""Membership: places, leases, generations and readiness, with a clock that the test turns."""

import threading

import pytest

from paramserve.chief.membership.membership import Membership
from paramserve.chief.membership.places import TaskHeld
from paramserve.chief.membership.registry import JobClosed, UnknownTask
from paramserve.chief.membership.tasks import TaskState
from paramserve.cluster.applicant import Applicant
from paramserve.cluster.spec import Role, Task
from paramserve.errors import UsageError, WaitTimeout
from paramserve.protos import membership_pb2 as pb
from support.membership import ask_ready, register

PS, WORKER = Role.PS, Role.WORKER
LEASE_SECS = 10.0


@pytest.fixture
def make(clock):
    return lambda num_ps=1: Membership(num_ps=num_ps, lease_secs=LEASE_SECS, clock=clock)


@pytest.fixture
def membership(make):
    return make()


def join(membership, role, life, index=None):
    """Registers one life of a task, whose address tells lives apart."""
    return register(membership, role, address=f"{life}.host:2222", incarnation=life, index=index)


def lives(view):
    return [member.incarnation for member in view.ps]


def keep_alive(membership, *tasks_and_lives):
    for task, life in tasks_and_lives:
        membership.heartbeat(task, life, None)


# Places


def test_tasks_get_the_lowest_free_index_of_their_role(make):
    membership = make(num_ps=2)
    assert [join(membership, WORKER, life) for life in "abc"] == [Task(WORKER, i) for i in range(3)]
    assert join(membership, PS, "p") == Task(PS, 0)
    membership.leave(Task(WORKER, 1), "b", pb.LeaveRequest.DONE)
    assert join(membership, WORKER, "d") == Task(WORKER, 1)
    assert join(membership, WORKER, "e") == Task(WORKER, 3)


def test_an_index_that_was_asked_for_leaves_the_lower_ones_free(membership):
    assert join(membership, WORKER, "a", index=7) == Task(WORKER, 7)
    assert join(membership, WORKER, "b") == Task(WORKER, 0)


def test_a_place_held_by_a_live_task_is_not_given_away(membership, clock):
    join(membership, WORKER, "a", index=1)
    clock.advance(LEASE_SECS - 1)
    with pytest.raises(TaskHeld, match=r"worker:1 is held by a\.host:2222, .* 9\.0 s ago"):
        join(membership, WORKER, "b", index=1)
    assert [r.incarnation for r in membership.up(WORKER)] == ["a"]


def test_every_place_of_a_parameter_server_may_be_held(make):
    membership = make(num_ps=2)
    join(membership, PS, "p")
    join(membership, PS, "q")
    with pytest.raises(TaskHeld, match="all 2 parameter servers"):
        join(membership, PS, "r")


def test_a_place_is_free_again_once_its_lease_ran_out(membership, clock):
    join(membership, PS, "old")
    clock.advance(LEASE_SECS + 0.1)
    assert membership.expire() == [Task(PS, 0)]
    assert join(membership, PS, "new") == Task(PS, 0)
    assert [r.incarnation for r in membership.up(PS)] == ["new"]


@pytest.mark.parametrize("role", [PS, WORKER])
def test_a_place_is_free_at_once_when_its_process_is_known_to_have_ended(membership, role):
    task = join(membership, role, "old", index=0)
    assert membership.lose("old", "its process is gone") == [task]
    assert join(membership, role, "new", index=0) == task
    assert [r.incarnation for r in membership.up(role)] == ["new"]


def test_a_stale_word_of_a_former_life_does_not_end_the_present_one(membership):
    task = join(membership, WORKER, "old", index=0)
    membership.lose("old", "its process is gone")
    join(membership, WORKER, "new", index=0)
    assert membership.lose("old", "its process is gone") == []
    assert membership.lose("never seen", "its process is gone") == []
    assert membership.heartbeat(task, "new", None) == task


def test_a_process_that_ended_is_lost_in_every_role_it_had(membership):
    for role in (PS, WORKER):
        join(membership, role, "both")
    assert membership.lose("both", "its step hangs", WORKER) == [Task(WORKER, 0)]
    assert membership.view is not None, "what it holds is still there"
    assert membership.lose("both", "its process is gone") == [Task(PS, 0)]
    assert membership.view is None


@pytest.mark.parametrize("index", [None, 0])
@pytest.mark.parametrize("role", [PS, WORKER])
def test_asking_again_after_a_lost_answer_gives_the_same_place(membership, role, index):
    first = join(membership, role, "a", index)
    generation = membership.generation
    assert join(membership, role, "a", index) == first
    assert [r.task for r in membership.up()] == [first]
    assert membership.generation == generation


def test_the_place_of_a_worker_whose_input_ended_stays_its_own(membership):
    """Otherwise the chief, which counts such workers, would wait forever for another one."""
    join(membership, WORKER, "early")
    membership.leave(Task(WORKER, 0), "early", pb.LeaveRequest.END_OF_INPUT)
    join(membership, WORKER, "late")
    states = {r.incarnation: r.state for r in membership.records(WORKER)}
    assert states == {"early": TaskState.END_OF_INPUT, "late": TaskState.UP}


@pytest.mark.parametrize(
    ("role", "index", "message"),
    [
        (PS, 1, r"index 1 of a ps: expected 0 or more below 1 \(--ps\)"),
        (PS, -1, "index -1 of a ps"),
        (WORKER, -1, "index -1 of a worker: expected 0 or more$"),
        (Role.CHIEF, None, "'chief'.* does not register; expected ps or worker"),
    ],
)
def test_impossible_places_are_refused(membership, role, index, message):
    with pytest.raises(UsageError, match=message):
        join(membership, role, "a", index)
    assert not membership.records()


# Leases


def test_a_lease_lasts_as_long_as_it_is_renewed(membership, clock):
    worker = join(membership, WORKER, "a")
    for _ in range(5):
        clock.advance(LEASE_SECS)
        assert membership.expire() == []
        membership.heartbeat(worker, "a", None)
    clock.advance(LEASE_SECS + 0.1)
    assert membership.expire() == [worker]
    assert membership.expire() == []
    [record] = membership.records()
    assert record.state is TaskState.LOST
    assert record.error == "no heartbeat for 10.1 s"


def test_a_task_that_was_taken_as_lost_cannot_renew(membership, clock):
    worker = join(membership, WORKER, "a")
    clock.advance(LEASE_SECS + 0.1)
    membership.expire()
    with pytest.raises(UnknownTask, match=r"worker:0 was declared lost: no heartbeat for 10.1 s"):
        membership.heartbeat(worker, "a", None)
    assert membership.up() == []


def test_a_task_that_never_registered_cannot_renew(membership):
    with pytest.raises(UnknownTask, match="worker:0 with incarnation a is not in this job"):
        membership.heartbeat(Task(WORKER, 0), "a", None)


def test_an_old_life_can_neither_renew_nor_leave(membership, clock):
    task = join(membership, WORKER, "old")
    clock.advance(LEASE_SECS + 0.1)
    membership.expire()
    assert join(membership, WORKER, "new") == task
    clock.advance(3)
    with pytest.raises(UnknownTask, match="incarnation old"):
        membership.heartbeat(task, "old", pb.WorkerReport(local_steps=5))
    membership.leave(task, "old", pb.LeaveRequest.FAILED, "the old life's error")
    [record] = membership.up()
    assert record.incarnation == "new"
    assert membership.heartbeat_age(record) == 3
    assert record.report.local_steps == 0
    assert membership.failures() == []


def test_the_newest_report_is_kept_and_an_empty_heartbeat_does_not_erase_it(membership):
    worker = join(membership, WORKER, "a")
    membership.heartbeat(worker, "a", pb.WorkerReport(local_steps=1))
    membership.heartbeat(worker, "a", pb.WorkerReport(local_steps=2))
    membership.heartbeat(worker, "a", None)
    assert membership.records()[0].report.local_steps == 2


def test_leaving_twice_keeps_the_first_reason(membership):
    worker = join(membership, WORKER, "a")
    last = pb.WorkerReport(local_steps=9)
    membership.leave(worker, "a", pb.LeaveRequest.END_OF_INPUT, report=last)
    membership.leave(worker, "a", pb.LeaveRequest.FAILED, "too late")
    membership.leave(Task(WORKER, 5), "nobody", pb.LeaveRequest.FAILED, "never came")
    [record] = membership.records()
    assert (record.state, record.error) == (TaskState.END_OF_INPUT, "")
    assert record.report.local_steps == 9
    assert membership.failures() == []


def test_a_failure_is_kept_with_its_reason(membership):
    worker = join(membership, WORKER, "a")
    membership.leave(worker, "a", pb.LeaveRequest.FAILED, "ValueError: no such column")
    [failed] = membership.failures()
    assert (failed.task, failed.error) == (worker, "ValueError: no such column")


# Generations


def test_there_is_a_view_only_when_every_parameter_server_is_up(make, clock):
    membership = make(num_ps=2)
    assert membership.view is None
    second = join(membership, PS, "q", index=1)
    assert (membership.view, membership.generation) == (None, 0)
    first = join(membership, PS, "p")
    assert membership.view.generation == membership.generation == 1
    assert lives(membership.view) == ["p", "q"]  # By index, not by arrival.
    assert [m.address for m in membership.view.ps] == ["p.host:2222", "q.host:2222"]
    clock.advance(LEASE_SECS)
    keep_alive(membership, (second, "q"))
    clock.advance(1)
    assert membership.expire() == [first]
    assert membership.view is None


def test_replacing_a_parameter_server_makes_a_new_generation(make, clock):
    membership = make(num_ps=2)
    join(membership, PS, "p")
    join(membership, PS, "q")
    clock.advance(LEASE_SECS)
    keep_alive(membership, (Task(PS, 0), "p"))
    clock.advance(1)
    membership.expire()
    assert join(membership, PS, "r") == Task(PS, 1)
    assert membership.generation == 2
    assert lives(membership.view) == ["p", "r"]


def test_workers_come_and_go_without_a_new_generation(membership, clock):
    join(membership, PS, "p")
    before = membership.view
    for life in "ab":
        join(membership, WORKER, life)
    membership.leave(Task(WORKER, 0), "a", pb.LeaveRequest.DONE)
    clock.advance(LEASE_SECS)
    keep_alive(membership, (Task(PS, 0), "p"))
    clock.advance(1)
    assert membership.expire() == [Task(WORKER, 1)]
    assert membership.view is before


def test_an_generation_can_be_renewed_with_the_same_servers(membership):
    join(membership, PS, "p")
    membership.mark_ready(1)
    membership.renew_generation()
    assert membership.generation == 2
    assert lives(membership.view) == ["p"]
    # Its parameters are not initialized for generation 2.
    assert ask_ready(membership, 1) is None


# Waiting


def in_thread(call):
    """Runs a call in a thread; returns a function that waits for its result."""
    results = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()

    def result():
        thread.join(30)
        assert results, "the call did not return"
        return results[0]

    return result


def test_whatever_makes_the_model_ready_is_news_to_those_that_wait(membership):
    told = []

    def note():
        if membership.readiness not in told:
            told.append(membership.readiness)

    membership.changed.listen(note)
    join(membership, WORKER, "a")
    assert len(told) == 1, "news for all tasks does not wake a wait for the model"
    join(membership, WORKER, "b")
    assert len(told) == 1
    join(membership, PS, "p")
    membership.mark_ready(1)
    assert len(told) == 3
    assert ask_ready(membership, 1).generation == 1


def test_ready_means_the_newest_generation(membership, clock):
    join(membership, PS, "p")
    membership.mark_ready(1)
    assert ask_ready(membership, 1).generation == 1
    assert ask_ready(membership, 2) is None
    clock.advance(LEASE_SECS + 1)
    membership.expire()
    assert ask_ready(membership, 1) is None
    join(membership, PS, "q")
    assert ask_ready(membership, 1) is None
    membership.mark_ready(1)  # A chief that is late with the old generation.
    assert ask_ready(membership, 1) is None
    membership.mark_ready(2)
    assert lives(ask_ready(membership, 1)) == ["q"]


def test_the_chief_waits_for_a_whole_set_of_servers(make):
    membership = make(num_ps=2)
    view = in_thread(lambda: membership.await_view(1, 300.0, lambda: False))
    join(membership, PS, "p")
    join(membership, PS, "q")
    assert lives(view()) == ["p", "q"]


def test_the_chiefs_wait_can_be_cancelled(membership):
    cancelled = threading.Event()
    view = in_thread(lambda: membership.await_view(1, 300.0, cancelled.is_set))
    cancelled.set()
    assert view() is None


def test_the_chiefs_wait_is_bounded_and_says_who_is_missing(make):
    membership = make(num_ps=2)
    join(membership, PS, "p")
    with pytest.raises(WaitTimeout, match=r"max_wait_secs=0\.1 .*ps:1 \(never heard of\)"):
        membership.await_view(1, 0.1, lambda: False)


def test_what_is_missing_is_named_with_role_index_address_and_age(make, clock):
    membership = make(num_ps=3)
    join(membership, PS, "p", index=0)
    join(membership, PS, "q", index=1)
    clock.advance(LEASE_SECS)
    keep_alive(membership, (Task(PS, 0), "p"))
    clock.advance(2.5)
    membership.expire()
    assert membership.missing() == (
        "waiting for ps:1 (q.host:2222, lost, last heard of 12.5 s ago), ps:2 (never heard of)"
    )


def test_then_the_model_is_what_is_missing(membership):
    join(membership, PS, "p")
    assert membership.missing() == "waiting for the chief to initialize the model (generation 1)"
    membership.mark_ready(1)
    assert membership.missing() == "waiting for nothing"


# The end


def test_when_the_end_has_begun_nobody_can_join(membership):
    server = join(membership, PS, "p")
    worker = join(membership, WORKER, "a")
    membership.begin_stop(WORKER)
    assert membership.is_stopping(worker)
    assert not membership.is_stopping(server)
    for role in (WORKER, PS):
        with pytest.raises(JobClosed):
            join(membership, role, "late")
    membership.heartbeat(worker, "a", pb.WorkerReport(local_steps=3))  # Those in it finish.
    assert membership.records(WORKER)[0].report.local_steps == 3


def test_the_end_is_news_to_who_waits_for_a_ready_model(membership):
    before = membership.readiness
    membership.begin_stop(WORKER)
    assert membership.readiness != before
    with pytest.raises(JobClosed):
        ask_ready(membership, 1)


def test_the_chief_waits_until_all_workers_are_gone(membership):
    for life in "ab":
        join(membership, WORKER, life)
    membership.leave(Task(WORKER, 0), "a", pb.LeaveRequest.DONE)
    assert not membership.await_gone(WORKER, 0.0)
    gone = in_thread(lambda: membership.await_gone(WORKER, 300.0))
    membership.leave(Task(WORKER, 1), "b", pb.LeaveRequest.DONE)
    assert gone()


def test_many_tasks_that_join_at_once_get_different_places(membership):
    tasks = [in_thread(lambda i=i: join(membership, WORKER, f"life-{i}")) for i in range(32)]
    assert sorted(task().index for task in tasks) == list(range(32))


# Applicants that a view could not be made of


@pytest.mark.parametrize(
    ("applicant", "reason"),
    [
        ({"role": WORKER, "spare": True}, "only a parameter server can be a spare"),
        ({"role": Role.CHIEF}, "does not register"),
        ({"role": PS, "address": "nowhere"}, "has no port"),
        ({"role": PS, "spare": True, "address": ""}, "has no port"),
    ],
)
def test_an_applicant_that_fits_no_view_is_refused(membership, applicant, reason):
    with pytest.raises(ValueError, match=reason):
        membership.register(Applicant(**{"address": "a:1", "incarnation": "a", **applicant}))
    assert membership.records() == []


def test_a_process_has_one_place_in_a_role(membership):
    register(membership, WORKER, address="a:1", incarnation="a")
    with pytest.raises(UsageError, match="worker:0 already"):
        register(membership, WORKER, address="a:1", incarnation="a", index=1)
    register(membership, PS, address="a:1", incarnation="a")


def test_two_parameter_servers_have_two_addresses(membership):
    register(membership, PS, address="a:1", incarnation="a")
    with pytest.raises(TaskHeld, match="a:1 is the address of ps:0"):
        register(membership, PS, address=" a:1", incarnation="b", spare=True)
    membership.lose("a", "its process has ended")
    register(membership, PS, address="a:1", incarnation="b")
    assert [record.incarnation for record in membership.up(PS)] == ["b"]
