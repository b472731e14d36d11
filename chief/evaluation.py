"""Evaluates a checkpoint in a graph and a session of its own, without parameter servers."""

from __future__ import annotations

import tensorflow as tf

from ..errors import JobFailed
from ..model.keras_updates import reset_names
from ..model.loading import describe
from ..model.spec import EvalMetrics, TaskContext, TrainSpec

v1 = tf.compat.v1


def evaluate(spec: TrainSpec, checkpoint: str, context: TaskContext) -> dict[str, float]:
    """Runs the model's evaluation to the end of its input.

    Args:
        spec: The trained model's spec; its `evaluate` builds the graph.
        checkpoint: Path of a checkpoint.
        context: Context of the evaluator.

    Returns:
        Metric name to value; empty when the spec has no evaluation.

    Raises:
        JobFailed: The evaluation raised, or the checkpoint has not the variables it needs.
    """
    if spec.evaluate is None:
        return {}
    reset_names()
    try:
        with tf.Graph().as_default(), v1.device("/cpu:0"):
            v1.train.get_or_create_global_step()
            return _run(spec.evaluate(context), checkpoint)
    except tf.errors.NotFoundError as error:
        raise JobFailed(
            f"evaluation needs a variable that {checkpoint} does not have; are the names those of "
            f"training? {_missing(error)}"
        ) from error
    except Exception as error:
        raise JobFailed(f"evaluation failed: {describe(error)}") from error


def _missing(error: tf.errors.NotFoundError) -> str:
    """The saver puts what was not found after a long preamble of its own."""
    lines = [line for line in error.message.splitlines() if line.strip()]
    return next((line for line in lines if "not found" in line), lines[0])


def _run(metrics: EvalMetrics, checkpoint: str) -> dict[str, float]:
    values = {name: value for name, (value, _) in metrics.items()}
    updates = [update for _, update in metrics.values()]
    local_init = tf.group(v1.local_variables_initializer(), v1.tables_initializer())
    saver = v1.train.Saver(v1.global_variables())
    with v1.Session() as session:
        saver.restore(session, checkpoint)
        session.run(local_init)
        try:
            while True:
                session.run(updates)
        except tf.errors.OutOfRangeError:
            pass
        return {name: float(value) for name, value in session.run(values).items()}
