"""The placement of `replica_device_setter` with the strategies of this package."""

import hashlib

import pytest
import tensorflow as tf

from paramserve.contrib.training import (
    GreedyLoadBalancingStrategy,
    RandomStrategy,
    byte_size_load_fn,
)

v1 = tf.compat.v1
both_kinds = pytest.mark.parametrize("use_resource", [True, False], ids=["resource", "ref"])


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as graph:
        yield graph


def place(strategy, shapes, use_resource=True, num_ps=2):
    """Builds variables "v0", "v1", ... and returns the parameter servers that they are on."""
    setter = v1.train.replica_device_setter(ps_tasks=num_ps, ps_strategy=strategy)
    with v1.device(setter):
        variables = [
            v1.get_variable(f"v{i}", shape, use_resource=use_resource)
            for i, shape in enumerate(shapes)
        ]
    return [tf.DeviceSpec.from_string(variable.device).task for variable in variables]


def op(shape, dtype=tf.float32, use_resource=True):
    initializer = v1.zeros_initializer()
    return v1.get_variable("v", shape, dtype, initializer, use_resource=use_resource).op


# By hash


@both_kinds
def test_random_placement_follows_the_hash_of_the_name(use_resource):
    expected = [
        int.from_bytes(hashlib.md5(f"v{i}_5".encode()).digest(), "big") % 3 for i in range(20)
    ]
    placed = place(RandomStrategy(3, seed=5), [[2]] * 20, use_resource, num_ps=3)
    assert placed == expected
    assert set(placed) == {0, 1, 2}


def test_another_seed_is_another_placement():
    assert place(RandomStrategy(2), [[2]] * 20) != place_in_new_graph(RandomStrategy(2, seed=1))
    assert place_in_new_graph(RandomStrategy(2)) == place_in_new_graph(RandomStrategy(2, seed=0))


def place_in_new_graph(strategy):
    with tf.Graph().as_default():
        return place(strategy, [[2]] * 20)


# By load


def test_the_least_loaded_server_gets_the_next_op():
    loads = iter([5, 1, 1, 1, 1, 4])
    strategy = GreedyLoadBalancingStrategy(3, lambda op: next(loads))
    assert [strategy(None) for _ in range(6)] == [0, 1, 2, 1, 2, 1]


@both_kinds
def test_variables_are_balanced_by_bytes(use_resource):
    strategy = GreedyLoadBalancingStrategy(2, byte_size_load_fn)
    # 400, 40, 40, 360 and 4 bytes.
    placed = place(strategy, [[10, 10], [10], [10], [90], []], use_resource)
    assert placed == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("make", [RandomStrategy, lambda n: GreedyLoadBalancingStrategy(n, len)])
def test_without_parameter_servers_there_is_no_strategy(make):
    with pytest.raises(ValueError, match="at least 1 parameter server"):
        make(0)


# Bytes


@both_kinds
@pytest.mark.parametrize(
    ("shape", "dtype", "size"),
    [([3, 5], tf.float32, 60), ([3, 5], tf.int64, 120), ([], tf.float64, 8), ([0], tf.int32, 0)],
)
def test_a_variable_weighs_its_elements(use_resource, shape, dtype, size):
    assert byte_size_load_fn(op(shape, dtype, use_resource)) == size


def test_of_other_ops_the_output_weighs():
    assert byte_size_load_fn(tf.zeros([3, 5], tf.int64).op) == 120


def test_several_outputs_cannot_be_weighed():
    parts = tf.unstack(tf.zeros([2, 3]))
    with pytest.raises(ValueError, match="2 outputs"):
        byte_size_load_fn(parts[0].op)
    with pytest.raises(ValueError, match="single output"):
        byte_size_load_fn(tf.no_op())


def test_an_unknown_shape_cannot_be_weighed():
    with pytest.raises(ValueError, match="fully defined"):
        byte_size_load_fn(v1.placeholder(tf.float32, [None, 3]).op)
    value = v1.placeholder(tf.float32, [None])
    variable = v1.Variable(value, validate_shape=False, use_resource=True)
    with pytest.raises(ValueError, match="fully defined"):
        byte_size_load_fn(variable.op)
