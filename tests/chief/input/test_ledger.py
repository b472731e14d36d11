"""The ledger of the input: the leases of workers, the counted records, and those set aside.

The test plays the workers and the parameter servers: `Job.train` applies batches, as steps would.
"""

import json
from itertools import starmap

import numpy as np
import pytest

from paramserve.chief.input.failures import Failures
from paramserve.chief.input.ledger import Finished, NoDataset, ShardLedger
from paramserve.cluster.spec import Role, Task
from paramserve.errors import JobFailed, UsageError
from paramserve.model.input.shard_plan import FilePart, InputPlan

A, B, C = (Task(Role.WORKER, index) for index in range(3))
SETTLE_SECS = 2.0


def plan_of(**values):
    """Six shards of four batches of ten records; the last has one batch, of five records."""
    defaults = {
        "name": "train",
        "num_records": 205,
        "batch_size": 10,
        "shard_records": 40,
        "epochs": 2,
        "seed": 7,
    }
    return InputPlan(**{**defaults, **values})


class Job:
    """A ledger, and how often each batch has been applied."""

    def __init__(self, plan, clock, **more):
        self.plan, self.clock = plan, clock
        self.ledger = ShardLedger(clock=clock, settle_secs=SETTLE_SECS, **more)
        self.ledger.declare(plan)
        self.applied = np.zeros(plan.num_batches, np.int32)
        self.waiting = []
        self.held = {}

    def lease(self, task, life="life"):
        mine = self.held.setdefault((task, life), [])
        grant = self.ledger.lease(task, life, held=mine)
        if grant is not None:
            mine.append(grant)
        return grant

    def train(self, grant, batches=None):
        """Steps on some of a lease's batches, or on all of them."""
        for batch in grant.batches if batches is None else batches:
            self.applied[self.plan.batch_range(grant.shard)][batch] += not grant.fills

    def finish(self, task, grant, life="life", **more):
        self.held[(task, life)].remove(grant)
        self.ledger.finish(task, life, [Finished(grant, **more)])

    def read(self, task, life="life"):
        """Leases a shard, trains on all of it and gives it back."""
        grant = self.lease(task, life)
        if grant is not None:
            self.train(grant)
            self.finish(task, grant, life)
            self.settle()
        return grant

    def settle(self, secs=0.0):
        self.clock.advance(secs)
        waiting = {int(self.plan.first_batches[g.shard]) + batch for g, batch in self.waiting}
        self.ledger.settle(self.ledger.ended, self.applied, waiting)

    def lose(self, task, life="life"):
        self.held.pop((task, life), None)
        self.ledger.release(task, life, failed=True)
        self.settle(SETTLE_SECS)

    def roll_back(self, point):
        """Restores the model of an earlier point, as after the loss of a parameter server."""
        saved, applied = point
        self.applied = applied.copy()
        self.held.clear()
        self.ledger.restore(json.loads(saved), self.applied)

    def save(self):
        return json.dumps(self.ledger.snapshot()), self.applied.copy()


@pytest.fixture
def start(clock):
    """Starts a job: `start(sync=True, num_records=100)`."""

    def start(*, sync=False, max_failures=3, max_bad_records=None, **values):
        failures = Failures(max_bad_records, max_failures)
        return Job(plan_of(**values), clock, sync=sync, failures=failures)

    return start


@pytest.fixture
def job(start):
    return start()


def shards_of(grants):
    return [grant.shard for grant in grants]


# Order


def test_each_epoch_deals_every_shard_once_in_an_order_of_its_own(job):
    grants = [job.read(A) for _ in range(12)]
    first, second = shards_of(grants[:6]), shards_of(grants[6:])
    assert sorted(first) == sorted(second) == list(range(6))
    assert first == job.plan.order(0).tolist()
    assert second == job.plan.order(1).tolist()
    assert first != second
    assert [grant.epoch for grant in grants] == [0] * 6 + [1] * 6
    assert job.applied.tolist() == [2] * 21
    assert job.ledger.lease(A, "life") is None
    assert job.ledger.is_exhausted
    assert job.ledger.is_exhausted


