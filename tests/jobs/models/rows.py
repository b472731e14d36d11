"""A model that knows how often each row of some CSV files was applied: weight i is for number i.

Parameters: `files`, a pattern; `rows`, how many there are; `epochs`; `slow`, seconds for a batch.
"""

import time

import numpy as np
import tensorflow as tf

from paramserve import TaskContext, TrainSpec

v1 = tf.compat.v1


def build(task: TaskContext) -> TrainSpec:
    seconds = float(task.params.get("slow", 0.0))

    def wait(numbers: np.ndarray) -> np.ndarray:
        time.sleep(seconds)
        return numbers

    def read(rows):
        number, _ = tf.io.decode_csv(rows, [tf.constant([], tf.int64), ""])
        return tf.ensure_shape(tf.numpy_function(wait, [number], tf.int64), [None])

    dataset = task.files(
        task.params["files"], batch_size=5, read=read, epochs=int(task.params.get("epochs", 1))
    )
    position, numbers = v1.data.make_one_shot_iterator(dataset).get_next()
    seen = v1.get_variable("seen", [int(task.params["rows"])], initializer=v1.zeros_initializer())
    # In sync mode a step takes the mean over the workers' gradients.
    gradients = task.num_workers if task.sync else 1
    return TrainSpec(
        loss=-tf.reduce_sum(tf.gather(seen, numbers)) * gradients,
        optimizer=v1.train.GradientDescentOptimizer(1.0),
        examples=tf.size(numbers),
        position=position,
    )
