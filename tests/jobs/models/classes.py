"""Four classes of points; worker 0 sees only the first two, worker 1 only the last two.

A batch takes some time, so both workers have begun long before the last step.
"""

import time

import numpy as np
import tensorflow as tf

from paramserve import TaskContext, TrainSpec

BATCH = 16
CENTRES = np.array([[4, 0], [0, 4], [-4, 0], [0, -4]], np.float32)
v1 = tf.compat.v1


def build(task: TaskContext) -> TrainSpec:
    seen = {0: (0, 1), 1: (2, 3)}[task.index % 2]
    x, label = _points(seen, seed=task.index)
    dataset = tf.data.Dataset.from_tensor_slices((x, label)).repeat().shuffle(400, 1).batch(BATCH)
    dataset = dataset.map(lambda x, label: (_later(x), label))
    x, label = v1.data.make_one_shot_iterator(dataset).get_next()
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits=_logits(x)))
    return TrainSpec(
        loss=loss,
        optimizer=v1.train.GradientDescentOptimizer(0.1),
        examples=tf.shape(x)[0],
        evaluate=evaluate,
    )


def evaluate(task: TaskContext):
    x, label = _points((0, 1, 2, 3), seed=9)
    dataset = tf.data.Dataset.from_tensors((x, label))
    x, label = v1.data.make_one_shot_iterator(dataset).get_next()
    return {"accuracy": v1.metrics.accuracy(label, tf.argmax(_logits(x), axis=1))}


def _later(x):
    def wait(value):
        time.sleep(0.02)
        return value

    later = tf.numpy_function(wait, [x], tf.float32)
    later.set_shape([None, 2])
    return later


def _logits(x):
    weights = v1.get_variable("weights", [2, 4], initializer=v1.zeros_initializer())
    bias = v1.get_variable("bias", [4], initializer=v1.zeros_initializer())
    return x @ weights + bias


def _points(classes, seed):
    random = np.random.RandomState(seed)
    label = random.choice(classes, 400).astype(np.int64)
    return CENTRES[label] + random.randn(400, 2).astype(np.float32), label