def test_the_order_depends_on_the_seed_and_nothing_else(start):
    same = [shards_of(start(seed=seed).read(A) for _ in range(6)) for seed in (7, 7)]
    other = [start(seed=8)]
    assert same[0] == same[1]
    assert same[0] != shards_of(other[0].read(A) for _ in range(6))


def test_without_shuffling_shards_and_records_come_by_number(start):
    job = start(shuffle=False)
    grant = job.lease(A)
    assert shards_of([grant, *(job.read(B) for _ in range(5))]) == list(range(6))
    assert job.plan.records(1, 0).tolist() == list(range(40, 80))


def test_a_shards_records_are_the_same_on_every_task_and_others_in_each_epoch():
    mine, theirs = plan_of(), plan_of()
    assert (mine.records(2, 0) == theirs.records(2, 0)).all()
    assert (mine.records(2, 0) != mine.records(2, 1)).any()
    assert sorted(mine.records(2, 1)) == list(range(80, 120))
    assert mine.sizes.tolist() == [40] * 5 + [5]


def test_no_shard_is_read_by_two_at_a_time(job):
    held = [job.lease(task) for task in (A, B, C, A, B, C)]
    assert sorted(shards_of(held)) == list(range(6))
    assert job.lease(A) is None
    assert not job.ledger.is_exhausted


def test_the_next_epoch_begins_for_those_that_would_wait_for_the_last_of_this_one(job):
    slow = job.lease(A)
    grants = [job.read(B) for _ in range(10)]
    assert [grant.epoch for grant in grants] == [0] * 5 + [1] * 5
    assert slow.shard not in shards_of(grants[5:])
    assert job.read(B) is None
    job.train(slow)
    job.finish(A, slow)
    job.settle()
    assert (job.read(B).shard, job.ledger.is_exhausted) == (slow.shard, True)


def test_an_input_without_end_goes_on(start):
    job = start(epochs=None)
    assert [job.read(A).epoch for _ in range(24)][-1] == 3
    assert not job.ledger.is_exhausted


# Counting


def test_what_was_leased_but_not_applied_is_dealt_again(job):
    """A gradient that came too late in sync mode, or a batch lost with a session."""
    grant = job.lease(A)
    job.train(grant, [0, 2])
    job.finish(A, grant)
    job.settle()
    again = job.lease(B)
    assert (again.shard, again.batches) == (grant.shard, (1, 3))
    assert not job.ledger.progress.set_aside


def test_the_shards_of_a_lost_worker_go_to_others_without_what_it_has_trained_on(job):
    grant = job.lease(A)
    job.train(grant, [0, 1])
    job.lose(A)
    rest = job.lease(B)
    assert (rest.shard, rest.batches) == (grant.shard, (2, 3))
    job.train(rest)
    job.finish(B, rest)
    while job.read(B):
        job.settle()
    assert job.applied.tolist() == [2] * 21


def test_updates_of_a_lost_worker_that_are_counted_late_are_waited_for(job):
    grant = job.lease(A)
    job.ledger.release(A, "life", failed=True)
    job.settle()
    job.train(grant, [0])
    others = [job.lease(B).shard for _ in range(5)]
    assert grant.shard not in others
    job.settle(SETTLE_SECS)
    assert job.applied.sum() == 1
    assert job.ledger.lease(C, "life").batches[0] == 1


def test_another_life_of_a_task_does_not_have_the_leases_of_the_one_before(job):
    old = job.lease(A, "old")
    new = job.lease(A, "new")
    assert old.shard != new.shard
    assert job.ledger.find_void(A, "new", [old, new]) == [old.lease]
    job.ledger.finish(A, "new", [Finished(old)])
    job.ledger.release(A, "old", failed=False)
    assert job.ledger.find_void(A, "new", [new]) == []


def test_a_lease_whose_answer_was_lost_does_not_stay_with_a_worker_that_knows_nothing_of_it(job):
    lost = job.ledger.lease(A, "life", held=[])
    job.ledger.lease(A, "life", held=[])
    job.settle()
    assert lost.shard in [job.ledger.lease(B, "life", held=()).shard]


