"""`CheckpointSaverHook` without a session call in each step; `LoggingTensorHook` of values."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ..loops.fetches import resolve

_REMEMBERED_RUNS = 4


class CheckpointSaverHook(tf.compat.v1.train.CheckpointSaverHook):
    """Hook that saves checkpoints at intervals of steps or seconds.

    Takes the arguments of `tf.compat.v1.train.CheckpointSaverHook`. With `save_steps`,
    TensorFlow's hook asks for the global step in a session call of its own after each step. On a
    parameter server that is one more round trip per step. This one learns the steps of a run, and
    asks only when a checkpoint may be due.

    Args:
        checkpoint_dir: Directory of the checkpoints.
        save_secs: Seconds between checkpoints. Give this or `save_steps`.
        save_steps: Global steps between checkpoints.
        saver: The saver. Give this or `scaffold`, or have a saver in the collection `SAVERS`.
        checkpoint_basename: The name of the checkpoints, before the step.
        scaffold: A scaffold with the saver.
        listeners: Called before and after each save: a `tf.compat.v1.train.CheckpointSaverListener`
            or several.
        save_graph_def: Whether to write `graph.pbtxt` and a meta graph with each checkpoint.

    Raises:
        ValueError: Both or none of `save_secs` and `save_steps` are given, or both of `saver` and
            `scaffold`.
    """

    def __init__(
        self,
        checkpoint_dir: str,
        save_secs: float | None = None,
        save_steps: int | None = None,
        saver: tf.compat.v1.train.Saver | None = None,
        checkpoint_basename: str = "model.ckpt",
        scaffold: tf.compat.v1.train.Scaffold | None = None,
        listeners: Sequence[tf.compat.v1.train.CheckpointSaverListener]
        | tf.compat.v1.train.CheckpointSaverListener
        | None = None,
        save_graph_def: bool = True,
    ) -> None:
        if isinstance(listeners, tf.compat.v1.train.CheckpointSaverListener):
            listeners = [listeners]
        super().__init__(
            checkpoint_dir,
            save_secs=save_secs,
            save_steps=save_steps,
            saver=saver,
            checkpoint_basename=checkpoint_basename,
            scaffold=scaffold,
            listeners=listeners,
            save_graph_def=save_graph_def,
        )
        self._previous_step: int | None = None
        self._increments: deque[int] = deque(maxlen=_REMEMBERED_RUNS)

    def after_create_session(self, session: tf.compat.v1.Session, coord: Any) -> None:
        """Saves the first checkpoint of a session."""
        self._previous_step = None
        self._increments.clear()
        super().after_create_session(session, coord)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Saves when it is time."""
        # The step that came with the run may be the one before it or after it, so two of them may
        # be equal. The number of steps of a run is not known at first. TensorFlow's guess of a
        # million makes it ask.
        step = int(run_values.results)
        if self._previous_step is not None:
            self._increments.append(step - self._previous_step)
            if max(self._increments) > 0:
                self._set_steps_per_run(max(self._increments))
        self._previous_step = step
        super().after_run(run_context, run_values)

    def end(self, session: tf.compat.v1.Session) -> None:
        """Saves the last checkpoint, unless it is saved already."""
        super().end(session)
        self._summary_writer.flush()


class LoggingTensorHook(tf.compat.v1.train.LoggingTensorHook):
    """Hook that logs tensors at intervals of runs or seconds, or at the end.

    Takes the arguments of `tf.compat.v1.train.LoggingTensorHook`, which logs the bytes of a handle
    for a resource variable that is given by its name; this one logs the value.

    Args:
        tensors: A dict that maps tags to tensors or their names, or several tensors or names.
        every_n_iter: Runs of this task between two lines.
        every_n_secs: Seconds between two lines. Give this or `every_n_iter`.
        at_end: Whether to log at the end as well, or only, if neither of the former is given.
        formatter: Takes a dict of tags and values, and returns the line.

    Raises:
        ValueError: Both or none of the periods are given, or `every_n_iter` is not positive.
    """

    def begin(self) -> None:
        """Looks names up in the graph."""
        graph = tf.compat.v1.get_default_graph()
        self._tensors: dict[Any, Any] = {
            tag: resolve(graph, tensor) for tag, tensor in self._tensors.items()
        }
        super().begin()
