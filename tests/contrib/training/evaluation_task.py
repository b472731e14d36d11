"""Trains with `create_train_op` and evaluates, in the graph mode named on the command line."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from paramserve.contrib.training import (
    StopAfterNEvalsHook,
    SummaryAtEndHook,
    clip_gradient_norms,
    create_train_op,
    evaluate_once,
    multiply_gradients,
    train,
)

v1 = tf.compat.v1
LABELS = np.arange(16) % 2
FEATURES = np.eye(2, dtype=np.float32)[LABELS]


def build():
    kernel = v1.get_variable("kernel", [2, 1], initializer=v1.zeros_initializer())
    logits = FEATURES @ kernel
    targets = LABELS[:, None].astype(np.float32)
    loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits))
    predictions = tf.cast(tf.squeeze(logits, 1) > 0.0, tf.int64)
    return kernel, loss, v1.metrics.accuracy(LABELS, predictions)


def main():
    mode, logdir = sys.argv[1:]
    getattr(v1, mode)()
    with tf.Graph().as_default():
        kernel, loss, _ = build()
        train_op = create_train_op(
            loss,
            v1.train.GradientDescentOptimizer(1.0),
            transform_grads_fn=lambda pairs: clip_gradient_norms(
                multiply_gradients(pairs, {kernel: 2.0}), 0.5
            ),
            summarize_gradients=True,
        )
        assert train(train_op, logdir, hooks=[v1.train.StopAtStepHook(last_step=100)]) < 0.1
    with tf.Graph().as_default():
        _, _, (accuracy, update) = build()
        v1.summary.scalar("accuracy", accuracy)
        value, steps = evaluate_once(
            tf.train.latest_checkpoint(logdir),
            eval_ops=update,
            final_ops=[accuracy, v1.train.get_or_create_global_step()],
            hooks=[StopAfterNEvalsHook(2), SummaryAtEndHook(logdir)],
        )
    print(type(kernel).__name__, value, steps)


main()
