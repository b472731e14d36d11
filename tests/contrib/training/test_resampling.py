"""`resample_at_rate` and `weighted_resample`: elements come more or less often."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib.training.resampling import resample_at_rate, weighted_resample

v1 = tf.compat.v1


@pytest.fixture
def graph():
    with tf.Graph().as_default() as graph:
        v1.set_random_seed(7)
        yield graph


def evaluate(fetches, steps=1):
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        return [session.run(fetches) for _ in range(steps)]


def test_copies_follow_each_other_in_all_inputs(graph):
    inputs = [[1, 2, 3], ["a", "b", "c"], [[1, 10], [2, 20], [3, 30]]]
    numbers, words, pairs = resample_at_rate(inputs, [3.0, 0.0, 2.0])
    assert numbers.shape.as_list() == [None]
    assert pairs.shape.as_list() == [None, 2]
    for number, word, pair in evaluate([numbers, words, pairs], steps=20):
        ones, threes = (number == 1).sum(), (number == 3).sum()
        assert number.tolist() == [1] * ones + [3] * threes
        assert word.tolist() == [b"a"] * ones + [b"c"] * threes
        assert pair.tolist() == [[1, 10]] * ones + [[3, 30]] * threes


def test_counts_are_those_of_a_poisson_process(each_mode_graph):
    rates = np.repeat([0.0, 0.5, 1.0, 4.0], 2500)
    ((chosen,),) = evaluate(resample_at_rate([tf.range(10_000)], rates))
    counts = np.bincount(chosen, minlength=10_000).reshape(4, 2500)
    for rate, count in zip([0.0, 0.5, 1.0, 4.0], counts, strict=True):
        # The mean's standard deviation is sqrt(rate / n), the variance's sqrt((rate + 2 rate²)/n).
        assert abs(count.mean() - rate) <= 4 * (rate / 2500) ** 0.5
        assert abs(count.var() - rate) <= 4 * ((rate + 2 * rate**2) / 2500) ** 0.5


def test_nothing_may_be_left(graph):
    outputs = resample_at_rate([[1, 2], [[1], [2]]], [0, 0])
    ((numbers, columns),) = evaluate(outputs)
    assert numbers.shape == (0,)
    assert columns.shape == (0, 1)


def test_a_seed_repeats_the_choice():
    def choose(seed):
        with tf.Graph().as_default():
            return evaluate(resample_at_rate([tf.range(50)], tf.ones([50]), seed=seed))[0][0]

    assert choose(1).tolist() == choose(1).tolist()
    assert choose(1).tolist() != choose(2).tolist()


def test_gradients_go_through_on_request(graph):
    values = tf.constant([1.0, 2.0, 3.0])
    (stopped,) = resample_at_rate([values], [1.0, 5.0, 9.0])
    assert tf.gradients(stopped, values) == [None]
    (output,) = resample_at_rate([values], [1.0, 5.0, 9.0], back_prop=True)
    (gradient,) = tf.gradients(output, values)
    ((chosen, slices),) = evaluate([output, tf.convert_to_tensor(gradient)])
    assert slices.tolist() == [(chosen == value).sum() for value in (1, 2, 3)]


def test_scope_names_the_ops(graph):
    (output,) = resample_at_rate([[1.0]], [1.0], scope="again")
    assert output.op.name.startswith("again/")
    (output,), _ = weighted_resample([[1.0]], [1.0], 1.0, scope="weighted")
    assert output.op.name.startswith("weighted/")


def test_negative_rates_are_refused(graph):
    outputs = resample_at_rate([[1, 2]], v1.placeholder_with_default([1.0, -1.0], [2]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="rates must not be negative"):
        evaluate(outputs)


def test_shapes_have_to_fit(graph):
    with pytest.raises(ValueError, match=r"rates has the shape \(1, 2\): expected \[batch size\]"):
        resample_at_rate([[1, 2]], [[1.0, 2.0]])
    with pytest.raises(ValueError, match=r"there are \(3,\) rates"):
        resample_at_rate([[1, 2]], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"has the shape \(\)"):
        resample_at_rate([1], [1.0])
    with pytest.raises(ValueError, match="weights has the shape"):
        weighted_resample([[1]], 1.0, 1.0)
    assert resample_at_rate([], [1.0]) == []


# By weight


def test_weights_are_relative_to_their_mean(each_mode_graph):
    weights = np.repeat([0.0, 1.0, 2.0, 5.0], 2000).astype(np.float32)
    (chosen,), rates = weighted_resample([tf.range(8000)], weights, overall_rate=0.8)
    ((chosen, rates),) = evaluate([chosen, rates])
    counts = np.bincount(chosen, minlength=8000).reshape(4, 2000)
    for weight, count in zip([0, 1, 2, 5], counts, strict=True):
        rate = 0.8 * weight / 2
        assert abs(count.mean() - rate) <= 4 * (rate / 2000) ** 0.5
    np.testing.assert_allclose(rates, 0.8 * weights[chosen] / 2, rtol=1e-5)


def test_the_mean_moves_with_the_batches(each_mode_graph):
    weights = v1.placeholder(tf.float32, [None])
    _, rates = weighted_resample([weights], weights, overall_rate=50.0, mean_decay=0.5)
    (moments,) = v1.global_variables()
    assert v1.trainable_variables() == []
    assert moments.op.name.startswith("weighted_resample/")
    seen = []
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        for weight in (1.0, 4.0, 4.0):
            seen.append(session.run(rates, {weights: [weight]})[0])
    # Means of 1; of 1 and 4 with shares 1:2; of 1, 4 and 4 with shares 1:2:4.
    np.testing.assert_allclose(seen, [50 / 1, 200 / 3, 200 * 7 / 25], rtol=1e-5)


def test_weights_of_zero_choose_nothing(graph):
    (chosen,), rates = weighted_resample([[1, 2]], [0.0, 0.0], 3.0)
    ((chosen, rates),) = evaluate([chosen, rates])
    assert (chosen.size, rates.size) == (0, 0)


def test_weights_and_rate_may_be_integers(graph):
    (chosen,), rates = weighted_resample([tf.range(2)], [1, 3], overall_rate=10)
    ((chosen, rates),) = evaluate([chosen, rates])
    assert set(zip(chosen, rates, strict=True)) == {(0, 5), (1, 15)}


@pytest.mark.parametrize("decay", [-0.1, 1, 1.5])
def test_decay_is_less_than_one(graph, decay):
    with pytest.raises(ValueError, match=f"mean_decay={decay}"):
        weighted_resample([[1]], [1.0], 1.0, mean_decay=decay)


def test_shapes_may_be_unknown_and_are_checked_when_they_run(graph):
    inputs, weights = v1.placeholder(tf.int32), v1.placeholder(tf.float32)
    rate = v1.placeholder_with_default(2.0, None)
    (chosen,), rates = weighted_resample([inputs], weights, rate)
    assert rates.shape.as_list() == [None]
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        values = session.run([chosen, rates], {inputs: [5, 6], weights: [0.0, 2.0]})
        assert set(zip(*values, strict=True)) <= {(6, 4.0)}
        for wrong in (2.0, [[1.0, 2.0]]):
            with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible"):
                session.run(rates, {inputs: [5, 6], weights: wrong})
