"""Stock TensorFlow: a static cluster, its own session and its own sync optimizer."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..task import Task
from .graph import build_step, count_step, read_step, session_config

v1 = tf.compat.v1


def run(task: Task) -> None:
    """Runs a parameter server or a worker; worker 0 is the chief."""
    cluster = v1.train.ClusterSpec({role: list(each) for role, each in task.addresses.items()})
    worker = f"/job:worker/task:{task.index}"
    # As its guide advises: a worker has nothing to do with the others.
    config = session_config(task, *([] if task.role == "ps" else ["/job:ps", worker]))
    server = v1.train.Server(cluster, task.role, task.index, config=config)
    if task.role == "ps":
        task.serve()
    with tf.Graph().as_default():
        with v1.device(v1.train.replica_device_setter(worker_device=worker, cluster=cluster)):
            optimizers: list[Any] = []

            def optimizer() -> Any:
                plain = v1.train.GradientDescentOptimizer(task.find_workload().learning_rate)
                if task.mode == "async":
                    return plain
                workers = len(task.addresses["worker"])
                optimizers.append(v1.train.SyncReplicasOptimizer(plain, workers, workers))
                return optimizers[0]

            train_op, step = build_step(task.find_workload(), optimizer, worker)
        hooks = [each.make_session_run_hook(task.index == 0) for each in optimizers]
        if task.index > 0:
            # Its session would look for the model every 30 seconds.
            task.await_open("worker")
        with v1.train.MonitoredTrainingSession(
            server.target,
            is_chief=task.index == 0,
            hooks=hooks,
            config=config,
            checkpoint_dir=task.options.get("checkpoint_dir"),
            save_checkpoint_secs=task.options.get("save_checkpoint_secs"),
        ) as session:
            task.is_open()
            task.train(
                lambda: session.run(train_op),
                read_step(session, step),
                count_step(session, train_op),
            )
