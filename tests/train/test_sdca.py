"""Stochastic dual coordinate ascent, against the closed form of ridge regression."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve import train

v1 = tf.compat.v1


@pytest.mark.original_api("tf.train.sdca_fprint")
def test_fingerprints_are_stable_and_differ():
    fingerprints = train.sdca_fprint(tf.constant(["abc", "abd", "abc"]))
    with v1.Session() as session:
        first, second, third = session.run(fingerprints).tolist()
    assert first == third != second
    assert len(first) == 2


@pytest.mark.original_api("tf.train.sdca_shrink_l1")
@pytest.mark.parametrize("use_resource", [True, False])
def test_weights_shrink_towards_0(use_resource):
    weights = [
        v1.get_variable(name, initializer=value, use_resource=use_resource)
        for name, value in (("a", [1.0, -0.1, -3.0]), ("b", [0.5]))
    ]
    shrink = train.sdca_shrink_l1(weights, l1=0.5, l2=2.0)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        session.run(shrink)
        values = session.run(weights)
    np.testing.assert_allclose(values[0], [0.75, 0.0, -2.75])
    np.testing.assert_allclose(values[1], [0.25])


@pytest.mark.original_api("tf.train.sdca_shrink_l1")
def test_variables_of_both_kinds_shrink_together():
    weights = [
        v1.get_variable(str(kind), initializer=[2.0], use_resource=kind) for kind in (True, False)
    ]
    shrink = train.sdca_shrink_l1(weights, 1.0, 1.0)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        session.run(shrink)
        assert [value.tolist() for value in session.run(weights)] == [[1.0], [1.0]]


@pytest.mark.original_api("tf.train.sdca_optimizer", "tf.train.sdca_shrink_l1")
def test_the_weights_become_those_of_ridge_regression():
    random = np.random.default_rng(5)
    features = random.normal(size=(20, 2)).astype(np.float32)
    labels = (features @ [1.5, -0.5]).astype(np.float32)
    l2 = 1.0
    weights = v1.get_variable("weights", [2], initializer=v1.zeros_initializer())
    state = v1.get_variable("state", [20, 4], initializer=v1.zeros_initializer())
    columns = tf.split(weights, 2)
    new_state, _, deltas = train.sdca_optimizer(
        sparse_example_indices=[],
        sparse_feature_indices=[],
        sparse_feature_values=[],
        dense_features=[features[:, :1], features[:, 1:]],
        example_weights=np.ones(20, np.float32),
        example_labels=labels,
        sparse_indices=[],
        sparse_weights=[],
        dense_weights=columns,
        example_state_data=state,
        loss_type="squared_loss",
        l1=0.0,
        l2=l2,
        num_loss_partitions=1,
        num_inner_iterations=1,
    )
    update = tf.group(state.assign(new_state), weights.assign_add(tf.concat(deltas, 0)))
    shrink = train.sdca_shrink_l1([weights], l1=0.0, l2=l2)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        for _ in range(100):
            session.run(update)
            session.run(shrink)
        value = session.run(weights)
    # The loss is sum((xw - y)^2) / 2 + l2 / 2 |w|^2.
    solution = np.linalg.solve(features.T @ features + l2 * np.eye(2), features.T @ labels)
    np.testing.assert_allclose(value, solution, atol=1e-3)
