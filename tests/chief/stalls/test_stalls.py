"""The report of a hanging job or worker: its time, the task at fault, and the remedy."""

from dataclasses import replace

import pytest

from paramserve.chief.stalls.stalls import Remedy, StallWatch, StepObservation, WorkerObservation
from paramserve.cluster.spec import Role, Task
from paramserve.protos import membership_pb2 as pb

DOING = pb.WorkerReport
STALL_SECS = 10.0


class Job:
    """A job of two workers whose time a test moves forward, in seconds."""

    def __init__(self, *, sync):
        self.now = 100.0
        self.sync = sync
        self.step = 0
        self.workers = [
            WorkerObservation(
                Task(Role.WORKER, index), f"life-{index}", sessions=1, doing=DOING.STEP
            )
            for index in range(2)
        ]
        self.given = frozenset()
        self.paused = False
        self.watch = StallWatch(STALL_SECS, sync=sync, clock=lambda: self.now)
        self.seen = []

    def change(self, index, **values):
        self.workers[index] = replace(self.workers[index], **values)

    def make_steps(self, *indices, each=0.1, count=20):
        """Steps of these workers, or of both."""
        for _ in range(count):
            self.now += each
            self.step += 1
            for index in indices or (0, 1):
                self.change(index, local_steps=self.workers[index].local_steps + 1)
            self.look()

    def wait(self, secs):
        """Lets time pass, and returns the remedies that were called for."""
        before = len(self.seen)
        for _ in range(int(secs)):
            self.now += 1.0
            self.look()
        return [v.remedy for v in self.seen[before:] if v.remedy is not Remedy.NONE]

    def look(self):
        def gradients():
            there = len(self.given)
            return StepObservation(self.step, there, 2, self.given) if self.sync else None

        verdict = self.watch.look(self.step, self.workers, paused=self.paused, gradients=gradients)
        self.seen.append(verdict)
        return verdict

    @property
    def diagnosis(self):
        return self.seen[-1].diagnosis

    @property
    def reports(self):
        return sum(verdict.is_new for verdict in self.seen)


@pytest.fixture
def sync_job():
    job = Job(sync=True)
    job.make_steps()
    return job


@pytest.fixture
def async_job():
    job = Job(sync=False)
    job.make_steps()
    return job


def test_it_is_said_who_gives_no_gradient_and_who_waits_for_it(sync_job):
    sync_job.given = frozenset({0})
    assert sync_job.wait(9) == []
    assert sync_job.diagnosis == ""
    assert sync_job.wait(2) == []
    assert sync_job.diagnosis == (
        "no step for 11 s: worker:1 has had a token for step 20 for 11 s and gives no gradient "
        "(last heard of 0.0 s ago: the step hangs, or its input does); worker:0 waits for worker:1"
    )
    assert sync_job.reports == 1


def test_one_that_was_only_slow_goes_on_and_has_more_time_from_then_on(sync_job):
    sync_job.given = frozenset({0})
    assert sync_job.wait(15) == []
    sync_job.make_steps(count=1)
    assert sync_job.diagnosis == ""
    assert sync_job.wait(40) == []
    assert sync_job.reports == 1, "steps take that long here"
    sync_job.make_steps(count=40)
    assert sync_job.wait(11) == []
    assert sync_job.reports == 2, "that one was an exception"


def test_a_worker_that_hangs_opens_a_new_session_then_is_lost_then_the_job_fails(sync_job):
    sync_job.given = frozenset({0})
    assert sync_job.wait(19) == []
    assert sync_job.wait(1) == [Remedy.REOPEN]
    assert [str(worker.task) for worker in sync_job.seen[-1].workers] == ["worker:1"]
    sync_job.change(1, sessions=2)
    assert sync_job.wait(40) == [], "a session's first step has twice the time"
    assert sync_job.wait(1) == [Remedy.LOSE]
    sync_job.change(1, incarnation="life-2", local_steps=0, sessions=1)
    assert sync_job.wait(99) == [], "a life's first step has five times the time"
    assert sync_job.wait(2) == [Remedy.FAIL]


