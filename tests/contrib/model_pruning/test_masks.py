"""`apply_mask` and the collections in which masks are found again."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib.model_pruning import (
    apply_mask,
    get_masked_weights,
    get_masks,
    get_thresholds,
    get_weight_sparsity,
    get_weights,
)

v1 = tf.compat.v1

pytestmark = pytest.mark.usefixtures("graph")

KINDS = ["variable", "partitioned", "tensor"]


def make_weight(kind, shape=(6, 4), dtype=tf.float32):
    if kind == "tensor":
        return tf.random.normal(shape, dtype=dtype)
    partitioner = v1.fixed_size_partitioner(4) if kind == "partitioned" else None
    return v1.get_variable("weights", shape, dtype, partitioner=partitioner)


@pytest.mark.usefixtures("use_resource")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64, tf.bfloat16])
def test_the_mask_is_ones_and_multiplies_the_weight(start, kind, dtype):
    x = make_weight(kind, dtype=dtype)
    masked = apply_mask(x, scope="layer")
    [mask], [threshold] = get_masks(), get_thresholds()
    zeros = v1.zeros([6, 4], dtype)
    session = start()
    raw, product = session.run([tf.convert_to_tensor(x), masked])
    assert np.array_equal(raw, product)
    assert np.array_equal(session.run(tf.convert_to_tensor(mask)), np.ones([6, 4]))
    assert session.run(threshold) == 0.0
    assert mask.dtype.base_dtype == threshold.dtype.base_dtype == masked.dtype == dtype
    parts = list(mask) if kind == "partitioned" else [mask]
    session.run([part.assign(tf.zeros_like(part)) for part in parts])
    assert np.array_equal(session.run(masked), session.run(zeros))


@pytest.mark.parametrize("kind", KINDS)
def test_mask_threshold_product_and_weight_are_in_parallel_collections(kind, graph):
    x = make_weight(kind)
    masked = apply_mask(x, scope="layer")
    other = v1.get_variable("other", [3])
    masked_other = apply_mask(other, scope="other")
    assert get_masks()[0].name.startswith("layer/mask")
    assert [threshold.op.name for threshold in get_thresholds()] == [
        "layer/threshold",
        "other/threshold",
    ]
    assert get_masks()[1].op.name == "other/mask"
    assert get_weights()[0] is x
    assert get_weights()[1] is other
    assert get_masked_weights()[0] is masked
    assert get_masked_weights()[1] is masked_other
    assert all("weights/masked_weight" in each.name for each in get_masked_weights())
    for key, got in (("masks", get_masks()), ("kernel", get_weights())):
        assert [id(each) for each in graph.get_collection(key)] == [id(each) for each in got]


def test_mask_and_threshold_are_saved_but_not_trained():
    apply_mask(v1.get_variable("weights", [3]))
    assert [v.op.name for v in v1.trainable_variables()] == ["weights"]
    assert [v.op.name for v in v1.global_variables()] == ["weights", "mask", "threshold"]
    assert [v.op.name for v in v1.model_variables()] == ["mask", "threshold"]


@pytest.mark.parametrize("kind", ["variable", "partitioned"])
def test_reuse_adds_nothing_again(kind):
    products = []
    for reuse in (False, True):
        with v1.variable_scope("layer", reuse=reuse) as scope:
            products.append(apply_mask(make_weight(kind), scope))
    assert [len(get()) for get in (get_masks, get_thresholds, get_weights)] == [1, 1, 1]
    assert get_masked_weights()[0] is products[0]
    assert products[1] is not products[0]


def test_two_weights_need_two_scopes():
    first, second = v1.get_variable("a", [3]), v1.get_variable("b", [3])
    apply_mask(first, "layer")
    with pytest.raises(ValueError, match="layer/mask already exists"):
        apply_mask(second, "layer")
    apply_mask(second, "other")
    assert len(get_masks()) == 2


def test_a_mask_is_cut_as_its_weight_and_not_as_its_scope():
    with v1.variable_scope("scope", partitioner=v1.fixed_size_partitioner(3)):
        apply_mask(tf.ones([6, 4]), "whole")
        apply_mask(v1.get_variable("cut", [7, 4]), "cut")
    whole, cut = get_masks()
    assert whole.shape.as_list() == [6, 4]
    assert isinstance(whole, tf.Variable)
    assert [part.shape.as_list() for part in cut] == [[3, 4], [2, 4], [2, 4]]
    assert [part.shape for part in get_weights()[1]] == [part.shape for part in cut]


def test_an_unknown_shape_is_refused():
    with pytest.raises(ValueError, match="needs a fully defined shape"):
        apply_mask(v1.placeholder(tf.float32, [None, 3], name="grown"))


def test_sparsity_is_the_fraction_of_zeros_and_new_each_time(start):
    apply_mask(v1.get_variable("a", [2, 4]), "a")
    apply_mask(v1.get_variable("b", [4], partitioner=v1.fixed_size_partitioner(2)), "b")
    first, second = get_weight_sparsity(), get_weight_sparsity()
    assert not {each.ref() for each in first} & {each.ref() for each in second}
    session = start()
    session.run(get_masks()[0].assign([[1, 0, 0, 1], [1, 0, 1, 1]]))
    session.run(next(iter(get_masks()[1])).assign([0, 0]))
    assert session.run(first) == [0.375, 0.5]
    assert session.run(second) == [0.375, 0.5]


def test_pruned_weights_get_no_gradient(start):
    weights = v1.get_variable("weights", initializer=[[1.0, -2.0], [3.0, 4.0]])
    loss = tf.reduce_sum(apply_mask(weights) ** 2)
    [gradient] = v1.gradients(loss, [weights])
    train = v1.train.GradientDescentOptimizer(0.25).minimize(loss, var_list=[weights])
    session = start()
    session.run(get_masks()[0].assign([[1, 0], [0, 1]]))
    assert session.run(gradient).tolist() == [[2.0, 0.0], [0.0, 8.0]]
    session.run(train)
    assert session.run(tf.identity(weights)).tolist() == [[0.5, -2.0], [3.0, 2.0]]
