"""Shards from a real service into real steps: every record counts once in an epoch.

The model's weights are the proof: each has one record, and a step adds 1 to those of its batch.
"""

import contextlib
import functools
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from paramserve.cluster.spec import Role, Task
from paramserve.errors import UsageError, WaitTimeout
from paramserve.model.input.shard_plan import FilePart, InputPlan
from paramserve.model.spec import TrainSpec
from paramserve.worker.hooks import TokenHook
from paramserve.worker.input_hook import InputHook
from support.waiting import until

v1 = tf.compat.v1
RECORDS = 90
PATIENCE_SECS = 60.0


def plan_of(**values):
    defaults = {"name": "train", "num_records": 40, "batch_size": 5, "shard_records": 10}
    return InputPlan(**{**defaults, **values})


def model(*, epochs=2, read=None, batch_size=4, records=RECORDS):
    """A build function: weight i counts how often record i was applied."""

    def build(task):
        dataset = task.shards(
            records, batch_size=batch_size, epochs=epochs, seed=3, read=read, shard_records=12
        )
        position, numbers = v1.data.make_one_shot_iterator(dataset).get_next()
        weights = v1.get_variable("seen", [records], initializer=v1.zeros_initializer())
        return TrainSpec(
            # Two workers' gradients are averaged in sync mode, so each counts twice there.
            loss=-tf.reduce_sum(tf.gather(weights, numbers)) * (2.0 if task.sync else 1.0),
            optimizer=v1.train.GradientDescentOptimizer(1.0),
            examples=tf.size(numbers),
            position=position,
        )

    return build


class Creator(v1.train.SessionCreator):
    """Opens sessions of a worker, and local variables are initialized in each."""

    def __init__(self, cluster, built, index):
        self._cluster, self._built, self._index = cluster, built, index
        self.sessions = []

    def create_session(self):
        session = self._cluster.session(self._built.graph, Role.WORKER, self._index)
        session.run(self._built.local_init_with_tables)
        self.sessions.append(session)
        return session


class Job:
    """A chief that looks after its ledger, and workers."""

    def __init__(self, cluster, chief, build, sync=False):
        self.cluster, self.chief, self.build, self.sync = cluster, chief, build, sync
        self.built = build()
        self.session = cluster.session(self.built.graph)
        self.session.run(self.built.init_op)
        self.session.run(self.built.local_init_op)
        chief.ledger.declare(self.built.input.plan)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_after, daemon=True)
        self._thread.start()

    def _look_after(self):
        while not self._ended.wait(0.02):
            if ended := self.chief.ledger.ended:
                waiting = [self.built.sync.waiting_batches] if self.sync else []
                applied, waiting = self.session.run([self.built.input.applied, waiting])
                self.chief.ledger.settle(ended, applied, set(np.concatenate([[], *waiting])))

    def stop(self):
        self._ended.set()
        self._thread.join()

    def worker(self, source, index=0, *, hooks=(), steps=None):
        """Trains until the input ends, or for some steps."""
        built = self.build(role=Role.WORKER, index=index, input=source)
        hook = InputHook(source, built.spec.position)
        hooks = [*hooks, *([TokenHook(built)] if self.sync else [])]
        creator = Creator(self.cluster, built, index)
        with (
            built.graph.as_default(),
            v1.train.MonitoredSession(creator, [*hooks, hook]) as session,
        ):
            made = 0
            while not session.should_stop() and made != steps:
                session.run(built.train_op)
                made += 1
        return made

    @property
    def seen(self):
        return self.session.run(self.built.graph.get_tensor_by_name("seen/Read/ReadVariableOp:0"))

    @property
    def batch_sizes(self):
        plan = self.built.input.plan
        sizes = np.full(plan.num_batches, plan.batch_size)
        sizes[plan.first_batches + plan.batch_counts - 1] -= -plan.sizes % plan.batch_size
        return sizes

    @property
    def applied(self):
        return self.session.run(self.built.input.applied).tolist()


@pytest.fixture
def start_job(cluster, serve_shards, build_graph):
    jobs = []

    def start(build, *, sync=False, **more):
        make_graph = functools.partial(build_graph, build, num_workers=2, sync=sync)
        job = Job(cluster, serve_shards(sync=sync, **more), make_graph, sync)
        jobs.append(job)
        return job

    yield start
    for job in jobs:
        job.stop()


# Whole jobs


def test_workers_share_out_every_record_of_every_epoch(start_job, join, background):
    job = start_job(model(epochs=3))
    sources = [join(job.chief, life) for life in "ab"]
    steps = [background(lambda i=i: job.worker(sources[i], i)) for i in range(2)]
    made = [step.result() for step in steps]
    assert job.seen.tolist() == [3.0] * RECORDS
    assert job.chief.ledger.is_exhausted
    assert set(job.applied) == {3}
    assert all(made), "one worker did it all"


