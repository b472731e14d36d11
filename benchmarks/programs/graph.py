"""A workload as a graph of `tf.compat.v1`, for all systems that train one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from ...tf_internals import raw_session
from ..task import Task
from ..workloads.workload import VariableSpec, Workload
from .counting import count_transfers

v1 = tf.compat.v1


def session_config(task: Task, *filters: str) -> Any:
    """Makes a session configuration with the same threads for every system.

    Args:
        task: The task that runs.
        filters: Devices that a session sees; all if none is given.
    """
    return v1.ConfigProto(
        intra_op_parallelism_threads=task.threads,
        inter_op_parallelism_threads=2,
        device_filters=filters,
    )


def build_step(
    workload: Workload, optimizer: Callable[[], Any], worker_device: str
) -> tuple[Any, Any]:
    """Builds variables, input, loss and update in the default graph and its default device.

    Args:
        workload: The model to train.
        optimizer: Makes the optimizer.
        worker_device: The other end of a pure transfer.

    Returns:
        The op that trains, and the global step, int64.
    """
    step = v1.train.get_or_create_global_step()
    variables = create_variables(workload)
    if workload.tf_loss is None:
        return _transfer_step(workload, list(variables.values()), step, worker_device), step
    loss = workload.tf_loss(variables, take_batch(workload))
    return optimizer().minimize(loss, global_step=step), step


def create_variables(workload: Workload) -> dict[str, Any]:
    """Creates the variables of a workload, by name, in the default graph and its default device."""
    return {spec.name: _variable(spec) for spec in workload.variables}


def take_batch(workload: Workload) -> dict[str, Any]:
    """Returns one batch of the input pool, another in each step."""
    pool = workload.input_pool()
    size = next(iter(pool.values())).shape[0]
    index = tf.random.uniform([], maxval=size, dtype=tf.int32)
    return {name: tf.gather(tf.constant(values), index) for name, values in pool.items()}


def initial_value(spec: VariableSpec) -> Callable[[], Any]:
    """Makes the value that a variable starts from."""
    return lambda: (
        tf.random.uniform(spec.shape, -spec.scale, spec.scale)
        if spec.scale
        else tf.zeros(spec.shape)
    )


def read_step(session: Any, step: Any) -> Callable[[], int]:
    """Returns a function that reads the global step from its parameter server."""

    def read() -> int:
        # The hooks of a monitored session are for training steps. A recovery replaces the raw one.
        return int(raw_session(session).run(step))

    return read


def count_step(session: Any, train_op: Any) -> Callable[[], Mapping[str, float]]:
    """Returns a function that counts the transfers of one step between tasks."""

    def count() -> Mapping[str, float]:
        options = v1.RunOptions(output_partition_graphs=True, trace_level=v1.RunOptions.FULL_TRACE)
        metadata = v1.RunMetadata()
        session.run(train_op, options=options, run_metadata=metadata)
        return count_transfers(metadata)

    return count


def _variable(spec: VariableSpec) -> Any:
    initializer = (
        v1.random_uniform_initializer(-spec.scale, spec.scale)
        if spec.scale
        else v1.zeros_initializer()
    )
    return v1.get_variable(spec.name, spec.shape, tf.float32, initializer)


def _transfer_step(workload: Workload, variables: list[Any], step: Any, device: str) -> Any:
    """Makes a step that uses every value: TensorFlow sends nothing else."""
    done: list[Any] = []
    if workload.transfer != "push":
        done.append(_pull(variables, device))
    if workload.transfer != "pull":
        done += _push(variables, device, done)
    with tf.control_dependencies(done), v1.colocate_with(step):
        train_op = v1.assign_add(step, 1).op
    v1.add_to_collection(v1.GraphKeys.TRAIN_OP, train_op)
    return train_op


def _pull(variables: list[Any], device: str) -> Any:
    with v1.device(device):
        sink = v1.get_local_variable("sink", (), tf.float32, v1.zeros_initializer())
        total = tf.add_n([tf.reshape(variable, [-1])[0] for variable in variables])
        return v1.assign_add(sink, total).op


def _push(variables: list[Any], device: str, after: list[Any]) -> list[Any]:
    with v1.device(device), tf.control_dependencies(after):
        numbers = tf.unstack(tf.random.uniform([len(variables)]))
        sent = [tf.fill(v.shape, number) for v, number in zip(variables, numbers, strict=True)]
    pushed = []
    for variable, value in zip(variables, sent, strict=True):
        with v1.colocate_with(variable):
            pushed.append(v1.assign_add(variable, value).op)
    return pushed
