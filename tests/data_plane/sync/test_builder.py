"""Sync mode's operations: exact means, exact counts, stale gradients and tokens.

A chief and workers, each with a graph and a session of its own as in a job. All are in one process,
so a test decides the order of their actions.
"""

import threading

import numpy as np
import pytest
import tensorflow as tf

from paramserve.cluster.spec import Role
from paramserve.data_plane.sync.dealer import TokenPlan
from paramserve.model.spec import TrainSpec
from support.background import Background

v1 = tf.compat.v1

# A wait that would hang fails instead.
BOUNDED = v1.RunOptions(timeout_in_ms=30_000)


class Worker:
    def __init__(self, built, session):
        self.built = built
        self.session = session
        session.run(built.local_init_with_tables)

    def take_token(self):
        self.session.run(self.built.sync.take_token, options=BOUNDED)

    def step(self):
        """Pushes a gradient and waits for the next token; gives the step of that token."""
        fetches = [self.built.train_op, self.built.step_after]
        return self.session.run(fetches, options=BOUNDED)[1]


class SyncJob:
    """The chief's side, and the workers."""

    def __init__(self, cluster, build_graph, build, *, workers=2, replicas=None):
        common = {"num_workers": workers, "replicas": replicas or workers, "sync": True}
        self.built = build_graph(build, role=Role.CHIEF, **common)
        self.sync = self.built.sync
        self.session = cluster.session(self.built.graph)
        self.run(self.built.init_op)
        self.run(self.built.local_init_op)
        self.start()
        self.workers = [
            Worker(graph, cluster.session(graph.graph, Role.WORKER, index))
            for index in range(workers)
            for graph in [build_graph(build, role=Role.WORKER, index=index, **common)]
        ]

    def start(self):
        for left in self.sync.leftovers:
            if self.run(left.count):
                self.run(left.drop)
        self.run(self.sync.start)
        for clear in self.sync.clear_tokens:
            self.run(clear)
        self.issue_tokens(*self.sync.plan.deal())

    def issue_tokens(self, *counts):
        """So many for each queue."""
        feed = {self.sync.counts: counts}
        self.session.run(self.sync.issue_tokens, feed, options=BOUNDED)

    def apply(self):
        self.run(self.sync.apply_step)

    def step(self, *workers):
        """Makes one global step from one gradient of each of these workers."""
        steps = [Background(worker.step) for worker in workers or self.workers]
        self.apply()
        return [step.result() for step in steps]

    def run(self, fetches):
        return self.session.run(fetches, options=BOUNDED)

    def value(self, name):
        return self.run(self.built.graph.get_tensor_by_name(f"{name}/Read/ReadVariableOp:0"))

    @property
    def global_step(self):
        return self.run(self.built.global_step)

    @property
    def examples(self):
        return self.run(self.built.examples)


@pytest.fixture
def start_job(cluster, build_graph):
    return lambda build, **more: SyncJob(cluster, build_graph, build, **more)


def constant_gradients(*gradients):
    """A model whose worker i has gradient (and examples) `gradients[i]`, at rate 1.0."""

    def build(task):
        weight = v1.get_variable("w", [], initializer=v1.zeros_initializer())
        amount = gradients[task.index]
        return TrainSpec(
            loss=weight * amount,
            optimizer=v1.train.GradientDescentOptimizer(1.0),
            examples=amount,
        )

    return build


# The mean


BATCHES, BATCH, FEATURES = 5, 4, 3


def regression_data():
    random = np.random.RandomState(7)
    inputs = random.randn(2, BATCHES * BATCH, FEATURES).astype(np.float32)
    return inputs, (inputs @ [[1.0], [-2.0], [0.5]] + 3.0).astype(np.float32)


def regression_loss(inputs, targets):
    hidden = tf.matmul(inputs, v1.get_variable("w", initializer=0.3 * tf.ones([FEATURES, 2])))
    hidden = tf.tanh(hidden + v1.get_variable("b", initializer=tf.constant([0.1, -0.1])))
    output = tf.matmul(hidden, v1.get_variable("v", initializer=tf.constant([[1.0], [2.0]])))
    return tf.reduce_mean((output - targets) ** 2)


def momentum():
    return v1.train.MomentumOptimizer(0.05, 0.9)