def test_a_batch_that_cannot_be_read_is_set_aside_and_the_rest_is_trained_on(start_job, join):
    def read(numbers):
        check = tf.debugging.assert_none_equal(numbers, tf.constant(50, tf.int64))
        with tf.control_dependencies([check]):
            return tf.identity(numbers)

    job = start_job(model(epochs=1, read=read))
    job.worker(join(job.chief, "a"))
    (aside,) = job.chief.ledger.progress.set_aside
    assert job.chief.ledger.is_exhausted
    assert aside.records == 4
    assert job.seen.sum() == RECORDS - 4
    assert job.seen[50] == 0
    assert job.seen.max() == 1
    assert "the last time because record 50: InvalidArgumentError: assertion failed" in aside.error
    assert job.chief.ledger.failures.set_aside[0].to_dict()["records"] == 4


def test_what_a_lost_session_had_read_is_read_again(start_job, join, cluster):
    """The step under way and the batches read ahead are dropped, and dealt again."""

    class Break(v1.train.SessionRunHook):
        steps = 0

        def after_run(self, run_context, run_values):
            self.steps += 1
            if self.steps in (5, 11):
                raise tf.errors.AbortedError(None, None, "a connection broke")

    job = start_job(model(epochs=2))
    job.worker(join(job.chief, "a"), hooks=[Break()])
    assert job.seen.tolist() == [2.0] * RECORDS
    assert job.chief.ledger.progress.repeated == 0
    assert not job.chief.ledger.progress.set_aside


class Script(v1.train.SessionRunHook):
    """Waits after 5 steps until the model is saved; after 12, breaks until it was put back."""

    def __init__(self):
        self.reached, self.go_on = threading.Event(), threading.Event()
        self._steps = 0

    def after_create_session(self, session, coord):
        if self._steps:
            self._wait()

    def after_run(self, run_context, run_values):
        self._steps += 1
        if self._steps == 5:
            self._wait()
        if self._steps == 12:
            raise tf.errors.AbortedError(None, None, "a parameter server is gone")

    def _wait(self):
        self.reached.set()
        assert self.go_on.wait(PATIENCE_SECS)
        self.go_on.clear()


def at_once(scripts, act):
    """Does something while all wait."""
    for script in scripts:
        assert script.reached.wait(PATIENCE_SECS)
        script.reached.clear()
    value = act()
    for script in scripts:
        script.go_on.set()
    return value


def test_after_a_rollback_every_record_still_counts_once(start_job, join, background, tmp_path):
    """Both workers have read ahead when the model goes back to an earlier point."""
    job = start_job(model(epochs=2))
    scripts = [Script(), Script()]
    sources = [join(job.chief, life) for life in "ab"]
    workers = [
        background(lambda i=i: job.worker(sources[i], i, hooks=[scripts[i]])) for i in range(2)
    ]
    saver, graph = job.built.saver, job.built.graph

    def save():
        with graph.as_default():
            path = saver.save(job.session, str(tmp_path / "model"), write_meta_graph=False)
        return path, job.chief.ledger.snapshot()

    def roll_back():
        before = job.seen.sum()
        with graph.as_default():
            saver.restore(job.session, path)
        assert job.seen.sum() < before
        job.chief.ledger.restore(ledger, job.applied)

    path, ledger = at_once(scripts, save)
    at_once(scripts, roll_back)
    for worker in workers:
        worker.result()
    assert job.seen.tolist() == [2.0] * RECORDS
    assert job.applied == [2] * len(job.applied)
    assert job.chief.ledger.is_exhausted


class Tokens:
    """The chief of a sync job: applies steps, and has workers that can read compute the rest."""

    def __init__(self, job):
        self._job, self._sync = job, job.built.sync
        self._ended = threading.Event()
        job.session.run(self._sync.start)
        self._issue(1, 1)
        for work in (self._apply, self._watch):
            threading.Thread(target=work, daemon=True).start()

    def _issue(self, *counts):
        self._job.session.run(self._sync.issue_tokens, {self._sync.counts: [*counts, 0]})

    def _apply(self):
        session = self._job.cluster.session(self._job.built.graph)
        with contextlib.suppress(tf.errors.OpError, RuntimeError):
            while not self._ended.is_set():
                session.run(self._sync.apply_step)

    def _watch(self):
        stuck_at = None
        while not self._ended.wait(0.3):
            step, waiting, sizes = self._job.session.run(
                [self._job.built.global_step, self._sync.waiting, self._sync.queue_sizes]
            )
            is_stuck = waiting == 1 and not sizes.any() and step == stuck_at
            stuck_at = step
            if is_stuck:
                starved = {task.index for task in self._job.chief.ledger.starved(0.2)}
                self._issue(*(int(i not in starved and 1 - i in starved) for i in range(2)))

    def stop(self):
        self._ended.set()


