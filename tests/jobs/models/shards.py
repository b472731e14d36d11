"""Linear models of several sizes, whose weights after any step are the same in every run.

In sync mode: a batch is made of the worker's index and the global step. Parameters: `slow`, seconds
that a step takes; `limit`: worker 0's input ends after so many steps.
"""

import time

import tensorflow as tf

from paramserve import TaskContext, TrainSpec

v1 = tf.compat.v1
BATCH, FEATURES = 8, 12
OUTPUTS = (1, 2, 3, 4, 5)


def build(task: TaskContext) -> TrainSpec:
    weights = [
        v1.get_variable(f"weights{n}", [FEATURES, n], initializer=v1.zeros_initializer())
        for n in OUTPUTS
    ]
    x = _batch(task)
    loss = tf.add_n([tf.reduce_mean((x @ w - float(w.shape[1])) ** 2) for w in weights])
    return TrainSpec(loss=loss, optimizer=v1.train.MomentumOptimizer(0.01, 0.5), examples=BATCH)


def _batch(task: TaskContext) -> tf.Tensor:
    ticks = tf.data.Dataset.range(1_000_000)
    if task.index == 0 and "limit" in task.params:
        ticks = ticks.take(int(task.params["limit"]))
    seconds = float(task.params.get("slow", 0))
    ticks = ticks.map(
        lambda tick: tf.numpy_function(lambda t: _after(seconds, t), [tick], tf.int64)
    )
    tick = v1.data.make_one_shot_iterator(ticks).get_next()
    with tf.control_dependencies([tick]):
        step = v1.train.get_global_step().read_value()
    noise = tf.random.stateless_normal([BATCH, FEATURES], [task.index, step])
    return 1.0 + 0.1 * noise


def _after(seconds, tick):
    time.sleep(seconds)
    return tick
