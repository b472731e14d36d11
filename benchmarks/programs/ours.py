"""This library: the same cluster and model, with its sessions and its sync optimizer."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ... import train
from ...data_plane.colocation import on_workers
from ...data_plane.options import DataPlane
from ...data_plane.placement import on_cluster
from ..task import Task
from .graph import build_step, count_step, read_step, session_config

v1 = tf.compat.v1


def run(task: Task) -> None:
    """Runs a parameter server or a worker; worker 0 is the chief."""
    options = dict(task.options)
    place = _OnWorkers(task) if options.pop("ps_on_workers", False) else _OnServers(task)
    server = train.Server(place.cluster, place.job, task.index, config=place.config)
    if task.role == "ps":
        task.serve()
    with tf.Graph().as_default():
        make = _OptimizerMaker(task)
        with place.scope(options.get("max_shard_bytes")):
            train_op, step = build_step(task.find_workload(), make, place.device)
        hooks = [each.make_session_run_hook(task.index == 0) for each in make.sync]
        if task.index > 0:
            task.await_open("worker")
        with train.MonitoredTrainingSession(
            server.target,
            is_chief=task.index == 0,
            hooks=hooks,
            config=place.config,
            data_plane=DataPlane(**options),
        ) as session:
            task.is_open()
            task.train(
                lambda: session.run(train_op),
                read_step(session, step),
                count_step(session, train_op),
            )


class _OnServers:
    """Parameters on servers of their own."""

    def __init__(self, task: Task) -> None:
        self.cluster = {role: list(each) for role, each in task.addresses.items()}
        self.job = task.role
        self.device = f"/job:worker/task:{task.index}"
        filters = [] if task.role == "ps" else ["/job:ps", self.device]
        self.config = session_config(task, *filters)

    def scope(self, max_shard_bytes: int | None) -> Any:
        return on_cluster(len(self.cluster["ps"]), self.device, max_shard_bytes=max_shard_bytes)


class _OnWorkers:
    """A part of the parameters on each worker."""

    def __init__(self, task: Task) -> None:
        self.cluster = {"ps": list(task.addresses["worker"])}
        self.job = "ps"
        self.device = f"/job:ps/task:{task.index}"
        self.config = session_config(task)
        self._index = task.index

    def scope(self, max_shard_bytes: int | None) -> Any:
        return on_workers(len(self.cluster["ps"]), self._index, max_shard_bytes=max_shard_bytes)


class _OptimizerMaker:
    """Makes the optimizer, and keeps it if it has hooks."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.sync: list[Any] = []

    def __call__(self) -> Any:
        plain = train.GradientDescentOptimizer(self._task.find_workload().learning_rate)
        if self._task.mode == "async":
            return plain
        workers = len(self._task.addresses["worker"])
        self.sync.append(
            train.SyncReplicasOptimizer(
                plain,
                workers,
                workers,
                one_gradient_per_worker=True,
                worker_index=self._task.index,
            )
        )
        return self.sync[0]