@pytest.fixture
def train_in_sync(start_job, join, background):
    """Trains to the end of the input with two workers."""

    def train(**of_model):
        job = start_job(model(**of_model), sync=True)
        tokens = Tokens(job)
        sources = [join(job.chief, life) for life in "ab"]
        workers = [background(lambda i=i: job.worker(sources[i], i)) for i in range(2)]
        try:
            for worker in workers:
                worker.result()
        finally:
            tokens.stop()
        assert job.chief.ledger.is_exhausted
        return job

    return train


def test_in_sync_mode_records_are_counted_when_they_are_applied(train_in_sync):
    """The chief applies; the workers' input ends at different times."""
    job = train_in_sync(epochs=2)
    assert job.applied == [2] * len(job.applied)
    assert np.allclose(job.seen, 2.0)


def test_a_last_step_that_is_filled_up_counts_each_batch_once(train_in_sync):
    """Of 23 batches one is left; it makes the last step, for which both workers read it."""
    job = train_in_sync(epochs=1)
    assert job.applied == [1] * 23
    examples, step = job.session.run([job.built.examples, job.built.global_step])
    assert (examples, step) == (RECORDS, 12)
    assert job.chief.ledger.progress.repeated == 0


# One worker's input


def test_a_worker_gives_back_what_it_is_done_with(serve_shards, join):
    chief, plan = serve_shards(), plan_of()
    chief.ledger.declare(plan)
    source = join(chief, "a")
    leases = source.leases(plan)
    first, second = next(leases), next(leases)
    assert (first.number, second.number) == (0, 1)
    assert chief.ledger.progress.leased == 2
    where = plan.batch_range(first.shard)
    source.complete([(where.start, 0, 0)])
    source.complete([(where.start + 1, 0, 0)])
    until(lambda: chief.ledger.progress.leased == 1)
    applied = np.zeros(plan.num_batches, int)
    applied[where] = 1
    chief.ledger.settle(chief.ledger.ended, applied)
    assert chief.ledger.progress.done == 1


def test_a_worker_that_leaves_gives_back_everything(serve_shards, join):
    chief, plan = serve_shards(), plan_of()
    chief.ledger.declare(plan)
    source = join(chief, "a")
    leases = source.leases(plan)
    next(leases)
    next(leases)
    source.stop()
    assert chief.ledger.progress.leased == 0
    assert list(leases) == []


def test_a_worker_that_was_taken_as_lost_trains_on_nothing_that_others_read(serve_shards, join):
    """It was stopped for longer than its lease, and asks before its next step."""
    now = [0.0]
    chief, plan = serve_shards(), plan_of()
    chief.ledger.declare(plan)
    source = join(chief, "a", clock=lambda: now[0])
    leases = source.leases(plan)
    old = [next(leases), next(leases)]
    assert source.check()
    chief.ledger.release(Task(Role.WORKER, 0), "a", failed=True)
    now[0] += 11.0
    assert not source.check()

    batches = [(0, 0, lease.number) for lease in (*old, next(leases))]
    thrown = []

    def next_positions():
        thrown.append(batches.pop(0))
        return [thrown[-1]]

    source.discard_void(next_positions)
    assert [number for _, _, number in thrown] == [0, 1, 2]
    assert source.check()


def test_a_worker_waits_for_a_chief_that_comes_back(serve_shards, join, background):
    chief, plan = serve_shards(), plan_of()
    source = join(chief, "a")
    leases = source.leases(plan)
    first = background(lambda: next(leases))
    time.sleep(0.3)
    assert first.is_running, "the chief has not declared the input yet"
    chief.ledger.declare(plan)
    assert first.result().number == 0


def test_a_worker_gives_up_on_a_chief_that_stays_silent(serve_shards, join):
    chief, plan = serve_shards(), plan_of()
    source = join(chief, "a", max_wait_secs=0.5)
    with pytest.raises(WaitTimeout, match=r"max_wait_secs=0\.5 ran out: no shard of the input"):
        next(source.leases(plan))


def test_a_worker_that_is_told_to_stop_while_it_waits_ends_its_input(serve_shards, join):
    chief, plan = serve_shards(), plan_of(num_records=10)
    chief.ledger.declare(plan)
    told = threading.Event()
    taker = join(chief, "a").leases(plan)
    waiter = join(chief, "b", cancelled=told.is_set).leases(plan)
    next(taker)
    threading.Timer(0.3, told.set).start()
    assert list(waiter) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 2}, "batch_size=2 instead of 5"),
        ({"num_records": 45}, "num_records=45 instead of 40, num_shards=5 instead of 4"),
        ({"shuffle": False}, "shuffle=False instead of True"),
        ({"files": (FilePart("a", 10), FilePart("b", 30))}, "num_shards=2 instead of 4"),
        (
            {"files": tuple(FilePart(name, 10) for name in "abcd")},
            "another shard_records, or other files",
        ),
    ],
)
def test_a_worker_with_another_dataset_is_told_where_it_differs(
    serve_shards, join, values, message
):
    chief = serve_shards()
    chief.ledger.declare(plan_of())
    source = join(chief, "a")
    with pytest.raises(UsageError, match=f"this task reads dataset 'train' with {message}"):
        next(source.leases(plan_of(**values)))


