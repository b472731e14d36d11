"""Stripped graphs compute what the masked ones do, without masks."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib.model_pruning import (
    MaskedBasicLSTMCell,
    MaskedLSTMCell,
    Pruning,
    apply_mask,
    get_weight_sparsity,
    graph_def_from_checkpoint,
    masked_conv2d,
    masked_fully_connected,
    strip_pruning_vars_fn,
)

v1 = tf.compat.v1

INPUTS = np.random.default_rng(2).normal(size=[4, 8, 6, 3]).astype(np.float32)


def convolution(images):
    return masked_conv2d(masked_conv2d(images, 5, 3), 2, 3, activation_fn=None)


def fully_connected(images):
    rows = tf.reshape(images, [-1, 8 * 6 * 3])
    return masked_fully_connected(masked_fully_connected(rows, 10), 3, activation_fn=None)


def partitioned(images):
    with v1.variable_scope("cut", partitioner=v1.fixed_size_partitioner(3)):
        return fully_connected(images)


def static_lstm(images):
    steps = tf.unstack(tf.reshape(images, [4, 8, 18]), axis=1)
    return v1.nn.static_rnn(MaskedBasicLSTMCell(5), steps, dtype=tf.float32)[0][-1]


def dynamic_lstm(images):
    sequence = tf.reshape(images, [4, 8, 18])
    cell = MaskedLSTMCell(5, use_peepholes=True, num_proj=3)
    return v1.nn.dynamic_rnn(cell, sequence, dtype=tf.float32)[0]


def two_scopes(images):
    """Two masks in one name scope: the second product's name has a number."""
    for index in range(2):
        kernel = v1.get_variable(f"kernel_{index}", [3, 3])
        images = tf.tensordot(images, apply_mask(kernel, f"scope_{index}"), 1)
    return images


def save_pruned(model, logdir):
    """Trains and prunes for some steps; returns the outputs."""
    with tf.Graph().as_default() as graph:
        v1.set_random_seed(3)
        images = v1.placeholder(tf.float32, INPUTS.shape, "images")
        outputs = tf.identity(model(images), name="outputs")
        step = v1.train.get_or_create_global_step()
        optimizer = v1.train.MomentumOptimizer(0.01, 0.9)
        train = optimizer.minimize(tf.reduce_mean(outputs**2), step)
        with tf.control_dependencies([train]):
            train = Pruning(None, step, 0.75).mask_update_op()
        saver, sparsities = v1.train.Saver(), get_weight_sparsity()
        with v1.Session(graph=graph) as session:
            session.run(v1.global_variables_initializer())
            for _ in range(3):
                session.run(train, {images: INPUTS})
            saver.save(session, str(logdir / "model.ckpt"), step)
            assert min(session.run(sparsities)) >= 0.7
            return session.run(outputs, {images: INPUTS})


def compute(graph_def):
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        tf.import_graph_def(graph_def, name="")
        return session.run("outputs:0", {"images:0": INPUTS})


@pytest.mark.usefixtures("use_resource")
@pytest.mark.parametrize(
    "model",
    [convolution, fully_connected, partitioned, static_lstm, dynamic_lstm, two_scopes],
)
def test_the_stripped_graph_computes_the_same_without_masks(model, tmp_path):
    expected = save_pruned(model, tmp_path)
    frozen = graph_def_from_checkpoint(str(tmp_path), ["outputs"])
    np.testing.assert_allclose(compute(frozen), expected, rtol=1e-5, atol=1e-6)
    stripped = strip_pruning_vars_fn(frozen, ["outputs"])
    np.testing.assert_allclose(compute(stripped), expected, rtol=1e-5, atol=1e-6)

    def leaves(graph_def):
        return {node.name.split("/")[-1].split("_")[0] for node in graph_def.node}

    assert {"mask", "masked"} <= leaves(frozen)
    assert "mask" not in leaves(stripped)
    products = [node for node in stripped.node if "masked_weight" in node.name]
    assert products
    assert {node.op for node in products} == {"Const"}
    values = [tf.make_ndarray(node.attr["value"].tensor) for node in products]
    assert all((value == 0).mean() >= 0.7 for value in values)
    # Of each masked weight at least the raw weight and the mask are gone.
    assert len(stripped.node) <= len(frozen.node) - 2 * len(products)


def test_devices_of_the_training_are_not_in_the_frozen_graph(tmp_path):
    def placed(images):
        with v1.device("/job:localhost/replica:0/task:0/device:CPU:0"):
            return fully_connected(images)

    save_pruned(placed, tmp_path)
    frozen = graph_def_from_checkpoint(str(tmp_path), ["outputs"])
    assert {node.device for node in frozen.node} == {""}


def test_the_newest_checkpoint_is_taken(tmp_path):
    save_pruned(convolution, tmp_path)
    expected = save_pruned(fully_connected, tmp_path)
    frozen = graph_def_from_checkpoint(tmp_path, ["outputs"])
    np.testing.assert_allclose(compute(frozen), expected, rtol=1e-5, atol=1e-6)


def test_without_a_checkpoint_or_its_graph_there_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint was found in"):
        graph_def_from_checkpoint(str(tmp_path), ["outputs"])
    save_pruned(fully_connected, tmp_path)
    next(tmp_path.glob("*.meta")).unlink()
    with pytest.raises(ValueError, match=r"has no graph: .*meta is missing"):
        graph_def_from_checkpoint(str(tmp_path), ["outputs"])


def test_an_output_that_is_not_in_the_graph_is_an_error(tmp_path):
    save_pruned(fully_connected, tmp_path)
    frozen = graph_def_from_checkpoint(str(tmp_path), ["outputs"])
    with pytest.raises(ValueError, match="no node 'outputs:0': give names of ops"):
        strip_pruning_vars_fn(frozen, ["outputs:0"])


def test_a_graph_without_masks_stays_as_it_is():
    with tf.Graph().as_default() as graph:
        tf.add(tf.constant(1.0), 2.0, name="outputs")
    stripped = strip_pruning_vars_fn(graph.as_graph_def(), ["outputs"])
    assert [node.name for node in stripped.node] == [
        node.name for node in graph.as_graph_def().node
    ]
