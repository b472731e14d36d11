"""`SyncReplicasOptimizer`: with one replica in one process, and with workers on real servers."""

import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from paramserve import train
from support.static_servers import start_servers
from support.waiting import until

v1 = tf.compat.v1

pytestmark = [
    pytest.mark.original_api("tf.train.SyncReplicasOptimizer"),
    pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning"),
]


def build(optimizer):
    weight = v1.get_variable("weight", initializer=5.0)
    loss = tf.square(weight)
    step = train.get_or_create_global_step()
    update = optimizer.minimize(loss, global_step=step)
    return weight, step, update


@pytest.fixture
def optimizer():
    return train.SyncReplicasOptimizer(
        train.GradientDescentOptimizer(0.25), replicas_to_aggregate=1, total_num_replicas=1
    )


def test_monitored_training_ends_without_a_stall(optimizer, logdir):
    _, _, update = build(optimizer)
    hooks = [optimizer.make_session_run_hook(is_chief=True), train.StopAtStepHook(last_step=5)]
    with train.MonitoredTrainingSession(
        checkpoint_dir=logdir, hooks=hooks, release_secs=0.5
    ) as session:
        while not session.should_stop():
            session.run(update)
        began = time.monotonic()
    # TensorFlow's takes the grace period of 120 s.
    assert time.monotonic() - began < 30
    steps = train.load_variable(logdir, "global_step")
    assert steps >= 5
    # Each update halves the weight.
    np.testing.assert_allclose(train.load_variable(logdir, "weight"), 5.0 * 0.5**steps)


def test_a_supervisor_ends_without_a_stall(optimizer, cluster):
    with v1.device(train.replica_device_setter(cluster=cluster.spec)):
        weight, step, update = build(optimizer)
    runner = optimizer.get_chief_queue_runner()
    init_tokens = optimizer.get_init_tokens_op()
    supervisor = train.Supervisor(
        local_init_op=optimizer.chief_init_op,
        ready_for_local_init_op=optimizer.ready_for_local_init_op,
        release_secs=0.5,
    )
    with supervisor.managed_session(cluster.worker.target) as session:
        supervisor.start_queue_runners(session, [runner])
        session.run(init_tokens)
        while session.run(step) < 3:
            session.run(update)
        assert session.run(weight) <= 5.0 * 0.5**3
        began = time.monotonic()
    assert time.monotonic() - began < 30


def test_the_inner_optimizers_slots_are_shown():
    optimizer = train.SyncReplicasOptimizer(train.MomentumOptimizer(0.1, 0.9), 1)
    with pytest.raises(ValueError, match="after apply_gradients"):
        optimizer.get_init_tokens_op()
    weight, _, _ = build(optimizer)
    assert optimizer.get_slot_names() == ["momentum"]
    assert optimizer.get_slot(weight, "momentum") is not None


# Several workers, each in a thread, on real servers


WORKERS, BATCH, LAST_STEP = 2, 4, 5


@pytest.fixture(scope="module")
def tasks():
    """Servers by job and index: two parameter servers and two workers."""
    return start_servers(ps=2, worker=2, server=train.Server)


@pytest.fixture
def start(tasks):
    """Starts a worker: `start(0, make_optimizer)`; a waiting worker ends with the test."""
    v1.Session.reset(tasks["worker", 0].target, config=None)
    workers = []

    def begin(*arguments, **more):
        workers.append(Worker(tasks, *arguments, **more))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.stop.set()


def sync(inner=lambda: train.GradientDescentOptimizer(0.1), **more):
    """Makes the optimizer of a worker."""
    return lambda: train.SyncReplicasOptimizer(inner(), WORKERS, WORKERS, **more)


class Worker(threading.Thread):
    """A task of a static cluster; the first is the chief."""

    def __init__(self, tasks, index, make, *, rows=None, last_step=LAST_STEP, before_step=None):
        super().__init__(daemon=True)
        self.target = tasks["worker", index].target
        self.index, self.make, self.rows, self.last_step = index, make, rows, last_step
        self.before_step = before_step or (lambda: None)
        self.stop = threading.Event()
        self.steps, self.error, self.counters, self.values = 0, None, None, {}
        self.start()

    def run(self):
        place = v1.train.replica_device_setter(
            ps_tasks=2, worker_device=f"/job:worker/task:{self.index}"
        )
        with tf.Graph().as_default(), v1.device(place):
            try:
                self.train()
            except BaseException as error:
                self.error = error

    def train(self):
        step = train.get_or_create_global_step()
        data = tf.data.Dataset.from_tensor_slices(batches()[self.index]).repeat()
        data = data if self.rows is None else data.take(self.rows)
        loss = regression(v1.data.make_one_shot_iterator(data).get_next())
        optimizer = self.make()
        update = optimizer.minimize(loss, step)
        values = {v.op.name: v.read_value() for v in (*v1.trainable_variables(), step)}
        is_chief = self.index == 0
        hooks = [optimizer.make_session_run_hook(is_chief)]
        if self.last_step is not None:
            hooks.append(train.StopAtStepHook(last_step=self.last_step))
        with train.MonitoredTrainingSession(self.target, is_chief, hooks=hooks) as session:
            while not session.should_stop() and not self.stop.is_set():
                self.before_step()
                session.run(update)
                self.steps += 1
                self.counters = optimizer.counters(session._tf_sess())
                if is_chief:
                    self.values = session._tf_sess().run(values)

    def wait(self):
        self.join(60)
        assert not self.is_alive(), f"worker {self.index} hangs after {self.steps} steps"
        if self.error is not None:
            raise self.error
        return self