def test_a_batch_applied_twice_is_counted_and_does_not_stand_for_the_next_epoch(job, caplog):
    """A worker that was declared lost woke up in the middle of its step."""
    grant = job.lease(A)
    job.lose(A)
    again = job.lease(B)
    assert again.shard == grant.shard
    job.train(grant, [0])
    job.train(again)
    job.finish(B, again)
    job.settle()
    job.settle()
    while not job.ledger.is_exhausted:
        job.read(B)
    assert job.ledger.progress.repeated == 1
    assert sorted(job.applied.tolist()) == [2] * 20 + [3]
    assert "applied twice" in caplog.text


def test_counts_from_before_a_lease_ended_say_nothing_about_its_last_steps(job):
    one, other = job.lease(A), job.lease(B)
    job.train(one)
    job.finish(A, one)
    ended, applied = job.ledger.ended, job.applied.copy()
    job.train(other)
    job.finish(B, other)
    job.ledger.settle(ended, applied)
    assert job.ledger.progress.done == 1
    assert job.ledger.ended
    job.settle()
    assert job.ledger.progress.done == 2


# Sync mode


def test_what_waits_for_the_rest_of_its_step_is_not_dealt_again(start):
    job = start(sync=True)
    grant = job.lease(A)
    job.train(grant, [0, 1, 2])
    job.finish(A, grant)
    job.waiting = [(grant, 3)]
    job.settle(100 * SETTLE_SECS)
    assert grant.shard not in shards_of(job.lease(B) for _ in range(5))
    job.train(grant, [3])
    job.settle()
    assert job.ledger.progress.done == 1


def test_what_waits_for_no_other_was_applied_or_dropped(start):
    """Also while others wait."""
    job = start(sync=True)
    grant, other = job.lease(A), job.lease(B)
    job.train(grant, grant.batches[:-1])
    job.finish(A, grant)
    job.finish(B, other)
    job.waiting = [(other, 0)]
    job.settle()
    assert len(job.ledger.ended) == 2, "it may have been taken and not yet been counted"
    job.settle()
    assert job.ledger.ended == {other.lease}
    again = job.ledger.lease(C, "life")
    assert (again.shard, again.batches, again.fills) == (grant.shard, grant.batches[-1:], False)


def test_when_too_few_gradients_for_a_step_are_left_the_step_is_filled_up(start):
    """No other worker can push one: a batch is read a second time, and is not counted again."""
    job = start(sync=True, epochs=1, num_records=30)
    grant = job.lease(A)
    job.train(grant, [0])
    job.finish(A, grant)
    job.waiting = [(grant, 1), (grant, 2)]
    job.settle(SETTLE_SECS - 0.1)
    assert job.lease(A) is None
    job.settle(0.1)
    again = job.lease(A)
    assert (again.batches, again.fills) == ((1,), True)
    job.train(grant, [1, 2])
    job.train(again)
    job.finish(A, again)
    job.waiting = []
    job.settle()
    assert job.ledger.is_exhausted
    assert job.ledger.progress.repeated == 0
    assert job.applied.tolist() == [1] * 3


def test_what_was_lost_is_read_before_a_step_is_filled_up(start):
    job = start(sync=True, epochs=1, num_records=30)
    grant = job.lease(A)
    job.train(grant, [0])
    job.finish(A, grant)
    job.waiting = [(grant, 1)]
    job.settle(SETTLE_SECS)
    again = job.lease(A)
    assert (again.batches, again.fills) == ((2,), False)


def test_another_life_of_a_task_waits_for_the_last_steps_of_the_one_before(start):
    job = start(num_records=30)
    old = job.lease(A, "old")
    assert job.lease(A, "new") is None
    job.settle()
    assert job.lease(A, "new") is None, "a step of it may still be under way"
    job.settle(SETTLE_SECS)
    assert job.lease(A, "new").shard == old.shard


