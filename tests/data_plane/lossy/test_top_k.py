"""Top-k with error feedback: few entries cross, and nothing of a gradient is ever lost."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve.data_plane.lossy.top_k import run_length

v1 = tf.compat.v1


@pytest.mark.parametrize("fraction", [1.0, 0.9, 0.7, 0.5, 0.3, 0.1, 0.03, 0.01, 0.001])
def test_a_run_is_short_and_gives_about_the_fraction(fraction):
    sent, length = run_length(fraction)
    assert sent / length == pytest.approx(fraction, rel=0.05)
    assert length <= 1000 or sent == 1


def test_the_largest_of_each_run_is_sent(open_worker, linear):
    x = np.random.default_rng(1).normal(size=1024).astype(np.float32)
    with open_worker(linear(), top_k=0.01) as worker:
        worker.step(feed_dict={worker.ops["x"]: x})
        pushed = -worker.value("w")
    expected = np.zeros_like(x)
    for begin in range(0, 1024, 100):
        largest = begin + np.argmax(np.abs(x[begin : begin + 100]))
        expected[largest] = x[largest]
    np.testing.assert_array_equal(pushed, expected)


@pytest.mark.parametrize("wire_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("fraction", [0.01, 0.3])
def test_what_is_pushed_and_what_is_kept_add_up(open_worker, linear, fraction, wire_dtype):
    random = np.random.default_rng(2)
    gradients = random.normal(size=(5, 1024)).astype(np.float32)
    with open_worker(linear(), top_k=fraction, wire_dtype=wire_dtype) as worker:
        for each in gradients:
            worker.step(feed_dict={worker.ops["x"]: each})
        pushed, kept = -worker.value("w"), worker.kept("top_k/rest:0")[:1024]
    assert np.count_nonzero(kept) > 500
    np.testing.assert_allclose(pushed + kept, gradients.sum(axis=0), atol=1e-5)


def test_everything_is_pushed_in_the_end(open_worker, linear):
    """Once gradients are zero, the kept values are pushed bit by bit."""
    x = np.random.default_rng(3).normal(size=1024).astype(np.float32)
    with open_worker(linear(), top_k=0.25) as worker:
        worker.step(feed_dict={worker.ops["x"]: x})
        for _ in range(3):
            worker.step(feed_dict={worker.ops["x"]: np.zeros(1024, np.float32)})
        np.testing.assert_allclose(-worker.value("w"), x, rtol=1e-6)


def test_few_bytes_cross_and_small_gradients_as_they_are(open_worker, linear):
    with open_worker(linear(size=65536)) as worker:
        exact = worker.bytes_sent()
    with open_worker(linear(size=65536), top_k=0.01) as worker:
        # A value takes four bytes, and its position two.
        assert exact - worker.bytes_sent() == 65536 * 4 - 656 * 6
        assert "uint16" in worker.sent({worker.ops["x"]: np.zeros(65536, np.float32)})
        np.testing.assert_array_equal(worker.value("b"), -1)


def test_it_finds_the_same_minimum(open_worker, regression):
    with open_worker(regression(), top_k=0.1) as worker:
        for _ in range(300):
            worker.step()
        inputs, wanted = worker.raw.run([worker.ops["inputs"], worker.ops["wanted"]])
        best = np.linalg.lstsq(inputs, wanted, rcond=None)[0]
        np.testing.assert_allclose(worker.value("w"), best, atol=0.1)


def test_what_is_no_gradient_crosses_whole(open_worker):
    def build():
        total = v1.get_variable("total", [1024], initializer=v1.zeros_initializer())
        with v1.device("/job:worker/task:0"):
            ones = tf.random.uniform([1024], 1.0, 1.0)
        return {"train_op": total.assign_add(ones)}

    with open_worker(build, top_k=0.01) as worker:
        worker.step()
        np.testing.assert_array_equal(worker.value("total"), 1)
