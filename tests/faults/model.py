"""A small model with known contents: the records that it has read, and its weights after any step.

- `paramserve/input` (the service's own) and `seen` both count how often each record was applied;
  `seen` in async mode only, where a gradient is applied unchanged.
- `path` follows a wave along the global steps. In sync mode its value depends on the number of
  steps alone, not on the workers or on restored points in between.
- `fit` is a linear regression with a known solution.
- `ballast` makes checkpoints and restore points large; it never changes.

Parameters: `records`, `epochs`; a batch takes `slow` seconds until the file `go` is there;
`ballast` is in MiB; the evaluation takes `eval_secs`; while the file `hungry` is there, reading
takes memory and keeps it.
"""

import os
import time

import numpy as np
import tensorflow as tf

from paramserve import TaskContext, TrainSpec

BATCH = 4
RATE, MOMENTUM = 0.05, 0.5
SOLUTION = (1.0, -2.0, 3.0)
BALLAST = 3.0
v1 = tf.compat.v1


def build(task: TaskContext) -> TrainSpec:
    params = task.params
    records = int(params["records"])
    dataset = task.shards(
        records,
        batch_size=BATCH,
        read=lambda numbers: _read(numbers, params),
        epochs=int(params["epochs"]),
        seed=1,
    )
    position, numbers = v1.data.make_one_shot_iterator(dataset).get_next()
    # After the input: a batch may be waited for, and the step is then another one.
    with tf.control_dependencies([numbers]):
        step = v1.train.get_global_step().read_value()
    size = int(float(params.get("ballast", 1)) * 2**18)
    v1.get_variable(
        "ballast", [size], initializer=v1.constant_initializer(BALLAST), trainable=False
    )
    seen = v1.get_variable("seen", [records], initializer=v1.zeros_initializer())
    path = v1.get_variable("path", [4], initializer=v1.zeros_initializer())
    losses = [
        -tf.reduce_sum(tf.gather(seen, numbers)),
        0.5 * tf.reduce_sum((path - _wave(step)) ** 2),
        _regression(numbers),
    ]
    optimizer = (
        v1.train.MomentumOptimizer(RATE, MOMENTUM)
        if task.sync
        else v1.train.GradientDescentOptimizer(RATE)
    )
    return TrainSpec(
        loss=tf.add_n(losses),
        optimizer=optimizer,
        examples=tf.size(numbers),
        position=position,
        evaluate=evaluate,
    )


def evaluate(task: TaskContext):
    secs = float(task.params.get("eval_secs", 0))
    once = tf.data.Dataset.from_tensors(tf.range(100, dtype=tf.int64)).map(
        lambda numbers: tf.numpy_function(lambda n: _after(secs, n), [numbers], tf.int64)
    )
    numbers = v1.data.make_one_shot_iterator(once).get_next()
    numbers.set_shape([100])
    return {"loss": v1.metrics.mean(_regression(numbers))}


def _read(numbers, params):
    go, hungry = params["go"], params.get("hungry", "")
    secs = float(params.get("slow", 0))
    held = []

    def read(values: np.ndarray) -> np.ndarray:
        if hungry and os.path.exists(hungry):
            held.append(np.ones(2**24))  # 128 MiB
        if not os.path.exists(go):
            time.sleep(secs)
        return values

    later = tf.numpy_function(read, [numbers], tf.int64)
    later.set_shape([None])
    return later


def _after(secs, value):
    time.sleep(secs)
    return value


def _wave(step):
    return tf.sin(tf.cast(step, tf.float32) * 0.1 + tf.range(4, dtype=tf.float32))


def _regression(numbers):
    fit = v1.get_variable("fit", [len(SOLUTION)], initializer=v1.zeros_initializer())
    phases = tf.constant([0.7, 1.3, 2.1])
    x = tf.sin(tf.cast(numbers, tf.float32)[:, None] * phases)
    return tf.reduce_mean(tf.linalg.matvec(x, fit - tf.constant(SOLUTION)) ** 2)


def path_after(steps: int) -> np.ndarray:
    """`path` after so many undisturbed steps of sync mode."""
    path, momentum = np.zeros(4, np.float32), np.zeros(4, np.float32)
    for step in range(steps):
        wave = np.sin(np.float32(step) * np.float32(0.1) + np.arange(4, dtype=np.float32))
        momentum = np.float32(MOMENTUM) * momentum + (path - wave)
        path = path - np.float32(RATE) * momentum
    return path