def test_nobody_needs_to_wait_for_gradients_of_those_that_have_nothing_to_read(start, clock):
    job = start(sync=True, epochs=1, num_records=80)
    mine, theirs = job.lease(A), job.lease(B)
    assert job.lease(A) is None
    clock.advance(1.0)
    assert job.ledger.starved(1.0) == set(), "it still has something to train on"
    job.train(mine)
    job.finish(A, mine)
    assert job.ledger.starved(1.0) == {A}
    job.train(theirs, [0, 1])
    job.finish(B, theirs)
    job.settle()
    job.settle()
    assert job.lease(A).batches == (2, 3)
    assert job.ledger.starved(0.0) == set()


def test_in_async_mode_whoever_waits_gets_what_others_leave(start):
    job = start(epochs=1, num_records=80)
    job.lease(B)
    job.read(A)
    assert job.lease(A) is None
    assert not job.ledger.is_exhausted
    job.lose(B)
    assert job.lease(A).batches == (0, 1, 2, 3)


# Failures


def test_a_batch_that_fails_three_times_is_set_aside_and_reported(start, caplog):
    job = start(shuffle=False)
    poisoned = job.plan.batch_range(3).start + 1
    for _ in range(60):
        if (grant := job.lease(A)) is None:
            break
        start = job.plan.batch_range(grant.shard).start
        good = [b for b in grant.batches if start + b != poisoned]
        job.train(grant, good)
        missed = len(grant.batches) - len(good)
        job.finish(A, grant, missed=missed, error="no such image" if missed else "")
        job.settle()

    assert job.ledger.is_exhausted
    expected = [2] * 21
    expected[poisoned] = 0
    assert job.applied.tolist() == expected
    (aside,) = job.ledger.progress.set_aside
    assert (aside.shard, aside.batches, aside.records, aside.epoch) == (3, (1,), 10, 0)
    assert "failed 3 times, the last time because no such image" in aside.error
    assert "records 130 to 139 of 'train'" in job.ledger.progress.describe()
    assert "10 records set aside" in job.ledger.progress.describe()
    assert "set aside, and not read any more" in caplog.text


def fail_often(job, times=3):
    """Fails at the first batch of the first shard."""
    for _ in range(times):
        grant = job.lease(A)
        job.finish(A, grant, missed=len(grant.batches), error="torn")
        job.settle()


def test_more_bad_records_than_are_allowed_end_the_job_and_stay_to_be_read(start):
    """A run that resumes from its checkpoint finds the input mended."""
    job = start(shuffle=False, max_bad_records=15)
    fail_often(job)
    job.ledger.failures.check()
    assert job.ledger.failures.records == 10
    fail_often(job)
    with pytest.raises(JobFailed, match=r"15: records 10 to 19 .* \(10, 20 in all"):
        job.ledger.failures.check()
    assert job.ledger.failures.records == 10

    later = start(shuffle=False, max_bad_records=15)
    later.roll_back(job.save())
    later.ledger.failures.check()
    while later.read(A):
        pass
    assert later.applied.tolist() == [0] + [2] * 20


def test_fewer_bad_records_than_an_earlier_run_left_out_are_refused(start):
    job = start(shuffle=False)
    fail_often(job)
    with pytest.raises(UsageError, match=r"set aside 10 records .* more than --max-bad-records 9"):
        start(shuffle=False, max_bad_records=9).roll_back(job.save())


def test_where_batches_change_from_epoch_to_epoch_one_is_set_aside_in_its_own(job, caplog):
    """Record 130 is in other company each time, which is read when it is without it."""
    while not job.ledger.is_exhausted:
        grant = job.lease(A)
        records = job.plan.records(grant.shard, grant.epoch)
        good = [b for b in grant.batches if 130 not in records[b * 10 : b * 10 + 10]]
        job.train(grant, good)
        job.finish(A, grant, missed=len(grant.batches) - len(good), error="torn")
        job.settle()

    first, second = job.ledger.progress.set_aside
    assert (first.epoch, first.records, second.epoch, second.records) == (0, 10, 1, 10)
    assert " 130, " in first.what
    assert " 130, " in second.what
    assert job.applied.sum() == 2 * 21 - 2
    assert job.ledger.progress.repeated == 0
    assert "not read in epoch 2" in caplog.text


