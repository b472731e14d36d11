"""Many small variables, and a hook that notes when the first step is done."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import tensorflow as tf

from paramserve import TrainSpec

v1 = tf.compat.v1

ELEMENTS = 8
# Names of the parameters of a job.
VARIABLES, NOTE = "variables", "note"


class NoteFirstStep(tf.compat.v1.train.SessionRunHook):
    """Writes the time of day, in seconds, to a file when the first step is done."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Called after each step."""
        if not self._path.exists():
            # The rename makes the file complete as soon as it exists.
            part = self._path.with_suffix(".part")
            part.write_text(str(time.time()))
            part.rename(self._path)


def make_loss(count: int) -> Any:
    """Makes a scalar that depends on `count` variables of `ELEMENTS` elements."""
    initializer = v1.ones_initializer()
    weights = [v1.get_variable(f"w{i}", [ELEMENTS], initializer=initializer) for i in range(count)]
    return tf.add_n([tf.reduce_sum(weight * weight) for weight in weights])


def make_optimizer() -> Any:
    """Makes an optimizer with a slot for each variable."""
    return v1.train.AdagradOptimizer(0.1)


def build(task: Any) -> TrainSpec:
    """Builds the model as a job trains it."""
    return TrainSpec(
        loss=make_loss(int(task.params[VARIABLES])),
        optimizer=make_optimizer(),
        hooks=[NoteFirstStep(task.params[NOTE])],
    )


def train_alone(count: int, path: str) -> None:
    """Trains the same with TensorFlow in this process, for a step."""
    with tf.Graph().as_default():
        step = v1.train.get_or_create_global_step()
        train_op = make_optimizer().minimize(make_loss(count), step)
        hooks = [NoteFirstStep(path), v1.train.StopAtStepHook(last_step=1)]
        with v1.train.MonitoredTrainingSession(hooks=hooks) as session:
            session.run(train_op)
