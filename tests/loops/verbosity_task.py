"""Trains with one way of setting up the log after the other; run by the tests as a process."""

import logging
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from paramserve.contrib import learn, slim

v1 = tf.compat.v1


def train(name, logdir):
    print(f"{name}:", file=sys.stderr, flush=True)
    with tf.Graph().as_default() as graph:
        weights = v1.get_variable("weights", initializer=[1.0, 1.0])
        v1.train.get_or_create_global_step()
        optimizer = v1.train.GradientDescentOptimizer(0.0)
        train_op = slim.learning.create_train_op(tf.reduce_sum(weights**2), optimizer)
        slim.learning.train(train_op, None, number_of_steps=2)
        learn.train(graph, logdir, train_op, train_op, steps=1, log_every_steps=1)


def main():
    (folder,) = sys.argv[1:]
    train("nothing", f"{folder}/0")
    v1.logging.set_verbosity(v1.logging.INFO)
    train("verbosity", f"{folder}/1")
    root = logging.StreamHandler()
    root.setFormatter(logging.Formatter("root %(message)s"))
    logging.getLogger().addHandler(root)
    train("verbosity and handler", f"{folder}/2")
    tf.get_logger().propagate = False
    train("not propagated", f"{folder}/3")
    tf.get_logger().propagate = True
    v1.logging.set_verbosity(v1.logging.ERROR)
    logging.getLogger().setLevel(logging.INFO)
    train("errors only", f"{folder}/4")
    tf.get_logger().setLevel(logging.NOTSET)
    train("root", f"{folder}/5")
    ours = logging.getLogger("paramserve")
    ours.setLevel(logging.WARNING)
    v1.logging.set_verbosity(v1.logging.INFO)
    train("own level", f"{folder}/6")
    ours.setLevel(logging.INFO)
    logging.getLogger().removeHandler(root)
    ours.addHandler(root)
    train("own handler", f"{folder}/7")


main()
