"""The chief's thread that applies aggregated gradients: it starts, pauses, fails and ends."""

import threading
import time

import pytest
import tensorflow as tf

from paramserve.chief.aggregation import Aggregator
from paramserve.chief.initialization import initialize
from paramserve.cluster.deadline import call_in_background
from paramserve.cluster.spec import Role
from paramserve.model.tokens import SyncCounters

BOUNDED = tf.compat.v1.RunOptions(timeout_in_ms=30_000)


class SyncJob:
    """A chief whose aggregator a test drives, and one worker."""

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


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_who_waits_since_an_earlier_epoch_takes_no_token_of_this_one(job):
    """Its session is lost and does not know it yet."""
    waiting = call_in_background("earlier epoch", job.take_token)
    time.sleep(1)  # Nobody can see who waits at a queue.
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
