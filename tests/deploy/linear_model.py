"""A model for jobs that only have to live: it learns a line, with a pause after each step."""

import time

import numpy as np
import tensorflow as tf

from paramserve import TaskContext, TrainSpec

v1 = tf.compat.v1
SLOPES = np.arange(8, dtype=np.float32)


class Pause(v1.train.SessionRunHook):
    """Leaves the processor to others; the tests check the output of a job, not its speed."""

    def after_run(self, run_context, run_values):
        time.sleep(0.02)


def build(task: TaskContext) -> TrainSpec:
    x = np.random.RandomState(task.index).randn(1000, 8).astype(np.float32)
    rows = tf.data.Dataset.from_tensor_slices((x, x @ SLOPES)).repeat().batch(20)
    x, y = v1.data.make_one_shot_iterator(rows).get_next()
    slopes = v1.get_variable("slopes", [8], initializer=v1.zeros_initializer())
    offset = v1.get_variable("offset", [], initializer=v1.zeros_initializer())
    loss = tf.reduce_mean((tf.linalg.matvec(x, slopes) + offset - y) ** 2)
    optimizer = v1.train.GradientDescentOptimizer(0.05)
    return TrainSpec(loss=loss, optimizer=optimizer, examples=tf.shape(y)[0], hooks=[Pause()])
