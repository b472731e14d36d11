"""A model that fails in the way that a parameter names, some steps after the start."""

from typing import Any

import numpy as np
import tensorflow as tf

from paramserve import TaskContext, TrainSpec

v1 = tf.compat.v1


def build(task: TaskContext) -> TrainSpec:
    how = task.params["how"]
    weights = v1.get_variable("weights", [1], initializer=v1.zeros_initializer())
    loss = tf.reduce_sum(weights + 1.0)
    if how == "callback":
        loss += tf.ensure_shape(tf.numpy_function(_look_up, [loss], tf.float32), [])
    rate: Any = 0.1
    if how == "chief":
        rate = tf.gather([0.1, 0.1], v1.train.get_global_step())
    return TrainSpec(loss=loss, optimizer=v1.train.GradientDescentOptimizer(rate), examples=1)


def _look_up(loss: np.float32) -> np.float32:
    if loss < 0.85:
        raise RuntimeError("the lookup service is not there")
    return np.float32(0.0)