def test_what_was_set_aside_stays_so_after_a_rollback(job):
    point = job.save()
    grant = job.lease(A)
    for _ in range(3):
        job.finish(A, grant, missed=4, error="torn")
        job.settle()
        grant = job.lease(A)
    (aside,) = job.ledger.progress.set_aside
    job.roll_back(point)
    while job.read(A):
        pass
    assert job.ledger.progress.set_aside == (aside,)
    assert job.applied.sum() == 2 * 21 - 1


def test_workers_that_die_at_one_place_are_stopped_from_dying_and_nothing_else_is_lost(start):
    """They also held and had read ahead shards without the fault."""
    job = start(shuffle=False)
    poisoned = job.plan.batch_range(int(job.plan.order(0)[0])).start + 2
    lives = 0
    for life in map(str, range(100)):
        while (grant := job.lease(A, life)) is not None:
            ahead = job.lease(A, life)
            start = job.plan.batch_range(grant.shard).start
            if poisoned - start in grant.batches:
                job.train(grant, [b for b in grant.batches if start + b < poisoned - 1])
                job.lose(A, life)
                lives += 1
                break
            for each in filter(None, (grant, ahead)):
                job.train(each)
                job.finish(A, each, life)
                job.settle()
        if job.ledger.is_exhausted:
            break
    assert lives == 5, "two at the batch before, that was read ahead of, and three at the poison"
    expected = [2] * 21
    expected[poisoned] = 0
    assert job.applied.tolist() == expected


def test_workers_that_are_killed_here_and_there_set_nothing_aside(job):
    for _ in range(40):
        if (grant := job.lease(A)) is None:
            break
        job.train(grant, grant.batches[:1])
        job.lose(A)
    while job.read(A):
        pass
    assert job.ledger.is_exhausted
    assert not job.ledger.progress.set_aside
    assert job.applied.tolist() == [2] * 21


def test_what_fails_in_the_hands_of_one_worker_alone_is_given_to_another(job):
    """The first has no memory left to read with."""
    first = job.lease(B)
    for _ in range(60):
        if (grant := job.lease(A)) is None:
            break
        job.finish(A, grant, missed=len(grant.batches), error="out of memory")
        job.settle(SETTLE_SECS)
    assert job.lease(A) is None, "it is kept from all that it has failed at"
    job.train(first)
    job.finish(B, first)
    while job.read(B):
        pass
    assert job.ledger.is_exhausted
    assert not job.ledger.progress.set_aside
    assert job.applied.tolist() == [2] * 21


def test_a_worker_that_leaves_is_no_failure(job):
    for _ in range(5):
        job.lease(A)
        job.ledger.release(A, "life", failed=False)
        job.held.clear()
        job.settle(SETTLE_SECS)
    assert not job.ledger.progress.set_aside
    assert len(job.lease(A).batches) in (1, 4)


def test_fewer_failures_prove_nothing():
    with pytest.raises(UsageError, match="max_failures=2: expected at least 3"):
        Failures(max_failures=2)


# Checkpoints


def test_after_a_rollback_exactly_what_the_model_has_not_seen_is_dealt(job):
    for _ in range(2):
        job.read(A)
    partly = next(grant for grant in iter(lambda: job.lease(B), None) if len(grant.batches) == 4)
    job.train(partly, [0])
    point = job.save()

    job.train(partly, [1, 2])
    for _ in range(3):
        job.read(A)
    job.roll_back(point)

    assert job.ledger.find_void(B, "life", [partly]) == [partly.lease]
    assert job.ledger.progress.done == 2
    while job.read(A):
        pass
    assert job.ledger.is_exhausted
    assert job.applied.tolist() == [2] * 21


