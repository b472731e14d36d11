"""Every dtype of parameters trains, dense and sparse, sync and async, however it is stored."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve import DataPlane, train
from support.static_servers import start_servers

v1 = tf.compat.v1

DTYPES = (tf.float16, tf.bfloat16, tf.float32, tf.float64)
STEPS = 2
# Gradients of the dense variables, and those of the looked-up rows: 1, 1 and 4. Tensors below
# 1 KB keep their dtype on the wire.
DENSE, ROWS = np.resize([1.0, 2.0], 600), np.array([0.0, 2.0, 0.0, 0.0, 1.0, 0.0])


@pytest.fixture(scope="module")
def target():
    """A worker with a parameter server, both in this process."""
    return start_servers(ps=1, worker=1, server=train.Server)["worker", 0].target


def model():
    """Two dense variables and a table of each dtype, and the loss."""
    zeros, losses = v1.zeros_initializer(), []
    for dtype in DTYPES:
        dense = [v1.get_variable(f"{dtype.name}_{i}", [600], dtype, zeros) for i in range(2)]
        table = v1.get_variable(f"{dtype.name}_table", [6, 2], dtype, zeros)
        losses += [tf.reduce_sum(each * tf.constant(DENSE, dtype)) for each in dense]
        losses.append(tf.reduce_sum(tf.gather(table, [1, 1, 4])))
    return tf.add_n([tf.cast(each, tf.float32) for each in losses])


def train_all(target, optimizer, is_sync, data_plane):
    """The values of all variables after some steps, by name."""
    v1.Session.reset(target)
    place = v1.train.replica_device_setter(ps_tasks=1, worker_device="/job:worker/task:0")
    with tf.Graph().as_default(), v1.device(place):
        if is_sync:
            optimizer = train.SyncReplicasOptimizer(optimizer, 1, 1)
        step = train.get_or_create_global_step()
        update = optimizer.minimize(model(), global_step=step)
        values = {each.op.name: each.read_value() for each in v1.trainable_variables()}
        hooks = [optimizer.make_session_run_hook(is_chief=True)] if is_sync else []
        hooks.append(train.StopAtStepHook(last_step=STEPS))
        after = None
        with train.MonitoredTrainingSession(
            target, hooks=hooks, data_plane=data_plane, release_secs=0.1
        ) as session:
            while not session.should_stop():
                session.run(update)
                after = session._tf_sess().run(values)
        return after


OPTIMIZERS = {
    "sgd": (lambda: v1.train.GradientDescentOptimizer(0.5), 1.0),
    "momentum": (lambda: v1.train.MomentumOptimizer(0.5, 0.5), 1.25),
}
PLANES = {
    "plain": {},
    "flat": {"storage": "flat"},
    "narrow": {"wire_dtype": "bfloat16"},
    "flat-narrow": {"storage": "flat", "wire_dtype": "bfloat16"},
    "top-k": {"top_k": 1.0},
    "stale": {"stale_pull": True},
    "staleness": {"max_staleness": 1},
}
ASYNC_ONLY = ("top-k", "stale", "staleness")
RUNS = [
    (mode, optimizer, plane)
    for mode in ("sync", "async")
    for optimizer in OPTIMIZERS
    for plane in PLANES
    if mode == "async" or plane not in ASYNC_ONLY
]


@pytest.mark.parametrize(("mode", "optimizer", "plane"), RUNS)
def test_all_dtypes_train_alike(target, mode, optimizer, plane):
    make, factor = OPTIMIZERS[optimizer]
    values = train_all(target, make(), mode == "sync", DataPlane(**PLANES[plane]))
    assert len(values) == 3 * len(DTYPES)
    for name, value in values.items():
        gradient = np.stack([ROWS] * 2, 1) if name.endswith("table") else DENSE
        np.testing.assert_array_equal(value.astype(float), -factor * gradient, err_msg=name)
