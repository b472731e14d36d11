"""Arithmetic on blocks and partitions, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib.model_pruning.magnitude import (
    expand_tensor,
    factorized_pool,
    pool_blocks,
)
from paramserve.contrib.model_pruning.masks import assign, read

v1 = tf.compat.v1

MATRIX = np.random.default_rng(3).normal(size=(7, 10)).astype(np.float32)


def value(make):
    with tf.Graph().as_default(), v1.Session() as session:
        return session.run(make())


@pytest.mark.parametrize("block", [(1, 1), (2, 3), (4, 1), (1, 5)])
def test_expanding_is_a_kronecker_product_with_ones(block):
    expanded = value(lambda: expand_tensor(MATRIX, block))
    assert np.array_equal(expanded, np.kron(MATRIX, np.ones(block)))


@pytest.mark.parametrize(
    ("tensor", "block", "message"),
    [
        (np.ones([2, 2, 2]), (1, 1), "expects rank 2, got rank 3"),
        (np.ones([4]), (1, 1), "expects rank 2, got rank 1"),
        (np.ones([4, 4]), (1, 1, 1), "should be a height and a width"),
        (np.ones([4, 4]), (2,), "should be a height and a width"),
    ],
)
def test_only_a_matrix_expands_by_height_and_width(tensor, block, message):
    with tf.Graph().as_default(), pytest.raises(ValueError, match=message):
        expand_tensor(tensor, block)


@pytest.mark.parametrize("kind", ["AVG", "MAX"])
@pytest.mark.parametrize("block", [(1, 1), (2, 2), (3, 4), (7, 1), (1, 10), (7, 10), (9, 2)])
def test_two_pools_in_one_dimension_are_one_in_two(kind, block):
    one = value(lambda: pool_blocks(MATRIX, block, kind))
    two = value(lambda: pool_blocks(MATRIX, block, kind, factorized=True))
    assert one.shape == (-(-7 // block[0]), -(-10 // block[1]))
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_factorized_pool_pools():
    matrix = np.arange(16, dtype=np.float32).reshape(4, 4)
    pooled = value(lambda: factorized_pool(matrix, [2, 2], "MAX", [1, 2], "VALID"))
    assert pooled.tolist() == [[5, 7], [9, 11], [13, 15]]
    with tf.Graph().as_default(), pytest.raises(ValueError, match="expects rank 2, got rank 4"):
        factorized_pool(tf.ones([1, 4, 4, 1]), [2, 2], "AVG", [2, 2], "SAME")


@pytest.mark.usefixtures("use_resource")
@pytest.mark.parametrize("axis", [0, 1])
def test_a_whole_is_assigned_to_its_slices(start, axis):
    partitioner = v1.fixed_size_partitioner(3, axis)
    variable = v1.get_variable("v", MATRIX.shape, partitioner=partitioner)
    update, whole = assign(variable, MATRIX), read(variable)
    session = start()
    session.run(update)
    assert np.array_equal(session.run(whole), MATRIX)
    parts = session.run([tf.identity(part) for part in variable])
    assert np.array_equal(np.concatenate(parts, axis), MATRIX)


@pytest.mark.usefixtures("graph")
def test_two_partitioned_axes_are_refused():
    quarters = []
    for row, column in ((0, 0), (0, 2), (2, 0), (2, 2)):
        quarters.append(v1.get_variable(f"v/part_{len(quarters)}", [2, 2]))
        quarters[-1]._set_save_slice_info(
            tf.Variable.SaveSliceInfo("v", [4, 4], [row, column], [2, 2])
        )
    partitioned_class = type(v1.get_variable("one", [2], partitioner=lambda shape, dtype: [1]))
    variable = partitioned_class("v", tf.TensorShape([4, 4]), tf.float32, quarters, [2, 2])
    with pytest.raises(ValueError, match=r"partitioned along the axes \[0, 1\]"):
        assign(variable, tf.ones([4, 4]))
