"""The weights that an update of the masks keeps: exact masks and thresholds."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib.model_pruning import (
    Pruning,
    apply_mask,
    get_masks,
    get_pruning_hparams,
    get_thresholds,
    get_weight_sparsity,
)
from paramserve.contrib.model_pruning.masks import assign

v1 = tf.compat.v1

pytestmark = pytest.mark.usefixtures("use_resource")

ROWS = [[0.1, 0.1, 0.2, 0.2], [0.1, 0.1, 0.2, 0.2], [0.3, 0.3, 0.4, 0.4], [0.3, 0.3, 0.4, 0.4]]


def read(x):
    return tf.convert_to_tensor(x)


@pytest.fixture
def update(start):
    """Masks weights, updates once at a sparsity, and returns mask and threshold."""

    def update(weights, sparsity, text="", partitions=None):
        weights = np.asarray(weights, np.float32)
        partitioner = partitions and v1.fixed_size_partitioner(partitions)
        variable = v1.get_variable("weights", weights.shape, partitioner=partitioner)
        load = assign(variable, weights)
        apply_mask(variable)
        spec = get_pruning_hparams().parse(text)
        pruning = Pruning(spec, v1.train.get_or_create_global_step(), sparsity)
        op = pruning.mask_update_op()
        session = start()
        session.run(load)
        session.run(op)
        return session.run(read(get_masks()[0])), session.run(get_thresholds()[0])

    return update


# Single weights


def test_nothing_is_pruned_at_sparsity_0(update):
    mask, threshold = update(np.linspace(1, 100, 100), 0.0)
    assert mask.sum() == 100
    assert threshold == 1.0


def test_5_of_100_stay_at_sparsity_095(update):
    mask, threshold = update(np.linspace(1, 100, 100), 0.95)
    assert mask.tolist() == [0.0] * 95 + [1.0] * 5
    assert threshold == 96.0


def test_absolute_values_count(update):
    mask, threshold = update([[-4.0, 1.0], [2.0, -3.0]], 0.5)
    assert mask.tolist() == [[1, 0], [0, 1]]
    assert threshold == 3.0


def test_half_of_a_partitioned_weight_stays(update):
    weights = np.random.default_rng(5).permutation(np.arange(1.0, 101.0)).reshape(10, 10)
    mask, threshold = update(weights, 0.5, partitions=3)
    assert np.array_equal(mask, weights > 50)
    assert threshold == 51.0


def test_equal_weights_at_the_limit_all_stay(update):
    assert update([0.5] * 4, 0.5)[0].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("weights", [[3.0], [1.0, 2.0, 3.0]])
def test_at_least_one_weight_stays(update, weights):
    """round(n * (1 - sparsity)) is 0 here, from which the original fails."""
    mask, threshold = update(weights, 0.9)
    assert mask.tolist() == [0.0] * (len(weights) - 1) + [1.0]
    assert threshold == 3.0


@pytest.mark.parametrize(("size", "kept"), [(5, 2), (7, 4)])
def test_a_half_is_rounded_to_the_even_number(update, size, kept):
    assert update(np.arange(1.0, size + 1), 0.5)[0].sum() == kept


def test_threshold_decays_from_the_old_one(start):
    weights = v1.get_variable("weights", initializer=np.arange(1.0, 11.0, dtype=np.float32))
    apply_mask(weights)
    spec = get_pruning_hparams().parse("threshold_decay=0.75")
    op = Pruning(spec, v1.train.get_or_create_global_step(), 0.5).mask_update_op()
    session = start()
    for threshold, kept in ((1.5, 9), (2.625, 8), (3.46875, 7)):
        session.run(op)
        assert session.run(get_thresholds()[0]) == threshold  # 0.25 * 6 + 0.75 * the old one.
        assert session.run(get_masks()[0]).sum() == kept


def test_a_pruned_weight_that_grows_comes_back(start):
    weights = v1.get_variable("weights", initializer=[1.0, 2.0, 3.0, 4.0])
    apply_mask(weights)
    op = Pruning(None, v1.train.get_or_create_global_step(), 0.5).mask_update_op()
    grow = weights.assign([9.0, 2.0, 3.0, 4.0])
    session = start()
    session.run(op)
    assert session.run(get_masks()[0]).tolist() == [0, 0, 1, 1]
    session.run(grow)
    session.run(op)
    assert session.run(get_masks()[0]).tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("dtype", [tf.float64, tf.float16, tf.bfloat16])
def test_other_dtypes(start, dtype):
    initial = tf.cast([[1, 8], [3, 4], [5, 6], [7, 2]], dtype)
    apply_mask(v1.get_variable("weights", initializer=initial))
    step = v1.train.get_or_create_global_step()
    op = Pruning(None, step, 0.5).mask_update_op()
    blocks = Pruning(get_pruning_hparams().parse("block_width=2,name=blocks"), step, 0.5)
    blocks_op = blocks.mask_update_op()
    session = start()
    session.run(op)
    mask, threshold = session.run([read(get_masks()[0]), read(get_thresholds()[0])])
    assert mask.tolist() == [[0, 1], [0, 0], [1, 1], [1, 0]]
    assert (threshold, threshold.dtype) == (5, dtype.as_numpy_dtype)
    session.run(blocks_op)  # Averages 4.5, 3.5, 5.5, 4.5: one more, since two are equal.
    assert session.run(read(get_masks()[0])).tolist() == [[1, 1], [0, 0], [1, 1], [1, 1]]


def test_a_tensor_and_a_scalar_of_rank_0_have_masks(start):
    apply_mask(tf.constant([1.0, 5.0, 2.0, 4.0]), "tensor")
    apply_mask(v1.get_variable("scalar", initializer=2.0), "scalar")
    op = Pruning(None, v1.train.get_or_create_global_step(), 0.5).mask_update_op()
    session = start()
    session.run(op)
    masks = session.run([read(mask) for mask in get_masks()])
    assert [mask.tolist() for mask in masks] == [[0, 1, 0, 1], 1.0]


# Blocks


both_pools = pytest.mark.parametrize("tpu", ["use_tpu=false", "use_tpu=true"])


@both_pools
@pytest.mark.parametrize(
    ("block", "pool", "sparsity", "expected"),
    [
        ((2, 2), "AVG", 0.5, [[0] * 4, [0] * 4, [1] * 4, [1] * 4]),
        ((2, 2), "MAX", 0.5, [[0] * 4, [0] * 4, [1] * 4, [1] * 4]),
        ((2, 2), "AVG", 0.75, [[0] * 4, [0] * 4, [0, 0, 1, 1], [0, 0, 1, 1]]),
        ((2, 2), "MAX", 0.25, [[0, 0, 1, 1], [0, 0, 1, 1], [1] * 4, [1] * 4]),
        ((4, 1), "AVG", 0.5, [[0, 0, 1, 1]] * 4),
        ((1, 4), "AVG", 0.5, [[0] * 4, [0] * 4, [1] * 4, [1] * 4]),
        ((-1, 1), "MAX", 0.5, [[0, 0, 1, 1]] * 4),
        ((1, -1), "MAX", 0.5, [[0] * 4, [0] * 4, [1] * 4, [1] * 4]),
        ((-1, -1), "AVG", 0.5, [[1] * 4] * 4),
        ((3, 3), "MAX", 0.75, [[0] * 4, [0] * 4, [0] * 4, [0, 0, 0, 1]]),
    ],
)
def test_blocks_stay_or_go_as_a_whole(update, tpu, block, pool, sparsity, expected):
    weights = np.array(ROWS)
    if block == (3, 3):  # Four blocks, with padding on both sides: the last counts rows 2 and 3.
        weights = np.arange(16.0).reshape(4, 4)
    text = f"block_height={block[0]},block_width={block[1]},block_pooling_function={pool},{tpu}"
    assert update(weights, sparsity, text)[0].tolist() == expected


@both_pools
def test_average_and_maximum_differ(update, tpu):
    weights = np.array([[0.0, -9.0, 5.0, 5.0]])
    weights = np.concatenate([weights, weights])  # Blocks have no effect on a single row.
    text = f"block_width=2,block_height=2,{tpu}"
    assert update(weights, 0.5, text)[0].tolist() == [[0, 0, 1, 1]] * 2


@both_pools
def test_maximum_keeps_the_block_with_the_largest_weight(update, tpu):
    text = f"block_width=2,block_height=2,block_pooling_function=MAX,{tpu}"
    mask, threshold = update([[0.0, -9.0, 5.0, 5.0]] * 2, 0.5, text)
    assert mask.tolist() == [[1, 1, 0, 0]] * 2
    assert threshold == 9.0


def test_blocks_that_do_not_divide_the_weight_are_cropped(update):
    weights = np.arange(15.0).reshape(3, 5)
    mask, _ = update(weights, 0.5, "block_height=2,block_width=2")
    # Averages of the blocks: 3, 5, 6.5 / 10.5, 12.5, 14.
    assert mask.tolist() == [[0] * 5, [0] * 5, [1] * 5]


def test_dimensions_of_size_1_do_not_count(update):
    weights = np.array(ROWS).reshape(1, 1, 4, 4)
    mask, _ = update(weights, 0.75, "block_height=2,block_width=2")
    expected = [[0] * 4, [0] * 4, [0, 0, 1, 1], [0, 0, 1, 1]]
    assert mask.shape == (1, 1, 4, 4)
    assert mask[0, 0].tolist() == expected


def test_blocks_of_a_partitioned_weight(update):
    mask, _ = update(ROWS, 0.75, "block_height=2,block_width=2", partitions=3)
    assert mask.tolist() == [[0] * 4, [0] * 4, [0, 0, 1, 1], [0, 0, 1, 1]]


def test_other_ranks_are_pruned_weight_by_weight(update):
    weights = np.arange(16.0).reshape(2, 2, 4)
    mask, _ = update(weights, 0.75, "block_height=2,block_width=2")
    assert np.array_equal(mask, weights >= 12)


def test_another_pooling_function_is_refused(update):
    with pytest.raises(ValueError, match="'SUM' should be 'AVG' or 'MAX'"):
        update(ROWS, 0.5, "block_height=2,block_pooling_function=SUM")


def test_each_weight_may_have_blocks_of_its_own(start):
    for name in ("first", "second", "third"):
        initializer = v1.constant_initializer(np.arange(16.0).reshape(4, 4))
        apply_mask(v1.get_variable(name, [4, 4], initializer=initializer), name + "_scope")
    text = "block_dims_map=[^first$:4x1,second:1x-1],block_height=2,block_width=2"
    spec = get_pruning_hparams().parse(text)
    op = Pruning(spec, v1.train.get_or_create_global_step(), 0.75).mask_update_op()
    session = start()
    session.run(op)
    first, second, third = session.run([read(mask) for mask in get_masks()])
    assert first.tolist() == [[0, 0, 0, 1]] * 4
    assert second.tolist() == [[0] * 4] * 3 + [[1] * 4]
    assert third.tolist() == [[0] * 4] * 2 + [[0, 0, 1, 1]] * 2


# Sparsities


def test_each_weight_reaches_the_sparsity_of_its_own(start):
    names = ["conv1/weights", "conv2/weights", "logits/weights"]
    for name in names:
        values = np.random.default_rng(0).permutation(np.arange(1.0, 101.0)).astype("f")
        scope = name.split("/")[0]
        apply_mask(v1.get_variable(name, initializer=values.reshape(10, 10)), scope)
    text = (
        "target_sparsity=0.6,sparsity_function_end_step=10,pruning_frequency=1,"
        "weight_sparsity_map=[conv2/weights:0.75]"
    )
    step = v1.train.get_or_create_global_step()
    pruning = Pruning(get_pruning_hparams().parse(text), step)
    with tf.control_dependencies([step.assign_add(1)]):
        train = pruning.conditional_mask_update_op()
    sparsities = get_weight_sparsity()
    session = start()
    for _ in range(5):
        session.run(train)
    np.testing.assert_allclose(session.run(sparsities), [0.52, 0.66, 0.52], atol=0.011)
    for _ in range(7):
        session.run(train)
    np.testing.assert_allclose(session.run(sparsities), [0.6, 0.75, 0.6], atol=1e-6)


def test_weights_are_left_alone_by_parts_of_their_names_or_their_masks(start):
    for name in ("conv1", "conv2", "logits"):
        values = np.arange(1.0, 5.0, dtype=np.float32)
        apply_mask(v1.get_variable(f"{name}/weights", initializer=values), f"{name}_masks")
    spec = get_pruning_hparams().parse("do_not_prune=[conv1/w,logits_m]")
    op = Pruning(spec, v1.train.get_or_create_global_step(), 0.5).mask_update_op()
    session = start()
    session.run(op)
    assert session.run(get_weight_sparsity()) == [0.0, 0.5, 0.0]
    assert session.run(list(get_thresholds())) == [0.0, 3.0, 0.0]