def test_a_rollback_into_the_epoch_before(job):
    for _ in range(5):
        job.read(A)
    point = job.save()
    for _ in range(4):
        job.read(A)
    assert job.ledger.progress.epoch == 1
    job.roll_back(point)
    assert (job.ledger.progress.epoch, job.ledger.progress.done) == (0, 5)
    while job.read(A):
        pass
    assert job.applied.tolist() == [2] * 21


def test_a_job_goes_on_where_its_checkpoint_is_and_knows_what_was_set_aside(start):
    job = start(shuffle=False)
    job.read(A)
    for reader in (B, B, A):
        grant = job.lease(reader)
        while grant.shard != int(job.plan.order(0)[1]):
            grant = job.lease(reader)
        job.train(grant, [b for b in grant.batches if b != 0])
        job.finish(reader, grant, missed=1, error="torn")
        for each in (A, B):
            job.ledger.release(each, "life", failed=False)
        job.held.clear()
        job.settle(SETTLE_SECS)
    saved, applied = job.save()

    later = start(shuffle=False)
    later.roll_back((saved, applied))
    assert [each.error for each in later.ledger.progress.set_aside] == [
        "failed 3 times, the last time because torn"
    ]
    while later.read(A):
        pass
    assert sorted(later.applied.tolist()) == [0] + [2] * 20


def test_a_checkpoint_of_another_dataset_is_refused(job, start):
    saved = json.loads(job.save()[0])
    other = start(seed=8)
    with pytest.raises(UsageError, match=r"counts batches of dataset 'train' as it was then"):
        other.ledger.restore(saved, other.applied)


def test_more_epochs_than_before_are_no_other_dataset(job, start):
    while job.read(A):
        pass
    saved, applied = job.save()
    longer = start(epochs=3)
    longer.roll_back((saved, applied))
    assert len([grant for grant in iter(lambda: longer.read(A), None) if grant.epoch == 2]) == 6


# A new chief


def test_a_new_chief_adopts_the_leases_of_workers_that_train_on(job, start, clock):
    grant, other = job.lease(A), job.lease(B)
    job.train(grant, [0])

    new = start()
    new.applied = job.applied
    new.ledger.restore(None, job.applied, adopt_secs=10.0)
    assert new.ledger.find_void(A, "life", [grant]) == []
    assert new.lease(C) is None, "B may still come forward"
    clock.advance(10.0)
    assert new.ledger.find_void(B, "life", [other]) == [other.lease]
    dealt = [new.lease(C) for _ in range(5)]
    assert grant.shard not in shards_of(dealt)
    new.train(grant, [1, 2, 3])
    new.ledger.finish(A, "life", [Finished(grant)])
    new.settle()
    assert new.ledger.progress.done == 1


# Declarations


def test_nothing_can_be_asked_before_it_is_declared():
    ledger = ShardLedger()
    with pytest.raises(NoDataset, match=r"call task\.shards\(\)"):
        ledger.lease(A, "life")


def test_declaring_twice_is_fine_and_declaring_something_else_is_not(job):
    job.read(A)
    job.ledger.declare(plan_of())
    assert job.ledger.progress.done == 1
    with pytest.raises(UsageError, match="all tasks have to declare the same"):
        job.ledger.declare(plan_of(batch_size=5))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_records": 0}, "num_records=0 of dataset 'train': expected at least 1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"epochs": 0}, "epochs=0"),
        ({"shard_records": 25}, "shard_records=25 .* multiple of batch_size=10"),
        ({"seed": -1}, "seed=-1: expected a number from 0"),
        ({"num_records": 10**9, "batch_size": 1}, "more than 4000000: give a larger batch_size"),
    ],
)
def test_impossible_plans_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        plan_of(**values)


def test_files_are_shards_of_different_sizes():
    sizes = (("a.rec", 35), ("b.rec", 2), ("c.rec", 20))
    plan = InputPlan("logs", 57, 10, files=tuple(starmap(FilePart, sizes)))
    assert plan.batch_counts.tolist() == [4, 1, 2]
    assert [plan.batch_range(s).start for s in range(3)] == [0, 4, 5]
    assert plan.describe(0, 0, [3]) == "records 30 to 34 of a.rec"
