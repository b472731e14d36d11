"""The chief's thread that applies aggregated gradients: it starts, pauses, fails and ends."""

import threading
import time

import pytest
import tensorflow as tf

from paramserve.chief.aggregation import Aggregator
from paramserve.chief.initialization import initialize
from paramserve.cluster.deadline import call_in_background
from paramserve.cluster.spec import Role

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
    for _ in range(5):
        job.session.run(job.built.sync.issue_token)
    job.aggregator.start()
    queue_sizes = [
        op.outputs[0]
        for op in job.built.graph.get_operations()
        if op.type == "QueueSizeV2" and "sync_token_q" in op.inputs[0].op.name
    ]
    assert queue_sizes
    assert job.session.run(queue_sizes[0]) == job.built.sync.tokens_per_step
