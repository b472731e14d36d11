"""Masks on parameter servers: beside their weights, updated there, and shared by all workers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib.model_pruning import (
    MaskedLSTMCell,
    Pruning,
    get_masks,
    get_pruning_hparams,
    get_thresholds,
    get_weights,
    mask_keras_model,
    masked_conv2d,
    masked_fully_connected,
)
from paramserve.data_plane.placement import on_cluster
from support.static_servers import start_servers

v1 = tf.compat.v1

IMAGES = np.random.default_rng(1).normal(size=[4, 5, 5, 2]).astype(np.float32)


@pytest.fixture(scope="module")
def cluster():
    """Two parameter servers and two workers, in this process."""
    return start_servers(ps=2, worker=2)


def build(worker):
    """A model with every kind of layer, its training op, and the conditional mask update."""
    with on_cluster(2, f"/job:worker/task:{worker}"):
        step = v1.train.get_or_create_global_step()
        layer = masked_conv2d(IMAGES, 8, 3)
        state = [tf.zeros([20, 4])] * 2
        layer, _ = MaskedLSTMCell(4)(tf.reshape(layer, [20, 40]), state)
        with v1.variable_scope("cut", partitioner=v1.fixed_size_partitioner(2)):
            layer = masked_fully_connected(layer, 6)
        dense = keras.layers.Dense(5, name="dense")  # Other names would count up with each graph.
        model = keras.Sequential([keras.Input((6,)), dense], name="model")
        mask_keras_model(model)
        loss = tf.reduce_mean((model(layer) - 1.0) ** 2)
        train = v1.train.AdagradOptimizer(0.1).minimize(loss, step)
        spec = get_pruning_hparams().parse("pruning_frequency=3,sparsity_function_end_step=6")
        pruning = Pruning(spec, step)
        return train, pruning.conditional_mask_update_op(), pruning.last_mask_update_step


def devices(x):
    return [part.device for part in (x if hasattr(x, "as_tensor") else [x])]


@pytest.mark.usefixtures("use_resource", "graph")
def test_masks_and_thresholds_are_beside_their_weights():
    build(0)
    used = set()
    for weight, mask, threshold in zip(get_weights(), get_masks(), get_thresholds(), strict=True):
        assert devices(mask) == devices(weight)
        assert threshold.device == devices(weight)[0]
        used.update(devices(weight))
    assert len(get_weights()) == 4
    assert used == {"/job:ps/task:0", "/job:ps/task:1"}


@pytest.mark.usefixtures("use_resource")
def test_masks_are_computed_where_they_are(graph):
    build(1)
    pooled = [op for op in graph.get_operations() if op.type == "TopKV2"]
    assert [op.device for op in pooled] == [devices(mask)[0] for mask in get_masks()]


@pytest.mark.usefixtures("use_resource", "cluster")
def test_workers_prune_the_same_masks(cluster):
    sessions, ops = [], []
    for worker in range(2):
        with tf.Graph().as_default() as graph:
            ops.append(build(worker))
            init = v1.global_variables_initializer()
            masks = [tf.convert_to_tensor(mask) for mask in get_masks()]
            weights = [tf.convert_to_tensor(weight) for weight in get_weights()]
        sessions.append(v1.Session(cluster["worker", worker].target, graph=graph))
        if worker == 0:
            sessions[0].run(init)
    updates = []
    for index in range(7):
        session, (train, update, last) = sessions[index % 2], ops[index % 2]
        session.run(train)
        session.run(update)
        updates.append(session.run(last))
    assert updates == [0, 0, 3, 3, 3, 6, 6]
    masks, weights = sessions[1].run([masks, weights])
    for mask, weight in zip(masks, weights, strict=True):
        assert mask.mean() == 0.5
        # After one more training step the largest weights are still those that the mask keeps.
        assert np.abs(weight)[mask == 1].mean() > 1.3 * np.abs(weight)[mask == 0].mean()
    for session in sessions:
        session.close()
    for server in cluster.values():
        v1.Session.reset(server.target)