def test_training_with_two_workers_equals_training_alone_with_the_mean_gradient(start_job):
    inputs, targets = regression_data()

    def build(task):
        rows = tf.data.Dataset.from_tensor_slices((inputs[task.index], targets[task.index]))
        batch = v1.data.make_one_shot_iterator(rows.batch(BATCH)).get_next()
        return TrainSpec(
            loss=regression_loss(*batch), optimizer=momentum(), examples=tf.shape(batch[0])[0]
        )

    job = start_job(build)
    for worker in job.workers:
        worker.take_token()
    for step in range(BATCHES):
        assert job.step() == [step + 1, step + 1]
    assert (job.global_step, job.examples) == (BATCHES, 2 * BATCHES * BATCH)
    expected = train_alone(inputs, targets)
    for name, value in expected.items():
        np.testing.assert_allclose(job.value(name), value, rtol=1e-5, atol=1e-6, err_msg=name)


def train_alone(inputs, targets):
    """The same model in one process, each step on the mean loss over both workers' batches."""
    with tf.Graph().as_default(), v1.Session() as session:
        x, y = v1.placeholder(tf.float32, [None, FEATURES]), v1.placeholder(tf.float32, [None, 1])
        train = momentum().minimize(regression_loss(x, y))
        session.run(v1.global_variables_initializer())
        for start in range(0, BATCHES * BATCH, BATCH):
            batch = np.s_[:, start : start + BATCH]
            feed = {x: inputs[batch].reshape(-1, FEATURES), y: targets[batch].reshape(-1, 1)}
            session.run(train, feed)
        return {v.op.name: session.run(v) for v in v1.trainable_variables()}


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([[0, 1], [0, 1]], id="same-rows"),
        pytest.param([[1, 0], [0, 1]], id="another-order"),
        pytest.param([[3, 1, 3], [1, 3, 1]], id="rows-twice"),
        pytest.param([[0, 1], [2, 3]], id="different-rows"),
        pytest.param([[0, 1], [1, 2]], id="some-rows-shared"),
    ],
)
def test_rows_of_an_embedding_get_the_mean_gradient_too(start_job, rows):
    """A row's gradient is divided by the workers in a step, not by those that saw the row."""
    scale = [1.0, 10.0]

    def build(task):
        table = v1.get_variable("table", [4, 1], initializer=v1.zeros_initializer())
        picked = tf.gather(table, rows[task.index])
        assert isinstance(tf.gradients(picked, table)[0], tf.IndexedSlices)
        weights = scale[task.index] * tf.constant([[1.0], [2.0], [4.0]][: len(rows[task.index])])
        return TrainSpec(
            loss=tf.reduce_sum(picked * weights), optimizer=v1.train.GradientDescentOptimizer(1.0)
        )

    job = start_job(build)
    for worker in job.workers:
        worker.take_token()
    job.step()
    expected = np.zeros(4)
    for worker, picked in enumerate(rows):
        np.add.at(expected, picked, -scale[worker] * np.array([1.0, 2.0, 4.0])[: len(picked)] / 2)
    np.testing.assert_allclose(job.value("table").ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float32, tf.float64])
def test_weights_and_rows_may_be_of_any_float_dtype(start_job, dtype):
    def build(task):
        weight = v1.get_variable("w", [2], dtype, v1.zeros_initializer())
        table = v1.get_variable("table", [4, 1], dtype, v1.zeros_initializer())
        picked = tf.gather(table, [1, 1, 2 + task.index])
        loss = tf.reduce_sum(weight * tf.constant([1, 2], dtype)) + tf.reduce_sum(picked)
        return TrainSpec(loss=tf.cast(loss, tf.float32), optimizer=momentum_of_one())

    job = start_job(build)
    for worker in job.workers:
        worker.take_token()
    job.step()
    np.testing.assert_array_equal(job.value("w").astype(float), [-1, -2])
    np.testing.assert_array_equal(job.value("table").astype(float).ravel(), [0, -2, -0.5, -0.5])


def momentum_of_one():
    return v1.train.MomentumOptimizer(1.0, 0.5)


