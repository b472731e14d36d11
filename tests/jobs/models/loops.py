"""A small model that each of the three loops trains.

Parameters: `loop`; `notes`: a directory for what happens in which process; `steps`: as that loop
counts them; `fail` breaks it from that step on; `slow`: seconds that a step takes.
"""

import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from paramserve import TaskContext, TrainSpec
from paramserve.contrib import learn, model_pruning

v1 = tf.compat.v1
BATCH = 8
TRUTH = np.array([4.0, 0.1, -3.0, 0.2], np.float32)


def build(task: TaskContext) -> TrainSpec:
    weights = v1.get_variable("weights", [4], initializer=v1.zeros_initializer())
    is_pruned = task.params["loop"] == "model_pruning"
    used = model_pruning.apply_mask(weights) if is_pruned else weights
    x = v1.placeholder_with_default(_batch(task.index), [BATCH, 4])
    loss = tf.reduce_mean((tf.linalg.matvec(x, used) - tf.linalg.matvec(x, TRUTH)) ** 2)
    v1.summary.scalar("squared_error", loss)
    return TrainSpec(
        loss=loss,
        optimizer=v1.train.GradientDescentOptimizer(0.05),
        examples=BATCH,
        loop=task.params["loop"],
        loop_args=ARGUMENTS[task.params["loop"]](Notes(task), task, x),
    )


def _batch(index: int) -> tf.Tensor:
    return tf.random.stateless_normal([BATCH, 4], [index, v1.train.get_global_step().read_value()])


class Notes:
    """The events in this process, for the test to read."""

    def __init__(self, task: TaskContext) -> None:
        folder = Path(task.params["notes"])
        self._file = folder / f"{task.role}-{task.index}"
        self._step_to_fail_at = int(task.params.get("fail", -1))
        self._secs = float(task.params.get("slow", 0))

    def __call__(self, text: str) -> None:
        with self._file.open("a") as file:
            file.write(f"{text}\n")

    def step(self, step: int) -> None:
        time.sleep(self._secs)
        # Asynchronously, a particular step may be seen by no worker.
        if 0 <= self._step_to_fail_at <= step:
            raise KeyError("a mistake of the user's")


class Monitor(learn.monitors.BaseMonitor):
    def __init__(self, notes: Notes) -> None:
        super().__init__()
        self._notes = notes

    def begin(self, max_steps=None) -> None:
        super().begin(max_steps)
        self._notes(f"begin {max_steps}")

    def step_end(self, step, output):
        self._notes.step(step)
        return super().step_end(step, output)

    def end(self, session=None) -> None:
        super().end()
        self._notes("end")


class MonitorEverywhere(Monitor):
    @property
    def run_on_all_workers(self):
        return True


def learn_arguments(notes: Notes, task: TaskContext, x: tf.Tensor):
    def feed():
        return {x: np.random.RandomState(task.index).randn(BATCH, 4)}

    return {
        "steps": int(task.params["steps"]),
        "init_fn": lambda session: notes("init_fn"),
        "feed_fn": feed,
        "monitors": [Monitor(notes), MonitorEverywhere(notes)],
        "supervisor_save_model_secs": 0.5,
    }


def pruning_arguments(notes: Notes, task: TaskContext, x: tf.Tensor):
    def train_step_fn(session, train_op, global_step, kwargs):
        loss, should_stop = model_pruning.learning.train_step(
            session, train_op, global_step, kwargs
        )
        notes.step(int(session.run(global_step)))
        return loss, should_stop

    hparams = model_pruning.get_pruning_hparams().parse(
        "begin_pruning_step=0,pruning_frequency=5,sparsity_function_end_step=40"
    )
    return {
        "mask_update_op": model_pruning.Pruning(hparams).conditional_mask_update_op(),
        "train_step_fn": train_step_fn,
        "number_of_steps": int(task.params["steps"]),
        "init_fn": lambda session: notes("init_fn"),
        "save_interval_secs": 0.5,
        "save_summaries_secs": 0.05,
        "log_every_n_steps": 20,
    }


class HookWithNotes(v1.train.SessionRunHook):
    def __init__(self, notes: Notes, name: str) -> None:
        self._notes = notes
        self._name = name

    def end(self, session) -> None:
        self._notes(f"{self._name} hook")


def training_arguments(notes: Notes, task: TaskContext, x: tf.Tensor):
    return {
        "scaffold": v1.train.Scaffold(init_fn=lambda scaffold, session: notes("init_fn")),
        "hooks": [
            v1.train.StopAtStepHook(last_step=int(task.params["steps"])),
            HookWithNotes(notes, "every task's"),
        ],
        "chief_only_hooks": [HookWithNotes(notes, "the chief's")],
        "save_summaries_steps": 10,
    }


ARGUMENTS = {
    "learn": learn_arguments,
    "model_pruning": pruning_arguments,
    "training": training_arguments,
}
