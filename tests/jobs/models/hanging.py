"""Linear regression whose worker 1 hangs in the middle of a step, forever.

Parameters: `hang`: at which of its steps; `times`: how often in all; after the first time it hangs
at once. `notes`: a folder that remembers it over processes. `slow`: seconds that a step takes.
"""

import threading
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from paramserve import TaskContext, TrainSpec

BATCH = 20
v1 = tf.compat.v1


def build(task: TaskContext) -> TrainSpec:
    x = np.random.RandomState(task.index).randn(BATCH, 5).astype(np.float32)
    y = tf.constant(x @ np.arange(5, dtype=np.float32))
    weights = v1.get_variable("weights", [5], initializer=v1.zeros_initializer())
    x = tf.numpy_function(Step(task), [x], tf.float32)
    x.set_shape([BATCH, 5])
    loss = tf.reduce_mean((tf.linalg.matvec(x, weights) - y) ** 2)
    return TrainSpec(loss=loss, optimizer=v1.train.GradientDescentOptimizer(0.02), examples=BATCH)


class Step:
    def __init__(self, task: TaskContext) -> None:
        self._is_mine = task.role == "worker" and task.index == 1
        self._hang = int(task.params["hang"])
        self._times = int(task.params["times"])
        self._secs = float(task.params.get("slow", 0.0))
        self._notes = Path(task.params["notes"])
        self._calls = 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        time.sleep(self._secs)
        self._calls += 1
        before = len(list(self._notes.glob("hung-*")))
        is_due = self._calls >= self._hang if before == 0 else before < self._times
        if self._is_mine and is_due:
            (self._notes / f"hung-{before}").touch()
            threading.Event().wait()
        return x