def test_a_whole_models_gradients_go_through_one_transformation(start_job):
    def build(task):
        spec = constant_gradients(2, 4)(task)
        return TrainSpec(
            loss=spec.loss,
            optimizer=spec.optimizer,
            transform_gradients=lambda pairs: [(-10.0 * g, v) for g, v in pairs],
        )

    job = start_job(build)
    for worker in job.workers:
        worker.take_token()
    job.step()
    assert job.value("w") == pytest.approx(30.0)


# The count


def test_what_is_counted_is_what_was_applied_whoever_computed_it(start_job):
    """Workers run freely; whatever mix of gradients got in, weight and count tell the same."""
    steps = 30
    job = start_job(constant_gradients(3, 5))
    done = threading.Event()

    def train(worker):
        worker.take_token()
        while not done.is_set():
            worker.step()

    running = [Background(lambda worker=worker: train(worker)) for worker in job.workers]
    for _ in range(steps):
        job.apply()
    done.set()
    weight, examples, global_step = job.value("w"), job.examples, job.global_step
    job.issue_tokens(2, 2, 0)
    for worker in running:
        worker.result()
    assert global_step == steps
    assert 2 * steps * 3 <= examples <= 2 * steps * 5
    assert -weight * 2 == pytest.approx(examples)


def test_a_stale_gradient_is_dropped_with_its_examples(start_job):
    job = start_job(constant_gradients(1, 10, 1000), workers=3, replicas=2)
    one, ten, late = job.workers
    for worker in job.workers:
        worker.take_token()
    job.step(one, ten)
    assert (job.value("w"), job.examples) == (-5.5, 11)
    assert late.step() == 1  # This gradient is stale; the worker gets a new token.
    job.step(one, ten)
    assert (job.value("w"), job.examples) == (-11.0, 22)
    assert job.global_step == 2


def test_a_backup_worker_that_is_in_time_is_as_good_as_any(start_job):
    job = start_job(constant_gradients(1, 10, 100), workers=3, replicas=2)
    one, _, hundred = job.workers
    for worker in job.workers:
        worker.take_token()
    job.step(one, hundred)
    assert (job.value("w"), job.examples, job.global_step) == (-50.5, 101, 1)


# Optimizers that leave updates out, or count otherwise


class Sometimes(v1.train.GradientDescentOptimizer):
    """Applies every `every`th mean, and then raises the global step by `by`."""

    def __init__(self, every, by):
        super().__init__(1.0)
        self.every, self.by = every, by

    def apply_gradients(self, pairs, global_step=None, name=None):
        turn = v1.get_variable("turn", [], tf.int64, v1.zeros_initializer(), trainable=False)
        due = tf.cast(tf.equal(turn.assign_add(1) % self.every, 0), tf.int64)
        pairs = [(times(gradient, tf.cast(due, tf.float32)), var) for gradient, var in pairs]
        with tf.control_dependencies([super().apply_gradients(pairs)]):
            return global_step.assign_add(self.by * due).op


def times(gradient, factor):
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values * factor, gradient.indices)
    return gradient * factor


def counted_by(every, by, *gradients):
    """A dense and a sparse variable; worker i has gradient `gradients[i]` of both."""

    def build(task):
        weight = v1.get_variable("w", [], initializer=v1.zeros_initializer())
        table = v1.get_variable("table", [3], initializer=v1.zeros_initializer())
        amount = gradients[task.index]
        loss = amount * (weight + tf.reduce_sum(tf.gather(table, [1])))
        return TrainSpec(loss=loss, optimizer=Sometimes(every, by), examples=amount)

    return build


@pytest.mark.parametrize(("every", "by"), [(2, 1), (3, 1), (1, 2), (1, 0), (2, 5)])
def test_an_optimizer_may_leave_updates_out_and_count_as_it_likes(start_job, every, by):
    job = start_job(counted_by(every, by, 1, 3))
    for worker in job.workers:
        worker.take_token()
    for number in range(1, 7):
        updates = number // every
        assert job.step() == [by * updates] * 2
        assert job.run([job.sync.global_step, job.sync.round]) == [by * updates, number]
        assert (job.value("w"), job.examples) == (-2.0 * updates, 4 * number)
        np.testing.assert_array_equal(job.value("table"), [0.0, -2.0 * updates, 0.0])


