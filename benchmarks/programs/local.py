"""The same model in one process, with nothing distributed: how fast a step can be."""

from __future__ import annotations

import tensorflow as tf

from ..task import Task
from .graph import build_step, read_step, session_config

v1 = tf.compat.v1


def run(task: Task) -> None:
    """Trains by gradient descent."""
    workload = task.find_workload()
    with tf.Graph().as_default():
        train_op, step = build_step(
            workload,
            lambda: v1.train.GradientDescentOptimizer(workload.learning_rate),
            worker_device="",
        )
        with v1.Session(config=session_config(task)) as session:
            session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
            task.train(session.make_callable(train_op), read_step(session, step))
