"""bfloat16 on the wire: half the bytes, and float32 wherever something is kept or computed."""

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1


def rounded(values):
    return tf.cast(tf.cast(values, tf.bfloat16), tf.float32).numpy()


def test_large_tensors_cross_with_half_the_bytes(open_worker, regression):
    with open_worker(regression()) as worker:
        exact, exact_bytes = worker.sent(), worker.bytes_sent()
    with open_worker(regression(), wire_dtype="bfloat16") as worker:
        assert worker.sent().count("bfloat16") == 2  # The parameters, and their gradients.
        assert exact_bytes - worker.bytes_sent() == 2 * 32 * 16 * 2
    assert "bfloat16" not in exact


def test_small_tensors_and_other_types_cross_as_they_are(open_worker):
    def build():
        rate = tf.Variable(0.5, trainable=False)
        small = v1.get_variable("small", [8], initializer=v1.ones_initializer())
        double = v1.get_variable("double", [512], tf.float64, v1.ones_initializer())
        loss = tf.reduce_sum(small) * 1.001 + tf.cast(tf.reduce_sum(double), tf.float32) * 1.001
        optimizer = v1.train.GradientDescentOptimizer(rate.read_value())
        return {"train_op": optimizer.minimize(loss, v1.train.get_global_step())}

    with open_worker(build, wire_dtype="bfloat16") as worker:
        worker.step()
        assert "bfloat16" not in worker.sent()
        np.testing.assert_allclose(worker.value("small"), 1 - 2 * 0.5 * 1.001, atol=1e-6)


def test_servers_keep_float32_and_workers_compute_in_it(open_worker, linear):
    x = np.linspace(-1, 1, 1024, dtype=np.float32)
    with open_worker(linear(), wire_dtype="bfloat16") as worker:
        feed = {worker.ops["x"]: x}
        worker.step(feed_dict=feed)
        np.testing.assert_array_equal(worker.value("w"), -rounded(x))
        worker.step(feed_dict=feed)
        # Twice a bfloat16 may be no bfloat16, unless the sum is kept in more bits.
        third = worker.step("seen", feed_dict={worker.ops["x"]: x / 3})
        np.testing.assert_array_equal(third, rounded(-2 * rounded(x)))
        np.testing.assert_array_equal(worker.value("w"), -2 * rounded(x) - rounded(x / 3))


def test_a_gradient_is_float32_again_before_it_is_accumulated(open_worker):
    x = np.linspace(-1, 1, 1024, dtype=np.float32)

    def build():
        v1.get_variable("w", [1024])
        gradient = v1.placeholder_with_default(x, [1024])
        with v1.device("/job:ps/task:0"):
            accumulator = v1.ConditionalAccumulator(tf.float32, [1024], shared_name="wire_test")
            push = accumulator.apply_grad(gradient, local_step=0)
            mean = accumulator.take_grad(1)
        with tf.control_dependencies([push]):
            return {"train_op": tf.constant(0), "mean": mean}

    with open_worker(build, wire_dtype="bfloat16") as worker:
        worker.step()
        np.testing.assert_array_equal(worker.raw.run(worker.ops["mean"]), rounded(x))


def test_the_initialization_is_exact(open_worker):
    """Here the initial value is computed by the worker, and crosses."""
    x = np.linspace(-1, 1, 1024, dtype=np.float32)

    def build():
        with v1.device("/job:worker/task:0"):
            initial = tf.constant(x) * 1.0
        weights = v1.get_variable("w", initializer=initial)
        loss = tf.reduce_sum(weights * initial)
        return {"train_op": v1.train.GradientDescentOptimizer(1.0).minimize(loss)}

    with open_worker(build, wire_dtype="bfloat16") as worker:
        np.testing.assert_array_equal(worker.value("w"), x)


def test_what_a_tensor_waits_for_still_happens(open_worker):
    """TensorFlow's graph optimizer is rough with an identity beside a cast."""

    def build():
        with v1.device("/job:worker/task:0"):
            count = v1.get_local_variable("count", [], tf.int64, v1.zeros_initializer())
            ones = tf.random.uniform([1024], 1.0, 1.0)
            with tf.control_dependencies([count.assign_add(1)]):
                gradient = tf.identity(ones)
        weights = v1.get_variable("w", [1024], initializer=v1.zeros_initializer())
        train_op = v1.train.GradientDescentOptimizer(1.0).apply_gradients([(gradient, weights)])
        return {"train_op": train_op, "count": count, "init": count.initializer}

    with open_worker(build, wire_dtype="bfloat16") as worker:
        worker.raw.run(worker.ops["init"])
        for _ in range(3):
            worker.step()
        assert worker.raw.run(worker.ops["count"]) == 3
        assert worker.value("w")[0] == -3