def test_dynamic_loss_scaling_leaves_out_what_is_infinite(start_job):
    def build(task):
        weight = v1.get_variable("w", [], initializer=v1.zeros_initializer())
        table = v1.get_variable("table", [3], initializer=v1.zeros_initializer())
        factors = [[1.0, np.inf, 3.0], [2.0, 5.0, 7.0]][task.index]
        rows = tf.data.Dataset.from_tensor_slices(np.float32(factors))
        factor = v1.data.make_one_shot_iterator(rows).get_next()
        optimizer = v1.mixed_precision.MixedPrecisionLossScaleOptimizer(
            v1.train.GradientDescentOptimizer(2.0), v1.mixed_precision.DynamicLossScale(64.0)
        )
        return TrainSpec(loss=factor * (weight + table[1]), optimizer=optimizer)

    job = start_job(build)
    for worker in job.workers:
        worker.take_token()
    seen = []
    for _ in range(3):
        seen.append((job.step(), job.value("w"), list(job.value("table"))))
    assert seen == [
        ([1, 1], -3.0, [0.0, -3.0, 0.0]),
        ([1, 1], -3.0, [0.0, -3.0, 0.0]),
        ([2, 2], -13.0, [0.0, -13.0, 0.0]),
    ]


@pytest.mark.parametrize(("every", "by"), [(9, 1), (1, 2), (1, 0)])
def test_a_late_gradient_is_stale_however_global_steps_are_counted(start_job, every, by):
    job = start_job(counted_by(every, by, 1, 10, 1000), workers=3, replicas=2)
    one, ten, late = job.workers
    for worker in job.workers:
        worker.take_token()
    for number in range(1, 4):
        job.step(one, ten)
        late.step()  # One round after the other two.
        assert job.run(job.sync.waiting) == 0
        assert job.examples == 11 * number


# Tokens


def test_a_step_is_whole_whatever_else_is_fetched_with_it(start_job):
    """Its last token is the one with which its successor pushes its gradient."""
    job = start_job(constant_gradients(7), workers=1)
    [worker] = job.workers
    worker.take_token()
    for _ in range(3):
        run = v1.RunOptions(timeout_in_ms=5_000)
        step = Background(lambda run=run: worker.session.run(worker.built.train_op, options=run))
        job.session.run(job.sync.apply_step, options=run)
        step.result()
    assert (job.global_step, job.examples) == (3, 21)


def test_no_gradient_is_computed_without_a_token(start_job):
    job = start_job(constant_gradients(1, 1))
    for worker in job.workers:
        worker.take_token()
    newcomer = Background(job.workers[0].take_token)
    assert newcomer.still_runs_after(0.5)
    job.issue_tokens(0, 5, 5)
    assert newcomer.still_runs_after(0.1)  # They are another's.
    job.issue_tokens(1, 0, 0)
    newcomer.result()


def test_one_more_token_releases_a_worker_whose_partner_is_gone(start_job):
    job = start_job(constant_gradients(1, 10))
    survivor, gone = job.workers
    survivor.take_token()
    gone.take_token()
    step = Background(survivor.step)
    applied = Background(job.apply)
    assert step.still_runs_after(0.5)
    assert job.global_step == 0
    job.issue_tokens(1, 0, 0)
    assert step.result() == 0  # A token for the same global step: the other half of it.
    again = Background(survivor.step)
    applied.result()
    assert again.result() == 1
    assert (job.value("w"), job.examples, job.global_step) == (-1.0, 2, 1)


def test_a_job_that_goes_back_to_an_older_step_takes_gradients_again(start_job):
    """Acts as a chief that restores an older checkpoint on servers that still live."""
    job = start_job(constant_gradients(1, 3))
    for worker in job.workers:
        worker.take_token()
    job.step()
    job.step()
    job.run(job.built.init_op)
    job.start()
    for worker in job.workers:
        worker.take_token()
    assert job.step() == [1, 1]
    assert (job.value("w"), job.examples, job.global_step) == (-2.0, 4, 1)


def test_as_many_tokens_as_gradients_can_be_used():
    for workers, replicas, tokens in [(2, 2, 2), (3, 2, 3), (1, 4, 4)]:
        plan = TokenPlan.of_job(replicas, workers)
        assert plan.tokens == sum(plan.deal()) == tokens
