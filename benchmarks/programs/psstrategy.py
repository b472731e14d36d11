"""TensorFlow 2's `ParameterServerStrategy`, as its guide has it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from ..task import Task
from ..workloads.workload import Workload
from .graph import initial_value, take_batch

_PROTOCOL = "grpc"
# Steps that wait for each worker, so that it never waits for the coordinator.
_IN_FLIGHT = 8


def run(task: Task) -> None:
    """Runs a parameter server, a worker, or the coordinator that schedules the workers' steps."""
    tf.config.threading.set_intra_op_parallelism_threads(task.threads)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    # The strategy calls the process that coordinates "chief".
    roles = {"coordinator": "chief"}
    cluster = {roles.get(role, role): list(each) for role, each in task.addresses.items()}
    if task.role != "coordinator":
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=task.threads, inter_op_parallelism_threads=2
        )
        tf.distribute.Server(cluster, task.role, task.index, _PROTOCOL, config)
        task.serve()
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster), task_type="chief", task_id=0, rpc_layer=_PROTOCOL
    )
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    step, variables = _build(task.find_workload(), strategy)
    task.is_open()
    schedule = _keep_in_flight(coordinator, step, _IN_FLIGHT * len(cluster["worker"]))
    if "checkpoint_dir" in task.options:
        schedule = _saving(coordinator, schedule, variables, task.options)
    task.train(schedule, lambda: int(variables["iterations"].numpy()))


def _saving(
    coordinator: Any,
    schedule: Callable[[], None],
    variables: dict[str, Any],
    options: Mapping[str, Any],
) -> Callable[[], None]:
    """Restores the newest checkpoint, and saves one from time to time between two steps."""
    checkpoint = tf.train.Checkpoint(**variables)
    manager = tf.train.CheckpointManager(checkpoint, options["checkpoint_dir"], max_to_keep=5)
    checkpoint.restore(manager.latest_checkpoint)
    saved = time.monotonic()

    def schedule_and_save() -> None:
        nonlocal saved
        schedule()
        if time.monotonic() - saved > options["save_checkpoint_secs"]:
            coordinator.join()
            manager.save()
            saved = time.monotonic()

    return schedule_and_save


def _build(workload: Workload, strategy: Any) -> tuple[Any, dict[str, Any]]:
    """Returns the step, a `tf.function`, and all variables with the update count "iterations"."""
    with strategy.scope():
        variables = {
            spec.name: tf.Variable(initial_value(spec)(), name=spec.name)
            for spec in workload.variables
        }
        iterations = tf.Variable(0, dtype=tf.int64, name="iterations")

    def replica_step() -> None:
        assert workload.tf_loss is not None
        with tf.GradientTape() as tape:
            loss = workload.tf_loss(variables, take_batch(workload))
        gradients = tape.gradient(loss, list(variables.values()))
        for variable, gradient in zip(variables.values(), gradients, strict=True):
            _descend(variable, gradient, workload.learning_rate)
        iterations.assign_add(1)

    return tf.function(lambda: strategy.run(replica_step)), {**variables, "iterations": iterations}


def _keep_in_flight(coordinator: Any, step: Any, count: int) -> Callable[[], None]:
    """Schedules a step, and waits for the oldest when there are more than `count`."""
    scheduled: deque[Any] = deque()

    def schedule() -> None:
        scheduled.append(coordinator.schedule(step))
        if len(scheduled) > count:
            scheduled.popleft().fetch()

    return schedule


def _descend(variable: Any, gradient: Any, rate: float) -> None:
    if isinstance(gradient, tf.IndexedSlices):
        variable.scatter_sub(tf.IndexedSlices(rate * gradient.values, gradient.indices))
    else:
        variable.assign_sub(rate * gradient)
