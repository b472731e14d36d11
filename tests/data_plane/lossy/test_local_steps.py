"""Local steps: a worker trains its own copy, and pushes the changes every few steps."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve.errors import UsageError

v1 = tf.compat.v1
ONES = np.ones(1024, np.float32)

OPTIMIZERS = {
    "sgd": lambda: v1.train.GradientDescentOptimizer(0.1),
    "momentum": lambda: v1.train.MomentumOptimizer(0.05, 0.9),
    "nesterov": lambda: v1.train.MomentumOptimizer(0.05, 0.9, use_nesterov=True),
    "adagrad": lambda: v1.train.AdagradOptimizer(0.1),
    "rmsprop": lambda: v1.train.RMSPropOptimizer(0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_alone_a_worker_gets_where_it_gets_with_every_step_pushed(open_worker, regression, name):
    with open_worker(regression(OPTIMIZERS[name])) as worker:
        exact = [worker.step("loss") for _ in range(9)]
        weights = worker.value("w")
    with open_worker(regression(OPTIMIZERS[name]), local_steps=3) as worker:
        np.testing.assert_allclose([worker.step("loss") for _ in range(9)], exact, rtol=1e-4)
        np.testing.assert_allclose(worker.value("w"), weights, rtol=1e-4, atol=1e-5)


def test_the_servers_see_nothing_between_pushes_but_the_global_step(open_worker, linear):
    with open_worker(linear(), local_steps=4) as worker:
        feed = {worker.ops["x"]: ONES}
        seen = []
        for _ in range(8):
            worker.step(feed_dict=feed)
            seen.append((int(worker.value("w")[0]), int(worker.value("global_step"))))
        assert seen == [(0, 1), (0, 2), (0, 3), (-4, 4), (-4, 5), (-4, 6), (-4, 7), (-8, 8)]
        assert worker.bytes_sent() == 0


def test_changes_of_two_workers_add_up(open_worker, linear):
    with (
        open_worker(linear(), local_steps=2) as one,
        open_worker(linear(), 1, initialize=False, local_steps=2) as two,
    ):
        seen = []
        for _ in range(4):
            for worker, x in ((one, ONES), (two, 10 * ONES)):
                seen.append(int(worker.step("seen", {worker.ops["x"]: x})[0]))
        # Each continues from its own copy; after two steps, from the sum of both workers' changes.
        assert seen == [0, 0, -1, -10, -2, -22, -3, -32]
        assert one.value("w")[0] == -44


def test_the_end_pushes_what_there_is(open_worker, linear):
    with open_worker(linear(), 1) as other:
        with open_worker(linear(), initialize=False, local_steps=100) as worker:
            for _ in range(3):
                worker.step(feed_dict={worker.ops["x"]: ONES})
            assert other.value("w")[0] == 0
        assert other.value("w")[0] == -3


def test_runs_that_train_nothing_do_not_count(open_worker, linear):
    with open_worker(linear(), local_steps=2) as worker:
        feed = {worker.ops["x"]: ONES}
        worker.step(feed_dict=feed)
        for _ in range(3):
            worker.session.run(worker.ops["loss"], feed)
        assert worker.value("w")[0] == 0
        worker.step(feed_dict=feed)
        assert worker.value("w")[0] == -2


def test_a_table_is_trained_in_a_copy(open_worker):
    def build():
        table = v1.get_variable("table", [64, 16], initializer=v1.zeros_initializer())
        rows = tf.gather(table, v1.placeholder_with_default([1, 2, 1], [3]))
        loss = tf.reduce_sum(rows)
        step = v1.train.get_global_step()
        return {
            "train_op": v1.train.GradientDescentOptimizer(1.0).minimize(loss, step),
            "rows": tf.identity(rows),
        }

    with open_worker(build, local_steps=2) as worker:
        assert worker.bytes_sent() == 0
        worker.step()
        assert worker.value("table")[1, 0] == 0
        worker.step()
        np.testing.assert_array_equal(worker.value("table")[:4, 0], [0, -4, -2, 0])


def test_references_are_copied_too(open_worker):
    def build():
        weights = v1.get_variable(
            "w", [1024], initializer=v1.zeros_initializer(), use_resource=False
        )
        loss = tf.reduce_sum(weights)
        return {"train_op": v1.train.MomentumOptimizer(1.0, 0.5).minimize(loss)}

    with open_worker(build, local_steps=2, wire_dtype="bfloat16") as worker:
        values = []
        for _ in range(4):
            worker.step()
            values.append(float(worker.value("w")[0]))
        # Steps of 1, 1.5, 1.75 and 1.875; the worker's own copy is rounded to bfloat16.
        assert values == pytest.approx([0, -2.5, -2.5, -6.125], abs=0.02)


def test_an_optimizer_with_more_state_is_refused_by_its_name(open_worker, linear):
    with (
        pytest.raises(UsageError, match=r"cannot do Adam .* use an optimizer of GradientDescent"),
        open_worker(linear(v1.train.AdamOptimizer), local_steps=2),
    ):
        pass


def test_a_parameter_that_something_else_changes_is_refused(open_worker):
    def build():
        weights = v1.get_variable("w", [4], initializer=v1.ones_initializer())
        train_op = v1.train.GradientDescentOptimizer(1.0).minimize(tf.reduce_sum(weights))
        with tf.control_dependencies([train_op]):
            return {"train_op": weights.assign(tf.clip_by_value(weights, 0.0, 1.0))}

    with (
        pytest.raises(UsageError, match="cannot do AssignVariableOp"),
        open_worker(build, local_steps=2),
    ):
        pass
