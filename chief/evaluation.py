"""Evaluates a checkpoint in a graph and a session of its own, without parameter servers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ..cluster.runtime import device_config
from ..cluster.session import BoundedCloseSession
from ..errors import JobFailed
from ..model.building import refused_eager_calls
from ..model.keras_updates import reset_names
from ..model.savers import JobSaver
from ..model.spec import EvalMetrics, TaskContext, TrainSpec
from ..reasons import as_failure, reason_of

v1 = tf.compat.v1


def evaluate(
    spec: TrainSpec,
    checkpoint: str,
    context: TaskContext,
    saver: JobSaver | None = None,
    on_batch: Callable[[int], None] = lambda _: None,
) -> dict[str, float]:
    """Runs the model's evaluation to the end of its input.

    Args:
        spec: The trained model's spec; its `evaluate` builds the graph.
        checkpoint: Path of a checkpoint.
        context: Context of the evaluator.
        saver: The saver that wrote the checkpoint; None: its names are the usual ones.
        on_batch: Called after each batch with their number so far.

    Returns:
        Metric name to value; empty when the spec has no evaluation.

    Raises:
        JobFailed: The evaluation raised, or the checkpoint has not the variables it needs.
    """
    if spec.evaluate is None:
        return {}
    reset_names()
    try:
        with tf.Graph().as_default(), v1.device("/cpu:0"), refused_eager_calls():
            v1.train.get_or_create_global_step()
            return _run(spec.evaluate(context), checkpoint, saver or JobSaver(None), on_batch)
    except Exception as error:
        raise as_failure("evaluation failed", error) from error


def _run(
    metrics: EvalMetrics, checkpoint: str, job_saver: JobSaver, on_batch: Callable[[int], None]
) -> dict[str, float]:
    values = {name: value for name, (value, _) in metrics.items()}
    updates = [update for _, update in metrics.values()]
    local_init = tf.group(v1.local_variables_initializer(), v1.tables_initializer())
    there = v1.train.NewCheckpointReader(checkpoint).get_variable_to_shape_map()
    saver = v1.train.Saver(job_saver.find(v1.global_variables(), there))
    with BoundedCloseSession(config=device_config()) as session:
        _restore(saver, session, checkpoint)
        session.run(local_init)
        try:
            for number in itertools.count(1):
                session.run(updates)
                on_batch(number)
        except tf.errors.OutOfRangeError:
            pass
        return {name: float(value) for name, value in session.run(values).items()}


def _restore(saver: Any, session: Any, checkpoint: str) -> None:
    try:
        saver.restore(session, checkpoint)
    except tf.errors.NotFoundError as error:
        raise JobFailed(
            f"evaluation needs a variable that {checkpoint} does not have; are the names those of "
            f"training? {reason_of(error)}"
        ) from error