def test_a_step_in_between_begins_anew(sync_job):
    sync_job.given = frozenset({0})
    assert sync_job.wait(20) == [Remedy.REOPEN]
    sync_job.change(1, sessions=2)
    sync_job.make_steps()
    assert sync_job.wait(20) == [Remedy.LOSE], "the second time in the same life"
    sync_job.change(1, incarnation="life-2", local_steps=0, sessions=1)
    sync_job.make_steps()
    assert sync_job.wait(20) == [Remedy.REOPEN]


def test_when_all_hang_at_once_everybody_opens_a_new_session(async_job):
    assert async_job.wait(20) == [Remedy.RENEW]


def test_when_all_wait_for_tokens_nobody_is_at_fault(sync_job):
    sync_job.given = frozenset({0})
    sync_job.change(1, doing=DOING.TOKEN, sessions=2)
    assert sync_job.wait(11) == []
    assert sync_job.diagnosis == (
        "no step for 11 s: worker:0 waits for a token; worker:1 waits for a token; 1 of 2 "
        "gradients are there"
    )
    assert sync_job.wait(9) == [Remedy.RENEW]
    assert sync_job.wait(20) == [Remedy.RENEW]
    assert sync_job.wait(20) == [Remedy.FAIL]


def test_asynchronously_one_hangs_while_the_others_go_on(async_job):
    for _ in range(3):
        async_job.make_steps(0, each=1.0, count=5)
    assert async_job.diagnosis == (
        "a worker makes no step: worker:1 has been in a step for 15 s (last heard of 0.0 s ago: "
        "the step hangs, or its input does)"
    )


def test_asynchronously_a_job_that_goes_on_without_a_worker_never_fails_by_it(async_job):
    remedies = []
    for life in range(4):
        for _ in range(130):
            async_job.make_steps(0, each=1.0, count=1)
            if (remedy := async_job.seen[-1].remedy) is not Remedy.NONE:
                remedies.append(remedy)
                async_job.change(1, incarnation=f"another-{life}", local_steps=0)
    assert remedies[0] is Remedy.REOPEN
    assert len(remedies) > 3
    assert Remedy.FAIL not in remedies


def test_who_waits_for_slower_ones_or_for_input_does_not_hang(async_job):
    async_job.change(0, doing=DOING.SLOWER)
    assert async_job.wait(11) == []
    assert async_job.diagnosis.endswith("worker:0 waits for worker:1")
    async_job.change(0, doing=DOING.STEP, starved=True)
    assert async_job.wait(9) == [Remedy.REOPEN]
    [verdict] = [each for each in async_job.seen if each.remedy is Remedy.REOPEN]
    assert [str(worker.task) for worker in verdict.workers] == ["worker:1"]


def test_first_steps_and_hooks_take_their_time():
    job = Job(sync=False)
    job.look()
    assert job.wait(49) == []
    assert job.reports == 0
    assert job.wait(2) == []
    assert job.reports == 1
    job.make_steps()
    for index in (0, 1):
        job.change(index, doing=DOING.BETWEEN)
    job.make_steps(0, each=1.0, count=45)
    assert job.reports == 1


def test_a_session_that_is_never_there_cannot_be_left():
    job = Job(sync=False)
    job.change(1, doing=DOING.OPENING)
    for _ in range(99):
        job.make_steps(0, each=1.0, count=1)
    assert "worker:1 has opened its session for 98 s" in job.diagnosis
    job.make_steps(0, each=1.0, count=3)
    assert Remedy.LOSE in [verdict.remedy for verdict in job.seen]


def test_nothing_hangs_while_training_is_held(sync_job):
    sync_job.paused = True
    assert sync_job.wait(60) == []
    assert sync_job.reports == 0
    sync_job.paused = False
    assert sync_job.wait(9) == []
    assert sync_job.reports == 0


def test_those_who_waited_are_not_blamed_when_the_step_is_made_at_last(sync_job):
    sync_job.given = frozenset({0})
    assert sync_job.wait(20) == [Remedy.REOPEN]
    sync_job.change(1, sessions=2)
    sync_job.wait(5)
    sync_job.step += 1
    sync_job.given = frozenset()  # The workers' own reports come later.
    assert sync_job.look().diagnosis == ""
    assert sync_job.wait(8) == []
    assert sync_job.diagnosis == ""