def batches():
    """Rows of each worker: [workers, steps, batch, features], of which the last is the target."""
    return np.random.RandomState(5).randn(WORKERS, LAST_STEP + 2, BATCH, 4).astype(np.float32)


def regression(rows):
    hidden = rows[:, :3]
    for number in range(4):
        start = np.random.RandomState(number).randn(3, 3).astype(np.float32)
        kernel = v1.get_variable(f"kernel_{number}", initializer=start / 2)
        bias = v1.get_variable(f"bias_{number}", initializer=tf.zeros([3]))
        hidden = tf.tanh(hidden @ kernel + bias)
    return tf.reduce_mean((tf.reduce_sum(hidden, 1) - rows[:, 3]) ** 2)


def alone(inner, steps):
    """Returns the weights of one process, each of whose batches has the rows of all workers."""
    with tf.Graph().as_default(), v1.Session() as session:
        rows = v1.placeholder(tf.float32, [None, 4])
        update = inner().minimize(regression(rows))
        session.run(v1.global_variables_initializer())
        for number in range(steps):
            session.run(update, {rows: batches()[:, number].reshape(-1, 4)})
        return {v.op.name: session.run(v) for v in v1.trainable_variables()}


@pytest.mark.parametrize(
    "inner",
    [
        pytest.param(lambda: train.GradientDescentOptimizer(0.1), id="sgd"),
        pytest.param(lambda: train.MomentumOptimizer(0.05, 0.9), id="momentum"),
        pytest.param(lambda: train.AdamOptimizer(0.02), id="adam"),
    ],
)
def test_two_workers_with_one_gradient_each_train_as_one_with_both_batches(start, inner):
    make = sync(inner, one_gradient_per_worker=True, bucket_bytes=64)
    chief, worker = (start(index, make) for index in range(2))
    worker.wait()
    chief.wait()
    steps = int(chief.values.pop("global_step"))
    assert steps == LAST_STEP
    assert chief.counters.applied == 2 * LAST_STEP
    for name, value in alone(inner, steps).items():
        np.testing.assert_allclose(chief.values[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


class EverySecond(v1.train.GradientDescentOptimizer):
    """Leaves every other update out, and the global step where it is."""

    def apply_gradients(self, pairs, global_step=None, name=None):
        turn = v1.get_variable("turn", [], tf.int64, v1.zeros_initializer(), trainable=False)
        due = turn.assign_add(1) % 2
        pairs = [(gradient * tf.cast(due, gradient.dtype), var) for gradient, var in pairs]
        update = super().apply_gradients(pairs)
        with tf.control_dependencies([update]):
            return update if global_step is None else global_step.assign_add(due).op


def every_second():
    return EverySecond(0.1)


@pytest.mark.parametrize("own", [True, False], ids=["own-tokens", "shared-tokens"])
def test_an_optimizer_may_leave_updates_out(start, own):
    make = sync(every_second, one_gradient_per_worker=own, lease_secs=50)
    chief, worker = (start(index, make, last_step=3) for index in range(2))
    worker.wait()
    chief.wait()
    steps = chief.values.pop("global_step")
    assert steps >= 3
    assert chief.counters.reissued == 0
    if own:
        assert steps == 3
        assert chief.steps == worker.steps == 5  # The first, third and fifth are applied.
        for name, value in alone(every_second, 5).items():
            np.testing.assert_allclose(chief.values[name], value, rtol=1e-5, err_msg=name)


def loss_scaling():
    scale = v1.mixed_precision.DynamicLossScale(initial_loss_scale=256.0, increment_period=2)
    return v1.mixed_precision.MixedPrecisionLossScaleOptimizer(
        train.MomentumOptimizer(0.1, 0.5), scale
    )


class Accumulating(v1.train.MomentumOptimizer):
    """Adds up three gradients and applies their sum, in a branch, as many scripts do."""

    def apply_gradients(self, pairs, global_step=None, name=None):
        turn = v1.get_variable("turn", [], tf.int64, v1.zeros_initializer(), trainable=False)
        zeros = v1.zeros_initializer()
        pairs = [(tf.convert_to_tensor(gradient), variable) for gradient, variable in pairs]
        sums = [
            v1.get_variable(f"sum_{i}", gradient.shape, gradient.dtype, zeros, trainable=False)
            for i, (gradient, _) in enumerate(pairs)
        ]
        added = [each.assign_add(pair[0]) for each, pair in zip(sums, pairs, strict=True)]

        def apply():
            gradients = [each.read_value() for each in sums]
            means = zip(gradients, [variable for _, variable in pairs], strict=True)
            update = super(Accumulating, self).apply_gradients(list(means), global_step)
            with tf.control_dependencies([update]):
                return tf.group(*(each.assign(tf.zeros_like(each)) for each in sums))

        with tf.control_dependencies(added):
            is_due = tf.equal(turn.assign_add(1) % 3, 0)
            return tf.cond(is_due, apply, tf.no_op)


def accumulating():
    return Accumulating(0.1, 0.5)


def train_on_overflows(servers, inner, is_sync):
    """Local steps, and values after 3 global ones; every third gradient is infinite or 3."""
    v1.Session.reset(servers.worker.target)
    place = v1.train.replica_device_setter(ps_tasks=1, worker_device="/job:worker/task:0")
    with tf.Graph().as_default(), v1.device(place):
        weight = v1.get_variable("weight", [2], initializer=v1.ones_initializer())
        table = v1.get_variable("table", [4, 1], initializer=v1.ones_initializer())
        optimizer = inner()
        large = 3.0 if inner is accumulating else np.inf
        factors = tf.data.Dataset.from_tensor_slices(np.float32([1, 2, large] * 5))
        factor = v1.data.make_one_shot_iterator(factors).get_next()
        loss = factor * (tf.reduce_sum(weight) + tf.reduce_sum(tf.gather(table, [1, 1, 3])))
        if is_sync:
            optimizer = train.SyncReplicasOptimizer(optimizer, 1, 1, lease_secs=100)
        step = train.get_or_create_global_step()
        update = optimizer.minimize(loss, global_step=step)
        hooks = [optimizer.make_session_run_hook(is_chief=True)] if is_sync else []
        steps, read = 0, [each.read_value() for each in (step, weight, table)]
        with train.MonitoredTrainingSession(
            servers.worker.target, hooks=[*hooks, train.StopAtStepHook(last_step=3)]
        ) as session:
            while not session.should_stop():
                session.run(update)
                steps, values = steps + 1, session._tf_sess().run(read)
        return steps, values


@pytest.mark.parametrize(
    ("inner", "steps"), [(loss_scaling, 4), (accumulating, 9)], ids=["scaling", "accumulating"]
)
def test_loss_scaling_and_accumulation_train_as_in_one_process(cluster, inner, steps):
    expected, values = train_on_overflows(cluster, inner, is_sync=False)
    made, synced = train_on_overflows(cluster, inner, is_sync=True)
    assert made == expected == steps
    for one, other in zip(synced, values, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert values[0] == 3


def test_every_gradient_is_applied_or_counted_as_dropped(start):
    chief, worker = (start(index, sync(), last_step=20) for index in range(2))
    chief.wait()
    worker.wait()
    assert chief.counters.applied >= 2 * 19
    total = chief.counters.applied + chief.counters.dropped
    # It lacks the gradients that the other worker pushed after the chief's last look.
    assert chief.steps <= total <= chief.steps + worker.steps + 2


@pytest.mark.parametrize("own", [True, False], ids=["own-tokens", "shared-tokens"])
def test_the_chief_goes_on_when_a_workers_input_ends(start, own):
    make = sync(one_gradient_per_worker=own, lease_secs=60)
    worker = start(1, make, rows=2, last_step=None)
    chief = start(0, make, last_step=12)
    worker.wait()
    assert chief.wait().values["global_step"] >= 12
    assert worker.steps == 2
    assert chief.counters.reissued >= 1


@pytest.mark.parametrize("own", [True, False], ids=["own-tokens", "shared-tokens"])
def test_a_worker_that_fails_is_not_waited_for(start, own):
    def fail():
        if worker.steps == 2:
            raise KeyError("a bug")

    make = sync(one_gradient_per_worker=own, lease_secs=60)
    worker = start(1, make, before_step=fail)
    assert start(0, make, last_step=12).wait().values["global_step"] >= 12
    with pytest.raises(KeyError):
        worker.wait()


@pytest.mark.parametrize("own", [True, False], ids=["own-tokens", "shared-tokens"])
def test_a_worker_that_hangs_holds_the_others_up_for_a_lease_and_may_come_back(start, own):
    hangs, goes_on = threading.Event(), threading.Event()

    def hang():
        if worker.steps == 2:
            hangs.set()
            assert goes_on.wait(60)

    make = sync(one_gradient_per_worker=own, lease_secs=1)
    worker = start(1, make, before_step=hang, last_step=None)
    chief = start(0, make, last_step=None)
    assert hangs.wait(60)
    before = chief.steps
    until(lambda: chief.steps >= before + 10)
    goes_on.set()
    until(lambda: worker.steps >= 10)
    chief.stop.set()
    chief.wait()
    worker.wait()
    assert chief.counters.reissued >= 1


def test_when_the_chief_ends_all_end_and_the_same_servers_train_again(start):
    for _ in range(2):
        worker = start(1, sync(), last_step=None)
        chief = start(0, sync())
        chief.wait()
        began = time.monotonic()
        worker.wait()
        # TensorFlow's takes 120 s.
        assert time.monotonic() - began < 30
        assert worker.steps >= 1


def test_a_chief_that_fails_lets_the_others_go(start):
    def fail():
        if chief.steps == 3:
            raise KeyError("a bug")

    worker = start(1, sync(), last_step=None)
    chief = start(0, sync(), before_step=fail, last_step=None)
    with pytest.raises(KeyError):
        chief.wait()
    worker.wait()


# Arguments and refusals


def test_it_is_an_optimizer_as_the_original():
    optimizer = train.SyncReplicasOptimizer(train.GradientDescentOptimizer(1.0), 1)
    assert isinstance(optimizer, v1.train.SyncReplicasOptimizer)
    _, _, update = build(optimizer)
    assert isinstance(optimizer.get_chief_queue_runner(), train.QueueRunner)
    assert update in v1.get_collection(v1.GraphKeys.TRAIN_OP)
    assert [v.op.name for v in v1.local_variables()] == ["sync_rep_local_step"]
    assert {v.op.name for v in v1.global_variables()} == {"weight", "global_step"}


def test_moving_averages_are_applied_after_each_step(optimizer, logdir):
    averages = train.ExponentialMovingAverage(0.5)
    with v1.variable_scope("", use_resource=True):
        weight = v1.get_variable("weight", initializer=5.0)
        averaged = train.SyncReplicasOptimizer(
            train.GradientDescentOptimizer(0.25),
            1,
            variable_averages=averages,
            variables_to_average=[weight],
        )
        update = averaged.minimize(tf.square(weight), train.get_or_create_global_step())
    shadow = averages.average(weight).read_value()
    hooks = [averaged.make_session_run_hook(True)]
    with train.MonitoredTrainingSession(hooks=hooks) as session:
        session.run(update)
        # The first step is applied once its token is there; its average comes a moment later.
        until(lambda: session._tf_sess().run(shadow) == 3.75)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"replicas_to_aggregate": 0}, "replicas_to_aggregate=0"),
        ({"replicas_to_aggregate": 3, "total_num_replicas": 2}, "there are not enough workers"),
        ({"replicas_to_aggregate": 2, "worker_index": -1}, "worker_index=-1"),
        ({"replicas_to_aggregate": 2, "lease_secs": 0}, "lease_secs=0"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        train.SyncReplicasOptimizer(
            train.GradientDescentOptimizer(1.0), one_gradient_per_worker=True, **arguments
        )


def test_a_worker_has_to_be_known_by_a_number_of_its_own():
    def build_in_a_graph(**more):
        with tf.Graph().as_default():
            build(sync(one_gradient_per_worker=True, **more)())

    with pytest.raises(ValueError, match=r"pass worker_index=, a number from 0 to 1"):
        build_in_a_graph()
    with pytest.raises(ValueError, match="worker_index=2 with total_num_replicas=2"):
        build_in_a_graph(worker_index=2)
    build_in_a_graph(worker_index=1)


def test_what_is_missing_is_named():
    optimizer = train.SyncReplicasOptimizer(train.GradientDescentOptimizer(1.0), 3, 1)
    with pytest.raises(ValueError, match="Must supply at least one variable"):
        optimizer.apply_gradients([])
    weight = v1.get_variable("v", initializer=1.0)
    with pytest.raises(ValueError, match="Global step is required to check staleness"):
        optimizer.apply_gradients([(tf.constant(1.0), weight)])
    for method in (optimizer.get_chief_queue_runner, optimizer.get_init_tokens_op):
        with pytest.raises(ValueError, match="after apply_gradients"):
            method()
    with pytest.raises(ValueError, match="after apply_gradients"):
        optimizer.make_session_run_hook(True).begin()
    build(optimizer)
    with pytest.raises(ValueError, match="Too few tokens to finish the first step"):
        optimizer.get_init_tokens_op(1)
