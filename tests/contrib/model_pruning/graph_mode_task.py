"""Trains, prunes and strips a model after a global switch: `graph_mode_task.py SWITCH LOGDIR`."""

import sys

import keras
import numpy as np
import tensorflow as tf

from paramserve.contrib import model_pruning as pruning

v1 = tf.compat.v1
IMAGES = np.random.default_rng(1).normal(size=[4, 5, 5, 2]).astype(np.float32)


def build():
    layer = pruning.masked_conv2d(v1.placeholder_with_default(IMAGES, IMAGES.shape), 8, 3)
    layer = tf.reshape(layer, [4, 5, 40])
    layer, _ = v1.nn.dynamic_rnn(pruning.MaskedLSTMCell(4), layer, dtype=tf.float32)
    layer = pruning.masked_fully_connected(layer[:, -1], 6)
    model = keras.Sequential([keras.layers.Dense(5)])
    pruning.mask_keras_model(model)
    return tf.identity(model(layer), name="outputs")


def main(switch, logdir):
    getattr(v1, switch)()
    outputs = build()
    kinds = {
        "ref" if v.dtype.name.endswith("ref") else "resource" for v in pruning.get_weights()[:3]
    }
    print(*kinds, "variables")
    step = v1.train.get_or_create_global_step()
    train = v1.train.AdamOptimizer().minimize(tf.reduce_mean((outputs - 1.0) ** 2), step)
    spec = pruning.get_pruning_hparams().parse("pruning_frequency=2,end_pruning_step=5")
    pruner = pruning.Pruning(spec, step, sparsity=0.5)
    update = pruner.conditional_mask_update_op()
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        updates = set()
        for _ in range(7):
            session.run(train)
            session.run(update)
            updates.add(int(session.run(pruner.last_mask_update_step)))
        print("updated at", sorted(updates - {0}))
        assert session.run(pruning.get_weight_sparsity()) == [0.5] * 4
        v1.train.Saver().save(session, f"{logdir}/model", step)
        expected = session.run(outputs)
    frozen = pruning.graph_def_from_checkpoint(logdir, ["outputs"])
    stripped = pruning.strip_pruning_vars_fn(frozen, ["outputs"])
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        tf.import_graph_def(stripped, name="")
        np.testing.assert_allclose(session.run("outputs:0"), expected, rtol=1e-5, atol=1e-6)
    assert not [node for node in stripped.node if node.name.endswith("/mask")]
    print("stripped")


if __name__ == "__main__":
    main(*sys.argv[1:])
