"""A workload of the benchmarks as a model of the service, for `paramserve run`."""

from __future__ import annotations

import tensorflow as tf

from paramserve import TaskContext, TrainSpec
from paramserve.benchmarks.programs.graph import create_variables, take_batch
from paramserve.benchmarks.workloads.catalog import find_workload

WORKLOAD = "many-small"


def build(task: TaskContext) -> TrainSpec:
    """Builds the workload named by the parameter "workload"."""
    workload = find_workload(task.params.get("workload", WORKLOAD))
    assert workload.tf_loss is not None
    loss = workload.tf_loss(create_variables(workload), take_batch(workload))
    return TrainSpec(
        loss=loss,
        optimizer=tf.compat.v1.train.GradientDescentOptimizer(workload.learning_rate),
    )