# Holds


def test_what_is_saved_in_a_hold_is_of_one_moment(start_job, join, background):
    """Else a save that takes its time would have updates without their counts, or the reverse."""
    job, told = start_job(model(epochs=None)), threading.Event()
    sources = [join(job.chief, life, cancelled=told.is_set) for life in "ab"]
    workers = [background(lambda i=i: job.worker(sources[i], i)) for i in range(2)]

    def look_twice():
        looks = []
        for _ in range(2):
            looks.append((job.seen.tolist(), job.applied))
            time.sleep(0.03)
        return looks

    until(lambda: job.seen.any())
    try:
        first, second = look_twice()
        assert first != second, "without a hold, the model changes between two looks"
        for _ in range(8):
            with job.chief.holds.paused(PATIENCE_SECS) as all_answered:
                assert all_answered
                first, second = look_twice()
            assert first == second
            seen, applied = first
            assert sum(seen) == sum(np.multiply(applied, job.batch_sizes))
            time.sleep(0.05)
    finally:
        told.set()
    for worker in workers:
        worker.result()


def test_a_chief_that_dies_in_a_hold_keeps_nobody(serve_shards, join, background):
    chief, plan = serve_shards(), plan_of()
    chief.ledger.declare(plan)
    source = join(chief, "a")
    next(source.leases(plan))
    until(lambda: chief.holds._watching.total())
    with chief.holds.paused(10.0) as all_answered:
        assert all_answered
        step = background(source.begin_step)
        time.sleep(0.5)
        assert step.is_running
        chief.server.stop(0.0)
        step.result()


def test_what_reads_for_a_session_that_is_over_ends_even_in_a_hold(serve_shards, join, background):
    """Closing that session waits for it, and so does the hold, for a step of the next one."""
    chief, plan, session = serve_shards(), plan_of(), [1]
    chief.ledger.declare(plan)
    source = join(chief, "a", session=lambda: session[0])
    leases = source.leases(plan)
    next(leases)
    until(lambda: chief.holds._watching.total())
    source.begin_step()  # It has failed, which cannot be reported before there is a new session.
    hold = background(lambda: chief.holds.paused(PATIENCE_SECS).__enter__())
    until(lambda: chief.holds.is_held)
    rest = background(lambda: list(leases))
    time.sleep(0.5)
    assert rest.is_running
    session[0] = 2
    rest.result()
    assert hold.is_running
    source.end_step()
    assert hold.result()


def test_a_hold_of_a_model_that_is_lost_is_given_up(serve_shards, join, background):
    chief, plan, is_lost = serve_shards(), plan_of(), threading.Event()
    chief.ledger.declare(plan)
    source = join(chief, "a")
    next(source.leases(plan))
    until(lambda: chief.holds._watching.total())
    source.begin_step()

    def hold():
        with chief.holds.paused(PATIENCE_SECS, given_up=is_lost.is_set):
            raise AssertionError("the worker is in a step")

    held = background(hold)
    until(lambda: chief.holds.is_held)
    time.sleep(0.3)
    assert held.is_running
    is_lost.set()
    with pytest.raises(tf.errors.CancelledError, match="the model is lost"):
        held.result()
    assert not chief.holds.is_held


def test_a_worker_that_waits_for_input_does_not_keep_a_hold_waiting(serve_shards, join, background):
    chief, plan = serve_shards(), plan_of(num_records=10)
    chief.ledger.declare(plan)
    mine, theirs = join(chief, "a"), join(chief, "b")
    taken = next(theirs.leases(plan))
    mine.begin_step()
    lease = background(lambda: next(mine.leases(plan)))
    until(lambda: chief.holds._watching.total() == 2)
    with chief.holds.paused(10.0) as all_answered:
        assert all_answered
        theirs.complete([(batch, 0, taken.number) for batch in (0,)])
        theirs.stop()
        chief.ledger.settle(chief.ledger.ended, np.zeros(plan.num_batches))
        time.sleep(0.5)
        chief.ledger.settle(chief.ledger.ended, np.zeros(plan.num_batches))
        time.sleep(1.2)
        assert lease.is_running, "shards dealt during a hold are trained on after its end"
    assert lease.result().shard == taken.shard
