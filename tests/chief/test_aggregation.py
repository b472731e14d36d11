"""The chief's thread that applies aggregated gradients: it starts, pauses, fails and ends."""

import threading
import time

import pytest
import tensorflow as tf

from paramserve.chief.aggregation import Aggregator
from paramserve.chief.checkpoints.initialization import initialize
from paramserve.chief.stalls.lost_tokens import NewSession
from paramserve.cluster.deadline import call_in_background
from paramserve.cluster.spec import Role
from paramserve.data_plane.sync.tokens import SyncCounters
from paramserve.model.spec import TrainSpec
from support.waiting import until

BOUNDED = tf.compat.v1.RunOptions(timeout_in_ms=30_000)


class SyncJob:
    """A chief with an aggregator driven by the test, and one worker."""

    def __init__(self, build_graph, build, cluster, logdir):
        self.built = build_graph(build, sync=True)
        self.session = cluster.session(self.built.graph)
        initialize(self.built, self.session, logdir)
        self.aggregator = Aggregator(self.built.sync, self.session)
        self.worker = build_graph(build, Role.WORKER, sync=True)
        self.worker_session = cluster.session(self.worker.graph, Role.WORKER)
        self.worker_session.run(self.worker.local_init_op)

    def take_token(self):
        self.worker_session.run(self.worker.sync.take_token, options=BOUNDED)

    def train(self, steps=1):
        """Steps of the worker; each ends when the chief has applied it."""
        for _ in range(steps):
            step = [self.worker.train_op, self.worker.step_after]
            self.worker_session.run(step, options=BOUNDED)

    @property
    def global_step(self):
        return int(self.session.run(self.built.global_step))


@pytest.fixture
def job(build_graph, counting_model, cluster, tmp_path):
    job = SyncJob(build_graph, counting_model, cluster, str(tmp_path))
    yield job
    job.aggregator.stop()
    job.session.close()  # A step that waits for a gradient ends with it.


def test_who_waits_since_an_earlier_generation_takes_no_token_of_this_one(job):
    """Its session is lost, but still waits."""
    waiting = call_in_background("earlier generation", job.take_token)
    time.sleep(1)  # The waiters of a queue are not visible.
    job.aggregator.start(num_workers=1)
    assert waiting.result(30) is None
    job.take_token()
    job.train(3)
    assert job.global_step == 3


def test_what_workers_push_is_applied_until_it_is_stopped(job):
    job.aggregator.start()
    assert job.aggregator.is_running
    job.take_token()
    job.train(5)
    assert job.global_step == 5
    job.aggregator.check()
    job.aggregator.stop()
    job.session.close()
    until(lambda: not job.aggregator.is_running)
    job.aggregator.check()  # A session that was closed under it is how it ends.


def test_a_step_that_fails_resurfaces(job):
    job.aggregator.start()
    job.session.close()
    until(lambda: not job.aggregator.is_running)
    with pytest.raises((tf.errors.OpError, RuntimeError)):
        job.aggregator.check()


def test_while_it_is_paused_nothing_is_applied_and_nothing_is_lost(job):
    job.aggregator.start()
    job.take_token()
    job.train(2)
    worker = threading.Thread(target=job.train, args=(50,))
    worker.start()
    seen = []
    with job.aggregator.paused(20.0) as held:
        assert held
        seen = [job.global_step]
        for _ in range(5):
            time.sleep(0.05)
            seen.append(job.global_step)
    worker.join(60)
    assert len(set(seen)) == 1
    assert job.global_step == 52
    assert job.session.run(job.built.examples) == 52 * 5


def test_a_pause_does_not_wait_for_a_gradient_that_never_comes(job):
    job.aggregator.start()
    job.take_token()
    job.train(1)
    until(lambda: job.global_step == 1)
    time.sleep(0.1)  # The next step is under way: it waits for a gradient.
    began = time.monotonic()
    with job.aggregator.paused(0.3) as held:
        assert not held
    assert 0.3 <= time.monotonic() - began < 20
    job.train(3)
    assert job.global_step == 4


