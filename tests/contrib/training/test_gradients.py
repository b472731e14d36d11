"""Gradients are clipped, multiplied and summarized, of whatever kind they are."""

import logging

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib.training import (
    add_gradients_summaries,
    clip_gradient_norms,
    clip_gradient_norms_fn,
    multiply_gradients,
)

v1 = tf.compat.v1

both_kinds = pytest.mark.parametrize("use_resource", [True, False], ids=["resource", "ref"])


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as graph:
        yield graph


def variable(name="weight", **options):
    return v1.get_variable(name, initializer=[1.0, 1.0], **options)


def sparse(values):
    return tf.IndexedSlices(
        tf.constant(values), tf.constant([3, 7]), dense_shape=tf.constant([10, 1])
    )


def run(fetches):
    with v1.Session() as session:
        return session.run(fetches)


# Clipping


def test_a_gradient_above_the_norm_is_clipped_and_one_below_is_not():
    pairs = [(tf.constant([30.0, 40.0]), variable("a")), (tf.constant([0.3, 0.4]), variable("b"))]
    clipped = clip_gradient_norms(pairs, 5.0)
    assert [each[1] is pair[1] for each, pair in zip(clipped, pairs, strict=True)] == [True, True]
    large, small = run([gradient for gradient, _ in clipped])
    assert large == pytest.approx([3.0, 4.0])
    assert small == pytest.approx([0.3, 0.4])


def test_no_gradient_stays_none():
    weight = variable()
    assert clip_gradient_norms([(None, weight)], 5.0) == [(None, weight)]


def test_a_row_that_repeats_may_add_up_to_more_than_the_norm():
    """As in the original: the values are clipped as they are, before rows are added up."""
    values, indices = tf.constant([[3.0], [3.0]]), tf.constant([7, 7])
    gradient = tf.IndexedSlices(values, indices, dense_shape=tf.constant([10, 1]))
    [(clipped, _)] = clip_gradient_norms([(gradient, variable())], 5.0)
    assert run(tf.convert_to_tensor(clipped))[7] == 6.0


def test_sparse_gradients_keep_their_rows():
    [(clipped, _)] = clip_gradient_norms([(sparse([[30.0], [40.0]]), variable())], 5.0)
    assert isinstance(clipped, tf.IndexedSlices)
    values, indices, shape = run([clipped.values, clipped.indices, clipped.dense_shape])
    assert values == pytest.approx(np.array([[3.0], [4.0]]))
    assert indices.tolist() == [3, 7]
    assert shape.tolist() == [10, 1]


def test_the_function_clips_what_it_is_given():
    clip = clip_gradient_norms_fn(1.0)
    [(clipped, _)] = clip([(tf.constant([3.0, 4.0]), variable())])
    assert run(clipped) == pytest.approx([0.6, 0.8])


# Multiplying


@both_kinds
@pytest.mark.parametrize("by_name", [True, False])
def test_variables_are_chosen_by_themselves_or_by_name(use_resource, by_name):
    a, b = variable("a", use_resource=use_resource), variable("b", use_resource=use_resource)
    pairs = [(tf.constant([1.0, 2.0]), a), (tf.constant([3.0, 4.0]), b)]
    multiplied = multiply_gradients(pairs, {"b" if by_name else b: 10})
    assert multiplied[0] == pairs[0]
    assert multiplied[1][1] is b
    assert run(multiplied[1][0]).tolist() == [30.0, 40.0]


def test_the_variable_counts_before_its_name():
    weight = variable()
    [(gradient, _)] = multiply_gradients(
        [(tf.constant([1.0]), weight)], {"weight": 10.0, weight: 2.0}
    )
    assert run(gradient) == [2.0]


@pytest.mark.parametrize("dtype", [tf.float64, tf.float16, tf.float32])
def test_factors_take_the_gradients_type(dtype):
    pair = (tf.constant([1.0], dtype), variable())
    [(gradient, _)] = multiply_gradients([pair], {"weight": 0.1})
    assert gradient.dtype is dtype
    assert run(gradient) == [dtype.as_numpy_dtype(0.1)]


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64, tf.int32])
def test_a_factor_may_be_a_tensor(dtype):
    pair = (tf.constant([1.0, 2.0]), variable())
    [(gradient, _)] = multiply_gradients([pair], {"weight": tf.constant(3, dtype)})
    assert run(gradient).tolist() == [3.0, 6.0]


def test_sparse_gradients_are_multiplied_row_by_row():
    [(gradient, _)] = multiply_gradients([(sparse([[1.0], [2.0]]), variable())], {"weight": 2.0})
    assert isinstance(gradient, tf.IndexedSlices)
    values, indices = run([gradient.values, gradient.indices])
    assert values.tolist() == [[2.0], [4.0]]
    assert indices.tolist() == [3, 7]


def test_mistakes_are_told_in_the_originals_order():
    weight = variable()
    pairs = [(None, weight)]
    with pytest.raises(ValueError, match="must be a list"):
        multiply_gradients(tuple(pairs), {})
    with pytest.raises(ValueError, match="is empty"):
        multiply_gradients(pairs, [])
    with pytest.raises(ValueError, match="must be a dict"):
        multiply_gradients(pairs, [("weight", 2.0)])
    with pytest.raises(ValueError, match=r"'weight'.*`None`"):
        multiply_gradients(pairs, {"weight": 2.0})


# Summaries


def test_each_gradient_gets_a_histogram_and_its_norm(caplog):
    caplog.set_level(logging.INFO)
    pairs = [
        (tf.constant([3.0, 4.0]), variable("dense")),
        (sparse([[6.0], [8.0]]), variable("sparse")),
        (None, variable("unused")),
    ]
    summaries = add_gradients_summaries(pairs)
    assert len(summaries) == 4
    merged = v1.Summary.FromString(run(v1.summary.merge_all()))
    values = {value.tag: value for value in merged.value}
    assert sorted(values) == [
        "dense_gradient",
        "dense_gradient_norm",
        "sparse_gradient",
        "sparse_gradient_norm",
    ]
    assert values["dense_gradient_norm"].simple_value == pytest.approx(5.0)
    assert values["sparse_gradient_norm"].simple_value == pytest.approx(10.0)
    assert values["sparse_gradient"].histo.sum == pytest.approx(14.0)
    assert "unused has no gradient" in caplog.text
