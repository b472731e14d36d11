"""Linear regression whose solution is known: weights 0, 1, 2, 3, 4.

Parameters: `limit` ends the input after so many steps; `fail` breaks the model in a named way;
`evaluate_after` names a file that the evaluation waits for.
"""

import numpy as np
import tensorflow as tf

from paramserve import TaskContext, TrainSpec

BATCH = 20
v1 = tf.compat.v1


def build(task: TaskContext) -> TrainSpec:
    fail = task.params.get("fail", "")
    if fail == "raise" and task.role == task.params.get("where", "chief"):
        raise RuntimeError("the data is not where it should be")
    x, y = _input(task)
    if fail == "no_variables":
        weights = tf.zeros([5])
    else:
        weights = v1.get_variable("weights", [5], initializer=v1.zeros_initializer())
    loss = tf.reduce_mean((tf.linalg.matvec(x, weights) - y) ** 2)
    v1.summary.scalar("squared_error", loss)
    if fail == "nan":
        loss = loss * tf.where(v1.train.get_global_step() >= 5, np.nan, 1.0)
    return TrainSpec(
        loss=loss,
        optimizer=v1.train.MomentumOptimizer(0.02, 0.5),
        examples=tf.shape(x)[0],
        metrics={"largest_weight": tf.reduce_max(weights)},
        evaluate=evaluate,
    )


def evaluate(task: TaskContext):
    x, y = _data(seed=7)
    weights = v1.get_variable("weights", [5])
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(100)
    x, y = v1.data.make_one_shot_iterator(dataset).get_next()
    if "evaluate_after" in task.params:
        x = _once_there(task.params["evaluate_after"], x)
    return {"mse": v1.metrics.mean_squared_error(y, tf.linalg.matvec(x, weights))}


def _input(task: TaskContext):
    dataset = tf.data.Dataset.from_tensor_slices(_data(seed=task.index))
    dataset = dataset.shuffle(1000, seed=task.index).repeat().batch(BATCH)
    if "limit" in task.params:
        dataset = dataset.take(int(task.params["limit"]))
    if "slow" in task.params:
        seconds = float(task.params["slow"])
        dataset = dataset.map(lambda x, y: (_after(seconds, x), y))
    return v1.data.make_one_shot_iterator(dataset).get_next()


def _after(seconds: float, x: tf.Tensor) -> tf.Tensor:
    """The same tensor, later: so that a job lasts long enough to be looked at."""

    def wait(value: np.ndarray) -> np.ndarray:
        import time

        time.sleep(seconds)
        return value

    later = tf.numpy_function(wait, [x], tf.float32)
    later.set_shape(x.shape)
    return later


def _once_there(path: str, x: tf.Tensor) -> tf.Tensor:
    """The same tensor, once there is a file, or after a minute."""

    def wait(value: np.ndarray) -> np.ndarray:
        import os
        import time

        deadline = time.monotonic() + 60
        while not os.path.exists(path) and time.monotonic() < deadline:
            time.sleep(0.05)
        return value

    later = tf.numpy_function(wait, [x], tf.float32)
    later.set_shape(x.shape)
    return later


def _data(seed: int):
    x = np.random.RandomState(seed).randn(1000, 5).astype(np.float32)
    return x, x @ np.arange(5, dtype=np.float32)
