"""TensorBoard events: the job's own scalars, and the model's summaries that a worker evaluated."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .progress import Snapshot


class SummaryService:
    """Writes event files into the log directory. Methods may be called from any thread.

    Args:
        logdir: Where TensorBoard looks.
        graph: The training graph, shown by TensorBoard.
        every_steps: Global steps between two of the job's own scalars; 0 writes none.
    """

    def __init__(self, logdir: str, graph: Any, every_steps: int) -> None:
        with tf.Graph().as_default():  # The writer refuses to work under eager execution.
            self._writer = tf.compat.v1.summary.FileWriter(logdir, graph=graph)
        self._every_steps = every_steps
        self._last_step: int | None = None

    def start_session(self, global_step: int) -> None:
        """Marks where a run starts; TensorBoard drops what an earlier run wrote beyond it."""
        session_log = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        self._writer.add_session_log(session_log, global_step)

    def write_progress(self, progress: Snapshot, *, force: bool = False) -> None:
        """Writes loss, global_step/sec, examples/sec and the metrics, when they are due."""
        step = progress.global_step
        if not self._every_steps or step == self._last_step or progress.loss is None:
            return
        if not force and self._last_step is not None and step < self._last_step + self._every_steps:
            return
        self._last_step = step
        scalars = {
            "loss": progress.loss,
            "global_step/sec": progress.steps_per_second,
            "examples/sec": progress.examples_per_second,
            **{f"metrics/{name}": value for name, value in progress.metrics.items()},
        }
        self._writer.add_summary(_summary(scalars), step)

    def write_model_summary(self, summary: bytes, global_step: int) -> None:
        """Writes what a worker evaluated: a serialized `tf.Summary`."""
        self._writer.add_summary(summary, global_step)

    def write_evaluation(self, metrics: dict[str, float], global_step: int) -> None:
        """Writes the metrics of an evaluation under `eval/`."""
        self._writer.add_summary(
            _summary({f"eval/{k}": v for k, v in metrics.items()}), global_step
        )

    def flush(self) -> None:
        """Brings to disk what was written."""
        self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the event file."""
        self._writer.close()


def _summary(scalars: dict[str, float]) -> Any:
    values = [tf.compat.v1.Summary.Value(tag=t, simple_value=v) for t, v in scalars.items()]
    return tf.compat.v1.Summary(value=values)
