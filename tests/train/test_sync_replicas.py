"""`SyncReplicasOptimizer` with one replica, in one process."""

import time

import numpy as np
import pytest
import tensorflow as tf

from paramserve import train

v1 = tf.compat.v1

pytestmark = [
    pytest.mark.seed("tf.train.SyncReplicasOptimizer"),
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
