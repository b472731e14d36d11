"""A model that knows how often each record was applied: weight i is the number for record i.

Parameters: `records`, `epochs`; `slow` is how long it takes to read a batch, in seconds; `poison`
is a record that cannot be read.
"""

import time

import numpy as np
import tensorflow as tf

from paramserve import TaskContext, TrainSpec

BATCH = 10
v1 = tf.compat.v1


def build(task: TaskContext) -> TrainSpec:
    records = int(task.params.get("records", 1200))
    poison = int(task.params.get("poison", -1))
    seconds = float(task.params.get("slow", 0.0))

    def read(numbers):
        def wait(values: np.ndarray) -> np.ndarray:
            time.sleep(seconds)
            if poison in values:
                raise ValueError(f"record {poison} is poison")
            return values

        later = tf.numpy_function(wait, [numbers], tf.int64)
        later.set_shape([None])
        return later

    dataset = task.shards(
        records,
        batch_size=BATCH,
        read=read,
        epochs=int(task.params.get("epochs", 1)),
        seed=1,
    )
    position, numbers = v1.data.make_one_shot_iterator(dataset).get_next()
    seen = v1.get_variable("seen", [records], initializer=v1.zeros_initializer())
    # On the other server, if there are two.
    v1.get_variable("other", [2 * records], initializer=v1.zeros_initializer(), trainable=False)
    # In sync mode a step takes the mean over the workers' gradients.
    gradients = task.num_workers if task.sync else 1
    return TrainSpec(
        loss=-tf.reduce_sum(tf.gather(seen, numbers)) * gradients,
        optimizer=v1.train.GradientDescentOptimizer(1.0),
        examples=tf.size(numbers),
        position=position,
    )