def test_a_pause_is_given_up_with_the_model(job):
    """A gradient in a lost ledger never ends the step under way."""
    job.aggregator.start()
    job.take_token()
    time.sleep(0.1)  # The step is under way.
    is_lost = threading.Event()
    threading.Timer(0.3, is_lost.set).start()
    with (
        pytest.raises(tf.errors.CancelledError, match="the model is lost"),
        job.aggregator.paused(60.0, given_up=is_lost.is_set),
    ):
        raise AssertionError("the step under way waits for gradients")
    assert not job.aggregator.is_held
    job.train(3)
    assert job.global_step == 3


def test_tokens_of_an_earlier_life_are_cleared_at_the_start(job):
    sync = job.built.sync
    for _ in range(5):
        job.session.run(sync.issue_tokens, {sync.counts: [3, 2]})
    job.aggregator.start()
    assert list(job.session.run(sync.queue_sizes)) == [1, 0]


def sizes(job):
    return list(job.session.run(job.built.sync.queue_sizes))


def test_the_token_of_a_worker_that_leaves_goes_to_another(job):
    job.aggregator.start(workers={0: "a"})
    assert sizes(job) == [1, 0]
    job.take_token()
    job.aggregator.set_workers({0: "a", 5: "b"})
    assert sizes(job) == [0, 1]  # More than planned: a backup worker.
    job.aggregator.set_workers({0: "a"})
    job.aggregator.set_workers({5: "c"})
    assert sizes(job) == [0, 2]
    job.aggregator.set_workers({0: "d"})
    assert sizes(job) == [1, 2]
    assert job.aggregator.counters().reissued == 3


def test_another_life_of_a_worker_gets_a_token_of_its_own(job):
    job.aggregator.start(workers={0: ""})
    assert sizes(job) == [1, 0]
    job.aggregator.set_workers({0: "a"})
    assert sizes(job) == [1, 0]  # It was expected.
    job.take_token()
    job.aggregator.set_workers({0: "b"})
    assert sizes(job) == [1, 0]


def test_a_token_that_is_lost_is_issued_again(job):
    job.aggregator = Aggregator(job.built.sync, job.session, lease_secs=0.3)
    job.aggregator.start(workers={0: "a"})
    job.take_token()
    job.train(2)
    began = job.global_step
    until(lambda: job.aggregator.watch() or sizes(job) == [1, 0])
    job.take_token()
    job.train(2)
    assert job.global_step >= began + 2


def test_it_is_seen_whose_gradient_is_missing(job):
    job.aggregator.start(workers={0: "a"})
    assert job.aggregator.sight().given == frozenset()
    job.take_token()
    job.train(2)
    sight = job.aggregator.sight()
    assert (sight.step, sight.waiting, sight.replicas, sight.given) == (2, 0, 1, frozenset())
    with job.aggregator.paused(20.0) as held:
        assert held or job.global_step == 2


def test_what_was_pushed_before_a_restore_is_not_of_the_step_under_way(job, tmp_path):
    """The model is put back to a step for which the worker had given its gradient."""
    job.aggregator.start(workers={0: "a"})
    job.take_token()
    job.train(1)
    job.aggregator.stop()
    job.session.run(job.built.global_step.initializer)
    job.aggregator = Aggregator(job.built.sync, job.session)
    job.aggregator.start(num_workers=1, workers={0: "a"})
    sight = job.aggregator.sight()
    assert (sight.step, sight.given) == (0, frozenset())


