"""Trains in the graph mode named on the command line; run by the tests as a process."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from paramserve.contrib.training import train

v1 = tf.compat.v1


def main():
    mode, logdir = sys.argv[1:]
    getattr(v1, mode)()
    weight = v1.get_variable("weight", initializer=5.0)
    loss = tf.square(weight)
    step = v1.train.get_or_create_global_step()
    update = v1.train.GradientDescentOptimizer(0.25).minimize(loss, global_step=step)
    with tf.control_dependencies([update]):
        train_op = tf.identity(loss)
    v1.summary.scalar("loss", loss)
    last_loss = train(train_op, logdir, hooks=[v1.train.StopAtStepHook(last_step=20)])
    assert last_loss < 1e-6, last_loss
    print(type(weight).__name__, tf.train.latest_checkpoint(logdir))


main()
