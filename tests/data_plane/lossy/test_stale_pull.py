"""Reading one step ahead: each gradient is of the parameters of exactly one step before."""

import numpy as np
import tensorflow as tf

from paramserve.data_plane.lossy.passes import StartHook

v1 = tf.compat.v1


def trajectory(inputs, wanted, steps, stale):
    """The weights after each step of gradient descent, in float64."""
    weights = [np.ones([32, 16])]
    for step in range(steps):
        seen = weights[max(0, step - stale)]
        weights.append(weights[-1] - 0.1 * inputs.T @ (inputs @ seen - wanted) / 64)
    return weights


def test_a_step_computes_with_what_was_read_during_the_step_before(open_worker, regression):
    with open_worker(regression(), stale_pull=True) as worker:
        inputs, wanted = worker.raw.run([worker.ops["inputs"], worker.ops["wanted"]])
        expected = trajectory(inputs.astype(float), wanted.astype(float), 6, stale=1)
        for step in range(6):
            np.testing.assert_allclose(worker.value("w"), expected[step], rtol=1e-5, atol=1e-5)
            worker.step()
        assert np.abs(trajectory(inputs, wanted, 6, stale=0)[6] - expected[6]).max() > 1e-3


def test_it_is_so_whatever_the_size_of_a_bucket(open_worker, linear):
    ones = np.ones(1024, np.float32)
    for bucket_bytes in (0, 1024, 1 << 20):
        with open_worker(linear(), stale_pull=True, transfer_bucket_bytes=bucket_bytes) as worker:
            feed = {worker.ops["x"]: ones}
            seen = [worker.step("seen", feed) for _ in range(4)]
            assert [each[0] for each in seen] == [0, 0, -1, -2]
            assert all(each.min() == each.max() for each in seen)


def test_references_are_read_ahead_too(open_worker):
    """Variables of the old kind are changed in place, while they may be on their way."""

    def build():
        weights = v1.get_variable(
            "w", [1024], initializer=v1.zeros_initializer(), use_resource=False
        )
        seen = weights * 1.0
        loss = tf.reduce_sum(weights) + tf.reduce_sum(0.0 * tf.square(seen))
        return {"train_op": v1.train.GradientDescentOptimizer(1.0).minimize(loss), "seen": seen}

    with open_worker(build, stale_pull=True) as worker:
        assert [worker.step("seen")[0] for _ in range(4)] == [0, 0, -1, -2]


def test_a_new_session_begins_with_the_newest_parameters(open_worker, linear):
    with open_worker(linear(), stale_pull=True) as worker:
        feed = {worker.ops["x"]: np.ones(1024, np.float32)}
        for _ in range(3):
            worker.step(feed_dict=feed)
        # As after the loss of a server.
        StartHook().after_create_session(worker.raw, None)
        assert worker.step("seen", feed)[0] == -3
        assert worker.step("seen", feed)[0] == -3


def test_what_a_step_makes_of_the_old_value_stays_fresh(open_worker):
    """Such an average would be two averages, one of the even steps and one of the odd ones."""

    def build():
        average = v1.get_variable(
            "average", [512], initializer=v1.zeros_initializer(), trainable=False
        )
        weights = v1.get_variable("w", [512], initializer=v1.zeros_initializer())
        loss = tf.reduce_sum(weights + 0.0 * average)
        new = average + 1.0
        train_op = v1.train.GradientDescentOptimizer(1.0).minimize(loss)
        return {"train_op": tf.group(train_op, average.assign(new))}

    with open_worker(build, stale_pull=True) as worker:
        for _ in range(4):
            worker.step()
        assert worker.value("average")[0] == 4


def test_rows_of_a_table_and_the_global_step_stay_fresh(open_worker):
    def build():
        table = v1.get_variable("table", [64, 16], initializer=v1.zeros_initializer())
        rows = tf.gather(table, v1.placeholder_with_default([1, 2], [2]))
        step = v1.train.get_global_step()
        loss = tf.reduce_sum(rows) + 0.0 * tf.reduce_sum(tf.square(rows))
        train_op = v1.train.GradientDescentOptimizer(1.0).minimize(loss, step)
        with tf.control_dependencies([train_op]):
            after = tf.identity(step.read_value())
        return {"train_op": train_op, "rows": rows, "after": after}

    with open_worker(build, stale_pull=True) as worker:
        assert [worker.step("rows")[0, 0] for _ in range(3)] == [0, -1, -2]
        assert worker.step("after") == 4