def test_nobody_gets_a_token_too_many_while_a_worker_is_slow_to_come(
    build_graph, cluster, tmp_path
):
    """After a recovery one worker has given its gradient; the other still opens its session."""
    job = TwoWorkers(build_graph, cluster, str(tmp_path))
    job.aggregator.start(workers={0: "a", 1: "b"})
    job.take_token(0)
    step = call_in_background("step", lambda: job.step(0))
    until(lambda: job.aggregator.sight().given == {0})
    until(lambda: job.watch_through_a_stall())
    assert job.sizes == [0, 1, 0], "the token of the second is there, and waits for it"
    job.take_token(1)
    other = call_in_background("step", lambda: job.step(1))
    for each in (step, other):
        each.result(30)
    assert job.examples == 1 + 10, "a gradient of each"
    job.close()


def test_a_token_is_issued_again_only_for_a_worker_that_lost_one(build_graph, cluster, tmp_path):
    job = TwoWorkers(build_graph, cluster, str(tmp_path))
    job.aggregator.start(workers={0: "a", 1: "b"})
    job.take_token(0)
    job.take_token(1)  # And its session breaks.
    step = call_in_background("step", lambda: job.step(0))
    until(lambda: job.aggregator.sight().given == {0})
    job.aggregator.supply({1: NewSession("b", 2, heard=1.0)})
    assert job.sizes == [0, 0, 0], "it may have been asked a moment too late"
    job.aggregator.supply({1: NewSession("b", 2, heard=1.0)})
    assert job.sizes == [0, 0, 0]
    job.aggregator.supply({1: NewSession("b", 2, heard=2.0)})
    assert job.sizes == [0, 1, 0]
    job.aggregator.supply({1: NewSession("b", 2, heard=3.0)})
    assert job.sizes == [0, 1, 0]
    job.take_token(1)
    job.step_both(step)
    assert job.examples == 1 + 10
    assert job.aggregator.counters().reissued == 1
    job.close()


def test_a_stall_gives_a_token_to_the_one_that_is_late_alone(build_graph, cluster, tmp_path):
    job = TwoWorkers(build_graph, cluster, str(tmp_path))
    job.aggregator.start(workers={0: "a", 1: "b"})
    job.take_token(0)
    job.take_token(1)
    step = call_in_background("step", lambda: job.step(0))
    until(lambda: job.aggregator.sight().given == {0})
    until(lambda: job.watch_through_a_stall())
    assert job.sizes == [0, 1, 0]
    job.step_both(step)
    assert job.examples == 1 + 10
    job.close()


class TwoWorkers:
    """The same with two workers, which have 1 and 10 examples in a step."""

    def __init__(self, build_graph, cluster, logdir, replicas=2):
        def build(task):
            weight = tf.compat.v1.get_variable("w", [], initializer=tf.zeros_initializer())
            amount = [1, 10][task.index]
            optimizer = tf.compat.v1.train.GradientDescentOptimizer(1.0)
            return TrainSpec(loss=weight * amount, optimizer=optimizer, examples=amount)

        common = {"sync": True, "workers": 2, "replicas": replicas}
        self.built = build_graph(build, **common)
        self.session = cluster.session(self.built.graph)
        initialize(self.built, self.session, logdir)
        self.aggregator = Aggregator(self.built.sync, self.session, lease_secs=0.3)
        self.workers = []
        for index in (0, 1):
            graph = build_graph(build, Role.WORKER, index=index, **common)
            session = cluster.session(graph.graph, Role.WORKER, index)
            session.run(graph.local_init_op)
            self.workers.append((graph, session))

    def take_token(self, index):
        graph, session = self.workers[index]
        session.run(graph.sync.take_token, options=BOUNDED)

    def step(self, index):
        graph, session = self.workers[index]
        session.run([graph.train_op, graph.step_after], options=BOUNDED)

    def step_both(self, first):
        """The second's part of a step which the first has begun."""
        self.step(1)
        first.result(30)
        until(lambda: self.session.run(self.built.global_step) == 1)

    def watch_through_a_stall(self):
        """Returns whether the aggregator has looked after a stall, which it logs."""
        stalls = []
        clock = self.aggregator._dealer.stalls
        restart, clock.restart = clock.restart, lambda: (stalls.append(1), restart())
        self.aggregator.watch()
        clock.restart = restart
        return bool(stalls)

    @property
    def global_step(self):
        return int(self.session.run(self.built.global_step))

    @property
    def sizes(self):
        return list(self.session.run(self.built.sync.queue_sizes))

    @property
    def examples(self):
        return int(self.session.run(self.built.examples))

    def close(self):
        self.aggregator.stop()
        self.session.close()


