"""A program whose loss becomes NaN; run by the tests as a process."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from paramserve.contrib.learn import train

v1 = tf.compat.v1

with tf.Graph().as_default() as graph:
    step = v1.train.get_or_create_global_step()
    loss = tf.constant(float("nan"))
    train(graph, sys.argv[1], step.assign_add(1), loss, max_steps=5)
print("after training")