@pytest.fixture
def all_of_two(build_graph, cluster, tmp_path):
    """A job whose steps take one gradient of each worker that is there."""
    job = TwoWorkers(build_graph, cluster, str(tmp_path), replicas=0)
    yield job
    job.close()


def refill(job):
    """Does the work of the chief's main loop after a worker has joined or left."""
    for _ in range(4):
        job.aggregator.watch()
        time.sleep(0.05)


def test_steps_are_of_as_many_gradients_as_there_are_workers(all_of_two):
    job = all_of_two
    job.aggregator.start(workers={0: "a", 1: "b"})
    job.take_token(0)
    job.take_token(1)
    for count in (1, 2):
        first = call_in_background("step", lambda: job.step(0))
        job.step(1)
        first.result(30)
        assert job.examples == 11 * count
    job.aggregator.set_workers({0: "a"})  # The second is gone, with a token for this step.
    refill(job)
    assert job.sizes == [1, 0, 0], "the first computes for it, this once"
    job.step(0)
    job.step(0)
    assert job.examples == 22 + 2
    assert job.sizes == [0, 0, 0]
    for _ in range(3):
        job.step(0)
    assert (job.examples, job.global_step) == (22 + 2 + 3, 6), "now each step is its own"


def test_who_is_gone_after_its_gradient_is_not_made_up_for(all_of_two):
    job = all_of_two
    job.aggregator.start(workers={0: "a", 1: "b"})
    job.take_token(0)
    job.take_token(1)
    step = call_in_background("step", lambda: job.step(1))
    until(lambda: job.aggregator.sight().given == {1})
    job.aggregator.set_workers({0: "a"})
    refill(job)
    assert job.sizes == [0, 0, 0]
    job.step(0)
    step_of_the_lost = call_in_background("lost", lambda: step.result(1))
    assert (job.examples, job.global_step) == (11, 1)
    job.step(0)
    assert (job.examples, job.global_step) == (12, 2)
    job.aggregator.release()
    step_of_the_lost.result(30) if step_of_the_lost.exception(30) is None else None


def test_who_comes_takes_part_from_the_next_step_on(all_of_two):
    job = all_of_two
    job.aggregator.start(workers={0: "a"})
    job.take_token(0)
    job.step(0)
    job.aggregator.set_workers({0: "a", 1: "b"})
    refill(job)
    assert job.sizes == [0, 0, 0], "the step under way is of the first alone"
    job.step(0)
    assert (job.examples, job.global_step) == (2, 2)
    job.take_token(1)
    first = call_in_background("step", lambda: job.step(0))
    job.step(1)
    first.result(30)
    assert (job.examples, job.global_step) == (2 + 11, 3)
    assert job.aggregator.counters() == SyncCounters(applied=4, dropped=0, reissued=0)


def test_gradients_are_counted(job):
    job.aggregator.start()
    job.take_token()
    job.train(3)
    until(lambda: job.aggregator.counters().applied == 3)
    late = job.built.graph.get_operation_by_name("token_step/Assign")
    job.worker_session.run(late.name)  # As if it had the token of step 0.
    step = call_in_background("late", job.train)
    until(lambda: job.aggregator.counters().dropped == 1)
    job.aggregator.release()
    step.result(30)
    assert job.aggregator.counters() == SyncCounters(applied=3, dropped=1, reissued=0)
